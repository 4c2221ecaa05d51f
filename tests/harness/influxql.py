"""InfluxQL, answered from points in the test's hands: as much of it as the dashboards ask, and a complaint at the rest.

It knows nothing of InfluxDB's storage, so that an answer of a real InfluxDB can be compared with it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

Value = float | str
#: The column `time` first, in nanoseconds; None where there is nothing.
Row = tuple[Value | None, ...]


@dataclass(frozen=True)
class Point:
    """A point of a measurement; tags and fields have different names."""

    measurement: str
    time_ns: int
    tags: Mapping[str, str]
    fields: Mapping[str, Value]


@dataclass(frozen=True)
class Series:
    """A part of an answer."""

    name: str
    tags: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


_STATEMENT = re.compile(
    r"SELECT (?P<select>.+?) FROM (?P<source>\"[^\"]+\"|/(?:\\.|[^/\\])+/) WHERE (?P<where>.+?)"
    r"(?: GROUP BY (?:time\((?P<every>\d+)(?P<unit>ms|s|m|h)\))?(?:, )?(?P<tag>\"pod\")?(?P<fill> fill\(none\))?)?"
    r"(?P<newest> ORDER BY time DESC)?(?: LIMIT (?P<limit>\d+))?"
)
_COLUMN = re.compile(r'(?:(?P<function>mean|min|max|last)\()?"(?P<field>[^"]+)"\)?(?: AS "(?P<alias>[^"]+)")?')
_TIME = re.compile(r"time >= (\d+)ms and time <= (\d+)ms")
_TERM = re.compile(r"\"(?P<key>[^\"]+)\" (?P<operator>=~|!=|=) (?:'(?P<text>[^']*)'|/(?P<pattern>(?:\\.|[^/\\])+)/)")
_UNITS_NS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


class _Select:
    """One statement, understood."""

    def __init__(self, statement: str) -> None:
        found = _STATEMENT.fullmatch(statement)
        assert found, f"not understood: {statement}"
        self.columns = [_fullmatch(_COLUMN, column) for column in found["select"].split(", ")]
        self.source = _pattern(found["source"])
        self._where = found["where"].split(" AND ")
        self.every_ns = int(found["every"]) * _UNITS_NS[found["unit"]] if found["every"] else 0
        self.tags = ("pod",) if found["tag"] else ()
        self.is_newest_first = bool(found["newest"])
        self.limit = int(found["limit"] or 0)
        (span,) = [term for term in self._where if term.startswith("time ")]
        self.from_ns, self.to_ns = (int(number) * 10**6 for number in _fullmatch(_TIME, span).groups())
        self._where.remove(span)
        functions = {bool(column["function"]) for column in self.columns}
        assert len(functions) == 1, f"functions and plain columns: {statement}"
        self.is_of_functions = functions.pop()

    def takes(self, point: Point) -> bool:
        return self.from_ns <= point.time_ns <= self.to_ns and all(
            any(_holds(term, point) for term in condition.strip("()").split(" OR ")) for condition in self._where
        )

    def names(self) -> tuple[str, ...]:
        return ("time", *(column["alias"] or column["function"] or column["field"] for column in self.columns))

    def rows(self, points: Sequence[Point]) -> list[Row]:
        """Of one series."""
        rows = self._aggregated(points) if self.is_of_functions else [self._plain(point) for point in points]
        rows = sorted((row for row in rows if any(cell is not None for cell in row[1:])), key=lambda row: row[0])
        rows = rows[::-1] if self.is_newest_first else rows
        return rows[: self.limit] if self.limit else rows

    def _plain(self, point: Point) -> Row:
        cells = [{**point.tags, **point.fields}.get(column["field"]) for column in self.columns]
        has_field = any(column["field"] in point.fields for column in self.columns)
        return (point.time_ns, *cells) if has_field else (point.time_ns, *[None] * len(cells))

    def _aggregated(self, points: Sequence[Point]) -> list[Row]:
        steps: dict[int, list[Point]] = defaultdict(list)
        for point in points:
            steps[point.time_ns // self.every_ns * self.every_ns if self.every_ns else self.from_ns].append(point)
        return [self._step(time_ns, of_step) for time_ns, of_step in steps.items()]

    def _step(self, time_ns: int, points: Sequence[Point]) -> Row:
        cells = [_aggregate(column["function"], column["field"], points) for column in self.columns]
        if len(cells) == 1 and not self.every_ns and self.columns[0]["function"] != "mean" and cells[0] is not None:
            time_ns = cells[0][0]  # a single point was selected, and its own time is told
        return (time_ns, *(cell and cell[1] for cell in cells))


def answer(statement: str, points: Mapping[str, Iterable[Point]]) -> list[Series]:
    """What a statement finds in these points, by measurement. Raises AssertionError where it is not understood."""
    select = _Select(statement)
    found = []
    for measurement, of_measurement in points.items():
        if not select.source.search(measurement):
            continue
        groups: dict[tuple[tuple[str, str], ...], list[Point]] = defaultdict(list)
        for point in of_measurement:
            if select.takes(point):
                groups[tuple((tag, point.tags.get(tag, "")) for tag in select.tags)].append(point)
        for tags, group in groups.items():
            if rows := select.rows(group):
                found.append(Series(measurement, tags, select.names(), tuple(rows)))
    return found


def _aggregate(function: str, field: str, points: Sequence[Point]) -> tuple[int, Value] | None:
    """The time and the value; of a mean the time means nothing."""
    found = [(point.time_ns, point.fields[field]) for point in points if field in point.fields]
    if not found:
        return None
    if function == "last":
        return max(found, key=lambda each: each[0])
    values = [float(value) for _, value in found]
    chosen = {"mean": fmean, "min": min, "max": max}[function](values)
    return next((each for each in found if each[1] == chosen), found[0])[0], chosen


def _holds(term: str, point: Point) -> bool:
    """A tag that a point does not have is empty."""
    found = _fullmatch(_TERM, term)
    value = point.tags.get(found["key"], "")
    if found["pattern"] is not None:
        return bool(_pattern(f"/{found['pattern']}/").search(value))
    return (value == found["text"]) is (found["operator"] == "=")


def _pattern(source: str) -> re.Pattern[str]:
    """Of a quoted name, or of what stands between slashes."""
    return re.compile("^" + re.escape(source[1:-1]) + "$" if source[0] == '"' else source[1:-1].replace("\\/", "/"))


def _fullmatch(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    assert found, f"not understood: {text}"
    return found
