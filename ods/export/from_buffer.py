"""A table from what waits in the buffer.

The buffer's order is that of arrival, with all pods mixed, and what was late may come anywhere: so the rows are
sorted in a temporary database, which takes bounded memory, and disk space where temporary files are.
"""

import re
import sqlite3
import zlib
from collections.abc import Callable, Iterator

from ods.export.tables import DATA, Block, Messages, Points
from ods.selection import Selection
from ods.waiting import WaitingPage

#: Rows of a block.
BLOCK_ROWS = 10_000
_POINT = re.compile(r'^([^ ,\n]+),pod=((?:\\ |[^ \n])*+) value=([^ ,"\n]+) (-?\d+)$', re.MULTILINE)
_MESSAGE = re.compile(
    r'^pod_log(?:,level=(\w+))?,pod=((?:\\ |[^ \n])*+) message="((?:\\.|[^"\\\n])*)" (-?\d+)$', re.MULTILINE
)
_ESCAPED = re.compile(r"\\([,= ])")
_ESCAPED_IN_STRING = re.compile(r'\\(["\\])')
_SCHEMA = "CREATE TABLE rows (pod, time_ns INTEGER, word, value, PRIMARY KEY (pod, time_ns)) WITHOUT ROWID"

#: A pod, a time in nanoseconds, and name and value or level and message.
_Row = tuple[str, int, str, float | str]


class BufferSource:
    """The rows of a buffer, read a page at a time."""

    def __init__(self, pages: Callable[[], Iterator[WaitingPage]], where: str) -> None:
        self._pages = pages
        self._where = where
        self._sorted: sqlite3.Connection | None = None
        self._batches = self._unreadable = 0

    def blocks(self, what: str, selection: Selection) -> Iterator[Block]:
        """The rows. Read twice they are the same: what the drain deletes meanwhile is kept. Raises Unreachable."""
        try:
            if self._sorted is None:
                self._sorted = self._gathered(what, selection)
            yield from _blocks(self._sorted, what)
        except sqlite3.Error as error:
            raise OSError(f"the rows cannot be sorted where temporary files are (TMPDIR): {error}") from error

    def told(self) -> dict[str, object]:
        """Where it is, and what could not be read."""
        told = {"batches": self._batches, "unreadable_batches": self._unreadable}
        return {"source": "buffer", "where": [self._where], **told}

    @property
    def is_whole(self) -> bool:
        """Whether each batch could be read."""
        return not self._unreadable

    @property
    def done(self) -> float | None:
        """Not known: reading and writing take their time."""
        return None

    def _gathered(self, what: str, selection: Selection) -> sqlite3.Connection:
        db = sqlite3.connect("")
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA cache_size = -16384")
        db.execute(_SCHEMA)
        for page in self._pages():
            for _, payload in page.rows:
                self._batches += 1
                try:
                    text = zlib.decompress(payload, 31).decode()
                except (zlib.error, ValueError):
                    self._unreadable += 1
                    continue
                rows = _points(text, selection) if what == DATA else _messages(text, selection)
                db.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?)", rows)
        return db


def _points(text: str, selection: Selection) -> Iterator[_Row]:
    for name, tag, value, time in _POINT.findall(text):
        pod = _ESCAPED.sub(r"\1", tag)
        if selection.has_pod(pod) and selection.has_name(name) and selection.has_time(int(time)):
            yield pod, int(time), name, float(value)


def _messages(text: str, selection: Selection) -> Iterator[_Row]:
    for level, tag, message, time in _MESSAGE.findall(text):
        pod = _ESCAPED.sub(r"\1", tag)
        if selection.has_pod(pod) and selection.has_time(int(time)):
            yield pod, int(time), level, _ESCAPED_IN_STRING.sub(r"\1", message)


def _blocks(db: sqlite3.Connection, what: str) -> Iterator[Block]:
    for (pod,) in db.execute("SELECT DISTINCT pod FROM rows ORDER BY pod").fetchall():
        cursor = db.execute("SELECT time_ns, word, value FROM rows WHERE pod = ? ORDER BY time_ns", (pod,))
        while rows := cursor.fetchmany(BLOCK_ROWS):
            times, words, values = [str(row[0]) for row in rows], [row[1] for row in rows], [row[2] for row in rows]
            yield Points(pod, times, words, values) if what == DATA else Messages(pod, times, words, values)
