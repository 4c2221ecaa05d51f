"""The keeper's log: to stderr, by no thread of its own, and never waited for.

A terminal that is held, or a pipe that nobody reads, must not keep the keeper from accepting pods. A line that stderr
does not take at once is dropped, and counted with the next.
"""

import contextlib
import logging
import os
import select
import stat

from ods.log_lines import formatter

#: What a pipe takes whole or not at all. Bytes.
LINE_BYTES = select.PIPE_BUF


class SparingHandler(logging.Handler):
    """Writes a line where stderr takes it."""

    def __init__(self, file: int = 2) -> None:
        super().__init__()
        self._file = file
        self._own_pipe: int | None = None
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(file).st_mode):  # opened anew, for others may write to it between look and write
                self._own_pipe = os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line now or never."""
        line = self.format(record) + "\n"
        if self.dropped:
            line = f"({self.dropped} lines could not be written)\n{line}"
        try:
            self._write(line.encode("utf-8", "backslashreplace")[:LINE_BYTES])
        except OSError:
            self.dropped += 1
        else:
            self.dropped = 0

    def _write(self, line: bytes) -> None:
        if self._own_pipe is not None:
            os.write(self._own_pipe, line)
            return
        poll = select.poll()
        poll.register(self._file, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError
        os.write(self._file, line)


def set_up(*, log_format: str, is_verbose: bool) -> None:
    """Make the keeper's log go to stderr."""
    handler = SparingHandler()
    handler.setFormatter(formatter(log_format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.getLogger("ods").setLevel(logging.DEBUG if is_verbose else logging.INFO)
