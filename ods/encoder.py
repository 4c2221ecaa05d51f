"""Records with their times to bytes, once: line protocol for the stores, rows for the recordings. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from ods.data_points import DataPoints
from ods.line_protocol import MARK_EVENT, data_lines, event_line, log_line
from ods.protocol import LogMessage, MarkText, NoRecord, Record
from ods.recording import data_rows, log_row


class Encoded(NamedTuple):
    """What some records look like outside, and how many points they are: of marks none, which the ledger knows not."""

    lines: bytes
    data_rows: bytes
    log_rows: bytes
    points: int


def encode(records: Sequence[Record], tag: str, times: Sequence[str]) -> Encoded:
    """Encode records of the pod with this tag; `times` has one for each, in nanoseconds, as text."""
    if len(records) == 1 and isinstance(points := records[0], DataPoints):  # the common case
        lines, rows = data_lines(points, tag, times), data_rows(points, times)
        return Encoded(lines.encode(), rows.encode(), b"", len(points))
    return _encode_each(records, tag, times)


def _encode_each(records: Sequence[Record], tag: str, times: Sequence[str]) -> Encoded:
    lines: list[str] = []
    data: list[str] = []
    logs: list[str] = []
    points = at = 0
    for record in records:
        end = at + count([record])
        if isinstance(record, DataPoints):
            lines.append(data_lines(record, tag, times[at:end]))
            data.append(data_rows(record, times[at:end]))
            points += len(record)
        elif isinstance(record, LogMessage):
            lines.append(log_line(record, tag, times[at]))
            logs.append(log_row(times[at], "log", record.sent))
            points += 1
        elif isinstance(record, MarkText):
            lines.append(event_line(MARK_EVENT, record.text, tag, int(times[at])))
            logs.append(log_row(times[at], MARK_EVENT, record.text))
        elif isinstance(record, NoRecord):
            logs.append(log_row(times[at], record.kind, record.sent))
        at = end
    return Encoded("".join(lines).encode(), "".join(data).encode(), "".join(logs).encode(), points)


def count(records: Sequence[Record]) -> int:
    """How many records there are, each data point counted."""
    return sum([len(record) if isinstance(record, DataPoints) else 1 for record in records])
