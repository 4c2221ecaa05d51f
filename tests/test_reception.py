"""The door: who is there, and how far what they sent is settled."""

import gc
import os
from types import SimpleNamespace
from typing import Any

import pytest

from ods import together
from ods.admission import Admission
from ods.chunk import Chunk, settle
from ods.clock import Clock
from ods.intake import Intake
from ods.latest import LatestValues
from ods.ledger import Fate, Ledger
from ods.limit_watch import LimitWatch
from ods.pods import Pods
from ods.reception import Reception
from ods.sensors import Sensors
from ods.tape import Tape

NOW_NS = 1_790_000_000_000_000_000


class Door:
    """A reception, with what it passes on in the test's hands."""

    def __init__(self) -> None:
        self.now_ns = NOW_NS
        self.forwarded: list[Chunk] = []
        self.expected: list[Intake] = []
        self.unread: list[bytes] = []
        self.reception = Reception(
            pods=Pods({}, max_names=10),
            clock=Clock(wall_ns=lambda: self.now_ns, monotonic_ns=lambda: self.now_ns),
            ledger=Ledger(),
            admission=Admission(),
            batcher=SimpleNamespace(  # type: ignore[arg-type]
                put=self.forwarded.append, expect=lambda intake, size_bytes, *, urgent: self.expected.append(intake)
            ),
            recorder=SimpleNamespace(submit=lambda chunks: None),  # type: ignore[arg-type]
            events=SimpleNamespace(emit=lambda *event: b""),  # type: ignore[arg-type]
            latest=LatestValues(now_ns=lambda: self.now_ns),
            limits=LimitWatch(Sensors(), emit=lambda *event: None, now_ns=lambda: 0),
        )

    def enter(self, address: str, *, is_new: bool = True, tape: Tape | None = None) -> Intake:
        connection: Any = SimpleNamespace(
            prepare=lambda on_dropped: None,
            reply=lambda replies: None,
            take_over=lambda: None,
            tape=tape,
            go_on_with=self.unread.append,
        )
        return self.reception.enter(address, connection, is_new=is_new)

    def begin_batch(self) -> Chunk:
        """Decode what was read; returns the last chunk of it."""
        together.flush(self.expected)
        self.expected.clear()
        return self.forwarded[-1]


@pytest.fixture
def door() -> Door:
    return Door()


def test_the_oldest_is_that_of_all_pods(door: Door) -> None:
    assert door.reception.oldest_ns() is None
    first, second = door.enter("10.0.0.1"), door.enter("10.0.0.2")
    assert door.reception.oldest_ns() is None, "they have sent nothing"
    first.receive(b"POD2x 1\n")
    door.now_ns += 1000
    second.receive(b"POD2x 1\n")
    assert door.reception.oldest_ns() == NOW_NS
    chunk = door.begin_batch()
    settle(door.forwarded[:1], Fate.STORED)
    assert door.reception.oldest_ns() == NOW_NS + 1000
    settle([chunk], Fate.PENDING)
    assert door.reception.oldest_ns() is None


def test_what_a_pod_that_is_gone_has_left_in_flight_counts_until_it_is_settled(door: Door) -> None:
    """Nobody else may hold on to its connection by then, nor to its batch where ODS is stopped in the middle."""
    intake = door.enter("10.0.0.1")
    intake.receive(b"POD2x 1\n")
    intake.finish()
    chunk = door.forwarded.pop()
    door.reception.leave("10.0.0.1", "closed by the pod")
    del intake
    door.expected.clear()
    gc.collect()
    assert door.reception.oldest_ns() == NOW_NS
    settle([chunk], Fate.STORED)
    assert door.reception.oldest_ns() is None
    assert not door.reception._intakes, "those that are done are forgotten"


# -- Connections that another process has served before


def test_a_connection_that_is_taken_over_is_no_new_one(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted as standing, and nobody is told that a pod has connected."""
    events: list[Any] = []
    door.reception._events = SimpleNamespace(emit=lambda *event: events.append(event))  # type: ignore[assignment]
    intake = door.enter("10.0.0.1", is_new=False)
    assert (intake.pod.connections, intake.pod.connects) == (1, 0)
    assert not events and "connected" not in caplog.text


def test_one_that_was_read_from_is_not_new(door: Door) -> None:
    """Whatever is told of it: the process that had read from it may have died before it could say so."""
    tape = Tape(memory := Tape.make())
    reading, writing = os.pipe()
    os.write(writing, b"POD2x")
    tape.read(reading, 100)
    assert door.enter("10.0.0.1", is_new=True, tape=tape).pod.connects == 0
    door.reception.resume(lambda since: {})
    assert door.unread == [b"POD2x"]
    for fd in (memory, reading, writing):
        os.close(fd)


def test_where_nothing_was_left_the_recordings_are_not_asked(door: Door) -> None:
    intake = door.enter("10.0.0.1", is_new=False)
    door.reception.resume(lambda since: pytest.fail("asked"))
    assert intake.is_settled
    assert door.unread == [b""]


def test_no_time_is_given_before_one_that_is_repeated(door: Door) -> None:
    """Though the clock was set back between the processes."""
    later_ns = NOW_NS + 3600 * 10**9
    tape = Tape(memory := Tape.make())
    reading, writing = os.pipe()
    os.write(writing, b"POD2x 1\nPOD2x 2\n")
    tape.read(reading, 100)
    tape.note(16, later_ns)
    intake = door.enter("10.0.0.1", is_new=False, tape=tape)
    other = door.enter("10.0.0.2")
    door.reception.resume(lambda since: {} if since == {"10.0.0.1": later_ns} else pytest.fail(str(since)))
    assert [(chunk.first_ns, chunk.last_ns) for chunk in door.forwarded] == [(later_ns, later_ns + 1)]
    for one in (intake, other):
        one.receive(b"POD2y 3\n")
        assert door.begin_batch().first_ns > later_ns
    for fd in (memory, reading, writing):
        os.close(fd)
