"""Which part of a recording is meant: pods, patterns of names, and each way to say when."""

import argparse
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ods.errors import SettingsError
from ods.selection import MAX_NS, ListMarks, Selection, add_arguments, read, when

#: 2026-09-21T14:13:20 UTC.
BEGIN_NS = 1_790_000_000_000_000_000


@dataclass(frozen=True)
class Mark:
    number: int
    time_ns: int
    text: str


MARKS = [Mark(1, BEGIN_NS, "begin"), Mark(2, BEGIN_NS + 5, "test 3"), Mark(3, BEGIN_NS + 9, "begin")]


def selected(*arguments: str, marks: ListMarks = list) -> Selection:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return read(parser.parse_args(arguments), marks, now_ns=BEGIN_NS)


def time_of(text: str) -> int:
    return when("--from", text, lambda: MARKS, BEGIN_NS)


def test_nothing_given_selects_everything() -> None:
    selection = selected()
    assert selection == Selection()
    assert selection.has_pod("127.0.0.1") and selection.has_name("x") and selection.has_logs
    assert selection.has_time(0) and selection.has_time(MAX_NS - 1)
    assert selection.of("log", [("1", "log", "a")]) == [("1", "log", "a")]


def test_pods_and_names_are_selected() -> None:
    selection = selected("--pod", "pod-a", "--pod", "pod-b", "--name", "accel_*", "--name", "temp[12]")
    assert [selection.has_pod(pod) for pod in ("pod-a", "pod-b", "pod")] == [True, True, False]
    assert [selection.has_name(name) for name in ("accel_x", "temp1", "temp3", "Accel_x")] == [True, True, False, False]


def test_log_messages_have_no_name() -> None:
    selection = selected("--name", "*")
    assert not selection.has_logs
    assert selection.of("log", [("1", "log", "accel_x")]) == []


def test_a_span_of_time_begins_with_its_begin_and_ends_before_its_end() -> None:
    selection = Selection(names=("a*",), from_ns=10, to_ns=12)
    rows = [(str(time_ns), name, "1") for time_ns in range(9, 13) for name in ("ab", "b")]
    assert selection.of("data", rows) == [("10", "ab", "1"), ("11", "ab", "1")]


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("2026-09-21T14:13:20", BEGIN_NS),
        ("2026-09-21 14:13:20Z", BEGIN_NS),
        ("2026-09-21T16:13:20+02:00", BEGIN_NS),
        ("2026-09-21T08:43:20-0530", BEGIN_NS),
        ("2026-09-21T14:13:20.000000001", BEGIN_NS + 1),
        ("2026-09-21T14:13:20.5", BEGIN_NS + 500_000_000),
        ("2026-09-21T14:13", BEGIN_NS - 20_000_000_000),
        ("2026-09-21", BEGIN_NS - (14 * 3600 + 13 * 60 + 20) * 1_000_000_000),
        ("20260921-141320.000000007", BEGIN_NS + 7),
        ("1790000000000000003", BEGIN_NS + 3),
        ("-10m", BEGIN_NS - 600_000_000_000),
        ("-1.5h", BEGIN_NS - 5_400_000_000_000),
        ("-0s", BEGIN_NS),
        ("mark:test 3", BEGIN_NS + 5),
        ("mark:begin", BEGIN_NS + 9),
        ("mark:#1", BEGIN_NS),
    ],
)
def test_each_way_to_say_when_is_understood(text: str, expected_ns: int) -> None:
    assert time_of(text) == expected_ns
    assert selected("--from", text, marks=lambda: MARKS).from_ns == expected_ns, "a minus is no option"


@pytest.mark.parametrize(
    "text",
    ["", "now", "yesterday", "2026-13-01", "2026-09-21T25:00", "12345", "-10", "10m", "1969-12-31", "2300-01-01"],
)
def test_what_is_no_time_is_one_clear_line(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^--from: '.*' is no time"):
        time_of(text)


@pytest.mark.parametrize("text", ["mark:begi", "mark:#4", "mark:"])
def test_a_mark_that_is_not_there_is_said(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--from: no mark .* \(there are 3"):
        time_of(text)


def test_marks_are_not_read_where_none_is_named() -> None:
    def fail() -> list[Mark]:
        raise AssertionError("the recordings were read")

    assert selected("--from", "-1h", marks=fail).from_ns


def test_a_span_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(SettingsError, match="--from -1h is not before --to -2h"):
        selected("--from", "-1h", "--to", "-2h")


@given(st.text(max_size=40))
def test_no_text_is_anything_but_a_time_or_refused(text: str) -> None:
    try:
        assert 0 <= time_of(text) <= MAX_NS
    except SettingsError as error:
        assert "\n" not in str(error)
