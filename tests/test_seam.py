"""Exactly once over the seam: processes that die at any step leave what one that never died would have made.

What a pod sends goes through the connection, the tape, the intake and the reception as they are; the recordings and the
store are the test's. A process dies by an exception at some step, and nothing of it is used any more but what outlives
a process: the socket, the tape, what is in the recordings, and what is in the store.
"""

import contextlib
import csv
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from components.hub import fail_when_hung
from hypothesis import given, settings
from hypothesis import strategies as st

from ods import together
from ods.admission import Admission
from ods.chunk import Chunk, settle
from ods.clock import Clock
from ods.connection import Connection
from ods.encoder import count, encode
from ods.intake import Intake
from ods.latest import LatestValues
from ods.ledger import Fate, Ledger
from ods.limit_watch import LimitWatch
from ods.line_protocol import time_of
from ods.pods import Pods
from ods.protocol import Decoder, NameBook, replies_when_kept
from ods.reception import Reception
from ods.sensors import Sensors
from ods.tape import NOTES, RING_BYTES, Mark, Tape
from ods.turns import Turns

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)

NOW_NS = 1_790_000_000_000_000_000
Row = tuple[int, str, str]


class Died(BaseException):
    """The process is no more."""


class DyingTape(Tape):
    """A tape whose process may die before and after whatever it does with it."""

    step: Callable[[], None] = staticmethod(lambda: None)

    def read(self, fd: int, size_bytes: int) -> bytes:
        data = super().read(fd, size_bytes)
        self.step()
        return data

    def note(self, end: int, first_ns: int, *, is_last: bool = False) -> None:
        self.step()
        super().note(end, first_ns, is_last=is_last)
        self.step()

    def settle(self, mark: Mark) -> None:
        self.step()
        super().settle(mark)
        self.step()


class Line:
    """A connection, as the keeper and the kernel hold it, and the pod's end of it."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.pod = socket.create_connection(server.getsockname())
            self.ours, _ = server.accept()
        self.ours.setblocking(False)
        self.memory = Tape.make()

    def send(self, data: bytes) -> None:
        before = self.waiting
        self.pod.sendall(data)
        while self.waiting < before + len(data):
            gevent.sleep(0)

    @property
    def waiting(self) -> int:
        return int(struct.unpack("=i", fcntl.ioctl(self.ours, termios.FIONREAD, bytes(4)))[0])

    def replied(self) -> bytes:
        """What the pod gets, to the end, which is now."""
        self.ours.close()
        pieces = []
        with contextlib.suppress(ConnectionResetError):
            while data := self.pod.recv(1 << 20):
                pieces.append(data)
        return b"".join(pieces)

    def close(self) -> None:
        self.pod.close()
        self.ours.close()
        os.close(self.memory)


@dataclass
class World:
    """What outlives a process."""

    lines: list[Line] = field(default_factory=list)
    now_ns: int = NOW_NS
    #: In the order in which they were written down.
    recorded: list[Row] = field(default_factory=list)
    stored: dict[int, str] = field(default_factory=dict)
    #: Everything that was ever given on by any process, with its time.
    given: set[Row] = field(default_factory=set)
    counted: int = 0

    def tick(self) -> int:
        self.now_ns += 1000
        return self.now_ns

    def recover(self) -> dict[int, Row]:
        """What the recovery makes of the recordings: by their times, which none shares with another."""
        by_time = {row[0]: row for row in self.recorded}
        assert len(by_time) == len(self.recorded), "something is twice in the recordings"
        return by_time


class Life:
    """One process: from its start, where it takes over what the one before left, to its death after so many steps."""

    def __init__(self, world: World, steps: int) -> None:
        self.world = world
        self._steps = steps
        self.put: list[Chunk] = []
        self.written_down: list[Chunk] = []
        self.expected: dict[Intake, None] = {}
        self.ledger = Ledger()
        self.reception = Reception(
            pods=Pods({}, max_names=10_000),
            clock=Clock(wall_ns=world.tick, monotonic_ns=lambda: world.now_ns),
            ledger=self.ledger,
            admission=Admission(),
            batcher=SimpleNamespace(put=self._put, expect=self._expect),  # type: ignore[arg-type]
            recorder=SimpleNamespace(submit=lambda chunks: None),  # type: ignore[arg-type]
            events=SimpleNamespace(emit=lambda *event: b""),  # type: ignore[arg-type]
            latest=LatestValues(now_ns=lambda: world.now_ns),
            limits=LimitWatch(Sensors(), emit=lambda *event: None, now_ns=lambda: 0),
        )
        self.served: list[tuple[Line, Any, Intake]] = []
        self.unread: dict[Line, bytes] = {}

    def step(self) -> None:
        self._steps -= 1
        if not self._steps:
            raise Died

    def begin(self) -> None:
        for line in self.world.lines:
            tape = DyingTape(line.memory)
            tape.step = self.step  # type: ignore[method-assign]
            connection: Any = Connection(line.ours, None, Turns(), tape)  # type: ignore[arg-type]
            connection.go_on_with = lambda unread, line=line: self.unread.update({line: unread})
            connection.reply = self._stepping(connection.reply)
            intake = self.reception.enter("10.0.0.1", connection, is_new=False)
            self.served.append((line, connection, intake))
        self.reception.resume(self._find_recorded)
        for line, _, intake in self.served:
            self._receive(intake, self.unread[line])

    def read(self, size: int) -> None:
        """Read at most so much from each connection, as a connection does."""
        for line, connection, intake in self.served:
            if not intake.is_finished:
                with contextlib.suppress(BlockingIOError):
                    data = connection.tape.read(line.ours.fileno(), size)
                    if data:
                        self._receive(intake, data)
                    else:
                        intake.finish()

    def begin_batch(self) -> None:
        """Have decoded what was read."""
        expected, self.expected = self.expected, {}
        together.flush(expected)
        self.step()

    def write_down(self) -> None:
        """Append what was given on to the recordings; the process may die between two rows."""
        while self.put:
            chunk = self.put[0]
            for row in rows_of(chunk):
                self.world.recorded.append(row)
                self.step()
            self.written_down.append(self.put.pop(0))

    def store(self) -> None:
        """Store what was written down, and tell."""
        for chunk in self.written_down:
            for line in chunk.lines.decode().splitlines():
                before = self.world.stored.setdefault(time_of(line), line)
                assert before == line, "a point was given the time of another"
                self.step()
        done, self.written_down = self.written_down, []
        settle(done, Fate.STORED)
        self.step()

    def end(self) -> None:
        """Read all that the pods send, to the end, and store it."""
        while not all(intake.is_finished for _, _, intake in self.served):
            self.read(16 * 1024)
        self.begin_batch()
        self.write_down()
        self.store()

    def _receive(self, intake: Intake, unread: bytes) -> None:
        while unread:
            unread = intake.receive(unread)

    def _put(self, chunk: Chunk) -> None:
        self.world.given.update(rows_of(chunk))
        self.step()
        self.put.append(chunk)

    def _expect(self, intake: Intake, size_bytes: int, *, urgent: bool) -> None:
        self.expected[intake] = None

    def _stepping(self, reply: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def stepping(replies: bytes) -> None:
            self.step()
            reply(replies)
            self.step()

        return stepping

    def _find_recorded(self, since: Mapping[str, int]) -> Mapping[str, Set[int]]:
        return {"10.0.0.1": {time_ns for time_ns, _, _ in self.world.recorded if time_ns >= since["10.0.0.1"]}}


def rows_of(chunk: Chunk) -> list[Row]:
    """The rows of the recordings that a chunk holds."""
    text = (chunk.data_rows + chunk.log_rows).decode()
    return sorted((int(time_ns), one, other) for time_ns, one, other in csv.reader(text.splitlines()))


def expected_of(stream: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """What a stream holds, and how it is answered, when it is read in one piece by one process."""
    decoder = Decoder(NameBook(10_000))
    whole = decoder.feed(stream)
    last = decoder.finish()
    records = whole.records + last.records
    encoded = encode(records, "pod=a", [str(number) for number in range(count(records))])
    rows = sorted((int(at), one, other) for at, one, other in _csv(encoded.data_rows + encoded.log_rows))
    return [(one, other) for _, one, other in rows], replies_when_kept(whole.replies)


def _csv(text: bytes) -> Iterator[list[str]]:
    return csv.reader(text.decode().splitlines())


@contextlib.contextmanager
def a_world(lines: int = 1) -> Iterator[World]:
    world = World()
    try:
        world.lines += [Line() for _ in range(lines)]
        yield world
    finally:
        for line in world.lines:
            line.close()


Step = Callable[[Life], None]


def live(world: World, deaths: list[int], steps: list[Step]) -> Life:
    """Have one process after the other do these, where the one before died, and the last one come to the end."""
    at = 0
    for death in [*deaths, 1 << 60]:
        life = Life(world, death)
        with contextlib.suppress(Died):
            life.begin()
            while at < len(steps):
                at += 1
                steps[at - 1](life)
            life.end()
            return life
    raise AssertionError("the last one does not die")


def check(world: World, stream: bytes) -> None:
    """Everything is there once, with one time, in order, and was answered once."""
    rows, replies = expected_of(stream)
    recovered = world.recover()
    assert [row[1:] for _, row in sorted(recovered.items())] == rows
    assert world.given == set(recovered.values()), "something was given on with two times"
    points = {time_ns for time_ns, one, _ in recovered.values() if one not in ("invalid", "torn")}
    assert set(world.stored) <= points
    assert world.lines[0].replied() == replies


# -- What pods send

WORDS = st.sampled_from(
    [
        b"POD2x 1.5\n",
        b"POD2y -7\n",
        b"POD2x 0.25\r\n",
        b"  POD2z 1e3 \n",
        b"POD2x nan\n",
        b"POD2x\n",
        b"POD1[NOTE]  Connected",
        b"POD1[INFO]  punching boot_sem",
        b"POD1 a\n",
        b"POD2a 0.5\n",
        b"\n",
        b" ",
        b"\r",
        b"garbage\n",
        b"POD1\xff\xfe\n",
        b"POD2x 12",
        b"POD",
        b'POD1 "quoted", text\n',
        b"POD1" + b"m" * 1000,
        b"x" * 70_000,
        b"POD1" + b"l" * 66_000 + b"\n",
    ]
)
PLAIN = st.lists(st.integers(0, 999).map(lambda value: b"POD2p %d.5\n" % value), min_size=1, max_size=300).map(b"".join)
STREAMS = st.lists(st.one_of(WORDS, WORDS, PLAIN), max_size=40).map(b"".join)
SIZES = st.sampled_from([1, 2, 5, 11, 60, 400, 5000, 40_000])
DOINGS = st.lists(
    st.one_of(
        SIZES.map(lambda size: ("send", size)),
        SIZES.map(lambda size: ("read", size)),
        st.sampled_from([("begin_batch", 0), ("write_down", 0), ("store", 0)]),
    ),
    max_size=60,
)


def steps_of(world: World, stream: bytes, doings: list[tuple[str, int]]) -> list[Step]:
    """The steps in which this stream is sent and read, and at the end the pod ends its side."""
    steps: list[Step] = []
    at = 0
    for what, size in doings:
        if what == "send":
            steps.append(_sending(world, stream[at : at + size]))
            at += size
        elif what == "read":
            steps.append(lambda life, size=size: life.read(size))  # type: ignore[misc]
        else:
            steps.append(lambda life, what=what: getattr(life, what)())  # type: ignore[misc]
    for begin in range(at, len(stream), 30_000):
        steps += [_sending(world, stream[begin : begin + 30_000]), lambda life: life.read(RING_BYTES)]
        steps += [lambda life: life.read(RING_BYTES), lambda life: life.read(RING_BYTES)]
    return [*steps, lambda life: world.lines[0].pod.shutdown(socket.SHUT_WR)]


def _sending(world: World, data: bytes) -> Step:
    return lambda life: world.lines[0].send(data)


@settings(max_examples=300, deadline=None)
@given(stream=STREAMS, doings=DOINGS, deaths=st.lists(st.integers(1, 120), max_size=6))
def test_whatever_is_sent_and_whenever_processes_die_it_is_all_there_once(
    stream: bytes, doings: list[tuple[str, int]], deaths: list[int]
) -> None:
    """The records, their times and the replies are those of one process that never died."""
    with a_world() as world:
        life = live(world, deaths, steps_of(world, stream, doings))
        check(world, stream)
        assert all(intake.is_settled for _, _, intake in life.served)


STREAM = b"POD2x 1\nPOD1[NOTE]  hiPOD1[INFO]  hoPOD2y 2.5\nPOD2bad\n  POD2z 3\r\nPOD1 last wordsPOD2t 4"
DOING = [
    *[("send", 20), ("read", 9), ("read", 50), ("begin_batch", 0), ("write_down", 0), ("send", 25), ("read", 50)],
    *[("begin_batch", 0), ("store", 0), ("write_down", 0), ("send", 100), ("read", 100), ("store", 0)],
]


@pytest.mark.parametrize("again", [0, 1, 7, 30])
@pytest.mark.parametrize("stream", [STREAM, b"POD1[FATAL] braking", b"POD2x 12"])
def test_a_process_may_die_at_every_step(stream: bytes, again: int) -> None:
    """And the one after it too, so many steps after its start."""
    for death in range(1, 100):
        with a_world() as world:
            life = live(world, [death, again] if again else [death], steps_of(world, stream, DOING))
            check(world, stream)
    assert life._steps < 100, "there are steps at which none has died"


# -- Two connections of one pod


@given(deaths=st.lists(st.integers(1, 60), max_size=4), sizes=st.lists(st.integers(1, 60), min_size=5, max_size=12))
@settings(max_examples=60, deadline=None)
def test_two_connections_of_a_pod_share_its_times(deaths: list[int], sizes: list[int]) -> None:
    """Their records come in turns, and stand in the recordings in the order of their times, also when repeated."""
    with a_world(lines=2) as world:
        streams = [b"".join(b"POD2%s%d %d\n" % (name, at, at) for at in range(40)) for name in (b"a", b"b")]
        sent = [0, 0]
        steps: list[Step] = []

        def send(number: int, size: int) -> None:
            world.lines[number].send(streams[number][sent[number] : sent[number] + size])
            sent[number] += size

        for at, size in enumerate([*sizes, 10_000, 10_000]):
            steps += [lambda life, at=at, size=size: send(at % 2, size), lambda life: life.read(100)]  # type: ignore[misc]
            steps += [Life.begin_batch] * (at % 2) + [Life.write_down] * (at % 3 == 2) + [Life.store] * (at % 4 == 3)
        steps += [lambda life, line=line: line.pod.shutdown(socket.SHUT_WR) for line in world.lines]  # type: ignore[misc]
        live(world, deaths, steps)
        recovered = world.recover()
        assert world.given == set(recovered.values())
        names = [name for _, (_, name, _) in sorted(recovered.items())]
        for letter in "ab":
            assert [name for name in names if name[0] == letter] == [f"{letter}{at}" for at in range(40)]
        assert [row[0] for row in world.recorded] == sorted(row[0] for row in world.recorded)


# -- What a tape does not hold


def test_what_a_tape_has_no_room_for_is_left_to_the_recordings() -> None:
    """A pod has more in flight than a tape holds: the oldest of it is recorded, and the pod does not wait."""
    with a_world() as world:
        stream = b"".join(b"POD2x%d %d.5\n" % (at % 50, at) for at in range(150_000))
        assert len(stream) > 1.7 * RING_BYTES
        reading = [
            step
            for begin in range(0, len(stream), 10_000)
            for step in (_sending(world, stream[begin : begin + 10_000]), lambda life: life.read(16_384))
        ]
        halves = [*reading, Life.begin_batch, Life.write_down, _dying]
        live(world, [1 << 40], [*halves, lambda life: world.lines[0].pod.shutdown(socket.SHUT_WR)])
        rows, replies = expected_of(stream)
        recovered = world.recover()
        assert [row[1:] for _, row in sorted(recovered.items())] == rows
        replied = world.lines[0].replied()
        assert replies.endswith(replied), "the replies to what was given up are missing, no others"
        assert replied.count(b"\n") > 150_000 / 4


def _dying(life: Life) -> None:
    raise Died


def test_more_reads_than_a_tape_has_notes_for_are_left_to_the_recordings() -> None:
    with a_world() as world:
        stream = b"".join(b"%d\n" % (at % 10) for at in range(NOTES + 3000))
        steps: list[Step] = []
        for line in stream.splitlines(keepends=True):
            steps += [_sending(world, line), lambda life: life.read(100)]
        steps += [Life.begin_batch, Life.write_down, _dying, lambda life: world.lines[0].pod.shutdown(socket.SHUT_WR)]
        live(world, [1 << 40], steps)
        recovered = world.recover()
        assert [row[1:] for _, row in sorted(recovered.items())] == expected_of(stream)[0]
        assert world.given == set(recovered.values())


def test_a_line_without_end_fills_no_tape() -> None:
    """What there is no record of is settled at once."""
    with a_world() as world:
        steps: list[Step] = []
        for _ in range(150):
            steps += [_sending(world, b"x" * 10_000), lambda life: life.read(16_384), Life.begin_batch]
        steps += [_dying, _sending(world, b"\nPOD2y 1\n"), lambda life: world.lines[0].pod.shutdown(socket.SHUT_WR)]
        live(world, [1 << 40], steps)
        check(world, b"x" * 1_500_000 + b"\nPOD2y 1\n")


def test_a_tape_that_cannot_be_read_is_begun_anew_where_the_kernel_is(caplog: pytest.LogCaptureFixture) -> None:
    """The record that was read and not settled is missing, as after a crash without a tape; nothing else is."""
    with a_world() as world:
        garble: Step = lambda life: void(os.pwrite(world.lines[0].memory, b"ODStape0", 0))  # noqa: E731
        steps = [_sending(world, b"POD2a 1\nPOD2b 2\nPOD2c"), lambda life: life.read(14), garble, _dying]
        steps += [_sending(world, b" 3\nPOD2d 4\n"), lambda life: life.read(1000), Life.begin_batch, _dying]
        live(world, [1 << 40, 1 << 40], [*steps, lambda life: world.lines[0].pod.shutdown(socket.SHUT_WR)])
        left = [row[1:] for _, row in sorted(world.recover().items())]
        assert left == [("invalid", "2"), ("c", "3"), ("d", "4")]
        assert "is not repeated" in caplog.text


def void(_: object) -> None:
    """Nothing."""
