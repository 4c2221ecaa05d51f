"""A thread for work that waits for the disk: in order, never waited for, and heard of in the hub."""

import threading
from collections.abc import Iterator

import gevent
import pytest
from components.hub import fail_when_hung, wait_in_hub
from gevent import monkey

from ods.worker import Worker

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("test")
    worker.start()
    yield worker
    worker.stop()


def native_thread() -> int:
    return monkey.get_original("_thread", "get_ident")()


def test_jobs_run_one_after_the_other_in_order(worker: Worker) -> None:
    """What is submitted first is done first: a delete never overtakes its insert."""
    done: list[int] = []
    for number in range(1000):
        worker.submit(done.append, number)
    worker.run(lambda: None)
    assert done == list(range(1000))


def test_a_result_arrives(worker: Worker) -> None:
    """With positional and named arguments, from another thread than the hub's."""
    assert worker.run(divmod, 7, 2) == (3, 1)
    assert worker.run(lambda *, left, right: left - right, right=1, left=3) == 2
    assert worker.run(native_thread) != native_thread()


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_an_exception_arrives_where_the_result_is_waited_for(worker: Worker, error: BaseException) -> None:
    """No lost error, and the thread goes on."""

    def fail() -> None:
        raise error

    submitted = worker.submit(fail)
    with pytest.raises(type(error)) as caught:
        submitted.get()
    assert caught.value is error
    assert any(entry.name == "fail" for entry in caught.traceback)
    assert worker.run(lambda: "alive") == "alive"


def test_a_job_that_takes_long_is_seen(worker: Worker) -> None:
    """A disk that hangs is known by it."""
    assert worker.seconds_at_job == 0.0
    may_end = threading.Event()
    stuck = worker.submit(may_end.wait)
    wait_in_hub(lambda: worker.seconds_at_job > 0.1, "the job to take long")
    may_end.set()
    stuck.get()
    wait_in_hub(lambda: worker.seconds_at_job == 0.0, "the end of the job")


def test_submit_never_waits_for_the_thread(worker: Worker) -> None:
    """However long a job takes, the hub goes on and further jobs are queued."""
    may_end = threading.Event()
    stuck = worker.submit(may_end.wait)
    queued = [worker.submit(lambda number=number: number) for number in range(1000)]
    assert gevent.spawn(lambda: "the hub runs").get() == "the hub runs"
    assert not stuck.ready()
    assert worker.waiting == 1001
    may_end.set()
    assert [one.get() for one in queued] == list(range(1000))
    assert worker.waiting == 0


def test_results_are_delivered_in_the_hub(worker: Worker) -> None:
    """What is linked to a result runs in the hub's thread: nothing that belongs to the hub is touched from another."""
    threads: list[int] = []
    for job in (lambda: None, lambda: 1 / 0):
        worker.submit(job).rawlink(lambda _: threads.append(native_thread()))
    wait_in_hub(lambda: len(threads) == 2, "both results")
    assert set(threads) == {native_thread()}


def test_a_waiter_that_has_gone_harms_nobody(worker: Worker) -> None:
    """A greenlet that is killed while it waits for a job: the next ones get their results."""
    may_end = threading.Event()
    waiter = gevent.spawn(worker.run, may_end.wait)
    gevent.sleep(0)
    waiter.kill()
    may_end.set()
    assert worker.run(lambda: 5) == 5


def test_jobs_submitted_before_the_start_are_done() -> None:
    """They wait until then."""
    worker = Worker("late")
    early = worker.submit(lambda: 1)
    worker.start()
    worker.start()
    assert early.get() == 1
    worker.stop()


def test_stop_ends_the_thread_after_what_is_queued() -> None:
    """Nothing that was submitted is forgotten at the end."""
    worker = Worker("ending")
    worker.start()
    queued = [worker.submit(lambda number=number: number) for number in range(100)]
    worker.stop()
    assert [one.get() for one in queued] == list(range(100))


def test_a_last_job_is_waited_for_without_the_hub() -> None:
    """At the end of the process nothing else is left to run; the jobs before it come first."""
    worker, done = Worker("test"), []
    worker.start()
    worker.submit(done.append, 1)
    assert worker.finish(lambda: done.append(2), 10.0)
    assert done == [1, 2]
    worker.stop()


def test_a_last_job_that_does_not_end_is_given_up() -> None:
    """A disk that does not answer must not keep ODS from ending."""
    worker, held = Worker("test"), threading.Event()
    worker.start()
    try:
        assert not worker.finish(held.wait, 0.01)
    finally:
        held.set()
        worker.stop()
