"""Turns: in the order in which they were asked for, and never so many in a round that the rest of ODS waits long."""

import gevent
import pytest
from components.hub import fail_when_hung, let_all_run, wait_in_hub

import ods.turns
from ods.turns import Turns

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)


class Timer:
    """A clock that stands in for `time` in `ods.turns`: each turn takes `turn_seconds`."""

    def __init__(self, turn_seconds: float) -> None:
        self.now = 0.0
        self.turn_seconds = turn_seconds

    def monotonic(self) -> float:
        return self.now


def take(turns: Turns, timer: Timer, pod: str, count: int, taken: list[str]) -> None:
    for _ in range(count):
        turns.wait()
        timer.now += timer.turn_seconds
        taken.append(pod)


def run(monkeypatch: pytest.MonkeyPatch, *, turn_seconds: float, count: int) -> list[str]:
    """What three pods take, and between their turns the rounds of the hub."""
    timer, turns, taken = Timer(turn_seconds), Turns(), []
    monkeypatch.setattr(ods.turns, "time", timer)
    pods = [gevent.spawn(take, turns, timer, pod, count, taken) for pod in "abc"]
    rounds = gevent.get_hub().loop.prepare()
    rounds.start(lambda: taken.append("|"))
    try:
        wait_in_hub(lambda: all(pod.ready() for pod in pods), "every turn")
    finally:
        rounds.stop()
        rounds.close()
    return taken


def in_rounds(taken: list[str]) -> list[str]:
    return [each for each in "".join(taken).split("|") if each]


def test_turns_are_given_in_the_order_in_which_they_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = run(monkeypatch, turn_seconds=0.0, count=4)
    assert "".join(taken).replace("|", "") == "abc" * 4


def test_nobody_has_two_turns_in_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """However quick the turns are: what else is ready has its time between them."""
    assert in_rounds(run(monkeypatch, turn_seconds=0.0, count=3)) == ["abc"] * 3


def test_a_round_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who had no turn have theirs first in the next round."""
    turn_seconds = ods.turns.ROUND_SECONDS * 0.6
    assert in_rounds(run(monkeypatch, turn_seconds=turn_seconds, count=2)) == ["ab", "ca", "bc"]


def test_a_turn_that_is_longer_than_a_round_is_given_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_rounds(run(monkeypatch, turn_seconds=10.0, count=2)) == ["a", "b", "c"] * 2


def test_one_that_ended_while_it_waited_holds_up_nobody() -> None:
    turns = Turns()
    first, second = gevent.spawn(turns.wait), gevent.spawn(turns.wait)
    gevent.sleep(0)
    first.kill()
    second.get()
    let_all_run()
