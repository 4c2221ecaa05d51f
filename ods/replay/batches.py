"""Rows of the recordings to batches of line protocol, by the code that wrote the points at first; and where each ends.

So a point that is replayed is the one that InfluxDB had, or should have had: the same measurement, tags, field, time.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ods.data_points import DataPoints
from ods.encoder import encode
from ods.line_protocol import data_lines, pod_tag
from ods.recorded import Segment
from ods.recording import Row, points_of
from ods.replay.meter import Meter

#: Lines of a batch.
BATCH_LINES = 5000


class Position(NamedTuple):
    """How far the recordings are replayed: so many selected rows of this segment, and all segments before it."""

    begin_ns: int
    pod: str
    kind: str
    rows: int

    @property
    def segment(self) -> tuple[int, str, str]:
        """Which segment it is in, in the order in which they are replayed."""
        return self[:3]


@dataclass(slots=True)
class Batch:
    """Lines, how many they are, and where they end. Rows that are no points (`invalid`, `torn`) count by their kind."""

    lines: bytes
    points: int
    left_out: Counter[str]
    end: Position


@dataclass(slots=True)
class _Unfinished:
    texts: list[bytes] = field(default_factory=list)
    rows: int = 0
    points: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, segment: Segment, rows: Sequence[Row], shift_ns: int) -> None:
        lines, points = _encoded(segment, rows, shift_ns)
        self.texts.append(lines)
        self.rows += len(rows)
        self.points += points
        if points < len(rows):
            self.left_out.update(kind for _, kind, _ in rows if kind in ("invalid", "torn"))

    def finished(self, end: Position) -> Batch:
        return Batch(b"".join(self.texts), self.points, self.left_out, end)


def batches(
    segments: Sequence[Segment], meter: Meter, *, shift_ns: int = 0, after: Position | None = None
) -> Iterator[Batch]:
    """All that is selected of these segments, in their order, of one without the rows up to a position in it.

    Times are shifted by so much. A batch ends at the latest position so far.
    """
    batch = _Unfinished()
    end = after or Position(0, "", "", 0)
    for segment in segments:
        here = (segment.begin_ns, segment.pod, segment.kind)
        skipped = after.rows if after is not None and here == after.segment else 0
        done = 0
        for rows in meter.read(segment):
            at = min(len(rows), max(0, skipped - done))
            meter.skipped += at
            while at < len(rows):
                part = rows[at : at + BATCH_LINES - batch.rows]
                batch.add(segment, part, shift_ns)
                at += len(part)
                end = max(end, Position(*here, done + at))
                if batch.rows >= BATCH_LINES:
                    yield batch.finished(end)
                    batch = _Unfinished()
            done += len(rows)
    if batch.rows:
        yield batch.finished(end)


def first_ns(segments: Sequence[Segment], meter: Meter) -> int | None:
    """The time of the earliest row, as far as it stands where its pod's rows begin; None where there is none."""
    found: dict[tuple[str, str], int] = {}
    for segment in segments:
        key = (segment.pod, segment.kind)
        if key not in found and (rows := next(meter.read(segment), None)):
            found[key] = min(int(row[0]) for row in rows)
    return min(found.values(), default=None)


def _encoded(segment: Segment, rows: Sequence[Row], shift_ns: int) -> tuple[bytes, int]:
    """The lines of these rows, and how many they are."""
    records, times = points_of(segment.kind, rows)
    if shift_ns:
        times = [str(int(time_ns) + shift_ns) for time_ns in times]
    tag = pod_tag(segment.pod)
    match records:
        case [DataPoints() as points]:
            return data_lines(points, tag, times).encode(), len(points)
    return encode(records, tag, times).lines, len(times)
