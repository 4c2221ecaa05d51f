"""What the buffer holds: batches as rows, and lines in the quarantine. Pure.

A row carries a checksum of all that it says, and its payload one of its own (gzip's), so that what is damaged is told
from what is not, whatever SQLite believes of it.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ods.line_protocol import is_event

#: zlib's level: on telemetry, 6 gains a tenth of the size over 3 and takes twice its time.
COMPRESSION_LEVEL = 3
#: The reason of a row that is quarantined as it is, because it cannot be read.
UNREADABLE = "checksum"
#: The columns of a row, as they are read.
COLUMNS = "id, database, points, pods, first_ns, rejected, checksum, payload"


class Nonsense(ValueError):
    """What stands in the buffer cannot be what was written: it is damaged."""


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
    #: The counts by pod as they were committed.
    pods_json: str

    @property
    def is_sound(self) -> bool:
        """Whether the row is what was committed; earlier versions of ODS summed up the payload alone."""
        whole = _checksum(self.database, self.points, self.pods_json, self.first_ns, self.payload)
        return self.checksum in (whole, zlib.crc32(self.payload))

    def lines(self) -> list[str]:
        """The lines of the payload, without their newlines. Raises ValueError when they are not what was committed.

        They have a checksum of their own (gzip's): they may be sound where the row is not.
        """
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


@dataclass(frozen=True, slots=True)
class QuarantinedLine:
    """A line in the quarantine; an unreadable one is a whole row: its payload in hexadecimal, its points by pod."""

    id: int
    database: str
    pod: str
    time_ns: int
    line: str
    reason: str

    @property
    def is_unreadable(self) -> bool:
        """Whether it stands for a row whose lines are not known."""
        return self.reason == UNREADABLE

    @property
    def points(self) -> dict[str, int]:
        """Its points by pod. One that was saved from a damaged file may not tell them: it counts as one."""
        if not self.is_unreadable:
            return {self.pod: int(not is_event(self.line))}
        try:
            return {str(pod): int(points) for pod, points in json.loads(self.pod).items()}
        except (ValueError, TypeError, AttributeError):
            return {self.pod: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRow:
    """A batch that is about to be committed."""

    lines: bytes
    database: str
    pods: Mapping[str, int]
    first_ns: int


def compressed(lines: bytes) -> bytes:
    """As one gzip member."""
    packer = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, 31)
    return packer.compress(lines) + packer.flush()


def row_of(values: tuple[Any, ...]) -> Row:
    """A row of `COLUMNS`. Raises Nonsense."""
    row_id, database, points, pods, first_ns, rejected, checksum, payload = values
    numbers, texts = (row_id, points, first_ns, checksum), (database, pods, rejected or "")
    is_right = all(isinstance(number, int) for number in numbers) and all(isinstance(text, str) for text in texts)
    if not is_right or not isinstance(payload, bytes):
        raise Nonsense(f"row {row_id!r} has columns of other kinds than were written")
    return Row(row_id, database, points, counts_of(pods), first_ns, rejected, checksum, payload, pods)


def counts_of(pods_json: str) -> dict[str, int]:
    """Points by pod, as a row tells them. Raises Nonsense."""
    try:
        return {str(pod): int(points) for pod, points in json.loads(pods_json).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise Nonsense(f"the counts of a row cannot be read: {error}") from error


def values_of(
    database: str, pods: Mapping[str, int], first_ns: int, rejected: str | None, payload: bytes
) -> tuple[Any, ...]:
    """The columns of a new row, but for its id: `COLUMNS` from the second one on."""
    points, pods_json = sum(pods.values()), json.dumps(pods)
    checksum = _checksum(database, points, pods_json, first_ns, payload)
    return database, points, pods_json, first_ns, rejected, checksum, payload


def _checksum(database: str, points: int, pods_json: str, first_ns: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(f"{database}\0{points}\0{pods_json}\0{first_ns}".encode()))
