"""What is left of records that are repeated when those are taken out that the recordings hold already. Pure."""

from collections.abc import Sequence, Set

from ods.data_points import DataPoints
from ods.protocol import Decoded, Record


def without(decoded: Decoded, times: Sequence[str], recorded: Set[int]) -> tuple[Decoded, Sequence[str]]:
    """Take out the records that were recorded at one of these times; every reply stays."""
    if recorded.isdisjoint(map(int, times)):
        return decoded, times
    records: list[Record] = []
    left: list[str] = []
    at = 0
    for record in decoded.records:
        end = at + (len(record) if isinstance(record, DataPoints) else 1)
        missing = [place for place in range(at, end) if int(times[place]) not in recorded]
        left += [times[place] for place in missing]
        if isinstance(record, DataPoints):
            record = _only(record, [place - at for place in missing])
        if missing:
            records.append(record)
        at = end
    return Decoded(records, decoded.replies), left


def _only(points: DataPoints, places: Sequence[int]) -> DataPoints:
    return DataPoints(
        [points.names[place] for place in places],
        [points.sent[place] for place in places],
        [points.values[place] for place in places],
    )
