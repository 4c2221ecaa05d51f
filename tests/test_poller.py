"""Reading from those that can be read from: everybody's turn comes, and so does that of all else in the hub."""

import os
import socket
from collections.abc import Callable, Iterator

import gevent
import pytest
from components.hub import fail_when_hung, let_all_run, wait_in_hub

import ods.poller
from ods.poller import MOST_TAKEN, Poller
from ods.supervisor import Supervisor

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)


class Bench:
    """A poller and some pods, of each of which one byte is read at a time."""

    def __init__(self, *, has_epoll: bool) -> None:
        self.supervisor = Supervisor()
        self.poller = Poller(self.supervisor, has_epoll=has_epoll)
        #: Who was read from, in order.
        self.read: list[int] = []
        self._sockets: list[tuple[socket.socket, socket.socket]] = []

    def pod(self, on_read: Callable[[], None] = lambda: None) -> int:
        """One more; returns its number."""
        ours, theirs = socket.socketpair()
        number = len(self._sockets)
        self._sockets.append((ours, theirs))

        def read() -> None:
            if ours.recv(1, socket.MSG_DONTWAIT):
                self.read.append(number)
            on_read()

        self.poller.add(ours.fileno(), read)
        return number

    def fd(self, number: int) -> int:
        """ODS's end of a pod's connection."""
        return self._sockets[number][0].fileno()

    def send(self, number: int, count: int = 1) -> None:
        """A pod sends so many bytes."""
        self._sockets[number][1].sendall(b"x" * count)

    def wait_until_read(self, count: int) -> None:
        """Let the hub run until so many bytes were read in all."""
        wait_in_hub(lambda: len(self.read) >= count, f"{count} bytes")

    def close(self) -> None:
        self.poller.stop()
        for ours, theirs in self._sockets:
            ours.close()
            theirs.close()


@pytest.fixture(params=[True, False], ids=["epoll", "watchers"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(has_epoll=request.param)
    yield bench
    bench.close()


@pytest.fixture
def with_epoll() -> Iterator[Bench]:
    bench = Bench(has_epoll=True)
    yield bench
    bench.close()


#: The hub makes fewer rounds than this in a while in which it has nothing to do, and thousands where it is kept awake.
AT_REST = 5


def rounds_at_rest() -> int:
    """How many rounds the hub makes in a while."""
    let_all_run()
    rounds = 0

    def count() -> None:
        nonlocal rounds
        rounds += 1

    prepare = gevent.get_hub().loop.prepare()
    prepare.start(count)
    gevent.sleep(0.05)
    prepare.stop()
    prepare.close()
    return rounds


def test_whoever_sends_is_read_from(bench: Bench) -> None:
    """All that it sends, and nobody else."""
    pods = [bench.pod() for _ in range(3)]
    bench.send(pods[1], 5)
    bench.send(pods[2])
    bench.wait_until_read(6)
    let_all_run()
    assert sorted(bench.read) == [1, 1, 1, 1, 1, 2]
    bench.send(pods[0])
    bench.wait_until_read(7)
    assert bench.read[-1] == 0


def test_one_that_always_sends_keeps_nobody_from_being_read(bench: Bench) -> None:
    busy, quiet = bench.pod(), bench.pod()
    bench.send(busy, 10_000)
    bench.wait_until_read(10)
    bench.send(quiet)
    wait_in_hub(lambda: quiet in bench.read, "the quiet pod")
    assert len(bench.read) < 10_000


def test_who_was_removed_is_not_read_from(bench: Bench) -> None:
    """Though somebody else still has the connection open, as the keeper has; and it can be added again."""
    pod = bench.pod()
    bench.send(pod)
    bench.wait_until_read(1)
    fd = bench.fd(pod)
    held = os.dup(fd)
    bench.poller.remove(fd)
    bench.send(pod)
    assert rounds_at_rest() < AT_REST, "it is still looked at"
    assert bench.read == [pod]
    bench.poller.remove(fd)
    bench.poller.add(fd, lambda: bench.read.append(os.read(fd, 1)[0]))
    bench.wait_until_read(2)
    os.close(held)


def test_one_may_be_removed_while_others_are_read_from(bench: Bench) -> None:
    """Who had been seen to be readable then is not read from."""
    pods = [bench.pod(lambda: [bench.poller.remove(bench.fd(pod)) for pod in pods]) for _ in range(5)]
    for pod in pods:
        bench.send(pod, 3)
    gevent.sleep(0.01)
    assert len(bench.read) == 1


def test_it_costs_nothing_while_nobody_sends(bench: Bench) -> None:
    """No round of the hub is made for it."""
    pod = bench.pod()
    bench.send(pod)
    bench.wait_until_read(1)
    assert rounds_at_rest() < AT_REST


def rounds_of(bench: Bench, count: int) -> list[int]:
    """How many are read from in each round of the hub, until so many were."""
    ends: list[int] = []
    prepare = gevent.get_hub().loop.prepare()
    prepare.start(lambda: ends.append(len(bench.read)))
    bench.wait_until_read(count)
    prepare.stop()
    prepare.close()
    return [after - before for before, after in zip([0, *ends], [*ends, count], strict=True) if after > before]


def test_of_many_a_few_are_read_from_in_a_round(with_epoll: Bench) -> None:
    """What else is ready does not wait for all of them; each is read from once before any is again."""
    pods = [with_epoll.pod() for _ in range(MOST_TAKEN * 3)]
    for pod in pods:
        with_epoll.send(pod, 2)
    assert max(rounds_of(with_epoll, len(pods) * 2)) <= MOST_TAKEN
    assert sorted(with_epoll.read[: len(pods)]) == pods
    assert sorted(with_epoll.read[len(pods) :]) == pods


def test_a_round_ends_when_its_time_is_over(with_epoll: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were not read from come first in the next one."""
    now = 0.0

    class Timer:
        @staticmethod
        def monotonic() -> float:
            return now

    def take_time() -> None:
        nonlocal now
        now += ods.poller.ROUND_SECONDS * 0.6

    monkeypatch.setattr(ods.poller, "time", Timer)
    pods = [with_epoll.pod(take_time) for _ in range(7)]
    for pod in pods:
        with_epoll.send(pod, 2)
    assert rounds_of(with_epoll, 14) == [2, 2, 2, 1] * 2
    assert sorted(with_epoll.read[:7]) == pods


def test_a_failure_ends_the_service(bench: Bench) -> None:
    """Or else ODS would accept pods, and read nothing of what they send."""

    def fail() -> None:
        raise ValueError("of the reader")

    bench.send(bench.pod(fail))
    bench.supervisor.ended.wait()
    assert bench.supervisor.has_failed
