"""How a recording is written: names that any file system takes, rows that read back."""

import csv
import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import unquote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ods.data_points import DataPoints
from ods.encoder import encode
from ods.errors import SettingsError
from ods.options import parse
from ods.protocol import Decoder, MarkText, NameBook, NoRecord, Record, readable
from ods.recording import (
    HEADERS,
    Row,
    data_rows,
    folder_name,
    log_row,
    pod_of_folder,
    points_of,
    rows_of,
    segment_begin,
    segment_name,
)

CHECKED = settings(deadline=None, max_examples=120)

SECOND_NS = 1_000_000_000
TIMES_NS = st.integers(0, 8_000_000_000 * SECOND_NS)

names = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    st.text(st.sampled_from("aAbB.%2e~/\\:*?<>|\" '-_"), min_size=1, max_size=12),
    st.ip_addresses().map(str),
)

FOLDERS = {
    "10.0.0.20": "10.0.0.20",
    "pod-a_1": "pod-a_1",
    "Pod A": "%50od%20%41",
    "fe80::1": "fe80%3a%3a1",
    ".": "%2e",
    "..": "%2e%2e",
    "...": "%2e.%2e",
    ".hidden.": "%2ehidden%2e",
    "a/b": "a%2fb",
    "100%": "100%25",
    "ü": "%c3%bc",
}


@pytest.mark.parametrize(("pod", "folder"), FOLDERS.items())
def test_a_folder_is_the_pods_name_percent_encoded(pod: str, folder: str) -> None:
    """All but lower-case letters, digits and `-_.`; a dot at either end too, which means something to file systems."""
    assert folder_name(pod) == folder


@CHECKED
@given(names)
def test_a_folder_holds_no_character_that_a_fat_card_refuses(pod: str) -> None:
    assert re.fullmatch(r"(?!\.)([a-z0-9_.-]|%[0-9a-f]{2})+(?<!\.)", folder_name(pod))


@CHECKED
@given(names)
def test_a_folder_tells_its_pod(pod: str) -> None:
    """So two pods never share one. A FAT card that ignores case cannot mix them either: there are no capitals."""
    assert unquote(folder_name(pod), errors="strict") == pod_of_folder(folder_name(pod)) == pod
    assert folder_name(pod) == folder_name(pod).lower()


@CHECKED
@given(names)
def test_the_folder_of_any_pod_that_an_operator_may_name_fits_a_file_system(pod: str) -> None:
    try:
        parse([f"--pod=10.0.0.1={pod}"], {"HOME": "/"})
    except SettingsError:
        assume(False)
    assert len(folder_name(pod)) <= 255


def test_a_segments_name_is_its_begin_in_utc() -> None:
    assert segment_name(1_790_000_000 * SECOND_NS + 7, "data") == "20260921-141320.000000007.data.csv"
    assert segment_name(0, "log") == "19700101-000000.000000000.log.csv"


@CHECKED
@given(TIMES_NS, TIMES_NS, st.sampled_from(sorted(HEADERS)))
def test_segments_sort_by_time(one_ns: int, other_ns: int, kind: str) -> None:
    assert (segment_name(one_ns, kind) < segment_name(other_ns, kind)) is (one_ns < other_ns)


@CHECKED
@given(TIMES_NS, st.sampled_from(sorted(HEADERS)))
def test_a_segments_name_tells_its_begin_and_holds_nothing_odd(first_ns: int, kind: str) -> None:
    name = segment_name(first_ns, kind)
    match = re.fullmatch(rf"([0-9]{{8}}-[0-9]{{6}})\.([0-9]{{9}})\.{kind}\.csv", name)
    assert match is not None
    begin = datetime.strptime(match[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    assert int(begin.timestamp()) * SECOND_NS + int(match[2]) == first_ns
    for state in ("", ".open", ".gz"):
        assert segment_begin(name + state) == (first_ns, kind)


@pytest.mark.parametrize("name", ["notes.csv", "20260921-141320.000000007.data.csv.part", "x20260921-141320.0.log.csv"])
def test_what_is_called_otherwise_is_no_segment(name: str) -> None:
    with pytest.raises(ValueError, match="no segment"):
        segment_begin(name)


@pytest.mark.parametrize("folder", ["Pod", "a b", "%41%4", "%FF", "%ff", "a%2eb"])
def test_what_no_pod_made_is_no_pods_folder(folder: str) -> None:
    with pytest.raises(ValueError, match=r"no pod's folder|codec can't decode"):
        pod_of_folder(folder)


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def test_the_first_row_names_the_columns() -> None:
    assert read(HEADERS["data"].decode()) == [["time_ns", "name", "value"]]
    assert read(HEADERS["log"].decode()) == [["time_ns", "kind", "text"]]


data_names = st.text("abcXYZ019_.:/-", min_size=1, max_size=63)
numbers = st.from_regex(r"\A[+-]?([0-9]{1,20}(\.[0-9]{0,9})?|\.[0-9]{1,9})([eE][+-]?[0-9]{1,2})?\Z")


@CHECKED
@given(st.lists(st.tuples(TIMES_NS.map(str), data_names, numbers), max_size=12))
def test_data_rows_keep_the_value_as_the_pod_sent_it(rows: list[tuple[str, str, str]]) -> None:
    points = DataPoints([row[1] for row in rows], [row[2] for row in rows], ["9.9"] * len(rows))
    written = data_rows(points, [row[0] for row in rows])
    assert read(written) == [list(row) for row in rows]
    assert written.count("\n") == len(rows)


texts = st.one_of(
    st.binary(max_size=40).map(readable),
    st.text("\",'\\ \t\n\r=;#x", max_size=20).map(lambda text: readable(text.encode())),
)


@CHECKED
@given(st.lists(st.tuples(TIMES_NS.map(str), st.sampled_from(["log", "invalid", "torn", "mark"]), texts), max_size=8))
def test_log_rows_keep_the_text(rows: list[tuple[str, str, str]]) -> None:
    written = "".join([log_row(*row) for row in rows])
    assert read(written) == [list(row) for row in rows]
    assert written.count("\n") == len(rows), "a row is one line, so that a half one is seen"


# -- Read back --------------------------------------------------------------------------------------------------------

streams = st.lists(
    st.one_of(
        st.tuples(data_names, numbers).map(lambda point: f"POD2{point[0]} {point[1]}\n".encode()),
        st.binary(max_size=60).map(lambda text: b"POD1" + text),
        st.sampled_from(
            [b"POD1[WARN]  ", b'POD1[INFO] "x"', b"POD1[FATAL] \xff,", b"POD2x nan\n", b"rubbish\n", b"\n"]
        ),
        st.binary(max_size=30),
    ),
    max_size=12,
).map(b"".join)


@CHECKED
@given(streams)
def test_what_a_stream_left_in_the_recordings_makes_the_same_points_again(stream: bytes) -> None:
    """To the byte, so that InfluxDB takes each for the point that it may have already."""
    decoder = Decoder(NameBook(1000))
    records = [*decoder.feed(stream).records, *decoder.finish().records]
    count = sum(len(record) if isinstance(record, DataPoints) else 1 for record in records)
    times = [str(1_790_000_000 * SECOND_NS + number) for number in range(count)]
    once = encode(records, ",pod=a", times)
    again: list[bytes] = []
    for kind, rows in (("data", once.data_rows), ("log", once.log_rows)):
        points, point_times = points_of(kind, rows_of(kind, rows))
        again += encode(points, ",pod=a", point_times).lines.splitlines()
        assert len(rows_of(kind, rows)) == rows.count(b"\n")
    assert sorted(again, key=_time) == once.lines.splitlines()


def _time(line: bytes) -> int:
    return int(line.rpartition(b" ")[2])


@CHECKED
@given(texts)
def test_the_row_of_a_mark_makes_the_same_event_again_which_the_ledger_does_not_count(text: str) -> None:
    once = encode([MarkText(text)], ",pod=ods", ["7"])
    again = encode(*points_of_log(rows_of("log", once.log_rows)))
    assert again == once
    assert (once.points, once.log_rows.count(b"\n")) == (0, 1)
    assert once.lines.startswith(b"ods_event,event=mark,pod=ods detail=")


def points_of_log(rows: list[Row]) -> tuple[Sequence[Record], str, list[str]]:
    """What `encode` is given."""
    records, times = points_of("log", rows)
    return records, ",pod=ods", times


def test_a_row_that_was_no_record_makes_no_point() -> None:
    records: list[Record] = [NoRecord("invalid", "POD2x nan"), NoRecord("torn", "POD2x 1")]
    rows = rows_of("log", encode(records, ",pod=a", ["1", "2"]).log_rows)
    assert rows == [("1", "invalid", "POD2x nan"), ("2", "torn", "POD2x 1")]
    assert points_of("log", rows) == ([], [])
    assert points_of("data", []) == ([], [])


@pytest.mark.parametrize(
    "row",
    [
        b"1,x",
        b"1,x,",
        b"1,x,1,2",
        b"x,1,1",
        b"12\x00\x00,x,1",
        b"1,x,nan",
        b"\x00" * 40,
        b"99999999999999999999,x,1",
        b"9300000000000000000,x,1",
    ],
)
def test_what_is_no_whole_row_of_data_is_left_out(row: bytes) -> None:
    """Such as a power cut leaves: zeros, or the halves of two rows."""
    assert rows_of("data", b"time_ns,name,value\n1,x,1\n" + row + b"\n2,y,.5\n") == [("1", "x", "1"), ("2", "y", ".5")]


@pytest.mark.parametrize(
    "row",
    [
        b"1,log,m",
        b'1,log,"m',
        b'1,log,"m"n"',
        b'1,other,"m"',
        b'1,log,"m\x00"',
        b'1,log,"\xff"',
        b'1,log,"m""',
        b"\x00",
    ],
)
def test_what_is_no_whole_row_of_messages_is_left_out(row: bytes) -> None:
    assert rows_of("log", b'1,log,"a"\n' + row + b'\n2,torn,""\n') == [("1", "log", "a"), ("2", "torn", "")]


def test_a_long_damaged_row_takes_no_long_time() -> None:
    """No expression that tries every way to cut it."""
    assert rows_of("log", b'1,log,"' + b'""a' * 100_000 + b"\n") == []
