"""What looks at the shuttle takes its share of the hub's time, and no more."""

import gevent
import pytest
from components.hub import fail_when_hung, let_all_run

from ods.pace import Pace, Unbounded

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)


class FakeClock:
    """A clock in the test's hands."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_what_was_taken_is_waited_for_as_long_as_the_share_asks(clock: FakeClock) -> None:
    pace = Pace(share=0.02, clock=clock)
    assert pace.seconds_to_wait() == 0
    pace.spent(0.01)
    assert pace.seconds_to_wait() == pytest.approx(0.5)
    clock.now += 0.4
    assert pace.seconds_to_wait() == pytest.approx(0.1)
    clock.now += 0.2
    assert pace.seconds_to_wait() == 0


def test_time_that_nobody_took_is_saved_up_to_the_burst_alone(clock: FakeClock) -> None:
    pace = Pace(share=0.1, burst_seconds=0.2, clock=clock)
    clock.now += 3600
    pace.spent(0.2)
    assert pace.seconds_to_wait() == pytest.approx(0)
    pace.spent(0.1)
    assert pace.seconds_to_wait() == pytest.approx(1.0)


def test_over_a_long_time_no_more_than_the_share_is_taken(clock: FakeClock) -> None:
    pace, taken = Pace(share=0.05, burst_seconds=0.1, clock=clock), 0.0
    began = clock.now
    while clock.now < began + 100:
        clock.now += max(pace.seconds_to_wait(), 1e-9)
        clock.now += 0.01
        pace.spent(0.01)
        taken += 0.01
    assert taken <= 0.05 * 100 + 0.1 + 0.02


def test_turns_come_one_after_the_other_in_the_order_of_asking() -> None:
    pace, told = Pace(share=1.0), []

    def take(number: int) -> None:
        pace.begin_turn()
        told.append(number)
        gevent.sleep(0)
        told.append(number)
        pace.end_turn()

    gevent.joinall([gevent.spawn(take, number) for number in range(5)])
    assert told == [number for number in range(5) for _ in range(2)]


def test_a_turn_is_counted_and_may_be_ended_twice(clock: FakeClock) -> None:
    pace = Pace(share=0.5, clock=clock)
    pace.begin_turn()
    clock.now += 1.0
    pace.end_turn()
    pace.end_turn()
    assert pace.seconds_to_wait() == pytest.approx(2.0)


def test_one_that_is_killed_while_it_waits_for_its_turn_leaves_it_to_the_next(clock: FakeClock) -> None:
    pace = Pace(share=0.5, clock=clock)
    pace.spent(3600)
    waiting = gevent.spawn(pace.begin_turn)
    let_all_run()
    waiting.kill()
    clock.now += 7200
    pace.begin_turn()
    pace.end_turn()


def test_of_many_who_wait_one_alone_looks_at_the_clock(clock: FakeClock) -> None:
    """A hundred slow peers that each wake up to find that it is not their time yet would be a load of their own."""
    looks = 0

    def counted_clock() -> float:
        nonlocal looks
        looks += 1
        return clock()

    pace = Pace(share=0.5, clock=counted_clock)
    pace.spent(3600)
    looks = 0
    waiting = [gevent.spawn(pace.wait) for _ in range(100)]
    let_all_run()
    assert looks == 1
    gevent.killall(waiting)


def test_what_is_not_bounded_never_waits_not_even_for_another() -> None:
    pace = Unbounded()
    pace.spent(3600)
    assert pace.seconds_to_wait() == 0
    pace.begin_turn()
    pace.begin_turn()
