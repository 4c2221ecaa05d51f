"""How far a reading of recordings has come, without reading them twice: by the sizes of the files."""

from collections.abc import Iterator, Sequence

from ods.recorded import Segment, Tally, read
from ods.recording import Row
from ods.segment_files import COMPRESSED
from ods.selection import Selection

#: What a row takes, about. Bytes.
ROW_BYTES = 36
#: By what compressing makes a segment smaller, about.
COMPRESSION = 6


class Meter:
    """Reads segments, and knows about how much of them is read: `done` of `total`."""

    def __init__(
        self, segments: Sequence[Segment], selection: Selection, tally: Tally, *, piece_bytes: int | None = None
    ) -> None:
        self._selection = selection
        self._tally = tally
        self._piece_bytes = piece_bytes
        self.total = sum(map(_weight, segments)) or 1
        self.done = 0
        #: Rows that were read only to come to those after them.
        self.skipped = 0

    def read(self, segment: Segment) -> Iterator[list[Row]]:
        """As `ods.recorded.read`."""
        left = _weight(segment)
        for rows in read(segment, self._selection, self._tally, piece_bytes=self._piece_bytes):
            passed = min(left, len(rows) * ROW_BYTES)
            self.done += passed
            left -= passed
            yield rows
        self.done += left

    def skip(self, segment: Segment) -> None:
        """This one needs no reading."""
        self.done += _weight(segment)


def _weight(segment: Segment) -> int:
    try:
        size_bytes = segment.path.stat().st_size
    except OSError:
        return 0
    return size_bytes * (COMPRESSION if segment.path.suffix == COMPRESSED else 1)
