"""Reads the rows of a segment back: open, closed or compressed. It knows no store; what becomes of them others decide.

Rows later than a given time are found by halving, since the times in a segment increase: of a large one the end alone
is read. Only what there was no memory for may stand before earlier rows (`ods.intake`); of all others none is missed.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ods.recording import HEADERS, Row, rows_of, segment_begin
from ods.segment_files import COMPRESSED

#: How much is read at a time: about 6000 data points. Bytes.
PIECE_BYTES = 256 * 1024
#: No row is longer: a line of 64 KiB, each byte of which takes four. What is longer is damaged. Bytes.
ROW_BYTES = 300 * 1024
#: Halving ends where what is left takes one read. Bytes.
NEAR_BYTES = 16 * 1024

_BEGIN = re.compile(rb"([0-9]{1,19}),")


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows of a segment, the time of the latest row so far, and how many rows between could not be read."""

    rows: list[Row]
    latest_ns: int
    unreadable: int


def play(path: Path, *, after_ns: int = -1, piece_bytes: int | None = None) -> Iterator[Piece]:
    """The rows of a segment that are later than this time, in their order. A last row without its newline is none.

    Who reads many segments at once asks for smaller pieces. Raises OSError where the segment cannot be read, ValueError
    where its name is none of a segment's.
    """
    latest_ns, kind = segment_begin(path.name)
    try:
        with _opened(path) as file:
            is_plain = not isinstance(file, gzip.GzipFile)
            if after_ns >= latest_ns and is_plain:
                file.seek(_offset_of_later(file, after_ns))
            for block in _blocks(file, piece_bytes or PIECE_BYTES):
                rows = rows_of(kind, block)
                unreadable = block.count(b"\n") - len(rows) - block.startswith(HEADERS[kind])
                times_ns = [int(time_ns) for time_ns, _, _ in rows]
                latest_ns = max(latest_ns, max(times_ns, default=0))
                if min(times_ns, default=0) <= after_ns:
                    rows = [row for row, time_ns in zip(rows, times_ns, strict=True) if time_ns > after_ns]
                yield Piece(rows, latest_ns, max(0, unreadable))
    except (EOFError, zlib.error) as error:
        raise OSError(f"{path}: {error}") from error


def _opened(path: Path) -> BinaryIO:
    """The segment to be read, also where it has been compressed meanwhile."""
    if path.suffix == ".csv" and not path.exists():
        path = path.with_name(path.name + COMPRESSED)
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == COMPRESSED else path.open("rb")


def _blocks(file: BinaryIO, piece_bytes: int) -> Iterator[bytes]:
    """What is left of a file, in pieces that end at the end of a row."""
    rest = b""
    while data := file.read(piece_bytes):
        data = rest + data
        end = data.rfind(b"\n") + 1
        if end:
            yield data[:end]
        rest = data[end:]
        if len(rest) > ROW_BYTES:
            rest = b"\0"  # damaged, and so is what follows up to the end of the row


def _offset_of_later(file: BinaryIO, after_ns: int) -> int:
    """Where a row begins that has none later than `after_ns` before it, and not many others after it."""
    low, high = 0, file.seek(0, 2)
    while high - low > NEAR_BYTES:
        middle = (low + high) // 2
        row = _first_row(file, middle, high)
        if row is None or row[1] > after_ns:
            high = middle
        else:
            low = row[0]
    return low


def _first_row(file: BinaryIO, begin: int, end: int) -> tuple[int, int] | None:
    """Offset and time of the first row that begins after `begin`, and before `end`."""
    file.seek(begin)
    file.readline(ROW_BYTES)
    while (at := file.tell()) < end and (line := file.readline(ROW_BYTES)):
        found = _BEGIN.match(line)
        if found is not None and line.endswith(b"\n"):
            return at, int(found[1])
    return None
