"""How far a command has come: a bar on stderr where that is a terminal, and otherwise nothing.

What is to be said besides is a line of its own, above the bar.
"""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

#: It is drawn so often at most. Seconds.
DRAW_SECONDS = 0.2


class ProgressBar:
    """Use it as a context manager. `command` begins each line that is said, `unit` is what is counted."""

    def __init__(self, command: str, *, unit: str = "rows") -> None:
        self._command = command
        self._unit = unit
        self._console = Console(stderr=True)
        self._progress: Progress | None = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            columns = BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn()
            self._progress = Progress(*columns, console=self._console, auto_refresh=False, transient=True)
            self._task = self._progress.add_task(command, total=None, told="")
        self._drawn_at = float("-inf")
        self._begun_at = time.monotonic()
        self._begun_count: int | None = None

    def __enter__(self) -> "ProgressBar":
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, *, done: float, total: float, count: int, note: str = "") -> None:
        """So much of the whole is done, and so many rows."""
        now = time.monotonic()
        if self._progress is None or now - self._drawn_at < DRAW_SECONDS:
            return
        self._drawn_at = now
        if self._begun_count is None:  # what is not done yet has no rate
            self._begun_at, self._begun_count = now, count
        rate = (count - self._begun_count) / max(now - self._begun_at, DRAW_SECONDS)
        told = f"{count:,} {self._unit}  {rate:,.0f}/s{f'  {note}' if note else ''}"
        self._progress.update(self._task, completed=done, total=total, told=told)
        self._progress.refresh()

    def say(self, text: str) -> None:
        """A line for a person, on stderr."""
        line = f"{self._command}: {text}"
        if self._progress is not None:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)
