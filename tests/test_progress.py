"""The one check of progress: what has work and does none is noticed, named and healed."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from ods.progress import CHECK_SECONDS, STANDSTILL_SECONDS, Progress, Watched

ROOT = Path(__file__).parents[1]


class Part:
    """A part that works, or does not."""

    def __init__(self, *, can_heal: bool = True) -> None:
        self.done = 0
        self.has_work = True
        self.healed = 0
        self.watched = Watched(
            name="part",
            has_work=lambda: self.has_work,
            done=lambda: self.done,
            heal=self._heal if can_heal else None,
            calls_for_restart=not can_heal,
        )

    def _heal(self) -> None:
        self.healed += 1


def look_for(progress: Progress, seconds: float, *, begin: float) -> float:
    """Look once a second for so long; returns the time then."""
    for second in range(int(seconds)):
        progress.look(begin + second)
    return begin + int(seconds)


def test_a_standstill_is_noticed_within_thirty_seconds() -> None:
    """The contract's bound."""
    assert STANDSTILL_SECONDS + CHECK_SECONDS <= 30
    part = Part()
    progress = Progress([part.watched])
    now = look_for(progress, 10, begin=100.0)
    assert progress.standing_still == []
    look_for(progress, 30, begin=now)
    assert progress.standing_still == ["part"]


def test_what_stands_still_is_healed_again_and_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    part = Part()
    look_for(Progress([part.watched]), 100, begin=100.0)
    assert part.healed > 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_what_moves_again_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    part = Part(can_heal=False)
    progress = Progress([part.watched])
    now = look_for(progress, 40, begin=100.0)
    part.done += 1
    look_for(progress, 10, begin=now)
    assert progress.standing_still == []
    assert caplog.messages[-1] == "part: moves again"


def test_what_moves_or_has_nothing_to_do_does_not_stand_still() -> None:
    moving, idle = Part(), Part()
    idle.has_work = False
    progress = Progress([moving.watched, idle.watched])
    for second in range(100):
        moving.done += second % 10 == 0
        progress.look(100.0 + second)
    assert (progress.standing_still, moving.healed, idle.healed) == ([], 0, 0)


def test_only_what_stands_still_and_cannot_be_healed_otherwise_calls_for_a_restart() -> None:
    """A restart ends the run of every pod."""
    healed, stuck = Part(), Part(can_heal=False)
    progress = Progress([healed.watched])
    look_for(progress, 60, begin=100.0)
    assert progress.standing_still and not progress.calls_for_restart
    progress = Progress([stuck.watched])
    now = look_for(progress, 10, begin=100.0)
    assert not progress.calls_for_restart
    now = look_for(progress, 30, begin=now)
    assert progress.calls_for_restart
    stuck.done += 1
    look_for(progress, 10, begin=now)
    assert not progress.calls_for_restart


@pytest.mark.parametrize("job_seconds", [600, 10], ids=["hangs", "is slow"])
def test_a_disk_that_hangs_calls_for_no_restart(job_seconds: int) -> None:
    """Nor one that takes 10 s for each thing; once it has come round, what still stands still is looked at anew."""
    stuck, under_way = Part(can_heal=False), [0.0]
    progress = Progress([stuck.watched], disk_seconds=lambda: under_way[0])
    for second in range(100):
        under_way[0] = float(second % job_seconds)
        progress.look(100.0 + second)
        assert not progress.calls_for_restart
    assert progress.standing_still == ["part"]
    under_way[0] = 0.0
    look_for(progress, 60, begin=200.0)
    assert progress.calls_for_restart


def test_a_hub_that_stands_still_is_told_of_with_the_place() -> None:
    """It cannot say so itself."""
    program = """
import time
from ods import progress
progress.CHECK_SECONDS = progress.STANDSTILL_SECONDS = 0.05
watch = progress.Progress([])
watch.start()
def where_it_stands():
    time.sleep(1.0)
where_it_stands()
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert "the hub stands still" in ended.stderr
    assert "where_it_stands" in ended.stderr
