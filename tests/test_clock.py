"""The clock never goes back, whatever the wall clock does."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ods.clock import NOTE_MARGIN_NS, STEP_NS, Clock

SECOND_NS = 1_000_000_000
#: Somewhere in 2026.
TODAY_NS = 1_790_000_000 * SECOND_NS


@dataclass
class Machine:
    """A machine with a wall clock that can be set and a monotonic clock that cannot."""

    wall_ns: int = TODAY_NS
    monotonic_ns: int = 77 * SECOND_NS
    steps: list[float] = field(default_factory=list)

    def clock(self) -> Clock:
        return Clock(wall_ns=lambda: self.wall_ns, monotonic_ns=lambda: self.monotonic_ns, on_step=self.steps.append)

    def live(self, elapsed_ns: int) -> None:
        """Let time pass."""
        self.wall_ns += elapsed_ns
        self.monotonic_ns += elapsed_ns

    def step(self, step_ns: int) -> None:
        """Set the wall clock."""
        self.wall_ns += step_ns


def test_it_begins_at_the_wall_clock_and_goes_on_with_the_monotonic_one() -> None:
    machine = Machine()
    clock = machine.clock()
    assert clock.now_ns() == TODAY_NS
    machine.live(3 * SECOND_NS + 7)
    assert clock.now_ns() == clock.latest_ns == TODAY_NS + 3 * SECOND_NS + 7
    assert (clock.steps_forward, clock.steps_back, machine.steps, clock.offset_seconds) == (0, 0, [], 0.0)


def test_a_step_forward_moves_it() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.step(3600 * SECOND_NS)
    assert clock.now_ns() == TODAY_NS + 3600 * SECOND_NS
    assert (clock.steps_forward, clock.steps_back, machine.steps) == (1, 0, [3600.0])
    assert clock.offset_seconds == 0.0


def test_a_step_back_does_not_move_it_and_shows_as_an_offset() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.step(-3600 * SECOND_NS)
    machine.live(SECOND_NS)
    assert clock.now_ns() == TODAY_NS + SECOND_NS
    assert (clock.steps_forward, clock.steps_back, machine.steps) == (0, 1, [-3600.0])
    assert clock.offset_seconds == 3600.0


def test_a_step_is_told_once() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.step(-SECOND_NS)
    for _ in range(3):
        machine.live(SECOND_NS)
        clock.now_ns()
    assert machine.steps == [-1.0]


def test_a_step_back_that_is_taken_back_changes_nothing() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.step(-3600 * SECOND_NS)
    clock.now_ns()
    machine.step(3600 * SECOND_NS)
    assert clock.now_ns() == TODAY_NS
    assert (clock.steps_forward, clock.steps_back, clock.offset_seconds) == (1, 1, 0.0)


def test_a_step_forward_short_of_the_offset_does_not_move_it() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.step(-10 * SECOND_NS)
    clock.now_ns()
    machine.step(4 * SECOND_NS)
    assert clock.now_ns() == TODAY_NS
    assert clock.offset_seconds == 6.0


@pytest.mark.parametrize("jitter_ns", [1, -1, STEP_NS, -STEP_NS])
def test_jitter_is_no_step(jitter_ns: int) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.step(jitter_ns)
    assert clock.now_ns() == TODAY_NS
    assert machine.steps == []


def test_a_start_in_1970_continues_from_the_last_time_given_out() -> None:
    """A board without a battery: it says that it was held, and leaves room for what was given out after the note."""
    machine = Machine(wall_ns=5 * SECOND_NS)
    clock = machine.clock()
    assert clock.continue_from(TODAY_NS)
    assert clock.now_ns() == TODAY_NS + NOTE_MARGIN_NS
    machine.live(SECOND_NS)
    assert clock.now_ns() == TODAY_NS + NOTE_MARGIN_NS + SECOND_NS
    assert machine.steps == []


def test_a_board_that_woke_in_1970_takes_the_right_time_once_it_is_known() -> None:
    machine = Machine(wall_ns=5 * SECOND_NS)
    clock = machine.clock()
    clock.continue_from(TODAY_NS)
    machine.step(TODAY_NS + 86_400 * SECOND_NS)
    assert clock.now_ns() == machine.wall_ns
    assert clock.offset_seconds == 0.0
    assert clock.steps_forward == 1


@pytest.mark.parametrize("latest_ns", [0, TODAY_NS - 1])
def test_a_start_after_the_last_time_given_out_is_not_held(latest_ns: int) -> None:
    clock = Machine().clock()
    assert not clock.continue_from(latest_ns)
    assert clock.now_ns() == TODAY_NS


def test_a_start_at_the_very_time_given_out_last_is_held() -> None:
    clock = Machine().clock()
    assert clock.continue_from(TODAY_NS)
    assert clock.now_ns() > TODAY_NS


events = st.lists(
    st.tuples(st.sampled_from(["live", "step", "continue"]), st.integers(-(10**19), 10**19), st.integers(0, 10**12)),
    max_size=40,
)


@settings(deadline=None, max_examples=200)
@given(events, st.integers(0, 2 * TODAY_NS))
def test_a_time_given_out_is_never_followed_by_an_earlier_one(events: list[tuple[str, int, int]], wall_ns: int) -> None:
    machine = Machine(wall_ns=wall_ns)
    clock = machine.clock()
    latest_ns = clock.now_ns()
    for what, step_ns, elapsed_ns in events:
        if what == "live":
            machine.live(elapsed_ns)
        elif what == "step":
            machine.step(step_ns)
        else:
            is_held = clock.continue_from(abs(step_ns))
            assert is_held is (latest_ns <= abs(step_ns))
            assert clock.now_ns() > abs(step_ns)
        now_ns = clock.now_ns()
        assert now_ns >= latest_ns
        assert clock.latest_ns == now_ns
        latest_ns = now_ns
    assert clock.steps_forward + clock.steps_back == len(machine.steps)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-(10**12), 10**12), max_size=20))
def test_it_is_never_behind_the_wall_clock_by_more_than_jitter(steps_ns: list[int]) -> None:
    machine = Machine()
    clock = machine.clock()
    for step_ns in steps_ns:
        machine.step(step_ns)
        machine.live(1000)
        assert clock.now_ns() >= machine.wall_ns - STEP_NS
