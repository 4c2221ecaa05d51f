"""Logs to stderr, plain for people or JSON for programs, a line a message.

Lines are written by a thread of their own: a terminal that is held, or a pipe that nobody reads, must not hold up a
pod. When too many wait, further ones are dropped and counted.
"""

import io
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from gevent import monkey

from ods.log_lines import formatter

log = logging.getLogger("ods")

#: At most this many lines wait to be written.
WAITING_LINES = 10_000

_start_new_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")
_SimpleQueue: Callable[[], Any] = monkey.get_original("queue", "SimpleQueue")
_RLock: Callable[[], Any] = monkey.get_original("_thread", "RLock")
_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")


class StderrHandler(logging.Handler):
    """Hands formatted lines to the thread that writes them."""

    def __init__(self) -> None:
        super().__init__()
        # A native one: what `emit` does never waits, and no greenlet gives its turn away because it logs.
        self.lock = _RLock()
        self._lines = _SimpleQueue()
        self._is_idle = True
        self.dropped = 0
        _start_new_thread(self._write, ())

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        if self._lines.qsize() >= WAITING_LINES:
            self.dropped += 1
            return
        self._is_idle = False
        self._lines.put(self.format(record) + "\n")

    def flush_for(self, seconds: float) -> None:
        """Wait until all lines are written, at most this long."""
        deadline = time.monotonic() + seconds
        while not (self._lines.empty() and self._is_idle) and time.monotonic() < deadline:
            _sleep(0.005)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            if self.dropped:
                line = f"({self.dropped} lines could not be written)\n{line}"
                self.dropped = 0
            try:
                os.write(sys.__stderr__.fileno(), line.encode("utf-8", "backslashreplace"))  # type: ignore[union-attr]
            except OSError:
                self.dropped += 1  # stderr is gone; there is no other place to say so
            self._is_idle = self._lines.empty()


class LoggedLines(io.TextIOBase):
    """A stream whose lines become lines of the log: what gevent has to say would wait for stderr, on the hub."""

    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str) -> int:
        """Log the lines that are complete with this."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            log.error("%s", line)
        return len(text)


def set_up(*, log_format: str, is_verbose: bool) -> StderrHandler:
    """Make ODS's log go to stderr; libraries are heard from WARNING on."""
    handler = StderrHandler()
    handler.setFormatter(formatter(log_format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("ods").setLevel(logging.DEBUG if is_verbose else logging.INFO)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    return handler
