"""The buffer: what InfluxDB could not take, safe on disk until it can.

One SQLite file. Promises:

- What `append` returned from is committed: it survives `kill -9` and a power cut (WAL, `synchronous=FULL`).
- Rows come out in the order in which they went in; a row leaves only by `delete` or `quarantine`.
- Opening it and asking for its totals never reads the backlog: totals are kept in the same transaction as the rows.
- It never grows beyond its limit or into the disk's reserve: `append` raises `BufferFull`, and nothing else is lost.
- Once empty it gives the disk space back.
- A file that is deleted or replaced while it is open is noticed; what it held is saved into the one in its place.
- A commit that failed is undone where the disk had taken it all the same: what was refused does not come back.

A row is a batch: gzip-compressed line protocol with a checksum, its points counted by pod, and the database it is
meant for. Gzip members concatenate, so that rows can be posted joined, as they are.

Every method may wait for the disk, and all must be called on one thread (`ods.worker`).
"""

import json
import logging
import sqlite3
import time
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from ods import failpoints
from ods.disk import Disk
from ods.errors import BufferFull, BufferUnavailable

log = logging.getLogger(__name__)

#: Written into the file; a file with another version is not touched.
SCHEMA_VERSION = 1
#: zlib's level: on telemetry, 6 gains a tenth of the size over 3 and takes twice its time.
COMPRESSION_LEVEL = 3
#: How long to wait before an unusable file is opened again. Seconds.
REOPEN_SECONDS = 1.0
#: Pages given back to the file system at a time, so that commits do not wait for long. One is 4 KiB.
VACUUM_PAGES = 2000

#: At most this many rows are joined for one request.
JOINED_ROWS = 500

#: Stands for SQLite's name of an error that ODS itself raised.
_FOREIGN = "FOREIGN"

_SCHEMA = """
CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice, so that a late delete cannot hit a newer row
    database TEXT NOT NULL,
    points INTEGER NOT NULL,
    pods TEXT NOT NULL,       -- JSON: points by pod
    first_ns INTEGER NOT NULL,
    rejected TEXT,            -- why InfluxDB refused some of its lines; NULL while it has not
    checksum INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX rejected_batches ON batches (id) WHERE rejected IS NOT NULL;
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    database TEXT NOT NULL,
    pod TEXT NOT NULL,
    time_ns INTEGER,
    line TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE TABLE totals (fate TEXT NOT NULL, pod TEXT NOT NULL, points INTEGER NOT NULL, PRIMARY KEY (fate, pod));
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A committed batch."""

    id: int
    database: str
    points: int
    pods: Mapping[str, int]
    first_ns: int
    rejected: str | None
    checksum: int
    payload: bytes

    @property
    def is_sound(self) -> bool:
        """Whether the payload is what was committed."""
        return zlib.crc32(self.payload) == self.checksum

    def lines(self) -> list[str]:
        """The lines of the payload, without their newlines. Raises ValueError when it is not what was committed."""
        if not self.is_sound:
            raise ValueError("its checksum is wrong")
        try:
            return zlib.decompress(self.payload, 31).decode().removesuffix("\n").split("\n")
        except zlib.error as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that InfluxDB will never take; `points` is 0 for one of ODS's own events."""

    pod: str
    time_ns: int
    line: str
    reason: str
    points: int


class Buffer:
    """The file and its one connection."""

    def __init__(self, path: Path, *, limit_bytes: int, disk: Disk) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._disk = disk
        self._db: Database | None = None
        self._opened_at = float("-inf")
        #: Bytes in use, pages to be given back, and the reception time of the oldest row; read by anyone.
        self.used_bytes = 0
        self.free_pages = 0
        self.oldest_ns: int | None = None
        #: Rows whose own request is still under way: `oldest` leaves them out.
        self._claimed: set[int] = set()
        self._found: dict[str, dict[str, int]] | None = None
        self._was_opened = False
        self._highest_id = 0
        #: Which file it is, and what it held by fate and pod when a commit last succeeded.
        self._file: tuple[int, int] | None = None
        self._known = _no_points()
        self._done = _no_points()

    def open(self) -> dict[str, dict[str, int]]:
        """Open or create the file; returns its totals: fate (`pending`, `quarantined`) to pod to points.

        What is no buffer of ODS, or a damaged one, is moved aside, never overwritten. Raises BufferUnavailable when
        the disk does not let a file be used at all; every later call tries again.
        """
        with _Translated(self):
            self._usable()
        return self.totals()

    def totals(self) -> dict[str, dict[str, int]]:
        """Points by fate and pod."""
        with _Translated(self):
            return _totals(self._usable())

    def take_found(self) -> dict[str, dict[str, int]] | None:
        """The totals that the file had when this process first opened it, once; None before and after. Any thread."""
        found, self._found = self._found, None
        return found

    def take_done(self) -> dict[str, Counter[str]] | None:
        """Points that are found to be pending no longer, by the fate that became of them and by pod."""
        done, self._done = self._done, _no_points()
        return done if any(done.values()) else None

    def look_after(self) -> None:
        """Open the file where it is not, and see that it is still in its place."""
        with _Translated(self):
            self._usable()

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
        values = (database, sum(pods.values()), json.dumps(pods), first_ns, rejected)
        payload = _compressed(lines)
        try:
            row_id = self._append((*values, zlib.crc32(payload), payload), pods)
        except BufferUnavailable as error:
            if not (isinstance(error.__cause__, sqlite3.Error) and _is_damage(error.__cause__)):
                raise
            row_id = self._append((*values, zlib.crc32(payload), payload), pods)  # into the new file
        if is_claimed:
            self._claimed.add(row_id)
        self._measure()
        return row_id

    def _append(self, values: tuple[Any, ...], pods: Mapping[str, int]) -> int:
        with _Translated(self):
            self._check_room(len(values[-1]), self._usable())
        with self._transaction() as (db, totals):
            row = db.execute(
                "INSERT INTO batches (database, points, pods, first_ns, rejected, checksum, payload)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            totals.add("pending", pods)
            failpoints.reach("committing")
        failpoints.reach("committed")
        assert row.lastrowid is not None
        self._highest_id = row.lastrowid
        return row.lastrowid

    def release(self, row_id: int) -> None:
        """End the claim on a row: from now on `oldest` may give it out."""
        self._claimed.discard(row_id)

    def oldest(self, *, excluding: Collection[int], limit_points: int, limit_bytes: int) -> list[Row]:
        """The oldest rows that InfluxDB has not rejected, for one database, joined up to about these limits."""
        rows: list[Row] = []
        points = size_bytes = 0
        left_out = ",".join(map(str, self._claimed.union(excluding)))
        where = f"rejected IS NULL AND id NOT IN ({left_out}) ORDER BY id LIMIT {JOINED_ROWS}"
        with _Translated(self):
            for row in _rows(self._usable(), where):
                points += row.points
                size_bytes += len(row.payload)
                is_over = points > limit_points or size_bytes > limit_bytes
                if rows and (is_over or row.database != rows[0].database):
                    break
                rows.append(row)
        return rows

    def rejected(self) -> Row | None:
        """The oldest row that InfluxDB has rejected."""
        with _Translated(self):
            return next(iter(_rows(self._usable(), "rejected IS NOT NULL ORDER BY id LIMIT 1")), None)

    def mark_rejected(self, ids: Iterable[int], reason: str) -> None:
        """Take rows out of the queue until their bad lines are found."""
        with self._transaction() as (db, _):
            for row_id in ids:
                db.execute("UPDATE batches SET rejected = ? WHERE id = ?", (reason, row_id))

    def delete(self, ids: Iterable[int]) -> Counter[str]:
        """Delete confirmed rows; returns their points by pod. A row that is gone already counts nothing."""
        deleted: Counter[str] = Counter()
        with self._transaction() as (db, totals):
            for row_id in ids:
                for (pods,) in db.execute("DELETE FROM batches WHERE id = ? RETURNING pods", (row_id,)).fetchall():
                    deleted.update(json.loads(pods))
            totals.add("pending", deleted, sign=-1)
        self._measure()
        return deleted

    def quarantine(self, row: Row, bad: Sequence[BadLine]) -> None:
        """Keep these lines of a row for good, with their reasons, and delete the row: the rest is confirmed."""
        with self._transaction() as (db, totals):
            if not db.execute("DELETE FROM batches WHERE id = ?", (row.id,)).rowcount:
                return
            totals.add("pending", row.pods, sign=-1)
            for line in bad:
                db.execute(
                    "INSERT INTO quarantine (database, pod, time_ns, line, reason) VALUES (?, ?, ?, ?, ?)",
                    (row.database, line.pod, line.time_ns, line.line, line.reason),
                )
                totals.add("quarantined", {line.pod: line.points})
        self._measure()

    def set_aside(self, row: Row) -> None:
        """Quarantine a row that cannot be read, as it is."""
        with self._transaction() as (db, totals):
            db.execute("DELETE FROM batches WHERE id = ?", (row.id,))
            totals.add("pending", row.pods, sign=-1)
            totals.add("quarantined", row.pods)
            db.execute(
                "INSERT INTO quarantine (database, pod, time_ns, line, reason) VALUES (?, ?, ?, ?, ?)",
                (row.database, json.dumps(row.pods), row.first_ns, row.payload.hex(), "checksum"),
            )
        self._measure()

    def give_back(self) -> bool:
        """Give some free pages back to the file system; True while there are more."""
        with _Translated(self):
            db = self._usable()
            db.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
            self._measure()
            if not self.free_pages:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return self.free_pages > 0

    def close(self) -> None:
        """Close the file; what is in it stays."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Database, "_Totals"]]:
        """All of it is committed, or none; what it adds to the totals is known from then on."""
        with _Translated(self):
            with self._usable().atomic() as db:
                totals = _Totals(db)
                yield db, totals
            for fate, changed in totals.changed.items():
                self._known[fate].update(changed)

    def _usable(self) -> Database:
        if self._db is not None and self._file != _file_at(self.path):
            self._leave_lost_file(self._db)
        if self._db is None:
            if time.monotonic() - self._opened_at < REOPEN_SECONDS:
                raise BufferUnavailable(f"{self.path} cannot be opened")
            self._opened_at = time.monotonic()
            try:
                self._db = self._connect()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error) and "no such table" not in str(error):
                    raise
                self.move_aside(error)
                self._db = self._connect()
            except OSError as error:
                raise BufferUnavailable(f"{self.path}: {error}") from error
            self._measure()
        return self._db

    def _leave_lost_file(self, lost: Database) -> None:
        """The file was deleted or replaced, or its disk taken away: save what it holds into the one in its place.

        Where that cannot be done now, the lost one is kept open, for nobody else can read it any more.
        """
        if time.monotonic() - self._opened_at < REOPEN_SECONDS:
            raise BufferUnavailable(f"{self.path} is not in its place")
        self._opened_at = time.monotonic()
        lost_file, known = self._file, self._known
        self._known = _no_points()
        try:
            self._db = self._connect()
            with self._transaction() as (db, totals):
                saved = _copy(lost, db, totals)
                totals.add("quarantined", known["quarantined"])
        except (sqlite3.Error, OSError, BufferUnavailable) as error:
            if self._db is not lost:
                self.close()
            self._db, self._file, self._known = lost, lost_file, known
            raise BufferUnavailable(f"{self.path} is not in its place: {error}") from error
        lost.close()
        self._claimed.clear()
        self._measure()
        self._tell_of_loss(known["pending"], saved)

    def _tell_of_loss(self, waiting: Counter[str], saved: Counter[str]) -> None:
        self._done["dropped"] += waiting - saved
        log.error(
            "buffer: %s was deleted or replaced; of the points that waited in it %d are saved, %d are lost",
            *(self.path, sum(saved.values()), sum((waiting - saved).values())),
        )

    def _connect(self) -> Database:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_same = self._file is not None and self._file == _file_at(self.path)
        connection = sqlite3.connect(self.path, timeout=1.0, check_same_thread=False)
        try:
            db = self._prepare(Database(connection, execute_plugins=False))
            if is_same:
                self._settle_doubts(db)
            found = _totals(db)
            (highest_id,) = db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'batches'").fetchone()
            self._highest_id = max(self._highest_id, highest_id or 0)
        except BaseException:
            connection.close()
            raise
        if not is_same:
            self._begin_with(found)
        return db

    def _begin_with(self, found: dict[str, dict[str, int]]) -> None:
        """The first file, or another one than before."""
        if self._known["pending"]:
            self._tell_of_loss(self._known["pending"], Counter())
        if not self._was_opened or any(found.values()):
            self._was_opened, self._found = True, found
        self._known = _no_points()
        for fate, points in found.items():
            self._known[fate].update(points)
        self._file = _file_at(self.path)

    def _settle_doubts(self, db: Database) -> None:
        """A commit that failed may be found done when the file is opened again.

        A row that was not said to be committed has another fate by now, and goes. A row that is gone was confirmed, or
        quarantined: `take_done` tells.
        """
        doubtful = db.execute("SELECT id, pods FROM batches WHERE id > ?", (self._highest_id,)).fetchall()
        if doubtful:
            with db.atomic():
                totals = _Totals(db)
                for row_id, pods in doubtful:
                    db.execute("DELETE FROM batches WHERE id = ?", (row_id,))
                    totals.add("pending", json.loads(pods), sign=-1)
        found = _no_points()
        for fate, points in _totals(db).items():
            found[fate].update(points)
        quarantined = found["quarantined"] - self._known["quarantined"]
        self._done["quarantined"] += quarantined
        self._done["stored"] += self._known["pending"] - found["pending"] - quarantined
        self._known = found

    def _prepare(self, db: Database) -> Database:
        # auto_vacuum counts only before the first table; WAL is a property of the file, the others of the connection.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        version = _pragma(db, "user_version")
        if version == 0 and not db.table_names():
            # Ids go on after a file that was moved aside: a late delete must not hit a row of the new one.
            first = f"INSERT INTO sqlite_sequence VALUES ('batches', {self._highest_id});"
            db.conn.executescript(f"BEGIN;{_SCHEMA}{first}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"its schema has version {version}, this ODS knows {SCHEMA_VERSION}")
        return db

    def move_aside(self, error: Exception) -> None:
        """Keep a file that is damaged, or none of ODS's, under another name; the next call begins a new one."""
        self.close()
        self._opened_at = float("-inf")
        self._claimed.clear()
        self._known = _no_points()
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
        try:
            for suffix in ("", "-wal", "-shm"):
                part = self.path.with_name(self.path.name + suffix)
                if part.exists():
                    part.replace(aside.with_name(aside.name + suffix))
        except OSError as trouble:
            raise BufferUnavailable(f"{self.path} cannot be read ({error}), nor be moved aside: {trouble}") from trouble
        log.error("buffer: %s cannot be read (%s); it is kept as %s, a new one is begun", self.path, error, aside)

    def _check_room(self, size_bytes: int, db: Database) -> None:
        pages = _pragma(db, "page_count") - _pragma(db, "freelist_count")
        if pages * _pragma(db, "page_size") + size_bytes > self._limit_bytes:
            raise BufferFull(f"{self.path} has reached its limit (--buffer-limit)")
        try:
            free_bytes = self._disk.free_for_buffer_bytes()
        except OSError as error:
            raise BufferUnavailable(f"{self.path.parent}: {error}") from error
        if free_bytes < size_bytes:
            raise BufferFull(f"the disk of {self.path.parent} is full up to its reserve")

    def _measure(self) -> None:
        """Note what others read; never raises, for what was committed before it stays committed."""
        db = self._db
        if db is None:
            return
        try:
            self.free_pages = _pragma(db, "freelist_count")
            self.used_bytes = (_pragma(db, "page_count") - self.free_pages) * _pragma(db, "page_size")
            oldest = db.execute("SELECT first_ns FROM batches ORDER BY id LIMIT 1").fetchone()
        except sqlite3.Error as error:
            log.debug("buffer: %s", error)
            return
        self.oldest_ns = oldest[0] if oldest else None


class _Translated:
    """Turns SQLite's errors into those of ODS; after one that concerns the file, it is opened afresh."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, sqlite3.Error):
            return
        reason = f"{self._buffer.path}: {error}"
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            raise BufferFull(reason) from error
        if _is_damage(error):
            self._buffer.move_aside(error)
        else:
            self._buffer.close()
        raise BufferUnavailable(reason) from error


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault: damaged, of another make, or of another version of ODS."""
    name = getattr(error, "sqlite_errorname", _FOREIGN)
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", _FOREIGN))


def _totals(db: Database) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {"pending": {}, "quarantined": {}}
    for fate, pod, points in db.execute("SELECT fate, pod, points FROM totals WHERE points > 0"):
        totals[fate][pod] = points
    return totals


def _compressed(lines: bytes) -> bytes:
    packer = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, 31)
    return packer.compress(lines) + packer.flush()


def _pragma(db: Database, name: str) -> int:
    value: int = db.execute(f"PRAGMA {name}").fetchone()[0]
    return value


class _Totals:
    """The totals, as a transaction changes them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.changed = _no_points()

    def add(self, fate: str, pods: Mapping[str, int], *, sign: int = 1) -> None:
        self._db.conn.executemany(
            "INSERT INTO totals VALUES (?, ?, ?)"
            " ON CONFLICT (fate, pod) DO UPDATE SET points = points + excluded.points",
            [(fate, pod, sign * points) for pod, points in pods.items()],
        )
        for pod, points in pods.items():
            self.changed[fate][pod] += sign * points


def _no_points() -> dict[str, Counter[str]]:
    return {"pending": Counter(), "quarantined": Counter(), "stored": Counter(), "dropped": Counter()}


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file is at a path; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _copy(lost: Database, db: Database, totals: _Totals) -> Counter[str]:
    """Copy what can be read of a buffer into another one, under new ids, for a late delete must not hit another row.

    Returns the points that wait, by pod.
    """
    saved: Counter[str] = Counter()
    columns = "database, points, pods, first_ns, rejected, checksum, payload"
    for row in _readable(lost, f"SELECT {columns} FROM batches ORDER BY id"):
        db.execute(f"INSERT INTO batches ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        saved.update(json.loads(row[2]))
    columns = "database, pod, time_ns, line, reason"
    for row in _readable(lost, f"SELECT {columns} FROM quarantine ORDER BY id"):
        db.execute(f"INSERT INTO quarantine ({columns}) VALUES (?, ?, ?, ?, ?)", row)
    totals.add("pending", saved)
    return saved


def _readable(lost: Database, query: str) -> Iterator[tuple[Any, ...]]:
    try:
        yield from lost.execute(query)
    except sqlite3.Error as error:
        log.debug("buffer: %s", error)


def _rows(db: Database, where: str) -> Iterable[Row]:
    columns = "id, database, points, pods, first_ns, rejected, checksum, payload"
    for row_id, database, points, pods, *rest in db.execute(f"SELECT {columns} FROM batches WHERE {where}"):
        yield Row(row_id, database, points, json.loads(pods), *rest)
