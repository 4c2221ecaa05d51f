"""A loop that dies takes the service down, loudly; one that ends or is stopped does not."""

import gevent
import pytest
from components.hub import fail_when_hung, let_all_run
from gevent.event import Event

from ods.supervisor import Supervisor

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor()


def test_a_failure_ends_the_service_loudly(supervisor: Supervisor, caplog: pytest.LogCaptureFixture) -> None:
    """Never a server that accepts and does nothing: the failure is logged with the name of what failed."""

    def fail() -> None:
        raise RuntimeError("broken in two")

    greenlet = supervisor.spawn("sifter", fail)
    supervisor.ended.wait()
    assert (supervisor.has_failed, greenlet.name) == (True, "sifter")
    (record,) = caplog.records
    assert record.levelname == "CRITICAL"
    assert "sifter" in record.message
    assert "broken in two" in record.message


def test_what_ends_by_itself_ends_nothing(supervisor: Supervisor) -> None:
    """A task that is done is no failure; its value can be had."""
    assert supervisor.spawn("batch", lambda number: number + 1, 1).get() == 2
    let_all_run()
    assert (supervisor.has_failed, supervisor.ended.is_set()) == (False, False)


def test_stop_ends_what_runs_and_is_no_failure(supervisor: Supervisor) -> None:
    """A stop in good order ends every loop, waits for its last words, and may be called twice."""
    said = []

    def run(number: int) -> None:
        try:
            Event().wait()
        finally:
            gevent.sleep(0)
            said.append(number)

    greenlets = [supervisor.spawn(f"loop {number}", run, number) for number in range(3)]
    let_all_run()
    supervisor.stop()
    supervisor.stop()
    assert all(greenlet.ready() for greenlet in greenlets)
    assert sorted(said) == [0, 1, 2]
    assert (supervisor.has_failed, supervisor.ended.is_set()) == (False, False)


def test_stop_does_not_wait_for_one_that_hangs_for_ever(supervisor: Supervisor) -> None:
    """Stopping takes 5 s at most, whatever a loop does with its end."""

    def run() -> None:
        try:
            Event().wait()
        finally:
            Event().wait()

    hung = supervisor.spawn("hung", run)
    let_all_run()
    supervisor.stop()
    assert not hung.ready()
    hung.kill(block=False)


def test_greenlets_that_ended_are_forgotten(supervisor: Supervisor) -> None:
    """A batch a moment for days: nothing is kept of those that are done."""
    greenlets = [supervisor.spawn("batch", lambda: None) for _ in range(100)]
    gevent.joinall(greenlets)
    let_all_run()
    assert not supervisor._greenlets
