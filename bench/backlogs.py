"""Backlogs of any size, made in seconds: what hours of an outage would have left in the buffer of a stopped ODS.

ODS makes the file; the rows are added to it here, as `ods.buffer_tables` describes them.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterable
from itertools import repeat

from harness.ods_process import OdsProcess

from bench.points import FIRST_NS, addresses, bodies

#: Points of a row as a flood leaves it, and as 1000 points a second do, of which ten batches a second are made.
LARGE_ROW_POINTS, SMALL_ROW_POINTS = 5000, 100
#: Of pods that sent it.
PODS = 4
#: As ODS compresses.
LEVEL = 3

_INSERT = """
INSERT INTO batches (database, points, pods, first_ns, checksum, payload) VALUES (?, ?, ?, ?, ?, ?)
"""


def fill(ods: OdsProcess, points: int, row_points: int) -> None:
    """Add a backlog to an ODS that does not run and has run: all of its points are different ones."""
    _add(ods, points, row_points, map(_packed, bodies(points, addresses(PODS), size=row_points)))


def fill_alike(ods: OdsProcess, points: int, row_points: int) -> None:
    """The same for a backlog that nobody drains to its end: each row holds the same points."""
    _add(ods, points, row_points, repeat(_packed(bodies(row_points, addresses(PODS), size=row_points)[0])))


def _add(ods: OdsProcess, points: int, row_points: int, payloads: Iterable[bytes]) -> None:
    pods = addresses(PODS)
    counts = json.dumps(dict.fromkeys(pods, row_points // PODS))
    rows = [(ods.database, row_points, counts, FIRST_NS + at) for at in range(0, points, row_points)]
    db = sqlite3.connect(ods.directory / "buffer.db")
    with db:
        db.executemany(
            _INSERT, ((*row, zlib.crc32(payload), payload) for row, payload in zip(rows, payloads, strict=False))
        )
        db.executemany("INSERT INTO totals VALUES ('pending', ?, ?)", [(pod, points // PODS) for pod in pods])
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def _packed(lines: bytes) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    return packer.compress(lines) + packer.flush()
