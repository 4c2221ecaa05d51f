"""A table from InfluxDB, of a pod and a span of time at a time.

InfluxDB answers name by name. So that the rows come in the order of time, and never more of them stand in memory than
wanted, a span is asked for that probably holds about so many; one that turns out to hold far more is cut short.
"""

from collections.abc import Iterator
from typing import Any

from ods.export.tables import DATA, Block, Messages, Points
from ods.influx_query import InfluxQuery, Series, identifier, literal
from ods.selection import MAX_NS, Selection
from ods.settings import InfluxSettings

#: How many rows a span should hold, and beyond how many it is cut short.
SPAN_ROWS, MAX_SPAN_ROWS = 50_000, 150_000
#: The first span, and how much longer than the one before one is at most. Nanoseconds.
FIRST_SPAN_NS, GROWTH = 60_000_000_000, 8
#: Rows of a block.
BLOCK_ROWS = 10_000

#: Time, name and value; or time, level and message.
_Row = tuple[int, str, Any]


class InfluxDb:
    """The points of a database of InfluxDB 1.x, and of what answers its queries."""

    def __init__(self, settings: InfluxSettings) -> None:
        self._settings = settings
        self._query = InfluxQuery(settings)
        #: Points of another type than ODS writes.
        self._foreign = 0
        self._done: float | None = None

    def blocks(self, what: str, selection: Selection) -> Iterator[Block]:
        """The rows. Raises Unavailable."""
        self._foreign, self._done = 0, None
        measurements = self._measurements(selection) if what == DATA else ["pod_log"]
        pods = [pod for pod in self._pods() if selection.has_pod(pod)] if measurements else []
        for at, pod in enumerate(pods):
            for rows in self._in_time(what, measurements, pod, selection, (at, len(pods))):
                yield _block(what, pod, rows)

    def told(self) -> dict[str, object]:
        """Where it is, without secrets."""
        settings = self._settings
        where = [f"{settings.url}/{settings.database}"]
        return {"source": "influx", "where": where, "points_of_another_type": self._foreign}

    @property
    def is_whole(self) -> bool:
        """Whether each point is a number, as ODS writes them."""
        return not self._foreign

    @property
    def done(self) -> float | None:
        """By the time of the rows."""
        return self._done

    def _measurements(self, selection: Selection) -> list[str]:
        """What to select from; one regular expression for all."""
        if not selection.names:
            return ["/.*/"]
        names = [row[0] for series in self._query.series("SHOW MEASUREMENTS") for row in series["values"]]
        return [identifier(name) for name in names if selection.has_name(name)]

    def _pods(self) -> list[str]:
        found = self._query.series("SHOW TAG VALUES WITH KEY = pod")
        return sorted({row[1] for series in found for row in series["values"]})

    def _in_time(
        self, what: str, measurements: list[str], pod: str, selection: Selection, place: tuple[int, int]
    ) -> Iterator[list[_Row]]:
        limits = self._limits(what, measurements, pod, selection)
        if limits is None:
            return
        first_ns, last_ns = limits
        begin_ns, span_ns = first_ns, FIRST_SPAN_NS
        while begin_ns <= last_ns:
            end_ns = min(begin_ns + span_ns, last_ns + 1)
            rows = self._rows(what, _where(measurements, pod, begin_ns, end_ns), has_limit=span_ns > 1)
            if rows is None:
                span_ns = max(1, span_ns // GROWTH)
                continue
            for at in range(0, len(rows), BLOCK_ROWS):
                yield rows[at : at + BLOCK_ROWS]
            begin_ns = end_ns
            self._done = (place[0] + (begin_ns - first_ns) / (last_ns - first_ns + 1)) / place[1]
            span_ns = max(1, min(span_ns * GROWTH, span_ns * SPAN_ROWS // max(1, len(rows))))

    def _limits(self, what: str, measurements: list[str], pod: str, selection: Selection) -> tuple[int, int] | None:
        """The times of the first and the last row; None where there is none."""
        field = "value" if what == DATA else "message"
        where = _where(measurements, pod, selection.from_ns, selection.to_ns)
        first, last = (
            [row[0] for series in self._query.series(f"SELECT {which}({field}) {where}") for row in series["values"]]
            for which in ("first", "last")
        )
        return (min(first), max(last)) if first and last else None

    def _rows(self, what: str, where: str, *, has_limit: bool) -> list[_Row] | None:
        """All rows of a span, in the order of time; None where there are too many."""
        rows: list[_Row] = []
        fields = "value" if what == DATA else '"level", message'
        foreign = 0
        for series in self._query.series(f"SELECT {fields} {where}"):
            found = _data(series) if what == DATA else _logs(series)
            foreign += len(series["values"]) - len(found)
            rows += found
            if has_limit and len(rows) > MAX_SPAN_ROWS:
                return None
        self._foreign += foreign
        rows.sort(key=lambda row: row[:2])
        return rows


def _where(measurements: list[str], pod: str, from_ns: int, to_ns: int) -> str:
    upper = f" AND time < {to_ns}" if to_ns < MAX_NS else ""
    return f"FROM {', '.join(measurements)} WHERE pod = {literal(pod)} AND time >= {from_ns}{upper}"


def _data(series: Series) -> list[_Row]:
    name = series["name"]
    return [(time_ns, name, float(value)) for time_ns, value in series["values"] if type(value) in (float, int)]


def _logs(series: Series) -> list[_Row]:
    return [(time_ns, level or "", text) for time_ns, level, text in series["values"] if isinstance(text, str)]


def _block(what: str, pod: str, rows: list[_Row]) -> Block:
    times = [str(row[0]) for row in rows]
    seconds, thirds = [row[1] for row in rows], [row[2] for row in rows]
    return Points(pod, times, seconds, thirds) if what == DATA else Messages(pod, times, seconds, thirds)
