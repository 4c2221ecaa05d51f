"""How far an export is, on a terminal: nothing is shown for what takes less than a second."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ods.export.tables import Source

#: What is done sooner shows nothing. Seconds.
SHOWN_SECONDS = 1.0


class Progress:
    """Rows, their rate, the part that is done; a line on stderr that is gone at the end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rows = 0
        self._begun = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def add(self, rows: int) -> None:
        """So many more rows were read."""
        self._rows += rows
        if self._live is None and time.monotonic() - self._begun >= SHOWN_SECONDS and sys.stderr.isatty():
            console = Console(stderr=True)
            self._live = Live(console=console, get_renderable=self._line, refresh_per_second=4, transient=True)
            self._live.start()

    def _line(self) -> Text:
        seconds = time.monotonic() - self._begun
        done = self._source.done
        told = "" if done is None else f"{done:4.0%}  "
        return Text(f"{told}{self._rows:,} rows  {self._rows / seconds:,.0f}/s")
