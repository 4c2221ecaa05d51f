"""The buffer's file looked at without the least change to it, for somebody who only wants to know how it is.

SQLite does not see every damage when it opens a file, so all of its pages are looked through, for a bounded time. The
caller keeps ODS from using the file meanwhile (`ods.directory.kept`).
"""

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from ods.buffer_file import BufferFile
from ods.buffer_tables import SCHEMA_VERSION, totals_of
from ods.damage import damage_of
from ods.errors import BufferUnavailable
from ods.rows import Nonsense

#: How many of SQLite's steps pass between two looks at the time.
STEPS = 50_000


@dataclass(frozen=True, slots=True)
class Inspected:
    """What is in a sound file."""

    #: Points by fate (`pending`, `quarantined`) and pod.
    totals: Mapping[str, Mapping[str, int]]
    #: Whether there was time to look at every page.
    is_whole: bool
    #: Damaged files that were moved aside and are not saved yet.
    to_rescue: int


def inspect(path: Path, *, seconds: float) -> Inspected:
    """Look through a file, for so long at most. Raises BufferUnavailable for one that is damaged, or cannot be read."""
    found = damage_of(path, schema_version=SCHEMA_VERSION)
    if found is not None:
        raise BufferUnavailable(f"{path}: {found.words}")
    try:
        with closing(sqlite3.connect(_address(path), uri=True)) as connection:
            db = Database(connection, execute_plugins=False)
            totals = totals_of(db)
            to_rescue = _to_rescue(path, db)
            return Inspected(totals, _is_looked_through(path, connection, seconds), to_rescue)
    except (sqlite3.Error, Nonsense) as error:
        raise BufferUnavailable(f"{path}: {error}") from error


def _address(path: Path) -> str:
    """Without a log nothing but the file itself is needed; with one, SQLite makes its index beside it."""
    has_log = path.with_name(f"{path.name}-wal").exists()
    return f"{path.absolute().as_uri()}?mode=ro{'' if has_log else '&immutable=1'}"


def _is_looked_through(path: Path, connection: sqlite3.Connection, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
    try:
        ((found,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname == "SQLITE_INTERRUPT":
            return False
        raise
    if found != "ok":
        raise BufferUnavailable(f"{path} is damaged: {' '.join(str(found).split())}")
    return True


def _to_rescue(path: Path, db: Database) -> int:
    asides = {aside.name for aside in BufferFile(path, on_other=lambda: None).asides()}
    if "rescues" in db.table_names():
        asides -= {name for (name,) in db.execute("SELECT file FROM rescues WHERE is_finished")}
    return len(asides)
