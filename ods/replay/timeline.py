"""What one pod sent, line by line in the order of time, as it goes over the wire again. Bounded memory.

A text goes out as it was stored, its invisible characters readable (`\\x00`): what the server then stores is the same.
A torn line has no end that could be sent, and a mark was sent by no pod: those are None.
"""

import heapq
from collections.abc import Iterator, Sequence
from itertools import chain

from ods.recorded import Segment, in_order
from ods.recording import Row
from ods.replay.meter import Meter

#: When it was received, in nanoseconds, and the line with its newline.
TimedLine = tuple[int, bytes | None]


def timeline(segments: Sequence[Segment], meter: Meter) -> Iterator[TimedLine]:
    """The lines of one pod, whose segments these are."""
    streams = [_stream(kind, [one for one in segments if one.kind == kind], meter) for kind in ("data", "log")]
    return heapq.merge(*streams, key=lambda line: line[0])


def _stream(kind: str, segments: Sequence[Segment], meter: Meter) -> Iterator[TimedLine]:
    make = _data_lines if kind == "data" else _log_lines
    pieces = in_order(chain.from_iterable(map(meter.read, segments)))
    return chain.from_iterable(map(make, pieces))


def _data_lines(rows: Sequence[Row]) -> list[TimedLine]:
    return [(int(time_ns), f"POD2{name} {sent}\n".encode()) for time_ns, name, sent in rows]


def _log_lines(rows: Sequence[Row]) -> list[TimedLine]:
    return [(int(time_ns), _line(kind, text)) for time_ns, kind, text in rows]


def _line(kind: str, text: str) -> bytes | None:
    if kind == "log":
        return f"POD1{text}\n".encode()
    return f"{text}\n".encode() if kind == "invalid" else None
