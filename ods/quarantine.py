"""The quarantine as an operator works through it: a page at a time, oldest first.

A page is one job of the buffer's thread. It is small, and says where the next one begins, so that a million lines never
stand in memory, and batches of live points are committed in between. A page that retries or drops is one transaction:
whoever stops between two pages leaves a quarantine in good order.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ods.buffer import Buffer
from ods.line_protocol import is_own, name_of, pod_of, time_of, value_of
from ods.rows import NewRow, QuarantinedLine

#: A page is read up to so many lines, and about so many bytes of them.
PAGE_LINES = 2000
PAGE_BYTES = 512 * 1024

#: What differs between two refusals for the same cause: a count, and the line itself.
_PARTICULARS = re.compile(r"(?<=unable to parse ').*(?=')| dropped=\d+", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The lines meant, all where nothing is said, and the page of them: ids after the one and up to the other.

    `until` is set by the first answer, and passed on, so that what is quarantined meanwhile is left alone.
    """

    pod: str | None = None
    name: str | None = None
    #: A part of the reason.
    reason: str | None = None
    ids: tuple[int, ...] = ()
    after: int = 0
    until: int | None = None

    def matches(self, line: QuarantinedLine) -> bool:
        """Whether a line is meant, wherever its page."""
        return (
            (not self.ids or line.id in self.ids)
            and (self.pod is None or self.pod in line.points)
            and (self.name is None or (_is_readable(line) and self.name == name_of(line.line)))
            and (self.reason is None or self.reason in line.reason)
        )

    def to_query(self) -> str:
        """As the query of a URL."""
        given = {"pod": self.pod, "name": self.name, "reason": self.reason, "after": self.after, "until": self.until}
        return urlencode({key: value for key, value in given.items() if value is not None} | {"id": self.ids}, True)

    @classmethod
    def from_query(cls, query: str) -> "Selection":
        """Undo `to_query`. Raises ValueError, for what is not understood must not select everything."""
        given: dict[str, Any] = {}
        ids: list[int] = []
        for key, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
            if key == "id":
                ids.append(_id(value))
            elif key in ("after", "until"):
                given[key] = _id(value)
            elif key in ("pod", "name", "reason"):
                given[key] = value
            else:
                raise ValueError(f"{key!r} selects nothing")
        return cls(**given, ids=tuple(ids))


@dataclass(slots=True, kw_only=True)
class Page:
    """What one page came to. JSON-able."""

    #: What was asked for, where something was to be shown.
    entries: list[dict[str, Any]] = field(default_factory=list)
    #: How many lines matched (and were moved, where that was asked), their points by pod, and how many of what
    #: matched are damaged: they are no lines of ODS's, and no retry moves them.
    lines: int = 0
    points: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0
    #: The end of the whole, and where the next page begins; None: this was the last.
    until: int = 0
    next_after: int | None = None

    def to_json(self) -> bytes:
        """As a JSON object."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> "Page":
        """Undo `to_json`. Raises ValueError."""
        given = json.loads(text)
        if not isinstance(given, dict) or given.keys() != {each.name for each in fields(cls)}:
            raise ValueError("the answer is not understood: is that ODS of another version?")
        return cls(**given)


Action = Callable[[Buffer, Selection], Page]


def show(buffer: Buffer, selection: Selection) -> Page:
    """Each line."""
    page, lines = _read(buffer, selection)
    page.entries = [_shown(line) for line in lines]
    return page


def summarise(buffer: Buffer, selection: Selection) -> Page:
    """The lines of the page by pod, name and cause; the groups of several pages are for the caller to join."""
    page, lines = _read(buffer, selection)
    ordered = sorted(lines, key=_group_of)
    page.entries = [
        _summary(pod, name, reason, list(group)) for (pod, name, reason), group in groupby(ordered, _group_of)
    ]
    return page


def retry(buffer: Buffer, selection: Selection) -> Page:
    """Put lines back into the queue, where InfluxDB decides again. What cannot be read stays."""
    page, lines = _read(buffer, selection)
    readable = [line for line in lines if _is_readable(line)]
    page.lines, page.points, page.unreadable = len(readable), _total(readable), len(lines) - len(readable)
    by_database = groupby(sorted(readable, key=lambda line: line.database), lambda line: line.database)
    if readable:
        rows = [_row(database, list(group)) for database, group in by_database]
        buffer.take_out(readable, into=rows)
    return page


def drop(buffer: Buffer, selection: Selection) -> Page:
    """Delete lines for good."""
    page, lines = _read(buffer, selection)
    if lines:
        buffer.take_out(lines)
    page.unreadable = 0
    return page


#: By the name under which they are asked for.
READING: Mapping[str, Action] = {"lines": show, "summary": summarise}
CHANGING: Mapping[str, Action] = {"retry": retry, "drop": drop}
ACTIONS: Mapping[str, Action] = {**READING, **CHANGING}


def _id(text: str) -> int:
    """Raises ValueError, also for a number that SQLite cannot hold."""
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{text!r} is no id")
    return number


def _read(buffer: Buffer, selection: Selection) -> tuple[Page, list[QuarantinedLine]]:
    until = buffer.quarantine_end() if selection.until is None else selection.until
    after, last = selection.after, until
    if selection.ids:
        after, last = max(after, min(selection.ids) - 1), min(until, max(selection.ids))
    read = buffer.quarantined(after_id=after, until_id=last, limit_lines=PAGE_LINES, limit_bytes=PAGE_BYTES)
    lines = [line for line in read if selection.matches(line)]
    page = Page(
        lines=len(lines), points=_total(lines), unreadable=sum(not _is_readable(line) for line in lines), until=until
    )
    if read and read[-1].id < last:
        page.next_after = read[-1].id
    return page, lines


def _is_readable(line: QuarantinedLine) -> bool:
    """Whether it is a line as ODS writes them: one that was saved from a damaged buffer need not be."""
    return (
        not line.is_unreadable
        and is_own(line.line)
        and pod_of(line.line) == line.pod
        and time_of(line.line) == line.time_ns
    )


def _total(lines: Sequence[QuarantinedLine]) -> dict[str, int]:
    points: Counter[str] = Counter()
    for line in lines:
        points.update(line.points)
    return dict(+points)


def _row(database: str, lines: Sequence[QuarantinedLine]) -> NewRow:
    text = "\n".join([line.line for line in lines]) + "\n"
    first_ns = min(line.time_ns for line in lines)
    return NewRow(lines=text.encode(), database=database, pods=_total(lines), first_ns=first_ns)


def _shown(line: QuarantinedLine) -> dict[str, Any]:
    is_readable = _is_readable(line)
    return {
        "id": line.id,
        "time_ns": line.time_ns,
        "pod": _pod(line),
        "database": line.database,
        "name": name_of(line.line) if is_readable else None,
        "value": value_of(line.line) if is_readable else None,
        "points": sum(line.points.values()),
        "reason": line.reason,
        "line": line.line,
        "unreadable": not is_readable,
    }


def _pod(line: QuarantinedLine) -> str:
    return " ".join(line.points)


def _group_of(line: QuarantinedLine) -> tuple[str, str, str]:
    return _pod(line), name_of(line.line) if _is_readable(line) else "", _PARTICULARS.sub("", line.reason)


def _summary(pod: str, name: str, reason: str, lines: Sequence[QuarantinedLine]) -> dict[str, Any]:
    times = [line.time_ns for line in lines]
    return {
        "pod": pod,
        "name": name or None,
        "reason": reason,
        "lines": len(lines),
        "points": sum(_total(lines).values()),
        "first_ns": min(times),
        "last_ns": max(times),
        "unreadable": not name,
    }
