"""`ods status --watch`: one look after the other, through restarts of ODS, until Ctrl-C."""

import signal
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from ods.commands.status_output import Follow, Output
from ods.errors import Unreachable
from ods.status_source import Source
from ods.status_view.words import clock_time, span

#: How long to wait for an answer: soon after it a view must say that it is an old one. Seconds.
TIMEOUT_SECONDS = 2.0
#: A terminal is drawn anew at least this often, for its size may have changed. Seconds.
REDRAW_SECONDS = 1.0


def watch(source: Source, output: Output, *, every_seconds: float) -> None:
    """Show the status every so many seconds; returns after Ctrl-C. A SIGTERM raises SystemExit, as the default would
    end the process before the terminal is as it was."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        with output.following() as view:
            _look_on(Looks(source), view, every_seconds)
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)


def _look_on(looks: "Looks", view: Follow, every_seconds: float) -> None:
    due = time.monotonic()
    while True:
        snapshot, trouble = looks.look()
        view.show(snapshot, looks.source.name, trouble=trouble)
        due = max(due + every_seconds, time.monotonic())
        while (left := due - time.monotonic()) > 0:
            time.sleep(min(left, REDRAW_SECONDS))
            view.refresh()


class Looks:
    """Keeps what was seen last."""

    def __init__(self, source: Source, *, now: Callable[[], float] = time.time) -> None:
        self.source = source
        self._now = now
        self._last: Mapping[str, Any] = {}
        self._seen_at = 0.0

    def look(self) -> tuple[Mapping[str, Any], str]:
        """The snapshot, and why it is an old one: empty where it is not."""
        try:
            self._last = self.source.fetch(TIMEOUT_SECONDS)
        except Unreachable as error:
            return self._last, f"No ODS answers {self.source.where}: {error}.{self._age()}"
        self._seen_at = self._now()
        return self._last, ""

    def _age(self) -> str:
        if not self._last:
            return ""
        seen_at = clock_time(self._seen_at * 1e9, self._now() * 1e9)
        return f" What is below is old: it was so at {seen_at}, {span(self._now() - self._seen_at)} ago."


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
