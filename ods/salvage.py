"""Salvage: the rows of a damaged buffer that stand on undamaged pages, read without SQLite.

Python's SQLite has no `.recover`, and its own reading of a damaged file ends at the first page that makes no sense.
Here every page is looked at for itself. Promises:

- Whatever the two files hold, it ends, raises nothing, and needs little memory: about fifty bytes a page, and one row.
- A row is delivered if its own pages are undamaged, whatever became of the pages that led to them.
- Nothing is delivered that was never committed (but see `ods.sqlite_wal` on a commit that may be destroyed). A batch is
  delivered only if its payload is proved, by its checksum or by that within gzip; a quarantined line has no checksum,
  and is delivered if its lengths agree.
- What was drained stays drained where that can be told (`ods.sqlite_scan`); sending it again would do no harm.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from ods.saved import Saved, SavedBatch, SavedLine, Table, line_of, proved_batch, recounted_batch, table_of
from ods.sqlite_file import MAIN_IMAGE, SqliteFile, View
from ods.sqlite_pages import Cell, base_of, cell_at, cells_of
from ods.sqlite_scan import Scan

#: The longest row that is believed: more than a batch may have. Bytes.
MAX_ROW_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class Report:
    """What became of the rows; final when all have been taken."""

    rows_saved: int = 0
    #: Points of the batches among them.
    points_saved: int = 0
    #: Rows that were seen, and could not be delivered. Those on pages that are gone are not known.
    rows_lost: int = 0
    pages_unreadable: int = 0
    #: Points that waited according to the buffer's own totals; None where these are gone.
    points_expected: int | None = None
    #: What the operating system refused first.
    error: OSError | None = None


class _Place(NamedTuple):
    """Where a row was found; of several with one id, the best sorts first."""

    row_id: int
    #: In a frame of the log whose checksum is wrong.
    is_doubtful: bool
    #: The newest is the lowest.
    age: int
    number: int
    at: int
    #: Whether the row surely counts, so that it is a loss when it cannot be delivered.
    is_current: bool


Candidates = list[tuple[_Place, Cell]]


class Salvage:
    """One pass over a buffer's files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.report = Report()

    def rows(self) -> Iterator[Saved]:
        """Every row that can be saved, by id; the caller may take its time between them."""
        with SqliteFile(self._path) as file:
            scan = Scan(file)
            scan.run()
            reader = _Reader(file, scan)
            for _, places in groupby(reader.places(), key=itemgetter(0)):
                for row in self._chosen(reader, list(places)):
                    self.report.rows_saved += 1
                    self.report.points_saved += row.points if isinstance(row, SavedBatch) else 0
                    yield row
            self.report.error = file.main.error or file.log.error
            unreadable_sectors = file.main.unreadable_sectors + file.log.unreadable_sectors
            self.report.pages_unreadable = max(scan.unreadable, unreadable_sectors)

    def _chosen(self, reader: "_Reader", places: list[_Place]) -> Iterator[Saved]:
        """The rows of one id."""
        found: dict[Table, Candidates] = {}
        is_hurt = False
        for place in places:
            cell = reader.cell(place)
            if cell is None:
                is_hurt = is_hurt or place.is_current
            elif (table := table_of(cell.shape.types)) is not None:
                found.setdefault(table, []).append((place, cell))
        self.report.rows_lost += is_hurt and not found
        for table, candidates in found.items():
            if table is Table.TOTALS:
                self._count_expected(reader, candidates)
                continue
            saved = _batches(reader, candidates) if table is Table.BATCHES else _lines(reader, candidates)
            self.report.rows_lost += not saved and any(place.is_current for place, _ in candidates)
            yield from saved

    def _count_expected(self, reader: "_Reader", candidates: Candidates) -> None:
        for place, cell in candidates:
            for record in reader.records(place, cell):
                fate, _, points = cell.values(record, Table.TOTALS.value)
                if fate == b"pending" and isinstance(points, int):
                    self.report.points_expected = (self.report.points_expected or 0) + points
                return


class _Reader:
    """Reads rows, from whichever images of their pages fit together."""

    def __init__(self, file: SqliteFile, scan: Scan) -> None:
        self._file = file
        self._scan = scan
        self._page = lru_cache(maxsize=8)(file.read)

    def places(self) -> Iterator[_Place]:
        """Every cell of every leaf, by row id."""
        ahead: list[_Place] = []
        for first_id, number, image, is_current in self._scan.leaves():
            while ahead and ahead[0].row_id < first_id:
                yield heapq.heappop(ahead)
            is_doubtful = image != MAIN_IMAGE and not self._file.wal.is_sound[image - 1]
            for row_id, at in cells_of(self._page(number, image), base_of(number), self._file.usable):
                heapq.heappush(ahead, _Place(row_id, is_doubtful, -image, number, at, is_current))
        while ahead:
            yield heapq.heappop(ahead)

    def cell(self, place: _Place) -> Cell | None:
        """What stands there; None where it makes no sense."""
        cell = cell_at(self._page(place.number, -place.age), place.at, self._file.usable)
        return cell if cell and cell.shape.record_bytes <= MAX_ROW_BYTES else None

    def records(self, place: _Place, cell: Cell) -> Iterator[bytes]:
        """The whole record, as each view has it."""
        if not cell.overflow:
            yield cell.local
            return
        for view in self._views(place):
            rest = self._file.chain(cell.overflow, cell.shape.record_bytes - len(cell.local), view)
            if rest is not None:
                yield cell.local + rest

    def is_other_file(self, place: _Place) -> bool:
        """Whether the row may be another file's than those of the main file."""
        return place.age != MAIN_IMAGE and not self._file.is_log_trusted

    def _views(self, place: _Place) -> tuple[View, ...]:
        if not self._file.wal.frames:
            return (View.MAIN,)
        if place.age == MAIN_IMAGE and not self._file.is_log_trusted:
            return (View.MAIN, View.NEWEST, View.LOOSE)
        return (View.NEWEST, View.LOOSE, View.MAIN)


def _batches(reader: _Reader, candidates: Candidates) -> list[SavedBatch]:
    """Those with different lines: an id is given out once, so that the one is another file's, or has a wrong id.

    Lines are told apart by the checksum and the length at the end of the gzip payload (RFC 1952, section 2.3.1).
    """
    saved: dict[bytes, SavedBatch] = {}
    for read in (proved_batch, recounted_batch):
        left = []
        for place, cell in candidates:
            records = (cell.values(record, Table.BATCHES.value) for record in reader.records(place, cell))
            batch = next(filter(None, (read(place.row_id, values) for values in records)), None)
            if batch is None:
                left.append((place, cell))
            else:
                saved.setdefault(batch.payload[-8:], batch)
        candidates = left
    return list(saved.values())


def _lines(reader: _Reader, candidates: Candidates) -> list[SavedLine]:
    """The best, and that of what may be another file."""
    saved: dict[bool, SavedLine] = {}
    for place, cell in candidates:
        for record in reader.records(place, cell):
            line = line_of(place.row_id, cell.values(record, Table.QUARANTINE.value))
            if line is not None:
                saved.setdefault(reader.is_other_file(place), line)
                break
    return list(dict.fromkeys(saved.values()))
