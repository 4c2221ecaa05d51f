"""What the encoder writes parses back to the same point: by a parser of the test's own, and by a real InfluxDB."""

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from harness.influx_server import InfluxServer
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ods.data_points import DataPoints
from ods.errors import SettingsError
from ods.line_protocol import (
    data_lines,
    event_line,
    health_line,
    is_event,
    is_own,
    log_line,
    name_of,
    pod_of,
    pod_tag,
    series_of,
    time_of,
    value_of,
)
from ods.options import parse
from ods.protocol import LogMessage, readable

CHECKED = settings(deadline=None, max_examples=120)

LEVELS = (None, "debug", "info", "note", "warn", "error", "fatal")
TIME_NS = 1_790_000_000_123_456_789


@dataclass(frozen=True)
class Parsed:
    """A point as the reference of InfluxDB 1.x's line protocol reads it."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, float | str]
    time_ns: int


class Reader:
    """Reads line protocol by the reference: docs.influxdata.com/influxdb/v1/write_protocols/line_protocol_reference.

    In measurements comma and space are escaped by a backslash, in keys and tag values the equals sign besides; any
    other backslash stands for itself. A string field escapes the double quote and the backslash.
    """

    def __init__(self, body: str) -> None:
        self._body = body
        self._at = 0

    def points(self) -> list[Parsed]:
        found = []
        while self._at < len(self._body):
            assert self._body[self._at] != "#", "a comment: InfluxDB would skip it"
            found.append(self._point())
        return found

    def _point(self) -> Parsed:
        measurement = self._word(" ,", escaped=", ")
        assert measurement
        tags: dict[str, str] = {}
        while self._take(","):
            key = self._word("=", escaped=",= ")
            assert self._take("=") and key not in tags
            tags[key] = self._word(" ,", escaped=",= ")
            assert tags[key], "an empty tag value"
        assert self._take(" ")
        fields: dict[str, float | str] = {}
        while not fields or self._take(","):
            key = self._word("=", escaped=",= ")
            assert self._take("=")
            fields[key] = self._value()
        assert self._take(" ")
        time_ns = int(self._word("\n", escaped=""))
        assert self._take("\n")
        return Parsed(measurement, tags, fields, time_ns)

    def _value(self) -> float | str:
        if not self._take('"'):
            number = self._word(" ,", escaped="")
            assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", number), number
            return float(number)
        text = self._word('"', escaped='"\\')
        assert self._take('"')
        return text

    def _word(self, ends: str, *, escaped: str) -> str:
        word = ""
        while (character := self._body[self._at]) not in ends:
            following = self._body[self._at + 1]
            if character == "\\" and following and following in escaped:
                character = following
                self._at += 1
            assert character != "\n", "a newline inside a point"
            word += character
            self._at += 1
        return word

    def _take(self, character: str) -> bool:
        found = self._body[self._at] == character
        self._at += found
        return found


def read(body: str) -> list[Parsed]:
    return Reader(body).points()


def accepted(name: str) -> bool:
    """Whether an operator may call a pod this."""
    try:
        return parse([f"--pod=10.0.0.1={name}"], {"HOME": "/"}).pods == {"10.0.0.1": name}
    except SettingsError:
        return False


def points(*records: tuple[str, float]) -> DataPoints:
    return DataPoints([name for name, _ in records], ["1" for _ in records], [repr(value) for _, value in records])


pod_names = st.one_of(
    st.text(st.sampled_from(",= #\"'%/.:pod[]éß日🚄"), min_size=1, max_size=20),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=15),
    st.sampled_from(["10.0.0.20", "fe80::1", "pod-a", "a,pod=b", "a b", "#1", "=", ",", "ods_event", 'say "hi"']),
)
data_names = st.one_of(
    st.text("abcXYZ019_.:/-", min_size=1, max_size=63),
    st.sampled_from(["pod_log", "ods_event", "ods_health", "time", "_", "-1", "pod"]),
)
floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.one_of(
    st.binary(max_size=40).map(readable),
    st.text(max_size=40).map(lambda text: readable(text.encode("utf-8", "surrogatepass"))),
    st.text("\\\" ,=#n\n\r\t'é", max_size=20).map(lambda text: readable(text.encode())),
)
figures = st.dictionaries(
    st.sampled_from(["received", "available", "points_per_second", "values"]), floats, min_size=1, max_size=4
)
times = st.integers(0, 2**63 - 1)


@CHECKED
@given(pod_names, st.lists(st.tuples(data_names, floats), min_size=1, max_size=8), times)
def test_data_points_parse_back(pod: str, records: list[tuple[str, float]], first_ns: int) -> None:
    assume(accepted(pod))
    time_ns = [first_ns + offset for offset in range(len(records))]
    body = data_lines(points(*records), pod_tag(pod), list(map(str, time_ns)))
    assert read(body) == [
        Parsed(name, {"pod": pod}, {"value": value}, at) for (name, value), at in zip(records, time_ns, strict=True)
    ]
    signs = [math.copysign(1, value) for _, value in records]
    assert [math.copysign(1, float(point.fields["value"])) for point in read(body)] == signs


@CHECKED
@given(pod_names, texts, st.sampled_from(LEVELS), times)
@example("a b", "C:\\", "warn", 0)
@example("a,pod=b", '", x="y\\" 1\\\\n', None, 0)
def test_log_messages_parse_back(pod: str, text: str, level: str | None, time_ns: int) -> None:
    assume(accepted(pod))
    body = log_line(LogMessage(level, text, text), pod_tag(pod), str(time_ns))
    tags = {"pod": pod} | ({"level": level} if level else {})
    assert read(body) == [Parsed("pod_log", tags, {"message": text}, time_ns)]


@CHECKED
@given(pod_names, texts, times)
def test_events_parse_back(pod: str, detail: str, time_ns: int) -> None:
    assume(accepted(pod))
    body = event_line("connected", detail, pod_tag(pod), time_ns)
    assert read(body) == [Parsed("ods_event", {"pod": pod, "event": "connected"}, {"detail": detail}, time_ns)]


@CHECKED
@given(pod_names, figures, times)
def test_a_health_parses_back(pod: str, health: dict[str, float], time_ns: int) -> None:
    assume(accepted(pod))
    body = health_line(health, pod_tag(pod), time_ns)
    fields: dict[str, float | str] = {**health}
    assert read(body) == [Parsed("ods_health", {"pod": pod}, fields, time_ns)]
    assert value_of(body) == ",".join(f"{name}={value!r}" for name, value in health.items())


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A line of any of the four kinds."""
    tag, text, time_ns = pod_tag(draw(pod_names.filter(accepted))), draw(texts), draw(times)
    return draw(
        st.sampled_from(
            [
                data_lines(points((draw(data_names), draw(floats))), tag, [str(time_ns)]),
                log_line(LogMessage(draw(st.sampled_from(LEVELS)), text, text), tag, str(time_ns)),
                event_line("outage", text, tag, time_ns),
                health_line(draw(figures), tag, time_ns),
            ]
        )
    )


@CHECKED
@given(lines())
def test_series_pod_and_time_of_a_line_are_those_of_its_point(line: str) -> None:
    """The sifter takes lines apart with these; with the newline and without it."""
    (point,) = read(line)
    for written in (line, line.rstrip("\n")):
        assert (pod_of(written), name_of(written)) == (point.tags["pod"], point.measurement)
        assert is_own(written.rstrip("\n"))
        if point.measurement != "ods_health" or "value" in point.fields:
            (value,) = point.fields.values()
            assert value_of(written) == (value if isinstance(value, str) else repr(value))
        assert time_of(written) == point.time_ns
        series = series_of(written)
        assert line.startswith(series + " ")
        assert read(f"{series} value=1.0 1\n") == [Parsed(point.measurement, point.tags, {"value": 1.0}, 1)]


@CHECKED
@given(lines(), st.data())
def test_a_line_that_was_cut_or_joined_is_not_taken_for_one(line: str, data: st.DataObject) -> None:
    """What was saved from a damaged buffer is not sent as it is: the rest of ODS would stumble over it."""
    whole = line.rstrip("\n")
    cut = whole[: data.draw(st.integers(0, whole.rindex(" ")))]
    assert not is_own(cut)
    assert not is_own(line)
    assert not is_own(line + whole)
    series = series_of(whole)
    assert not is_own(series + whole.removeprefix(f"{series} "))


def test_an_escaped_space_in_a_tag_is_not_taken_for_its_end() -> None:
    assert not is_own("ods_health,pod=0\\ _received=0.0 0")
    assert not is_own("name,pod=0\\ value=0.0 0")


@CHECKED
@given(lines(), lines())
def test_two_lines_have_one_series_exactly_where_measurement_and_tags_are_the_same(one: str, other: str) -> None:
    (first,), (second,) = read(one), read(other)
    is_same = (first.measurement, first.tags) == (second.measurement, second.tags)
    assert (series_of(one) == series_of(other)) is is_same


@CHECKED
@given(st.lists(lines(), max_size=6))
def test_lines_joined_are_as_many_points(written: list[str]) -> None:
    assert len(read("".join(written))) == len(written)


def test_no_data_points_are_no_lines() -> None:
    assert data_lines(points(), pod_tag("a"), []) == ""


@pytest.mark.parametrize("pod", ["a", "a b", "a value=1", "pod=x value=2 3"])
@pytest.mark.parametrize("name", ["accel_x", "ods_event", "ods_health", "pod_log", "ods_event2"])
def test_only_odss_own_events_and_its_health_are_events(name: str, pod: str) -> None:
    """The ledger does not count them; a data point is counted, whatever its name and its pod's."""
    assert is_event(event_line("connected", "", pod_tag(pod), 1))
    assert is_event(health_line({"received": 1, "available": True}, pod_tag(pod), 1))
    assert not is_event(log_line(LogMessage(None, "m", "m"), pod_tag(pod), "1"))
    assert not is_event(data_lines(points((name, 1.0)), pod_tag(pod), ["1"]))


# -- A real InfluxDB --------------------------------------------------------------------------------------------------

NASTY_PODS = [
    "10.0.0.20",
    "a,b",
    "a=b",
    "a b",
    ",pod=x",
    '"q"',
    "#1",
    "日本 🚄",
    "it's",
    "a/b:c",
    "= ,",
    "%2f",
    "é" * 31,
]
NASTY_NAMES = ["a", "-", "_x", "1.5", "a/b:c.d-e", "time", "pod", "value", "nan", "a" * 63, "/", "SELECT"]
NASTY_FLOATS = [0.0, -0.0, 5e-324, 1.7976931348623157e308, -1e-7, 1e16, 123456789.125, 0.1, 1 / 3, 2.0**63, -1e300]
NASTY_TEXTS = [
    *("plain", "", " ", '"', '\\"', "\\", "\\\\", "C:\\dir\\", 'a" x="b', "a,b=c d", "# no comment", "' or 1=1 --"),
    *("tab\there", "Über 300 °C 🚄", "\\n", '\\\\"', "value=1 1", "{}[]$%", "a\\ b\\,c\\=d"),
    *map(readable, (b"a\xff\xfeb", b"\x00\x01", b"a\nb", b"a\rb", "\u2028".encode(), b"\x1b[31m", b"\xed\xa0\x80")),
]


def nasty_lines(clock: Iterable[int]) -> list[str]:
    """Each pod sends each name, and each text as a message and as an event; values take turns."""
    times, values, levels = map(str, clock), itertools.cycle(NASTY_FLOATS), itertools.cycle(LEVELS)
    written: list[str] = []
    for tag in map(pod_tag, NASTY_PODS):
        for name in NASTY_NAMES:
            written += [data_lines(points((name, next(values))), tag, [next(times)])]
        for text in NASTY_TEXTS:
            written += [log_line(LogMessage(next(levels), text, text), tag, next(times))]
            written += [event_line("connected", text, tag, int(next(times)))]
        written += [health_line({"received": next(values), "stored": next(values)}, tag, int(next(times)))]
    return written


def as_field(value: float | str) -> float | str:
    """JSON knows no floats: InfluxDB prints 2.0**63 as 9223372036854776000."""
    return value if isinstance(value, str) else float(value)


def test_a_real_influxdb_reads_back_every_nasty_point(influx: InfluxServer) -> None:
    assert all(map(accepted, NASTY_PODS))
    written = nasty_lines(itertools.count(TIME_NS))
    influx.create_database("nasty")
    influx.write("nasty", "".join(written))
    found: dict[int, Parsed] = {}
    for series in influx.query("SELECT * FROM /.*/ GROUP BY *", database="nasty"):
        columns = series["columns"][1:]
        for time_ns, *row in series["values"]:
            fields = {column: as_field(value) for column, value in zip(columns, row, strict=True) if value is not None}
            tags = {key: value for key, value in series["tags"].items() if value}
            found[time_ns] = Parsed(series["name"], tags, fields, time_ns)
    assert [found.get(point.time_ns) for point in read("".join(written))] == read("".join(written))
    assert len(found) == len(written)
