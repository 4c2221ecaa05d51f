"""The buffer: what InfluxDB could not take, safe on disk until it can.

One SQLite file. Promises:

- What `append` returned from is committed: it survives `kill -9` and a power cut (WAL, `synchronous=FULL`).
- Rows come out in the order in which they went in; a row leaves only by `delete` or `quarantine`.
- What is quarantined leaves only by `take_out`, which puts it back into the queue or deletes it for good.
- Opening it and asking for its totals never reads the backlog: totals are kept in the same transaction as the rows.
- It never grows beyond its limit or into the disk's reserve: `append` raises `BufferFull`, and nothing else is lost.
- Once empty it gives the disk space back.

What becomes of a damaged, deleted or replaced file, and of a commit that failed half-way: `ods.buffer_file`.

A row is a batch: gzip-compressed line protocol with a checksum, its points counted by pod, and the database it is
meant for. Gzip members concatenate, so that rows can be posted joined, as they are.

Every method may wait for the disk, and all must be called on one thread (`ods.worker`).
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from ods import failpoints
from ods.buffer_file import BufferFile, Damaged
from ods.buffer_tables import SCHEMA_VERSION, measured, pragma, totals_of
from ods.disk import Disk
from ods.errors import BufferFull, BufferUnavailable
from ods.rows import (
    COLUMNS,
    UNREADABLE,
    BadLine,
    NewRow,
    Nonsense,
    QuarantinedLine,
    Row,
    compressed,
    counts_of,
    row_of,
    values_of,
)
from ods.saved import Saved, SavedBatch

#: Pages given back to the file system at a time, so that commits do not wait for long. One is 4 KiB.
VACUUM_PAGES = 2000

#: A page of the file. Bytes.
PAGE_BYTES = 4096

#: At most this many rows are joined for one request.
JOINED_ROWS = 500

#: What was committed shortly before a crash is looked for among so many rows, of this size, in bytes, and lines.
NEWEST_ROWS = 2000
NEWEST_BYTES = 16 * 1024 * 1024
NEWEST_QUARANTINED = 10_000

_INSERT = """
INSERT INTO batches (database, points, pods, first_ns, rejected, checksum, payload) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_QUARANTINED = "INSERT INTO quarantine (database, pod, time_ns, line, reason) VALUES (?, ?, ?, ?, ?)"


class Buffer:
    """The rows, the totals and the quarantine."""

    def __init__(self, path: Path, *, limit_bytes: int, disk: Disk, database: str = "ods") -> None:
        """`database` is that of saved rows which do not tell theirs any more."""
        self.path = path
        self._database = database
        self._limit_bytes = limit_bytes
        self._disk = disk
        #: Rows whose own request is still under way: `oldest` leaves them out.
        self._claimed: set[int] = set()
        self.file = BufferFile(path, on_other=self._claimed.clear)
        #: Bytes in use, pages to be given back, and the reception time of the oldest row; read by anyone.
        self.used_bytes = 0
        self.free_pages = 0
        self.oldest_ns: int | None = None

    def open(self) -> dict[str, dict[str, int]]:
        """Open or create the file; returns its totals: fate (`pending`, `quarantined`) to pod to points.

        What is no buffer of ODS, or a damaged one, is moved aside, never overwritten. Raises BufferUnavailable when
        the disk does not let a file be used at all; every later call tries again.
        """
        self.look_after()
        return self.totals()

    def totals(self) -> dict[str, dict[str, int]]:
        """Points by fate and pod."""
        with self.file.reading() as db:
            return totals_of(db)

    def look_after(self) -> None:
        """Open the file where it is not, and see that it is still in its place."""
        with self.file.reading():
            pass
        self._measure()

    def try_writing(self) -> None:
        """See whether a commit would succeed, by one that changes nothing. Raises BufferFull or BufferUnavailable."""
        with self.file.reading() as db:
            self._check_room(PAGE_BYTES, db)
        with self.file.transaction() as (db, _):
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._measure()

    def append(
        self,
        lines: bytes,
        *,
        database: str,
        pods: Mapping[str, int],
        first_ns: int,
        rejected: str | None = None,
        is_claimed: bool = False,
    ) -> int:
        """Commit a batch; returns its row's id. Raises BufferFull or BufferUnavailable; then nothing was committed.

        A claimed row is not given out by `oldest` before it is released.
        """
        row = values_of(database, pods, first_ns, rejected, compressed(lines))
        try:
            row_id = self._append(row, pods)
        except Damaged:
            row_id = self._append(row, pods)  # into the new file
        if is_claimed:
            self._claimed.add(row_id)
        self._measure()
        return row_id

    def _append(self, values: tuple[Any, ...], pods: Mapping[str, int]) -> int:
        with self.file.reading() as db:
            self._check_room(len(values[-1]), db)
        with self.file.transaction() as (db, totals):
            row = db.execute(_INSERT, values)
            totals.add("pending", pods)
            failpoints.reach("committing")
        failpoints.reach("committed")
        assert row.lastrowid is not None
        return row.lastrowid

    def release(self, row_id: int) -> None:
        """End the claim on a row: from now on `oldest` may give it out."""
        self._claimed.discard(row_id)

    def oldest(
        self, *, excluding: Collection[int], limit_points: int, limit_bytes: int, put_off: Collection[str] = ()
    ) -> list[Row]:
        """The oldest rows that InfluxDB has not rejected, for one database, joined up to about these limits.

        Those for the databases that are put off are left out.
        """
        rows: list[Row] = []
        points = size_bytes = 0
        left_out = ",".join(map(str, self._claimed.union(excluding)))
        where = f"rejected IS NULL AND id NOT IN ({left_out}) AND {_not_for(put_off)} ORDER BY id LIMIT {JOINED_ROWS}"
        with self.file.reading() as db:
            for row in _rows(db, where, put_off):
                points += row.points
                size_bytes += len(row.payload)
                is_over = points > limit_points or size_bytes > limit_bytes
                if rows and (is_over or row.database != rows[0].database):
                    break
                rows.append(row)
        return rows

    def newest(self, after_ns: int) -> list[Row]:
        """Rows among the newest that begin after this time, newest first; a bounded number of them."""
        rows: list[Row] = []
        size_bytes = 0
        where = f"id > (SELECT max(id) FROM batches) - {NEWEST_ROWS} AND first_ns > {after_ns} ORDER BY id DESC"
        with self.file.reading() as db:
            for row in _rows(db, where):
                size_bytes += len(row.payload)
                if size_bytes > NEWEST_BYTES:
                    break
                rows.append(row)
        return rows

    def newest_quarantined(self, after_ns: int) -> list[tuple[str, int]]:
        """Pod and time of the lines that were quarantined last, as far as they are later than this time."""
        with self.file.reading() as db:
            found = db.execute(
                "SELECT pod, time_ns FROM quarantine WHERE id > (SELECT max(id) FROM quarantine) - ? AND time_ns > ?",
                (NEWEST_QUARANTINED, after_ns),
            )
            return list(found.fetchall())

    def rejected(self, *, put_off: Collection[str] = ()) -> Row | None:
        """The oldest row that InfluxDB has rejected, but for those for databases that are put off."""
        where = f"rejected IS NOT NULL AND {_not_for(put_off)} ORDER BY id LIMIT 1"
        with self.file.reading() as db:
            return next(iter(_rows(db, where, put_off)), None)

    def mark_rejected(self, ids: Iterable[int], reason: str) -> None:
        """Take rows out of the queue until their bad lines are found."""
        with self.file.transaction() as (db, _):
            for row_id in ids:
                db.execute("UPDATE batches SET rejected = ? WHERE id = ?", (reason, row_id))

    def delete(self, ids: Iterable[int]) -> Counter[str]:
        """Delete confirmed rows; returns their points by pod. A row that is gone already counts nothing."""
        deleted: Counter[str] = Counter()
        with self.file.transaction() as (db, totals):
            for row_id in ids:
                for (pods,) in db.execute("DELETE FROM batches WHERE id = ? RETURNING pods", (row_id,)).fetchall():
                    deleted.update(counts_of(pods))
            totals.add("pending", deleted, sign=-1)
        self._measure()
        return deleted

    def quarantine(self, row: Row, bad: Sequence[BadLine]) -> bool:
        """Keep these lines of a row for good, with their reasons, and delete the row: the rest is confirmed.

        False: the row is gone, with its file perhaps, and nothing was done.
        """
        with self.file.transaction() as (db, totals):
            if not db.execute("DELETE FROM batches WHERE id = ?", (row.id,)).rowcount:
                return False
            totals.add("pending", row.pods, sign=-1)
            for line in bad:
                db.execute(_INSERT_QUARANTINED, (row.database, line.pod, line.time_ns, line.line, line.reason))
                totals.add("quarantined", {line.pod: line.points})
        self._measure()
        return True

    def check_empty(self) -> None:
        """Where no row is left although the totals say that some wait, the file is damaged: move it aside."""
        with self.file.reading() as db:
            waiting = sum(totals_of(db)["pending"].values())
            if waiting and not db.execute("SELECT EXISTS (SELECT 1 FROM batches)").fetchone()[0]:
                raise Nonsense(f"{waiting} points should wait in it, and no row is left")

    def to_rescue(self) -> list[Path]:
        """Damaged files whose rows are not all brought over yet. Raises OSError too."""
        with self.file.reading() as db:
            done = {name for (name,) in db.execute(_RESCUES + " WHERE is_finished")} if _has_rescues(db) else set()
        return [path for path in self.file.asides() if path.name not in done]

    def rescued(self, path: Path) -> int:
        """How many rows of a damaged file are brought over."""
        with self.file.reading() as db:
            rows = db.execute("SELECT position FROM rescues WHERE file = ?", (path.name,)) if _has_rescues(db) else ()
            return next(iter(rows), (0,))[0]

    def restore(self, rows: Sequence[Saved], path: Path, position: int) -> dict[str, Counter[str]]:
        """Commit rows of a damaged file, up to this position in it; returns their points by fate and pod."""
        restored: dict[str, Counter[str]] = {"pending": Counter(), "quarantined": Counter()}
        with self.file.reading() as db:
            self._check_room(sum([len(row.payload) for row in rows if isinstance(row, SavedBatch)]), db)
        with self.file.transaction() as (db, totals):
            for row in rows:
                if isinstance(row, SavedBatch):
                    database = row.database or self._database
                    db.execute(_INSERT, values_of(database, row.pods, row.first_ns, row.rejected, row.payload))
                    restored["pending"].update(row.pods)
                else:
                    db.execute(_INSERT_QUARANTINED, (row.database, row.pod, row.time_ns, row.line, row.reason))
                    line = QuarantinedLine(row.id, row.database, row.pod, row.time_ns or 0, row.line, row.reason)
                    restored["quarantined"].update(line.points)
            for fate, pods in restored.items():
                totals.add(fate, pods)
            _note_rescue(db, path, position)
        self._measure()
        return restored

    def finish_rescue(self, path: Path) -> None:
        """Note that there is nothing more to be brought over from a damaged file."""
        with self.file.transaction() as (db, _):
            _note_rescue(db, path, 0, is_finished=True)

    def set_aside(self, row: Row) -> bool:
        """Quarantine a row that cannot be read, as it is. False: the row is gone, and nothing was done."""
        with self.file.transaction() as (db, totals):
            if not db.execute("DELETE FROM batches WHERE id = ?", (row.id,)).rowcount:
                return False
            totals.add("pending", row.pods, sign=-1)
            totals.add("quarantined", row.pods)
            unreadable = (row.database, json.dumps(row.pods), row.first_ns, row.payload.hex(), UNREADABLE)
            db.execute(_INSERT_QUARANTINED, unreadable)
        self._measure()
        return True

    def quarantine_end(self) -> int:
        """The id of the last line that was quarantined, still there or not; later ones get higher ids."""
        with self.file.reading() as db:
            newest = "SELECT max(seq) FROM sqlite_sequence WHERE name = 'quarantine'"
            last_id: int | None = db.execute(newest).fetchone()[0]
        return last_id or 0

    def quarantined(self, *, after_id: int, until_id: int, limit_lines: int, limit_bytes: int) -> list[QuarantinedLine]:
        """A page of the quarantine, oldest first: lines after the one and up to the other, up to about these limits."""
        lines: list[QuarantinedLine] = []
        size_bytes = 0
        with self.file.reading() as db:
            for values in db.execute(
                "SELECT id, database, pod, coalesce(time_ns, 0), line, reason FROM quarantine"
                " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
                (after_id, until_id, limit_lines),
            ):
                lines.append(QuarantinedLine(*values))
                size_bytes += len(lines[-1].line) + len(lines[-1].reason)
                if size_bytes >= limit_bytes:
                    break
        return lines

    def take_out(self, lines: Sequence[QuarantinedLine], *, into: Iterable[NewRow] = ()) -> dict[str, int]:
        """Take lines out of the quarantine: for good, or into new rows of the queue. Returns their points by pod.

        It asks for no room: the rows take less than what leaves.
        """
        points: Counter[str] = Counter()
        for line in lines:
            points.update(line.points)
        rows = [
            (values_of(new.database, new.pods, new.first_ns, None, compressed(new.lines)), new.pods) for new in into
        ]
        with self.file.taking_out(lines[0].id, points, is_dropped=not rows) as (db, totals):
            db.conn.executemany("DELETE FROM quarantine WHERE id = ?", [(line.id,) for line in lines])
            totals.add("quarantined", points, sign=-1)
            for values, pods in rows:
                db.execute(_INSERT, values)
                totals.add("pending", pods)
        self._measure()
        return dict(+points)

    def give_back(self) -> bool:
        """Give some free pages back to the file system; True while there are more."""
        with self.file.reading() as db:
            db.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
            self._measure()
            if not self.free_pages:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return self.free_pages > 0

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self.file.close()

    def _check_room(self, size_bytes: int, db: Database) -> None:
        pages = pragma(db, "page_count") - pragma(db, "freelist_count")
        if pages * pragma(db, "page_size") + size_bytes > self._limit_bytes:
            raise BufferFull(f"{self.path} has reached its limit (--buffer-limit)")
        try:
            free_bytes = self._disk.free_for_buffer_bytes()
        except OSError as error:
            raise BufferUnavailable(f"{self.path.parent}: {error}") from error
        if free_bytes < size_bytes:
            raise BufferFull(f"the disk of {self.path.parent} is full up to its reserve")

    def _measure(self) -> None:
        """Note what others read; never raises, for what was committed before it stays committed."""
        found = measured(self.file.if_open)
        if found is not None:
            self.free_pages, self.used_bytes, self.oldest_ns = found


#: How far the rows of damaged files are brought over; made when the first one is.
_RESCUES_SCHEMA = """
CREATE TABLE IF NOT EXISTS rescues (file TEXT PRIMARY KEY, position INTEGER NOT NULL, is_finished INTEGER NOT NULL)
"""
_RESCUES = "SELECT file FROM rescues"


def _has_rescues(db: Database) -> bool:
    return "rescues" in db.table_names()


def _note_rescue(db: Database, path: Path, position: int, *, is_finished: bool = False) -> None:
    db.execute(_RESCUES_SCHEMA)
    db.execute("INSERT OR REPLACE INTO rescues VALUES (?, ?, ?)", (path.name, position, is_finished))


def _not_for(databases: Collection[str]) -> str:
    return f"database NOT IN ({','.join('?' * len(databases))})"


def _rows(db: Database, where: str, parameters: Collection[str] = ()) -> Iterable[Row]:
    for values in db.execute(f"SELECT {COLUMNS} FROM batches WHERE {where}", tuple(parameters)):
        yield row_of(values)
