"""Which bytes of a buffer's files each row stands on, found without ODS: what no damage has touched must arrive.

This and nothing else in the harness knows the buffer's tables. It reads them by SQLite, from a copy that is whole; the
facts of the log are those of https://www.sqlite.org/fileformat2.html, section 4.
"""

import gzip
import re
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

#: A point is told by its measurement, its pod and its time.
Key = tuple[str, str, int]
#: Its fields, and the tags other than the pod, by name.
Fields = tuple[tuple[str, object], ...]

MAIN, LOG = "buffer.db", "buffer.db-wal"
PAGE_BYTES = 4096
LOG_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
#: What is compared of a quarantined line.
QUARANTINE_COLUMNS = ("database", "pod", "time_ns", "reason", "line")
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES

_LINE = re.compile(rb"([^, ]+),(?:.*?,)??pod=([^, ]+)[, ].* (\d+)", re.DOTALL)


class Batch(NamedTuple):
    """A row of points: the pages it stands on, and its lines."""

    pages: frozenset[int]
    lines: tuple[bytes, ...]

    @property
    def keys(self) -> set[Key]:
        return set(map(key_of, self.lines))


class QuarantinedLine(NamedTuple):
    """A row of the quarantine: the pages it stands on, and what it says, by column and as text."""

    pages: frozenset[int]
    values: tuple[str, ...]


class Frame(NamedTuple):
    """Where the newest committed image of a page stands in the log, and where its transaction ends."""

    begin: int
    commit_end: int


@dataclass(frozen=True)
class BufferPages:
    """A buffer that is whole, as its files were when ODS ended."""

    main: bytes
    log: bytes
    #: Page number to its newest image, and to the frame that holds it where one does.
    images: dict[int, bytes]
    frames: dict[int, Frame]
    batches: list[Batch]
    quarantine: list[QuarantinedLine]
    free_pages: int

    @classmethod
    def read(cls, directory: Path, scratch: Path) -> "BufferPages":
        """Read the buffer in `directory`, and leave it as it is."""
        scratch.mkdir()
        copy_buffer(directory, scratch)
        # Closing it brings the log's pages into the main file, each in its newest image.
        with _opened(scratch / MAIN) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        whole = (scratch / MAIN).read_bytes()
        images = {at // PAGE_BYTES + 1: whole[at : at + PAGE_BYTES] for at in range(0, len(whole), PAGE_BYTES)}
        log = _bytes_of(directory / LOG)
        frames = {number: frame for number, frame in _frames(log) if number in images}
        for number, frame in frames.items():
            begin = frame.begin + FRAME_HEADER_BYTES
            assert log[begin : begin + PAGE_BYTES] == images[number], f"SQLite has page {number} from elsewhere"
        with _opened(scratch / MAIN) as db:
            batches = [
                Batch(pages, tuple(gzip.decompress(payload).splitlines()))
                for pages, (payload,) in _rows(db, "batches", "payload")
            ]
            quarantine = [
                QuarantinedLine(pages, tuple(map(str, values)))
                for pages, values in _rows(db, "quarantine", ", ".join(QUARANTINE_COLUMNS))
            ]
            (free_pages,) = db.execute("PRAGMA freelist_count").fetchone()
        shutil.rmtree(scratch)
        return cls(_bytes_of(directory / MAIN), log, images, frames, batches, quarantine, free_pages)

    def untouched(self, directory: Path) -> set[int]:
        """The pages whose newest image still stands in these files, a damaged copy of this buffer.

        A page of the log counts only where its transaction's end was not cut off: without it, it was never committed.
        """
        main, log = _bytes_of(directory / MAIN), _bytes_of(directory / LOG)
        return {number for number in self.images if self._is_in(main, number) or self._is_logged(log, number)}

    def _is_in(self, main: bytes, number: int) -> bool:
        return main[(number - 1) * PAGE_BYTES : number * PAGE_BYTES] == self.images[number]

    def _is_logged(self, log: bytes, number: int) -> bool:
        frame = self.frames.get(number)
        if frame is None or len(log) < frame.commit_end:
            return False
        slot = slice(frame.begin, frame.begin + FRAME_BYTES)
        return log[slot] == self.log[slot]


def key_of(line: bytes) -> Key:
    """Tell which point a line of line protocol is."""
    found = _LINE.fullmatch(line)
    assert found, line
    measurement, pod, time_ns = found.groups()
    return measurement.decode(), pod.decode(), int(time_ns)


def copy_buffer(source: Path, target: Path) -> None:
    """Copy a buffer's files, without what SQLite makes anew."""
    for name in (MAIN, LOG):
        if (source / name).exists():
            shutil.copy(source / name, target / name)


class _opened:  # noqa: N801 - reads as a verb
    """A connection that is closed at the end."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)

    def __enter__(self) -> sqlite3.Connection:
        return self._db

    def __exit__(self, *_: object) -> None:
        self._db.close()


def _bytes_of(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _frames(log: bytes) -> Iterator[tuple[int, Frame]]:
    """The committed frames of an undamaged log, oldest first: those with its header's salts, up to the last commit."""
    waiting: list[tuple[int, int]] = []
    for begin in range(LOG_HEADER_BYTES, len(log) - FRAME_BYTES + 1, FRAME_BYTES):
        number, commit = struct.unpack_from(">II", log, begin)
        if log[begin + 8 : begin + 16] != log[16:24]:
            return
        waiting.append((number, begin))
        if commit:
            yield from ((number, Frame(at, begin + FRAME_BYTES)) for number, at in waiting)
            waiting.clear()


def _rows(db: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[frozenset[int], tuple[object, ...]]]:
    """The pages and the columns of each row.

    The path of a leaf is its place in the tree, that of an overflow page its leaf, cell and number
    (https://www.sqlite.org/dbstat.html); rows stand in the order of their ids.
    """
    leaves: list[tuple[str, int, int]] = []
    overflow: dict[tuple[str, int], set[int]] = {}
    found = db.execute("SELECT path, pagetype, pageno, ncell FROM dbstat WHERE name = ? ORDER BY path", (table,))
    for path, kind, number, cells in found:
        if kind == "leaf":
            leaves.append((path, number, cells))
        elif kind == "overflow":
            leaf, _, place = path.rpartition("/")
            overflow.setdefault((f"{leaf}/", int(place.partition("+")[0], 16)), set()).add(number)
    places = [
        frozenset({number, *overflow.get((path, cell), ())}) for path, number, cells in leaves for cell in range(cells)
    ]
    rows = db.execute(f"SELECT {columns} FROM {table} ORDER BY id").fetchall()
    assert len(places) == len(rows), f"{len(places)} cells hold {len(rows)} rows of {table}"
    return zip(places, rows, strict=True)
