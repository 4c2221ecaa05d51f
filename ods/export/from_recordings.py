"""A table from the recordings, also while an ODS writes them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from ods.export.tables import DATA, LOGS, Block, Messages, Points
from ods.protocol import log_message
from ods.recorded import Segment, Tally, find, in_order, read
from ods.recording import Row
from ods.selection import Selection

#: The kind of segment that holds what a table is of.
_KINDS = {DATA: "data", LOGS: "log"}


class Recordings:
    """The recordings of a data directory, or those that are named."""

    def __init__(self, where: Path | Sequence[Path], *, warn: Callable[[str], None]) -> None:
        """`warn` is told of what cannot be read, once."""
        self._where = where
        self._warn = warn
        self._warned: set[str] = set()
        self._tally = Tally()
        self._segments = 0
        self._read_bytes = self._size_bytes = 0
        self._repeated = 0

    def blocks(self, what: str, selection: Selection) -> Iterator[Block]:
        """The rows, a piece of a segment at a time. Raises SettingsError where there are no recordings."""
        segments = [segment for segment in find(self._where, selection) if segment.kind == _KINDS[what]]
        segments.sort(key=lambda segment: (segment.pod, segment.begin_ns))
        self._tally, self._segments, self._repeated = Tally(warn=self._warn_once), len(segments), 0
        self._read_bytes, self._size_bytes = 0, sum(map(_size_bytes, segments))
        for pod, of_pod in groupby(segments, key=lambda segment: segment.pod):
            for rows in self._once(in_order(self._pieces(of_pod, selection))):
                if block := _points(pod, rows) if what == DATA else _messages(pod, rows):
                    yield block

    def told(self) -> dict[str, object]:
        """Where they are, and what could not be read."""
        where = [self._where] if isinstance(self._where, Path) else self._where
        return {
            "source": "recordings",
            "where": [str(path.absolute()) for path in where],
            "segments": self._segments,
            "repeated_rows": self._repeated,
            "unreadable_rows": self._tally.unreadable_rows,
            "unreadable_segments": self._tally.unreadable_files,
        }

    @property
    def is_whole(self) -> bool:
        """Whether each row could be read."""
        return not self._tally.unreadable_rows and not self._tally.unreadable_files

    @property
    def done(self) -> float | None:
        """By the size of the segments that are read."""
        return self._read_bytes / self._size_bytes if self._size_bytes else None

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)

    def _pieces(self, segments: Iterator[Segment], selection: Selection) -> Iterator[list[Row]]:
        for segment in segments:
            yield from read(segment, selection, self._tally)
            self._read_bytes += _size_bytes(segment)

    def _once(self, pieces: Iterator[list[Row]]) -> Iterator[list[Row]]:
        """Without what stands there twice: no two records of a pod have the same time, as InfluxDB sees it too."""
        last = ""
        for rows in pieces:
            times = [row[0] for row in rows]
            if len(set(times)) < len(times) or times[0] == last:
                once = [row for before, row in zip([last, *times], rows, strict=False) if row[0] != before]
                self._repeated += len(rows) - len(once)
                rows = once
            if rows:
                last = rows[-1][0]
                yield rows


def _points(pod: str, rows: Sequence[Row]) -> Block | None:
    times, names, values = [row[0] for row in rows], [row[1] for row in rows], [float(row[2]) for row in rows]
    return Points(pod, times, names, values)


def _messages(pod: str, rows: Sequence[Row]) -> Block | None:
    """What was no record, and a mark, is no message of a pod."""
    found = [(time_ns, log_message(text)) for time_ns, kind, text in rows if kind == "log"]
    if not found:
        return None
    messages = [message for _, message in found]
    times = [time_ns for time_ns, _ in found]
    return Messages(pod, times, [message.level or "" for message in messages], [one.message for one in messages])


def _size_bytes(segment: Segment) -> int:
    """What it takes on the disk, about: it may be compressed, or deleted, while it is read."""
    try:
        return segment.path.stat().st_size
    except OSError:
        return 0
