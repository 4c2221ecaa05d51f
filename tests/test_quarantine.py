"""The quarantine in pages: what is meant is done, all of it, nothing else, and the points are counted."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ods.quarantine
from ods.buffer import Buffer
from ods.line_protocol import event_line, health_line, log_line, pod_of, pod_tag, time_of
from ods.protocol import LogMessage
from ods.quarantine import ACTIONS, Page, Selection, drop, retry, show, summarise
from ods.rows import BadLine
from ods.saved import SavedLine

CONFLICT = (
    'HTTP 400 partial write: field type conflict: input field "value" on measurement "x" is type float dropped={}'
)
UNPARSED = "HTTP 400 unable to parse '{}': bad timestamp"


class FakeDisk:
    """A disk without end."""

    def free_for_buffer_bytes(self) -> int:
        return 2**40


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    buffer = Buffer(tmp_path / "buffer.db", limit_bytes=2**30, disk=FakeDisk())  # type: ignore[arg-type]
    buffer.open()
    yield buffer
    buffer.close()


def put(buffer: Buffer, lines: list[str], reason: str = CONFLICT.format(1), database: str = "ods") -> None:
    """Put lines into the quarantine, as the sifter does."""
    bad = [
        BadLine(
            pod_of(line), time_of(line), line, reason, int(not line.startswith(("ods_event,event=", "ods_health,")))
        )
        for line in lines
    ]
    pods = Counter[str]()
    for line in bad:
        pods[line.pod] += line.points
    buffer.append(b"x", database=database, pods=pods, first_ns=1, rejected=reason)
    row = buffer.rejected()
    assert row is not None
    buffer.quarantine(row, bad)


def put_unreadable(buffer: Buffer, pods: dict[str, int]) -> None:
    """Put a row into the quarantine that nobody can read."""
    row_id = buffer.append(b"x", database="ods", pods=pods, first_ns=7)
    rows = buffer.oldest(excluding=(), limit_points=10**9, limit_bytes=10**9)
    buffer.set_aside(next(row for row in rows if row.id == row_id))


def data(name: str, pod: str, times: range) -> list[str]:
    return [f"{name}{pod_tag(pod)} value={time_ns}.5 {time_ns}" for time_ns in times]


def all_pages(action: str, buffer: Buffer, selection: Selection) -> Iterator[Page]:
    """As a command goes through them."""
    after: int | None = selection.after
    while after is not None:
        page = ACTIONS[action](buffer, replace(selection, after=after))
        selection, after = replace(selection, until=page.until), page.next_after
        yield Page.from_json(page.to_json())


def shown(buffer: Buffer, selection: Selection | None = None) -> list[str]:
    """The lines that are meant."""
    pages = all_pages("lines", buffer, selection or Selection())
    return [entry["line"] for page in pages for entry in page.entries]


def queued(buffer: Buffer) -> list[tuple[str, str]]:
    """Database and line of all that waits to be sent."""
    rows: list[tuple[str, str]] = []
    seen: list[int] = []
    while found := buffer.oldest(excluding=seen, limit_points=10**9, limit_bytes=10**9):
        seen += [row.id for row in found]
        rows += [(row.database, line) for row in found for line in row.lines()]
    return rows


X, Y, B = data("x", "a", range(1, 4)), data("y", "a", range(11, 13)), data("x", "b b", range(21, 23))


@pytest.fixture
def filled(buffer: Buffer) -> Buffer:
    put(buffer, X)
    put(buffer, Y + B, reason=UNPARSED.format(Y[0]))
    return buffer


@pytest.mark.parametrize(
    ("selection", "meant"),
    [
        (Selection(), X + Y + B),
        (Selection(pod="a"), X + Y),
        (Selection(pod="b b"), B),
        (Selection(name="x"), X + B),
        (Selection(name="x", pod="a"), X),
        (Selection(reason="field type"), X),
        (Selection(reason="bad timestamp", name="x"), B),
        (Selection(ids=(2, 5)), [X[1], Y[1]]),
        (Selection(ids=(2, 5), name="y"), [Y[1]]),
        (Selection(after=2, until=4), [X[2], Y[0]]),
        (Selection(ids=(2, 5), until=4), [X[1]]),
        (Selection(pod=""), []),
        (Selection(name="nobody"), []),
        (Selection(ids=(99,)), []),
    ],
    ids=str,
)
@pytest.mark.parametrize("page_lines", [1, 2, 1000])
def test_exactly_the_lines_that_are_meant_are_shown_retried_and_dropped(
    filled: Buffer, monkeypatch: pytest.MonkeyPatch, selection: Selection, meant: list[str], page_lines: int
) -> None:
    """However small the pages are; what is not meant stays where it is."""
    monkeypatch.setattr(ods.quarantine, "PAGE_LINES", page_lines)
    assert shown(filled, selection) == meant
    half = selection if not meant else replace(selection, until=selection.until or 4)
    retried = list(all_pages("retry", filled, half))
    gone = [line for _, line in queued(filled)]
    assert sum(page.lines for page in retried) == len(gone)
    assert gone == [line for line in meant if line in (X + Y + B)[: half.until]]
    dropped = sum(page.lines for page in all_pages("drop", filled, selection))
    assert dropped == len(meant) - len(gone)
    assert shown(filled) == [line for line in X + Y + B if line not in meant]
    totals = filled.totals()
    assert totals["pending"] == dict(Counter(map(pod_of, gone)))
    assert totals["quarantined"] == dict(Counter(pod_of(line) for line in X + Y + B if line not in meant))


def test_what_is_retried_waits_for_its_own_database_with_its_old_times(buffer: Buffer) -> None:
    put(buffer, X, database="first")
    put(buffer, Y, database="second")
    put(buffer, B, database="first")
    page = retry(buffer, Selection())
    assert sorted(queued(buffer)) == sorted([("first", line) for line in X + B] + [("second", line) for line in Y])
    assert (page.lines, page.points, page.next_after) == (7, {"a": 5, "b b": 2}, None)
    assert buffer.oldest_ns == 1
    assert [row.first_ns for row in buffer.oldest(excluding=(), limit_points=10**9, limit_bytes=10**9)] == [1]


def test_what_returns_to_the_quarantine_meanwhile_is_left_alone(
    filled: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else a retry of what InfluxDB still refuses would have no end."""
    monkeypatch.setattr(ods.quarantine, "PAGE_LINES", 2)
    for number, page in enumerate(all_pages("retry", filled, Selection())):
        put(filled, data("again", "a", range(page.lines)))
        assert number < 10
    assert shown(filled) == data("again", "a", range(2)) * 3 + data("again", "a", range(1))


def test_a_page_holds_no_more_than_its_bytes(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long messages make small pages."""
    monkeypatch.setattr(ods.quarantine, "PAGE_BYTES", 10_000)
    lines = [log_line(LogMessage(None, "m" * 3000, ""), pod_tag("a"), str(n)).rstrip("\n") for n in range(20)]
    put(buffer, lines)
    pages = list(all_pages("lines", buffer, Selection()))
    assert [entry["line"] for page in pages for entry in page.entries] == lines
    assert max(len(page.to_json()) for page in pages) < 30_000


@pytest.mark.parametrize("name", ["ods_event", "ods_health"])
def test_events_and_health_are_no_points(buffer: Buffer, name: str) -> None:
    """ODS's own lines can be quarantined, retried and dropped, and are counted nowhere."""
    written = {
        "ods_event": [event_line("x", "detail", pod_tag("a"), n).rstrip("\n") for n in range(4)],
        "ods_health": [health_line({"received": n, "torn": 0}, pod_tag("a"), n).rstrip("\n") for n in range(4)],
    }
    put(buffer, written[name])
    put(buffer, X)
    assert buffer.totals()["quarantined"] == {"a": 3}
    assert [entry["line"] for entry in show(buffer, Selection(name=name)).entries] == written[name]
    page = retry(buffer, Selection(name=name, until=2))
    assert (page.lines, page.points) == (2, {})
    page = drop(buffer, Selection(name=name))
    assert (page.lines, page.points) == (2, {})
    assert buffer.totals() == {"pending": {}, "quarantined": {"a": 3}}
    assert len(queued(buffer)) == 2


def test_what_cannot_be_read_is_shown_and_stays_until_it_is_dropped(buffer: Buffer) -> None:
    put(buffer, X)
    put_unreadable(buffer, {"a": 5, "c": 2})
    page = show(buffer, Selection(pod="c"))
    (entry,) = page.entries
    assert (entry["unreadable"], entry["points"], entry["name"], entry["value"]) == (True, 7, None, None)
    assert bytes.fromhex(entry["line"])
    assert show(buffer, Selection(name="x")).unreadable == 0
    page = retry(buffer, Selection())
    assert (page.lines, page.points, page.unreadable) == (3, {"a": 3}, 1)
    page = retry(buffer, Selection())
    assert (page.lines, page.points, page.unreadable) == (0, {}, 1)
    assert buffer.totals() == {"pending": {"a": 3}, "quarantined": {"a": 5, "c": 2}}
    page = drop(buffer, Selection())
    assert (page.lines, page.points, page.unreadable) == (1, {"a": 5, "c": 2}, 0)
    assert buffer.totals() == {"pending": {"a": 3}, "quarantined": {}}


@pytest.mark.parametrize(
    "line",
    ["", "x", "x,pod=a value=1.0", "x,pod=b value=1.0 1", "x,pod=a value=1.0 2", "x,pod=a value=1.0 1\n", "é \0"],
)
def test_what_was_saved_from_a_damaged_buffer_and_is_no_line_is_treated_alike(buffer: Buffer, line: str) -> None:
    """Nothing stumbles over it, nothing sends it."""
    put(buffer, X)
    buffer.restore([SavedLine(1, "ods", "a", 1, line, "conflict")], buffer.path, 1)
    (entry,) = [entry for entry in show(buffer, Selection()).entries if entry["unreadable"]]
    assert (entry["line"], entry["pod"], entry["points"], entry["name"]) == (line, "a", 1, None)
    assert len(summarise(buffer, Selection()).entries) == 2
    page = retry(buffer, Selection())
    assert (page.lines, page.unreadable) == (3, 1)
    assert drop(buffer, Selection()).points == {"a": 1}
    assert buffer.totals() == {"pending": {"a": 3}, "quarantined": {}}


@pytest.mark.parametrize(("pods", "points"), [('{"a": 5, "c": 2}', {"a": 5, "c": 2}), ('{"a"', {'{"a"': 1})])
def test_an_unreadable_row_that_was_saved_is_counted_by_its_pods(
    buffer: Buffer, pods: str, points: dict[str, int]
) -> None:
    buffer.restore([SavedLine(1, "ods", pods, 1, "00ff", "checksum")], buffer.path, 1)
    assert buffer.totals()["quarantined"] == points
    assert drop(buffer, Selection()).points == points
    assert buffer.totals()["quarantined"] == {}


def test_a_summary_tells_pods_names_and_causes_apart_and_nothing_else(buffer: Buffer) -> None:
    """InfluxDB's reason holds a count, or the line itself; the cause is the same."""
    for count, line in enumerate(X):
        put(buffer, [line], reason=CONFLICT.format(count))
    for line in Y:
        put(buffer, [line], reason=UNPARSED.format(line))
    put(buffer, B, reason=CONFLICT.format(2))
    put_unreadable(buffer, {"a": 1})
    groups = summarise(buffer, Selection()).entries
    found = {(group["pod"], group["name"]): (group["lines"], group["first_ns"], group["last_ns"]) for group in groups}
    assert found == {("a", "x"): (3, 1, 3), ("a", "y"): (2, 11, 12), ("b b", "x"): (2, 21, 22), ("a", None): (1, 7, 7)}
    assert len(groups) == 4
    assert {group["reason"] for group in groups if group["name"] == "y"} == {
        "HTTP 400 unable to parse '': bad timestamp"
    }


def test_every_line_is_shown_with_what_it_holds(buffer: Buffer) -> None:
    message = log_line(LogMessage("warn", 'a "b" \\ c', ""), pod_tag("a"), "9").rstrip("\n")
    put(buffer, [X[0], message], database="other")
    first, second = show(buffer, Selection()).entries
    assert first == {
        "id": 1,
        "time_ns": 1,
        "pod": "a",
        "database": "other",
        "name": "x",
        "value": "1.5",
        "points": 1,
        "reason": CONFLICT.format(1),
        "line": X[0],
        "unreadable": False,
    }
    assert (second["name"], second["value"]) == ("pod_log", 'a "b" \\ c')


def test_nothing_is_quarantined_at_first(buffer: Buffer) -> None:
    for action in ACTIONS.values():
        assert action(buffer, Selection()) == Page()


texts = st.none() | st.text(st.characters(codec="utf-8"))
numbers = st.integers(0, 2**62)


@given(pod=texts, name=texts, reason=texts, ids=st.lists(numbers).map(tuple), after=numbers, until=st.none() | numbers)
def test_a_selection_survives_its_way_through_a_url(
    pod: str | None, name: str | None, reason: str | None, ids: tuple[int, ...], after: int, until: int | None
) -> None:
    selection = Selection(pod=pod, name=name, reason=reason, ids=ids, after=after, until=until)
    assert Selection.from_query(selection.to_query()) == selection


@pytest.mark.parametrize(
    "query", ["pods=a", "pod", "id=x", "until=", "a=1&pod=b", "pod=a;drop=1&x", f"after={2**63}", f"id={-(2**63) - 1}"]
)
def test_a_selection_that_is_not_understood_selects_nothing(query: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Selection.from_query(query)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"not found", json.dumps({"error": "x"}).encode()])
def test_an_answer_of_another_version_is_not_understood(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Page.from_json(text)


def test_the_quarantine_is_never_read_whole(filled: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page asks the file for its lines alone, by their ids."""
    db = filled.file.if_open
    assert db is not None
    statements: list[str] = []
    db.conn.set_trace_callback(statements.append)
    monkeypatch.setattr(ods.quarantine, "PAGE_LINES", 2)
    for action in ("lines", "summary", "retry"):
        ACTIONS[action](filled, Selection())
    db.conn.set_trace_callback(None)
    (plan,) = {
        db.execute(f"EXPLAIN QUERY PLAN {statement}").fetchone()[3]
        for statement in statements
        if "FROM quarantine WHERE" in statement and statement.startswith("SELECT")
    }
    assert plan.startswith("SEARCH quarantine USING INTEGER PRIMARY KEY")
