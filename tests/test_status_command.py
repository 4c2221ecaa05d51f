"""`ods status`: its views, made from snapshots by hand, and the command in pipes and terminals of every kind."""

import contextlib
import copy
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness import snapshots
from harness.loopback import free_port
from harness.ods_process import REPOSITORY, OdsProcess, environment
from harness.pod_client import PodClient
from harness.snapshots import NOW_NS, SECOND_NS, Snapshot, counts, live, never_seen, pod
from harness.wait import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from ods.errors import Unreachable
from ods.status_source import FirstOf, Source, at_url, in_directory
from ods.status_view import plain
from ods.status_view.boot import boot
from ods.status_view.reading import Part, clean
from ods.status_view.screen import NOT_ALL, Fitted, Screen
from ods.status_view.words import age, clock_time, count, full_time, size, span

KEPT, DROPPED, WRONG_USAGE, FAILED = 0, 1, 2, 3
TIMEOUT_SECONDS = 30

#: Everything by which a pod could play with a terminal: colour, title, clearing, bell, C1, lines, direction, markup.
HOSTILE = (
    "[red]x[/red] [/] \x1b[2J\x1b]0;title\x07 \x9b31m a\nsentence: live: b\rc\t\x00\x7f \u202e\u2028 :smile: \ud800 🚀"
)

STATES = {
    "live": lambda: live(pod("pod-a"), pod("10.0.0.117", connected=False, invalid=3), never_seen("pod-c")),
    "buffering": snapshots.buffering,
    "draining": snapshots.draining,
    "losing": snapshots.losing,
    "nobody": lambda: live(never_seen("pod-c")),
    "older": snapshots.of_an_older_ods,
    "nothing": dict,
}
in_every_state = pytest.mark.parametrize("state", STATES)


def screen(snapshot: Snapshot, *, width: int = 80, color: str | None = None, **options: Any) -> str:
    """What a terminal of this width is given."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=True, color_system=color, markup=False, highlight=False, emoji=False
    )
    console.print(Screen(Part(snapshot), source="/var/lib/ods", **options))
    return file.getvalue()


def words(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


def lines(snapshot: Snapshot, **options: Any) -> list[str]:
    return list(plain.lines(Part(snapshot), source="/var/lib/ods", **options))


def pairs(line: str) -> dict[str, str]:
    """What a script makes of `label: key=value ...`."""
    found = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', line)
    return {key: json.loads(value) if value.startswith('"') else value for key, value in found}


def labelled(label: str, snapshot: Snapshot) -> list[dict[str, str]]:
    return [pairs(line) for line in lines(snapshot) if line.startswith(f"{label}: ")]


def plain_text(shown: str) -> str:
    """Without colours and movements."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)


# --- words


def test_numbers_and_times_are_short_and_what_is_unknown_is_a_question_mark() -> None:
    assert [count(number) for number in (None, 0, 999, 1234567)] == ["?", "0", "999", "1 234 567"]
    assert [size(number) for number in (None, 0, 999, 40_960, 10 * 2**30)] == [
        "?",
        "0 B",
        "999 B",
        "41.0 kB",
        "10.7 GB",
    ]
    assert [age(seconds) for seconds in (None, -1, 0.12, 42.4, 3725)] == ["?", "0.0 s", "0.1 s", "42 s", "1:02:05"]
    assert [span(seconds) for seconds in (None, 3.8)] == ["?", "0:00:04"]
    assert re.fullmatch(r"\d\d:\d\d:\d\d", clock_time(NOW_NS, NOW_NS))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", clock_time(NOW_NS, NOW_NS + 40 * 3600 * SECOND_NS))
    assert (clock_time(None), clock_time(-(10**23)), full_time(10**23)) == ("?", "?", None)
    assert str(full_time(NOW_NS)).startswith("2025-11-2")


def test_foreign_text_loses_all_that_a_terminal_would_obey() -> None:
    harmless = clean(HOSTILE)
    assert all(character.isprintable() for character in harmless)
    assert "[red]x[/red]" in harmless and r"\x1b[2J" in harmless and r"\u202e" in harmless and "🚀" in harmless
    assert clean("12\u202f345\xa0m") == "12 345 m"


# --- the screen


@in_every_state
@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_nothing_is_wider_than_the_terminal(state: str, width: int) -> None:
    for only_boot in (False, True):
        shown = screen(STATES[state](), width=width, only_boot=only_boot)
        assert max(cell_len(line) for line in shown.splitlines()) <= width


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_figures_are_there_at_every_width(width: int) -> None:
    shown = words(screen(snapshots.buffering(), width=width))
    for text in ("12345 points wait safely", "Disk for 57 hours.", "connection refused", "12 345 pending", "0:01:12"):
        assert text in shown, shown
    shown = words(screen(STATES["live"](), width=width))
    for text in ("pod-a", "connected", "1 234", "Pushing", "reset by the pod", "3 invalid", "never seen", "57 hours"):
        assert text in shown, shown


def test_on_80_columns_a_pod_is_a_line_and_on_40_a_block() -> None:
    (row,) = [line for line in screen(live(pod("10.100.100.117"))).splitlines() if "10.100.100.117" in line]
    assert "1 000" in row
    shown = screen(live(pod("10.100.100.117")), width=40)
    assert "  1 000 received, 1 000 stored\n" in shown


def test_columns_stay_as_they_are_when_a_pod_begins_to_have_other_counts() -> None:
    """A view that is watched must not jump."""
    before, after = (screen(live(pod("pod-a"), pod("pod-b", **more))) for more in ({}, {"dropped": 7, "pending": 9}))
    assert [line for line in after.splitlines() if "7 dropped" not in line][-8:] == before.splitlines()[-8:]


@pytest.mark.parametrize(
    ("state", "color"), [("live", "42"), ("buffering", "43"), ("draining", "46"), ("losing", "41")]
)
def test_the_sentence_has_its_colour(state: str, color: str) -> None:
    shown = screen(STATES[state](), color="standard")
    (line,) = [line for line in shown.splitlines() if STATES[state]()["sentence"]["text"][:20] in line]
    assert re.search(rf"\x1b\[[\d;]*\b{color}m", line), repr(line)


def test_that_points_are_dropped_outweighs_the_sentence() -> None:
    """As of an ODS whose two answers are a moment apart."""
    assert "Losing data" in screen(live() | {"healthy": False})
    assert lines(live() | {"healthy": False})[0].startswith("sentence: losing: Losing data")


def test_a_drain_has_a_bar_with_its_rate_and_the_time_left() -> None:
    shown = screen(snapshots.draining(drained=31_000, points=19_000))
    assert "[" + "#" * 23 + "-" * 15 + "]" in shown
    assert "62 %, 31 000 of 50 000 points, 5 000 a second, 0:00:04 left" in shown
    colored = plain_text(screen(snapshots.draining(), color="standard"))
    assert re.search(r"━ *\n +62 %, 31 000 of 50 000 points, 5 000 a second, 0:00:04 left", colored)
    assert "Drain" not in screen(live(pod("pod-a")))


@pytest.mark.parametrize(
    ("drained", "points", "percent"), [(0, 5, "0 %"), (999, 1, "99 %"), (5, 0, "100 %"), (9, -5, "100 %")]
)
def test_a_bar_is_never_full_before_the_end(drained: int, points: int, percent: str) -> None:
    assert f" {percent}," in screen(snapshots.draining(drained, points))


def test_outages_are_told_with_their_reason_and_drain() -> None:
    snapshot = live(pod("pod-a"))
    ended_ns = NOW_NS - 100 * SECOND_NS
    over = {"began_ns": ended_ns - 60 * SECOND_NS, "ended_ns": ended_ns, "seconds": 60.0, "reason": "timed out"}
    over |= {"drained_ns": ended_ns + 4 * SECOND_NS}
    snapshot |= {"outages": {"count": 9, "seconds": 61.0, "latest": [over] * 9}, "largest_backlog": 777}
    shown = words(screen(snapshot, width=200))
    assert "9 in this run, 0:01:01 in all, largest backlog 777 points" in shown
    assert shown.count("(0:01:00): timed out; drained in 0:00:04") == 3
    assert len(labelled("outage", snapshot)) == 9


def test_what_asks_for_attention_is_told() -> None:
    snapshot = live(pod("pod-a"))
    snapshot["sentence"]["notes"] = ["Stands still: drain.", "Not seen yet: pod-c."]
    snapshot["recordings"] = {"recording": False, "unrecorded": 5, "bytes": None}
    shown = words(screen(snapshot, width=200))
    for text in ("! Stands still: drain.", "! Not seen yet: pod-c.", "paused", "5 records were not recorded"):
        assert text in shown
    assert "Stands still drain" in words(screen(snapshots.of_an_older_ods() | {"standing_still": ["drain"]}))


def test_an_old_view_does_not_look_as_if_it_were_true_now() -> None:
    shown = screen(live(pod("pod-a")), color="standard", stale="No ODS answers: [bold]gone")
    assert shown.index("No ODS answers: [bold]gone") < shown.index("Live: every")
    rest = shown[shown.index("ODS 0.1.0") :]
    assert set(re.findall(r"\x1b\[([\d;]*)m", rest)) == {"2", "0"}, "colours are for what is so now"
    assert "ODS ?" not in screen({}, stale="No ODS answers"), "nothing was seen: there is nothing to show"


@pytest.mark.parametrize("height", [1, 2, 5, 200])
def test_what_is_higher_than_the_terminal_is_cut_and_says_so(height: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, height=height, force_terminal=True, color_system=None)
    whole = screen(live(pod("pod-a"))).splitlines()
    console.print(Fitted(Screen(Part(live(pod("pod-a"))), source="/var/lib/ods")), height=height)
    shown = file.getvalue().splitlines()
    assert [line.rstrip() for line in shown[: height - 1]] == [line.rstrip() for line in whole[: height - 1]]
    if height < len(whole):
        assert (len(shown), shown[-1].strip()) == (height, NOT_ALL)


def test_of_many_pods_a_watch_makes_no_more_than_fit() -> None:
    snapshot = live(*(pod(f"pod-{number:03}") for number in range(500)))
    shown = screen(snapshot, most_pods=24)
    assert "Pods: 500, 500 connected" in shown and "pod-023" in shown and "pod-024" not in shown
    assert "pod-499" in screen(snapshot)


# --- lines for a pipe


def test_each_line_has_a_label_and_values_that_a_script_can_take() -> None:
    snapshot = STATES["live"]()
    assert lines(snapshot)[0] == "sentence: live: Live: every point is in InfluxDB."
    (totals,) = labelled("totals", snapshot)
    assert {key: int(value) for key, value in totals.items()} == snapshot["totals"]
    states = [(found["name"], found["state"], found["left_how"]) for found in labelled("pod", snapshot)]
    assert states == [
        ("10.0.0.117", "left", "reset by the pod"),
        ("pod-a", "connected", "-"),
        ("pod-c", "never_seen", "-"),
    ]
    (influx,) = labelled("influx", snapshots.buffering())
    assert (influx["available"], influx["last_error"]) == ("no", "connection refused")
    (drain,) = labelled("drain", snapshots.draining())
    assert (drain["drained_points"], drain["drain_total_points"], drain["eta_seconds"]) == ("31000", "50000", "3.8")
    assert not labelled("drain", snapshot)


def test_lines_of_a_watch_begin_with_the_time_and_the_level() -> None:
    line = plain.one_line(Part(snapshots.losing()))
    assert "\n" not in line
    found = pairs(line)
    assert list(found)[:2] == ["time", "level"]
    assert (found["level"], found["dropped"], found["received"]) == ("losing", "1234", "20000")
    assert pairs(plain.trouble_line("No ODS answers", NOW_NS))["level"] == "unreachable"


# --- why does the pod not boot?


def test_when_no_pod_is_connected_the_reason_stands_before_the_rest() -> None:
    shown = screen(live(never_seen("pod-c")))
    assert shown.index("Why does the pod not boot?") < shown.index("InfluxDB  ")
    assert "Why does" not in screen(live(pod("pod-a"), never_seen("pod-c")))
    shown = screen(live(pod("pod-a"), never_seen("pod-c")), only_boot=True)
    assert "Why does" in shown and "Disk" not in shown


def conclusion(snapshot: Snapshot) -> str:
    found = boot(Part(snapshot)).conclusion
    assert found in words(screen(snapshot, width=300, only_boot=True))
    assert f"boot: {found}" in lines(snapshot, only_boot=True)
    return found


def refused(seconds_ago: float) -> Snapshot:
    last_ns = NOW_NS - int(seconds_ago * SECOND_NS)
    peer = {"address": "10.9.0.1", "count": 12, "last_ns": last_ns, "reason": "it is in no network given by --allow"}
    return {"refused": [peer], "refused_total": 12}


def test_the_conclusion_names_who_was_refused() -> None:
    assert "10.9.0.1 tried to connect and was refused" in conclusion(live(pod("pod-a")) | refused(30))
    assert "10.9.0.1 tried to connect and was refused" in conclusion(live() | refused(9999))
    assert "10.9.0.1" not in conclusion(live(pod("pod-a")) | refused(9999))
    shown = words(screen(live() | refused(30), width=200))
    assert "10.9.0.1, 12 times, last at" in shown and "(0:00:30 ago): it is in no network" in shown


def test_the_conclusion_when_nobody_tried_is_that_the_pod_does_not_get_here() -> None:
    snapshot = live(never_seen("pod-c"))
    assert "nobody has tried to connect since it started 1:02:05 ago" in conclusion(snapshot)
    shown = words(screen(snapshot, width=200))
    for text in ("10.0.0.1 port 7778", "192.168.1.4 port 7778", "allowed 10.0.0.0/24", "pod-c (10.0.0.12): never seen"):
        assert text in shown
    snapshot["listening"]["allow"] = []
    assert "allowed every network" in words(screen(snapshot))


def test_the_conclusion_when_ods_listens_on_loopback_alone_is_what_to_do() -> None:
    snapshot = live()
    snapshot["listening"]["addresses"] = ["127.0.0.1", "::1"]
    assert "--host 0.0.0.0" in conclusion(snapshot)


def test_the_conclusion_when_a_pod_has_left_is_how() -> None:
    found = conclusion(live(pod("b", connected=False), pod("a", connected=False, seconds_ago=9, left_how="timed out")))
    assert re.search(r"the last was a, left [\d:]+: timed out", found)
    shown = words(screen(live(pod("b", connected=False)), width=200))
    assert re.search(r"b \(10\.0\.0\.12\): connected [\d:]+, left [\d:]+ \(0:01:40 ago\): reset by the pod", shown)


def test_the_conclusion_when_all_is_well_names_who_is_still_missing() -> None:
    assert conclusion(live(pod("a"), pod("b"))) == "ODS accepts pods, 2 are connected."
    assert conclusion(live(pod("a"), never_seen("c"))) == "ODS accepts pods, 1 is connected; never seen: c."


# --- snapshots of other versions, and of the hostile


def test_of_an_older_ods_it_is_not_said_that_a_pod_was_never_there() -> None:
    """It does not tell."""
    snapshot = snapshots.of_an_older_ods()
    snapshot["pods"][0] |= {"connected": False, "last_seen_seconds": None}
    assert labelled("pod", snapshot)[0]["state"] == "away"


def everything(snapshot: Snapshot) -> str:
    """All views at once."""
    part = Part(snapshot)
    shown = [screen(snapshot, width=width, only_boot=only) for width in (40, 200) for only in (False, True)]
    return "\n".join([*shown, *lines(snapshot), *lines(snapshot, only_boot=True), plain.one_line(part)])


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in a snapshot."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from paths(inner, (*at, key))


def broken(snapshot: Snapshot, way: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Snapshot:
    made: Any = copy.deepcopy(snapshot)
    inner = made
    for key in way[:-1]:
        inner = inner[key]
    change(inner, way[-1])
    return dict(made)


RICH = snapshots.draining() | refused(30) | {"outages": snapshots.buffering()["outages"], "standing_still": ["drain"]}
RICH["pods"] += [pod("b", connected=False), never_seen("c")]


@pytest.mark.parametrize("way", list(paths(RICH)), ids=lambda way: ".".join(map(str, way)))
def test_a_snapshot_that_lacks_something_is_shown(way: tuple[Any, ...]) -> None:
    def delete(inner: Any, key: Any) -> None:
        del inner[key]

    everything(broken(RICH, way, delete))


def junk() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(HOSTILE) | st.just(10**400)
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2)
    )


@settings(max_examples=100, deadline=None)
@given(way=st.sampled_from(list(paths(RICH))), value=junk())
def test_a_snapshot_with_something_else_in_it_is_shown(way: tuple[Any, ...], value: Any) -> None:
    everything(broken(RICH, way, lambda inner, key: inner.__setitem__(key, value)))


def test_hostile_text_anywhere_reaches_no_terminal_as_such() -> None:
    snapshot = copy.deepcopy(RICH)
    for way in paths(RICH):
        snapshot = broken(snapshot, way, lambda inner, key: _make_hostile(inner, key))
    shown = everything(snapshot) + screen(snapshot, stale=HOSTILE, width=200)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert "[red]x[/red] [/]" in shown and ":smile:" in shown
    labels = [line for line in lines(snapshot) if line.startswith("sentence: ")]
    assert len(labels) == 1, "a message with a newline must not forge a line"
    assert pairs(next(line for line in lines(snapshot) if line.startswith("pod: ")))["name"] == clean(HOSTILE)


def _make_hostile(inner: Any, key: Any) -> None:
    if isinstance(inner[key], str):
        inner[key] = HOSTILE


# --- where it asks


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("http://10.0.0.5:7777", "http://10.0.0.5:7777"),
        ("10.0.0.5", "http://10.0.0.5:7777"),
        ("board:1234/", "http://board:1234"),
        ("http://board", "http://board"),
        ("https://proxy/ods/", "https://proxy/ods"),
        ("http://127.0.0.1:7777/api/status", "http://127.0.0.1:7777"),
        ("http://[::1]:7777", "http://[::1]:7777"),
    ],
)
def test_an_address_may_be_given_as_people_write_it(given: str, name: str) -> None:
    assert (at_url(given).name, at_url(given).where) == (name, f"at {name}")


@pytest.mark.parametrize("given", ["", "ftp://x", "http://", "http://x:port", "http://u:secret@x", "http://[::1"])
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ValueError):
        at_url(given)


def test_of_several_sources_the_first_that_answers_is_taken(tmp_path: Path) -> None:
    def answer(_path: str, _timeout_seconds: float) -> tuple[int, bytes]:
        return 200, b'{"totals": {}, "healthy": true}'

    source = FirstOf([in_directory(tmp_path / "none"), Source("b", "at b", answer)])
    assert source.fetch(1.0) == {"totals": {}, "healthy": True}
    assert source.name == "b"
    with pytest.raises(Unreachable, match="none runs there"):
        FirstOf([in_directory(tmp_path), in_directory(tmp_path / "none")]).fetch(1.0)


# --- the command


class FakeOds:
    """Answers `/api/status` with a snapshot made by hand."""

    def __init__(self) -> None:
        fake = self
        self.snapshot: Snapshot = live(pod("pod-a"))
        self.body: bytes | None = None
        self.healthz = 200

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, body = fake.answer(self.path)
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # who asked is gone
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str) -> tuple[int, bytes]:
        if path == "/healthz":
            return self.healthz, b""
        body = self.body if self.body is not None else json.dumps(self.snapshot).encode()
        return (200 if path == "/api/status" else 404), body


@pytest.fixture
def fake() -> Iterator[FakeOds]:
    ods = FakeOds()
    thread = threading.Thread(target=ods.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield ods
    ods.server.shutdown()
    thread.join()
    ods.server.server_close()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ods", "status", *arguments]


def run(home: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it where there is no terminal."""
    options = {"stdout": subprocess.PIPE, "env": environment(home)} | options
    return subprocess.run(
        command(*arguments), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_SECONDS, **options
    )


def test_the_exit_status_tells_a_script_whether_points_are_kept(fake: FakeOds, tmp_path: Path) -> None:
    for snapshot, status in ((live(pod("a")), KEPT), (snapshots.buffering(), KEPT), (snapshots.losing(), DROPPED)):
        fake.snapshot = snapshot
        for arguments in ([], ["--json"], ["--boot"]):
            done = run(tmp_path, "--url", fake.url, *arguments)
            assert (done.returncode, done.stderr) == (status, "")


def test_an_older_ods_is_asked_whether_it_is_healthy(fake: FakeOds, tmp_path: Path) -> None:
    fake.snapshot = snapshots.of_an_older_ods()
    del fake.snapshot["healthy"]
    for fake.healthz, status in ((200, KEPT), (503, DROPPED)):
        done = run(tmp_path, "--url", fake.url)
        assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--watch", "0"],
        ["--watch", "nan"],
        ["--watch", "1e9"],
        ["--url", "ftp://x"],
        ["--url", "http://x", "--directory", "."],
        ["alpha"],
    ],
)
def test_wrong_usage_is_one_clear_line_and_status_2(arguments: list[str], tmp_path: Path) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (WRONG_USAGE, "")
    assert "Traceback" not in done.stderr and done.stderr.splitlines()[-1].startswith("ods status: error: ")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"a": 1}', b"[" * 100_000, b"\x1b[2J", b""])
def test_what_answers_and_is_no_ods_is_said_to_be_none(fake: FakeOds, tmp_path: Path, body: bytes) -> None:
    fake.body = body
    done = run(tmp_path, "--url", fake.url)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert done.stderr == f"ods status: no ODS answers at {fake.url}: what answers is no ODS (HTTP status 200)\n"


def test_where_no_ods_answers_one_line_says_where_it_was_asked_for(tmp_path: Path) -> None:
    port = free_port()
    for arguments, where in (
        (["--directory", "a\x1b[2J"], r"in a\x1b[2J"),
        (["--url", f"127.0.0.1:{port}"], str(port)),
    ):
        done = run(tmp_path, *arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (FAILED, "", 1)
        assert where in done.stderr and "none runs there" in done.stderr and "\x1b" not in done.stderr


def test_a_pipe_gets_lines_without_colour_however_narrow_the_terminal_is(fake: FakeOds, tmp_path: Path) -> None:
    fake.snapshot = STATES["live"]()
    done = run(tmp_path, "--url", fake.url, env=environment(tmp_path) | {"COLUMNS": "20", "TERM": "xterm-256color"})
    expected = list(plain.lines(Part(fake.snapshot), source=fake.url))
    assert done.stdout.splitlines() == expected
    assert all(character.isprintable() or character == "\n" for character in done.stdout)
    assert not re.search("[\u2500-\u259f]", done.stdout), "box drawing"


def test_json_is_the_whole_snapshot_and_holds_no_control_character(fake: FakeOds, tmp_path: Path) -> None:
    fake.snapshot = live(pod(HOSTILE)) | {"new": [{"key": HOSTILE}]}
    done = run(tmp_path, "--url", fake.url, "--json")
    assert json.loads(done.stdout) == fake.snapshot
    assert all(character.isprintable() or character == "\n" for character in done.stdout)


def test_an_output_that_is_closed_early_is_no_failure(fake: FakeOds, tmp_path: Path) -> None:
    fake.snapshot = live(*(pod(f"pod-{number}") for number in range(2000)))
    for arguments in ([], ["--json"], ["--watch", "0.1"], ["--watch", "0.1", "--json"]):
        with subprocess.Popen(
            command("--url", fake.url, *arguments),
            cwd=REPOSITORY,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert (process.wait(TIMEOUT_SECONDS), process.stderr.read()) == (KEPT, b""), arguments


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_an_output_that_cannot_be_written_is_said_in_a_line(fake: FakeOds, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = run(tmp_path, "--url", fake.url, stdout=full)
    assert done.returncode == FAILED
    assert done.stderr == "ods status: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_locale_makes_it_fail(fake: FakeOds, tmp_path: Path, encoding: str) -> None:
    fake.snapshot = live(pod("pöd 🚀"))
    done = run(
        tmp_path, "--url", fake.url, env=environment(tmp_path) | {"PYTHONIOENCODING": encoding}, errors="replace"
    )
    assert (done.returncode, done.stderr) == (KEPT, "")


def test_the_command_runs_nothing_of_the_server() -> None:
    code = "import sys, ods.commands.status; print(*[name for name in sys.modules if name.split('.')[0] == 'gevent'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- terminals


class Terminal:
    """The command on a terminal of its own. `shown` is all that it was sent."""

    def __init__(self, home: Path, *arguments: str, columns: int = 80, rows: int = 24, **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(columns, rows)
        self.shown = ""
        told = {key: value for key, value in environment(home).items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            command(*arguments),
            cwd=REPOSITORY,
            env=told | {"TERM": "xterm-256color"} | variables,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def resize(self, columns: int, rows: int = 24) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, *texts: str, without: str = "\0") -> str:
        """Return the first picture of a watch that holds all of `texts` (spaces aside), and not `without`."""

        def look() -> str:
            self._read()
            shown = words(self.picture())
            return shown if all(text in shown for text in texts) and without not in shown else ""

        return wait_until(look, timeout_seconds=TIMEOUT_SECONDS, what=f"{texts}", state=lambda: self.shown[-3000:])

    def picture(self) -> str:
        """The last picture that was drawn to its end: the next one has begun."""
        return plain_text((["", *self.shown.split("\x1b[H")])[-2])

    def pictures(self) -> int:
        """How many were drawn so far."""
        self._read()
        return self.shown.count("\x1b[H")

    def wait(self) -> int:
        """Return the exit status, when everything was read."""
        wait_until(
            lambda: self._read() and self.process.poll() is not None, timeout_seconds=TIMEOUT_SECONDS, what="end"
        )
        self._read()
        return self.process.returncode

    def _read(self) -> bool:
        while select.select([self._ours], [], [], 0)[0]:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # nobody has it open any more
                break
            if not data:
                break
            self.shown += data.decode()
        return True


@pytest.mark.parametrize("columns", [40, 80])
def test_a_terminal_gets_colours_and_lines_that_fit(fake: FakeOds, tmp_path: Path, columns: int) -> None:
    fake.snapshot = snapshots.draining()
    with Terminal(tmp_path, "--url", fake.url, columns=columns) as terminal:
        assert terminal.wait() == KEPT
        assert re.search(r"\x1b\[[\d;]*m", terminal.shown) and "━" in terminal.shown
        assert max(cell_len(line) for line in plain_text(terminal.shown).splitlines()) <= columns
        assert "19 000 pending" in words(plain_text(terminal.shown))


def test_no_color_takes_the_colours_away_and_the_boxes(fake: FakeOds, tmp_path: Path) -> None:
    fake.snapshot = snapshots.draining()
    with Terminal(tmp_path, "--url", fake.url, NO_COLOR="1") as terminal:
        assert terminal.wait() == KEPT
        assert "\x1b" not in terminal.shown and not re.search("[\u2500-\u259f]", terminal.shown)
        assert "###" in terminal.shown


def test_a_terminal_that_can_do_nothing_gets_lines(fake: FakeOds, tmp_path: Path) -> None:
    with Terminal(tmp_path, "--url", fake.url, TERM="dumb") as terminal:
        assert terminal.wait() == KEPT
        assert "\x1b" not in terminal.shown and "\npod: name=pod-a " in terminal.shown


def test_hostile_text_moves_nothing_on_a_terminal_that_is_watched(fake: FakeOds, tmp_path: Path) -> None:
    fake.snapshot = live(pod("pod-a", log=[{"time_ns": NOW_NS, "level": HOSTILE, "text": HOSTILE}]))
    with Terminal(tmp_path, "--watch", "0.1", "--url", fake.url) as terminal:
        terminal.wait_for("[red]x[/red]")
        wait_until(lambda: terminal.pictures() > 5, timeout_seconds=TIMEOUT_SECONDS, what="some more pictures")
        for sequence in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\u202e"):
            assert sequence not in terminal.shown


def test_a_watch_draws_in_one_place_follows_the_size_and_leaves_the_terminal_as_it_was(
    fake: FakeOds, tmp_path: Path
) -> None:
    with Terminal(tmp_path, "--watch", "0.1", "--url", fake.url, rows=50) as terminal:
        terminal.wait_for("1 000 received: 1 000 stored")
        fake.snapshot = live(pod("pod-a") | counts(received=2345))
        terminal.wait_for("2 345 received: 2 345 stored")
        assert "\x1b[2J" not in terminal.shown, "a terminal that is cleared at each look flickers"
        terminal.resize(40, 50)
        terminal.wait_for("1 234 a second, seen 0.1 s ago")  # a block, as on 40 columns
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == KEPT
        assert terminal.shown.startswith("\x1b[?1049h") and "\x1b[?1049l" in terminal.shown
        assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l"), "the cursor is there again"
        assert "Traceback" not in terminal.shown and "Interrupt" not in terminal.shown


def test_a_watch_that_is_told_to_end_leaves_the_terminal_as_it_was(fake: FakeOds, tmp_path: Path) -> None:
    with Terminal(tmp_path, "--watch", "60", "--url", fake.url) as terminal:
        terminal.wait_for("1 000 received")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 128 + signal.SIGTERM
        assert "\x1b[?1049l" in terminal.shown and "Traceback" not in terminal.shown


def test_a_watch_in_a_pipe_is_a_line_at_each_look(fake: FakeOds, tmp_path: Path) -> None:
    for arguments in ([], ["--json"], ["--boot"]):
        with subprocess.Popen(
            command("--watch", "0.1", "--url", fake.url, *arguments),
            cwd=REPOSITORY,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            looks = [process.stdout.readline() for _ in range(3)]
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            assert (process.wait(TIMEOUT_SECONDS), process.stderr.read()) == (KEPT, "")
        for look in [*looks, *rest.splitlines()]:
            found = json.loads(look)["totals"] if "--json" in arguments else pairs(look)
            assert int(found["received"]) == 1000


@pytest.fixture
def own_ods(tmp_path: Path) -> Iterator[OdsProcess]:
    """A real ODS; of InfluxDB it sees nothing."""
    ods = OdsProcess(tmp_path / "ods", influx_port=free_port(), database="none")
    try:
        ods.start()
        yield ods
    finally:
        ods.kill()
        print(ods.log_tail())


def test_a_watch_survives_the_death_and_the_return_of_ods(own_ods: OdsProcess, tmp_path: Path) -> None:
    """It says that none answers, keeps its last view as an old one, and goes on."""
    with (
        Terminal(tmp_path, "--watch", "0.2", "--directory", str(own_ods.directory), rows=50) as terminal,
        PodClient(own_ods.port).read_replies() as sending,
    ):
        terminal.wait_for("Records 0 received")
        for number in range(37):
            sending.exchange(b"POD2accel_x %d\n" % number)
        terminal.wait_for("37 received: 0 stored, 37 pending", without="No ODS answers")
        own_ods.kill()
        terminal.wait_for("No ODS answers", "What is below is old", "37 received: 0 stored, 37 pending")
        own_ods.start()
        terminal.wait_for("37 received: 0 stored, 37 pending", without="No ODS answers")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == KEPT


def test_a_watch_may_begin_before_ods_does(own_ods: OdsProcess, tmp_path: Path) -> None:
    own_ods.kill()
    with Terminal(tmp_path, "-w", "0.2", "--url", own_ods.url, rows=50) as terminal:
        terminal.wait_for("No ODS answers", without="Records")
        own_ods.start()
        terminal.wait_for("Records 0 received", without="No ODS answers")


def test_a_watch_of_an_ods_that_stands_still_says_so_and_goes_on(own_ods: OdsProcess, tmp_path: Path) -> None:
    with Terminal(tmp_path, "--watch", "0.2", "--directory", str(own_ods.directory), rows=50) as terminal:
        terminal.wait_for("Records 0 received")
        own_ods.pause()
        terminal.wait_for("no answer in time", "Records 0 received")
        own_ods.resume()
        terminal.wait_for("Records 0 received", without="No ODS answers")


def test_a_real_ods_tells_why_a_pod_does_not_boot(tmp_path: Path) -> None:
    """First nobody comes, then the wrong one, then the right one, which leaves again."""
    options = ("--allow", "127.0.2.0/24", "--pod", "127.0.2.8=pod-a")
    ods = OdsProcess(tmp_path / "ods", influx_port=free_port(), database="none", options=options)

    def told() -> str:
        return run(tmp_path, "--directory", str(ods.directory), "--boot").stdout

    def wait_for(text: str) -> None:
        wait_until(lambda: text in told(), timeout_seconds=TIMEOUT_SECONDS, what=text, state=told)

    try:
        ods.start()
        assert f"listening: addresses=127.0.0.1 port={ods.port} allow=127.0.2.0/24" in told()
        wait_for("boot: ODS listens only for this machine itself")
        with PodClient(ods.port, address="127.0.3.1").read_replies() as stranger:
            assert stranger.has_ended.wait(TIMEOUT_SECONDS)
        wait_for("boot: 127.0.3.1 tried to connect and was refused: ")
        assert "refused: address=127.0.3.1 count=1 " in told()
        ods.restart()
        with PodClient(ods.port, address="127.0.2.8").read_replies() as sending:
            sending.exchange(b"POD2accel_x 1\n")
            wait_for("boot: ODS accepts pods, 1 is connected.")
        wait_until(
            lambda: labelled("pod", json.loads(run(tmp_path, "--url", ods.url, "--json").stdout))[0]["state"] == "left",
            timeout_seconds=TIMEOUT_SECONDS,
            what="the pod to have left",
        )
    finally:
        ods.kill()
        print(ods.log_tail())
