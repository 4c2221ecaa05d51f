"""The file of the buffer: opened when it is needed, opened afresh after an error, moved aside when it is damaged.

Promises:

- A transaction is committed whole or not at all, and survives `kill -9` and a power cut (WAL, `synchronous=FULL`).
- What the file holds by fate and pod is kept in the same transaction as the rows, and known without reading them.
- A damaged file, or one that is none of ODS's, is moved aside, never overwritten, and a new one begun.
- A file that is deleted or replaced while it is open is noticed; what it held is saved into the one in its place.
- A commit that failed is undone where the disk had taken it all the same: what was refused does not come back.

Every method may wait for the disk, and all must be called on one thread (`ods.worker`).
"""

import itertools
import logging
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from ods.buffer_tables import SCHEMA, SCHEMA_VERSION, Totals, copy, highest_id, no_points, pragma, totals_of
from ods.damage import Trouble, damage_of
from ods.disk import read_through
from ods.errors import BufferFull, BufferUnavailable
from ods.rows import Nonsense, counts_of

log = logging.getLogger(__name__)

#: How long to wait before an unusable file is opened again. Seconds.
REOPEN_SECONDS = 1.0

#: A file that looks damaged on a disk that fails to read is moved aside only when that has lasted. Seconds.
UNREADABLE_SECONDS = 60.0
#: Such a failure more than this after the one before is a new one. Seconds.
FORGIVEN_SECONDS = 10.0
#: For so long at most it is looked whether a file can be read. Seconds.
READ_THROUGH_SECONDS = 2.0
#: A file that was moved aside is called after the buffer, with this and the time (UTC).
ASIDE = ".damaged-"
#: This takes the place of it once all that can be read is brought over.
SAVED = ".saved-"

#: Stands for SQLite's name of an error that ODS itself raised.
_FOREIGN = "FOREIGN"


class Damaged(BufferUnavailable):
    """The file was damaged, and is moved aside; the next call begins a new one."""


@dataclass(frozen=True, slots=True)
class _TakenOut:
    """Lines that leave the quarantine, told by one of them, and the last row after that."""

    line_id: int
    points: Mapping[str, int]
    highest_id: int
    is_dropped: bool


class BufferFile:
    """The file and its one connection. `on_other` is called when another file than before is in use."""

    def __init__(self, path: Path, *, on_other: Callable[[], None]) -> None:
        self.path = path
        self._on_other = on_other
        self._db: Database | None = None
        self._opened_at = float("-inf")
        self._found: dict[str, dict[str, int]] | None = None
        self._was_opened = False
        self._highest_id = 0
        #: Which file it is, and what it held by fate and pod when a commit last succeeded.
        self._file: tuple[int, int] | None = None
        self._known = no_points()
        self._done = no_points()
        #: Lines that left the quarantine by a commit of which it is not known whether it was done.
        self._taken_out: _TakenOut | None = None
        #: Points of files that were moved aside in this run, which are not lost before that is known.
        self._left = no_points()
        #: When reads of the disk began to fail, and when they last did. Monotonic clock, seconds.
        self._unreadable = (float("-inf"), float("-inf"))
        #: How many files were moved aside in this run.
        self.moved_aside = 0

    @contextmanager
    def reading(self) -> Iterator[Database]:
        """The file, to be read. Raises BufferFull or BufferUnavailable."""
        with self._translated():
            yield self._usable()

    @contextmanager
    def transaction(self) -> Iterator[tuple[Database, Totals]]:
        """All of it is committed, or none; what it adds to the totals is known from then on. Raises as `reading`."""
        with self._translated():
            with self._usable().atomic() as db:
                totals = Totals(db)
                yield db, totals
                last_id = highest_id(db)
            self._highest_id = max(self._highest_id, last_id)
            for fate, changed in totals.changed.items():
                self._known[fate].update(changed)

    @contextmanager
    def taking_out(
        self, line_id: int, points: Mapping[str, int], *, is_dropped: bool
    ) -> Iterator[tuple[Database, Totals]]:
        """A transaction in which lines leave the quarantine, this one among them, for good or for new rows."""
        with self.transaction() as (db, totals):
            yield db, totals
            self._taken_out = _TakenOut(line_id, points, highest_id(db), is_dropped)
        self._taken_out = None

    @property
    def if_open(self) -> Database | None:
        """The file where it is open already."""
        return self._db

    def take_found(self) -> dict[str, dict[str, int]] | None:
        """The totals that the file had when this process first opened it, once; None before and after. Any thread."""
        found, self._found = self._found, None
        return found

    def take_done(self) -> dict[str, Counter[str]] | None:
        """Points that are found to be pending no longer, by the fate that became of them and by pod. Any thread."""
        done, self._done = self._done, no_points()
        return done if any(done.values()) else None

    def take_left(self) -> dict[str, Counter[str]]:
        """Points, by fate and pod, of files that were moved aside since this was asked last. Any thread."""
        left, self._left = self._left, no_points()
        return left

    def close(self) -> None:
        """Close the file; what is in it stays."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _usable(self) -> Database:
        if self._db is not None and self._file != _file_at(self.path):
            self._leave_lost_file(self._db)
        if self._db is None:
            if time.monotonic() - self._opened_at < REOPEN_SECONDS:
                raise BufferUnavailable(f"{self.path} cannot be opened")
            self._opened_at = time.monotonic()
            if not self._was_opened:
                self._check_before_opening()
            try:
                self._db = self._connect()
            except (sqlite3.DatabaseError, Nonsense) as error:
                if not _is_damage(error) and "no such table" not in str(error):
                    raise
                self.move_aside(error)
                self._db = self._connect()
            except OSError as error:
                raise BufferUnavailable(f"{self.path}: {error}") from error
        return self._db

    def _check_before_opening(self) -> None:
        """SQLite does not see every damage, and covers some of it up."""
        found = damage_of(self.path, schema_version=SCHEMA_VERSION)
        if found is not None and found.trouble is Trouble.UNREADABLE:
            raise BufferUnavailable(f"{self.path}: {found.words}")
        if found is not None:
            self.move_aside(Nonsense(found.words))

    def _leave_lost_file(self, lost: Database) -> None:
        """The file was deleted or replaced, or its disk taken away: save what it holds into the one in its place.

        Where that cannot be done now, the lost one is kept open, for nobody else can read it any more.
        """
        if time.monotonic() - self._opened_at < REOPEN_SECONDS:
            raise BufferUnavailable(f"{self.path} is not in its place")
        self._opened_at = time.monotonic()
        lost_file, known = self._file, self._known
        self._known = no_points()
        try:
            self._db = self._connect()
            with self.transaction() as (db, totals):
                saved = copy(lost, db, totals)
                totals.add("quarantined", known["quarantined"])
        except (sqlite3.Error, OSError, BufferUnavailable) as error:
            if self._db is not lost:
                self.close()
            self._db, self._file, self._known = lost, lost_file, known
            raise BufferUnavailable(f"{self.path} is not in its place: {error}") from error
        lost.close()
        self._on_other()
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
                self._settle_taking_out(db)
                self._settle_doubts(db)
            found = totals_of(db)
            self._highest_id = max(self._highest_id, highest_id(db))
        except BaseException:
            connection.close()
            raise
        if not is_same:
            self._begin_with(found)
        self._taken_out = None
        return db

    def _begin_with(self, found: dict[str, dict[str, int]]) -> None:
        """The first file, or another one than before."""
        if self._known["pending"]:
            self._tell_of_loss(self._known["pending"], Counter())
        if not self._was_opened or any(found.values()):
            self._was_opened, self._found = True, found
        self._known = no_points()
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
                totals = Totals(db)
                for row_id, pods in doubtful:
                    db.execute("DELETE FROM batches WHERE id = ?", (row_id,))
                    totals.add("pending", counts_of(pods), sign=-1)
        found = no_points()
        for fate, points in totals_of(db).items():
            found[fate].update(points)
        quarantined = found["quarantined"] - self._known["quarantined"]
        self._done["quarantined"].update(quarantined)  # unlike `+=` it leaves what is below zero
        self._done["stored"].update(self._known["pending"] - found["pending"] - quarantined)
        self._known = found

    def _settle_taking_out(self, db: Database) -> None:
        """Count lines that have left the quarantine after all: `take_done` tells, as if they had waited before."""
        taken = self._taken_out
        if taken is None or db.execute("SELECT 1 FROM quarantine WHERE id = ?", (taken.line_id,)).fetchone():
            return
        self._taken_out = None
        self._highest_id = max(self._highest_id, taken.highest_id)
        self._known["quarantined"].subtract(taken.points)
        self._done["quarantined"].subtract(taken.points)
        (self._done["dropped"] if taken.is_dropped else self._known["pending"]).update(taken.points)

    def _prepare(self, db: Database) -> Database:
        # auto_vacuum counts only before the first table; WAL is a property of the file, the others of the connection.
        # By the application id a log is known to be the file's own: it has to be in the file before there is a log.
        is_new = not self.path.exists() or not self.path.stat().st_size
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        if is_new:
            db.execute(f"PRAGMA application_id = {random.randrange(1, 2**31)}")
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        version = pragma(db, "user_version")
        if version == 0 and not db.table_names():
            # Ids go on after a file that was moved aside: a late delete must not hit a row of the new one.
            first = f"INSERT INTO sqlite_sequence VALUES ('batches', {self._highest_id});"
            db.conn.executescript(f"BEGIN;{SCHEMA}{first}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"its schema has version {version}, this ODS knows {SCHEMA_VERSION}")
        return db

    def move_aside(self, error: Exception) -> None:
        """Keep a file that is damaged, or none of ODS's, under another name; the next call begins a new one."""
        self.close()
        self._blame_the_disk()
        try:
            aside = self._free_name()
            for suffix in ("", "-wal", "-shm"):
                part = self.path.with_name(self.path.name + suffix)
                if part.exists():
                    part.replace(aside.with_name(aside.name + suffix))
        except OSError as trouble:
            raise BufferUnavailable(f"{self.path} cannot be read ({error}), nor be moved aside: {trouble}") from trouble
        self._opened_at = float("-inf")
        self._on_other()
        for fate, points in self._known.items():
            self._left[fate].update(points)
        self._known = no_points()
        self.moved_aside += 1
        log.error("buffer: %s cannot be read (%s); it is kept as %s, a new one is begun", self.path, error, aside)

    def _blame_the_disk(self) -> None:
        """Raise BufferUnavailable where the disk fails to read, which SQLite takes for damage (EIO: SQLITE_CORRUPT)."""
        log_path = self.path.with_name(f"{self.path.name}-wal")
        trouble = read_through(self.path, seconds=READ_THROUGH_SECONDS) or read_through(
            log_path, seconds=READ_THROUGH_SECONDS
        )
        if trouble is None:
            return
        now, (since, last) = time.monotonic(), self._unreadable
        self._unreadable = (since if now - last < FORGIVEN_SECONDS else now, now)
        if now - self._unreadable[0] < UNREADABLE_SECONDS:
            raise BufferUnavailable(f"{self.path}: {trouble}") from trouble

    def asides(self) -> list[Path]:
        """The files that were moved aside, in this run or before; of some only the log is left. Raises OSError."""
        found = self.path.parent.glob(f"{self.path.name}{ASIDE}*")
        return sorted({path.with_name(path.name.removesuffix("-wal").removesuffix("-shm")) for path in found})

    def _free_name(self) -> Path:
        stem = f"{self.path.name}{ASIDE}{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        names = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
        taken = {path.name.replace(SAVED, ASIDE) for path in self.path.parent.iterdir()}
        return self.path.with_name(next(name for name in names if not taken & {name, f"{name}-wal", f"{name}-shm"}))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns SQLite's errors into those of ODS; after one that concerns the file, it is opened afresh."""
        try:
            yield
        except (sqlite3.Error, Nonsense) as error:
            reason = f"{self.path}: {error}"
            if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
                raise BufferFull(reason) from error
            if not _is_damage(error):
                self.close()
                raise BufferUnavailable(reason) from error
            self.move_aside(error)
            raise Damaged(reason) from error


def _is_damage(error: Exception) -> bool:
    """Whether the file itself is at fault: damaged, of another make, or of another version of ODS."""
    name = getattr(error, "sqlite_errorname", _FOREIGN)  # Nonsense and the refusal of another version have none
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", _FOREIGN))


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file is at a path; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
