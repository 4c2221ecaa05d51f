"""The tables of the buffer: their schema, what is read of them in one go, and what in them cannot be right.

SQLite does not check what a page says: a flipped bit may turn a number into a text, or one fate into another. So what
is read is looked at before it is believed; Nonsense is raised where it cannot be what was written.
"""

import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from sqlite_utils import Database

from ods.rows import Nonsense, counts_of

log = logging.getLogger(__name__)

#: Written into the file; a file with another version is not touched.
SCHEMA_VERSION = 1

SCHEMA = """
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


#: Of any number of pods in one statement: at each step of one the interpreter's lock is let go and has to be got again,
#: which takes up to 5 ms while the hub is busy.
_ADD_TO_TOTALS = """
INSERT INTO totals SELECT ?, key, value FROM json_each(?) WHERE true
ON CONFLICT (fate, pod) DO UPDATE SET points = points + excluded.points
"""
_NO_TOTALS = """
SELECT pod FROM totals
WHERE fate = ? AND pod IN (SELECT key FROM json_each(?)) AND (points < 0 OR typeof(points) != 'integer') LIMIT 1
"""


class Totals:
    """The totals, as a transaction changes them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.changed = no_points()

    def add(self, fate: str, pods: Mapping[str, int], *, sign: int = 1) -> None:
        """Add points of this fate (`pending`, `quarantined`), or with `sign` -1 take them off.

        Where more are taken off than there are, the totals or what a row says of itself is damaged.
        """
        given = fate, json.dumps({pod: sign * points for pod, points in pods.items()}, ensure_ascii=False)
        self._db.conn.execute(_ADD_TO_TOTALS, given)
        for (pod,) in self._db.conn.execute(_NO_TOTALS, given).fetchall():
            raise Nonsense(f"its totals of pod {pod!r} do not agree with its rows")
        for pod, points in pods.items():
            self.changed[fate][pod] += sign * points


def measured(db: Database | None) -> tuple[int, int, int | None] | None:
    """Free pages, bytes in use, and the reception time of the oldest row; None where they cannot be had."""
    if db is None:
        return None
    try:
        free_pages = pragma(db, "freelist_count")
        used_bytes = (pragma(db, "page_count") - free_pages) * pragma(db, "page_size")
        oldest = db.execute("SELECT first_ns FROM batches ORDER BY id LIMIT 1").fetchone()
    except sqlite3.Error as error:
        log.debug("buffer: %s", error)
        return None
    return free_pages, used_bytes, oldest[0] if oldest and isinstance(oldest[0], int) else None


def totals_of(db: Database) -> dict[str, dict[str, int]]:
    """Points by fate and pod."""
    totals: dict[str, dict[str, int]] = {"pending": {}, "quarantined": {}}
    for fate, pod, points in db.execute("SELECT fate, pod, points FROM totals WHERE points > 0"):
        if fate not in totals or not isinstance(pod, str) or not isinstance(points, int):
            raise Nonsense(f"its totals make no sense: {fate!r}, {pod!r}, {points!r}")
        totals[fate][pod] = points
    return totals


def pragma(db: Database, name: str) -> int:
    """The value of a pragma that is a number."""
    value: int = db.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def no_points() -> dict[str, Counter[str]]:
    """By fate and pod."""
    return {"pending": Counter(), "quarantined": Counter(), "stored": Counter(), "dropped": Counter()}


def highest_id(db: Database) -> int:
    """The id of the last row that went in."""
    (found,) = db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'batches'").fetchone()
    return found if isinstance(found, int) else 0


def copy(lost: Database, db: Database, totals: Totals) -> Counter[str]:
    """Copy what can be read of a buffer into another one, under new ids, for a late delete must not hit another row.

    Returns the points that wait, by pod.
    """
    saved: Counter[str] = Counter()
    columns = "database, points, pods, first_ns, rejected, checksum, payload"
    for row in _readable(lost, f"SELECT {columns} FROM batches ORDER BY id"):
        db.execute(f"INSERT INTO batches ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        saved.update(counts_of(row[2]))
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
