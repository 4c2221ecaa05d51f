"""What viewers are told, how often, and what they cost: nothing where nobody looks."""

import json
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from components.hub import fail_when_hung, let_all_run, wait_in_hub
from gevent import socket

from ods import feed, http_connection
from ods.feed import Feed, history_pieces
from ods.http_connection import HttpConnection
from ods.pace import Pace, Unbounded

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)


class FakeLatest:
    """The latest values of one pod, the same at any time, and how often they were asked for."""

    def __init__(self) -> None:
        self.tick = 1
        self.frames: list[tuple[str, int, str]] = []
        self.series: dict[str, list[float | None]] = {"accel_x": [0.5, None, 1.5], "speed": [2.0]}

    def frame(self, pod: str, *, since: int, match: str) -> dict[str, Any]:
        self.frames.append((pod, since, match))
        return {
            "pod": pod,
            "since": since,
            "tick": self.tick,
            "values": {"speed": [2.0, 1]} if since < self.tick else {},
        }

    def history_by_parts(self, pod: str, *, match: str) -> tuple[dict[str, Any], Iterator[Any]]:
        return {"pod": pod, "step_seconds": 0.5}, iter(self.series.items())


class Look:
    """A viewer: its end of the connection, and the greenlet that serves the other end of it."""

    def __init__(self, feed: Feed, *, pod: str | None = None, match: str = "", stays_deaf: bool = False) -> None:
        served, self.socket = socket.socketpair()
        served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.connection = HttpConnection(served, Unbounded())
        self.connection.idle_since = None
        self.told = b""
        self._feed = feed
        self.server = gevent.spawn(self._serve, pod, match)
        self.reader = None if stays_deaf else gevent.spawn(self._read)

    def _serve(self, pod: str | None, match: str) -> None:
        pieces = self._feed.events(self.connection, pod=pod, match=match, pace=Unbounded())
        try:
            for piece in pieces:
                self.connection.send(piece)
        except OSError:
            pass
        finally:
            pieces.close()  # type: ignore[attr-defined]
            self.connection.close()

    def _read(self) -> None:
        while data := self.socket.recv(65536):
            self.told += data

    def events(self) -> list[tuple[str, Any]]:
        """The events so far that are complete: of each its name and its data."""
        events = []
        for block in self.told.decode().split("\n\n")[:-1]:
            lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if "event" in lines:
                events.append((lines["event"], json.loads(lines["data"])))
        return events

    def names(self) -> list[str]:
        return [name for name, _ in self.events()]

    def leave(self) -> None:
        self.socket.close()


class Bench:
    """A feed, and how often the status was made for it."""

    def __init__(self) -> None:
        self.latest = FakeLatest()
        self.made = 0
        self.status: dict[str, Any] = {"state": "live"}
        self.feed = Feed(status_json=self._status_json, latest=self.latest)

    def _status_json(self) -> bytes:
        self.made += 1
        return json.dumps({**self.status, "made": self.made}).encode() + b"\n"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(feed, "STEP_SECONDS", 0.01)
    monkeypatch.setattr(feed, "SHARE", 1.0)
    bench = Bench()
    yield bench
    bench.feed.stop()
    wait_in_hub(lambda: bench.feed.is_idle, "the end of the feed")


def test_a_viewer_is_told_the_status_at_once_and_then_again_and_again(bench: Bench) -> None:
    look = Look(bench.feed)
    wait_in_hub(lambda: len(look.names()) >= 3, "three events")
    assert look.told.startswith(b"retry: 1000\n\n")
    assert set(look.names()) == {"status"}
    numbers = [status["made"] for _, status in look.events()]
    assert numbers == sorted(set(numbers))


def test_one_that_looks_at_a_pod_gets_its_history_then_all_its_values_then_what_is_new(bench: Bench) -> None:
    look = Look(bench.feed, pod="pod-a", match="acc")
    wait_in_hub(lambda: look.names().count("values") >= 2, "two frames of values")
    assert look.names()[0] == "history"
    assert look.names().count("history") == 1
    assert look.events()[0][1] == {"pod": "pod-a", "step_seconds": 0.5, "series": bench.latest.series}
    values = [data["values"] for name, data in look.events() if name == "values"]
    assert values[:2] == [{"speed": [2.0, 1]}, {}]
    assert bench.latest.frames[:2] == [("pod-a", 0, "acc"), ("pod-a", 1, "acc")]


def test_what_many_look_at_is_made_once_for_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "STEP_SECONDS", 0.1)
    looks = [Look(bench.feed, pod="pod-a") for _ in range(20)]
    wait_in_hub(lambda: all(look.names().count("values") >= 3 for look in looks), "frames for all")
    rounds = max(look.names().count("status") for look in looks)
    assert bench.made <= rounds + 1
    assert len(bench.latest.frames) <= 2 * (rounds + 1)  # a round may hold one that came later


def test_nobody_looks_and_nothing_is_done(bench: Bench) -> None:
    assert bench.feed.is_idle
    looks = [Look(bench.feed), Look(bench.feed)]
    wait_in_hub(lambda: all(look.events() for look in looks), "events")
    for look in looks:
        look.leave()
    wait_in_hub(lambda: bench.feed.is_idle, "the end of the feed")
    made = bench.made
    gevent.sleep(0.05)
    assert bench.made == made
    again = Look(bench.feed)
    wait_in_hub(again.events, "an event for one that looks again")


def test_one_that_goes_away_is_noticed_though_nothing_is_sent_to_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "STEP_SECONDS", 3600)
    monkeypatch.setattr(feed, "ALIVE_SECONDS", 3600)
    looks = [Look(bench.feed) for _ in range(2)]
    wait_in_hub(lambda: all(look.events() for look in looks[:1]), "an event")
    looks[0].leave()
    looks[1].socket.shutdown(socket.SHUT_WR)  # only its own side: it says that nothing more is to be expected of it
    for look in looks:
        look.server.join()


def test_one_that_says_what_it_was_not_asked_for_is_let_go(bench: Bench) -> None:
    look = Look(bench.feed)
    wait_in_hub(look.events, "an event")
    look.socket.sendall(b"x" * 10)
    look.server.join()


def test_one_that_does_not_read_misses_what_is_made_meanwhile_and_is_let_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "STALL_SECONDS", 0.3)
    bench.status["ballast"] = "x" * 10_000
    deaf, look = Look(bench.feed, stays_deaf=True), Look(bench.feed)
    wait_in_hub(lambda: len(look.names()) >= 10, "ten events for the other")
    assert not deaf.server.ready()
    deaf.server.join()
    deaf.reader = gevent.spawn(deaf._read)
    deaf.reader.join()
    assert len(deaf.names()) < 5
    assert not look.server.ready()


def test_one_that_reads_slowly_is_told_what_is_as_of_then(bench: Bench) -> None:
    """It has missed what was made while it could not be sent; nothing is queued for it."""
    bench.status["ballast"] = "x" * 10_000
    slow, look = Look(bench.feed, stays_deaf=True), Look(bench.feed)
    wait_in_hub(lambda: len(look.names()) >= 20, "events for the other")
    made = bench.made
    slow.reader = gevent.spawn(slow._read)
    wait_in_hub(lambda: len(slow.names()) >= 4, "events for the slow one")
    numbers = [status["made"] for _, status in slow.events()]
    assert numbers[3] >= made
    assert numbers == sorted(set(numbers))


def test_one_that_reads_slowly_misses_no_value(bench: Bench) -> None:
    """Where one frame ends the next one begins, though the others are told more often."""
    bench.status["ballast"] = "x" * 10_000
    slow, look = (Look(bench.feed, pod="a", stays_deaf=stays_deaf) for stays_deaf in (True, False))
    for events in range(1, 30):
        bench.latest.tick += 1
        wait_in_hub(lambda events=events: len(look.names()) >= events, "events for the other")  # type: ignore[misc]
    slow.reader = gevent.spawn(slow._read)
    wait_in_hub(lambda: slow.names().count("values") >= 4, "frames for the slow one")
    frames = [data for name, data in slow.events() if name == "values"]
    assert [frame["since"] for frame in frames] == [0, *(frame["tick"] for frame in frames[:-1])]


def test_where_it_is_dear_it_goes_slower(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What making and sending take of the hub's time is waited for fifty times over."""
    rests: list[float] = []
    sleep = gevent.sleep

    def rest(seconds: float = 0) -> None:
        if seconds:
            rests.append(seconds)
        sleep(min(seconds, 0.01))

    now = [0.0]
    bench.feed._pace = Pace(share=0.02, clock=lambda: now[0])
    monkeypatch.setattr(feed.gevent, "sleep", rest)
    monkeypatch.setattr(feed.time, "perf_counter", lambda: now[0])
    make = bench.feed._status_json

    def make_dearly() -> bytes:
        now[0] += 0.1
        return make()

    bench.feed._status_json = make_dearly
    look = Look(bench.feed)
    wait_in_hub(look.events, "an event")
    assert max(rests) == pytest.approx(5.0, rel=0.1)


@pytest.mark.parametrize(("is_dear", "made"), [(False, 2), (True, 1)])
def test_one_that_comes_later_is_told_what_is_true_now_where_that_is_not_dear(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_dear: bool, made: int
) -> None:
    """Its page counts ages from the first status that it is told; an old one would contradict the others' figures."""
    monkeypatch.setattr(feed, "STEP_SECONDS", 60.0)
    monkeypatch.setattr(feed, "FRESH_SECONDS", 0.0)
    now = [0.0]
    bench.feed._pace = Pace(share=1.0, clock=lambda: now[0])
    first = Look(bench.feed)
    wait_in_hub(lambda: first.names() == ["status"], "the first one's status")
    now[0] += 1.0
    if is_dear:
        bench.feed._pace.spent(60.0)
    later = Look(bench.feed)
    wait_in_hub(lambda: "status" in later.names(), "the other one's")
    assert later.events()[0][1]["made"] == made


def test_viewers_that_come_and_go_make_it_no_faster(bench: Bench) -> None:
    now = [0.0]
    bench.feed._pace = Pace(share=0.02, clock=lambda: now[0])
    bench.feed._pace.spent(1.0)
    look = Look(bench.feed)
    let_all_run()
    assert (bench.made, look.events()) == (0, [])


def test_there_is_room_for_so_many_viewers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "VIEWERS", 3)
    looks = []
    for _ in range(3):
        assert not bench.feed.is_full
        looks.append(Look(bench.feed))
        let_all_run()
    assert bench.feed.is_full
    looks[1].leave()
    wait_in_hub(lambda: not bench.feed.is_full, "room for one more")


def test_where_it_goes_slowly_viewers_are_told_that_ods_is_alive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand pods make the status dear; nobody is to think that contact is lost."""
    monkeypatch.setattr(feed, "STEP_SECONDS", 3600)
    monkeypatch.setattr(feed, "ALIVE_SECONDS", 0.02)
    look = Look(bench.feed)
    wait_in_hub(lambda: look.names()[:3] == ["status", "alive", "alive"], "signs of life")


def test_a_defect_in_what_is_told_lets_the_viewers_go_and_leaves_nothing_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *what: told.append(what))
    bench.status["not JSON"] = object()
    look = Look(bench.feed)
    look.server.join()
    assert told
    assert bench.feed.is_idle
    del bench.status["not JSON"]
    again = Look(bench.feed)
    wait_in_hub(again.events, "an event for one that comes again")


def test_stop_lets_everybody_go(bench: Bench) -> None:
    bench.status["ballast"] = "x" * 100_000
    looks = [Look(bench.feed), Look(bench.feed, pod="a"), Look(bench.feed, stays_deaf=True)]
    wait_in_hub(lambda: looks[0].events() and looks[1].events(), "events")
    bench.feed.stop()
    gevent.joinall([look.server for look in looks])


def test_a_long_history_comes_in_pieces_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    latest = FakeLatest()
    latest.series = {f'"{number}"': [number / 7] * 600 for number in range(300)}
    pieces = list(history_pieces(latest, "a", "", Unbounded()))
    assert len(pieces) > 5
    assert json.loads(b"".join(pieces)) == {"pod": "a", "step_seconds": 0.5, "series": latest.series}
    latest.series = {}
    assert json.loads(b"".join(history_pieces(latest, "a", "", Unbounded())))["series"] == {}


def test_while_a_long_history_is_made_others_have_their_turn_and_its_time_is_counted() -> None:
    latest = FakeLatest()
    latest.series = {str(number): [number / 7] * 600 for number in range(300)}
    pace, turns = Pace(share=0.5, burst_seconds=60), [0]

    def take_turns() -> None:
        while True:
            turns[0] += 1
            gevent.sleep(0)

    other = gevent.spawn(take_turns)
    pieces = list(history_pieces(latest, "a", "", pace))
    other.kill()
    assert turns[0] >= len(pieces) - 2
    pace.spent(60)
    assert pace.seconds_to_wait() > 0
