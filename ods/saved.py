"""A row of the buffer, recognised and proved by its record alone. Pure.

Which table it is of is told by the shape of its record, since the pages that say it may be gone. A newer schema may
have more columns behind those that are known here.
"""

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from ods.line_protocol import is_event, pod_of, time_of
from ods.sqlite_pages import Value, is_blob, is_integer, is_text

#: What a payload may unpack to: as much as ODS may have in flight. Bytes.
MAX_LINES_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SavedBatch:
    """A row of `batches`.

    Where its header is not sound, `points`, `pods` and `first_ns` were found from the payload, `rejected` is None and
    `database` empty.
    """

    id: int
    database: str
    points: int
    pods: dict[str, int]
    first_ns: int
    rejected: str | None
    payload: bytes
    is_header_sound: bool = True


@dataclass(frozen=True, slots=True)
class SavedLine:
    """A row of `quarantine`."""

    id: int
    database: str
    pod: str
    time_ns: int | None
    line: str
    reason: str


Saved = SavedBatch | SavedLine


class Table(Enum):
    """The tables, and how many of their columns are known here."""

    BATCHES = 8
    QUARANTINE = 6
    TOTALS = 3


@lru_cache(maxsize=4096)
def table_of(types: tuple[int, ...]) -> Table | None:
    """The table whose columns these types fit; `id` stands in the cell's head, NULL in its record."""
    match types:
        case [0, database, points, pods, first_ns, rejected, checksum, payload, *_] if (
            is_text(database)
            and is_integer(points)
            and is_text(pods)
            and is_integer(first_ns)
            and (rejected == 0 or is_text(rejected))
            and is_integer(checksum)
            and is_blob(payload)
        ):
            return Table.BATCHES
        case [0, database, pod, time_ns, line, reason, *_] if all(map(is_text, (database, pod, line, reason))) and (
            time_ns == 0 or is_integer(time_ns)
        ):
            return Table.QUARANTINE
        case [fate, pod, points] if is_text(fate) and is_text(pod) and is_integer(points):
            return Table.TOTALS
    return None


def proved_batch(row_id: int, values: list[Value]) -> SavedBatch | None:
    """A batch whose checksum is right.

    The checksum is over the columns that matter and the payload; in files of older versions it is over the payload.
    Then the columns are believed if they agree with each other.
    """
    _, database, points, pods, first_ns, rejected, checksum, payload = values
    assert isinstance(database, bytes) and isinstance(pods, bytes) and isinstance(payload, bytes)
    assert isinstance(points, int) and isinstance(first_ns, int)
    head = b"%b\0%d\0%b\0%d" % (database, points, pods, first_ns)
    if checksum not in (zlib.crc32(payload), zlib.crc32(payload, zlib.crc32(head))):
        return None
    try:
        name, counts = database.decode(), json.loads(pods.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(counts, dict) or not all(type(count) is int for count in counts.values()):
        return None
    if sum(counts.values()) != points:
        return None
    reason = rejected.decode(errors="replace") if isinstance(rejected, bytes) else None
    return SavedBatch(row_id, name, points, counts, first_ns, reason, payload)


def recounted_batch(row_id: int, values: list[Value]) -> SavedBatch | None:
    """A batch whose payload is whole by gzip's own checksum; what else is known of it is found from its lines."""
    payload = values[Table.BATCHES.value - 1]
    assert isinstance(payload, bytes)
    unpacker = zlib.decompressobj(31)
    try:
        text = unpacker.decompress(payload, MAX_LINES_BYTES)
    except zlib.error:
        return None
    if not unpacker.eof or unpacker.unused_data:
        return None
    pods: Counter[str] = Counter()
    times = []
    for line in text.decode(errors="replace").removesuffix("\n").split("\n"):
        try:
            times.append(time_of(line))
            pods.update([] if is_event(line) else [pod_of(line)])
        except ValueError:
            continue  # no line of ODS's
    return SavedBatch(row_id, "", pods.total(), dict(pods), min(times, default=0), None, payload, is_header_sound=False)


def line_of(row_id: int, values: Sequence[Value]) -> SavedLine | None:
    """A quarantined line whose texts are texts: ODS writes no NUL, a page that was wiped is full of them."""
    _, database, pod, time_ns, line, reason = values
    try:
        texts = [text.decode() for text in (database, pod, line, reason) if isinstance(text, bytes)]
    except UnicodeDecodeError:
        return None
    if any("\0" in text for text in texts):
        return None
    assert not isinstance(time_ns, bytes)
    return SavedLine(row_id, texts[0], texts[1], time_ns, texts[2], texts[3])
