"""One pod's connection, on real TCP: reading never waits for replying, and replies stay whole."""

import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator

import gevent
import pytest
from components.hub import fail_when_hung, let_all_run, wait_in_hub
from gevent import socket as gsocket
from gevent.event import Event

import ods.connection
from ods.connection import (
    CLOSED,
    HANDED_OVER,
    KEEPALIVE,
    MUCH_BYTES,
    REPLIES_BYTES,
    Connection,
    HandedOver,
)
from ods.poller import Poller
from ods.supervisor import Supervisor
from ods.tape import Mark, Tape
from ods.turns import Turns

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)


class Receiver:
    """Takes what was read, so much of it at a time, and may answer it; the interface is that of `ods.intake.Intake`."""

    #: How much is read at once.
    most_bytes = 16 * 1024

    def __init__(self, on_data: Callable[[bytes], None] = lambda data: None, *, piece_bytes: int = 1 << 30) -> None:
        self.data = b""
        self.finished = 0
        self.flushed = 0
        self.is_settled = True
        self.is_to_pause = False
        self.room = Event()
        self._on_data = on_data
        self._piece_bytes = piece_bytes

    def receive(self, data: bytes) -> bytes:
        assert not self.finished
        piece = data[: self._piece_bytes]
        self.data += piece
        self._on_data(piece)
        return data[len(piece) :]

    def pause(self, wait_for_turn: Callable[[], None]) -> None:
        if self.is_to_pause:
            self.room.wait()
        wait_for_turn()

    def flush(self) -> None:
        self.flushed += 1

    def finish(self) -> None:
        self.finished += 1


class HeldTurns(Turns):
    """Gives no turn before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.given = Event()

    def wait(self) -> None:
        self.asked += 1
        self.given.wait()
        super().wait()


class Line:
    """ODS's end and the pod's end of a connection."""

    def __init__(self, turns: Turns, memory: int | None = None) -> None:
        self.poller = Poller(Supervisor())
        with gsocket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            self.pod = gsocket.create_connection(listener.getsockname())
            self.socket, _ = listener.accept()
        self.dropped: list[int] = []
        self.connection = Connection(self.socket, self.poller, turns, None if memory is None else Tape(memory))
        self.connection.prepare(self.dropped.append)

    def serve(self, receiver: Receiver) -> gevent.Greenlet:
        return gevent.spawn(self.connection.serve, receiver)

    def close(self) -> None:
        """ODS's end."""
        self.connection.close()
        self.poller.stop()

    def break_from_the_pod(self) -> None:
        """The pod's process dies: a reset."""
        self.pod.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.pod.close()

    def read_all(self) -> bytes:
        """What the pod gets, up to the end."""
        pieces = []
        while data := self.pod.recv(1 << 20):
            pieces.append(data)
        return b"".join(pieces)


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line(Turns())
    yield line
    line.close()
    line.pod.close()


def numbered(first: int, count: int, size: int = 40) -> list[bytes]:
    """Replies that can be told apart."""
    return [b"OK: (%0*d)\n" % (size, number) for number in range(first, first + count)]


def overflow(line: Line) -> list[bytes]:
    """Reply to a pod that does not read until some replies are dropped; returns all replies."""
    sent: list[bytes] = []
    while not line.dropped:
        chunk = numbered(len(sent), 1000)
        line.connection.reply(b"".join(chunk))
        sent += chunk
        gevent.sleep(0)
    return sent


def test_what_the_pod_sends_is_received_in_order(line: Line) -> None:
    """All of it, and then the end, once."""
    receiver = Receiver()
    serving = line.serve(receiver)
    sent = b"".join(numbered(0, 20_000))
    line.pod.sendall(sent)
    line.pod.close()
    assert serving.get() == CLOSED
    assert receiver.data == sent
    assert receiver.finished == 1


def test_reading_pauses_while_the_receiver_says_so(line: Line) -> None:
    """What the pod sends meanwhile waits in the socket, and is received when there is room."""
    receiver = Receiver()
    receiver.is_to_pause = True
    serving = line.serve(receiver)
    line.pod.sendall(b"first\n")
    wait_in_hub(lambda: receiver.data, "the first line")
    line.pod.sendall(b"second\n")
    let_all_run()
    assert receiver.data == b"first\n"
    receiver.is_to_pause = False
    receiver.room.set()
    line.pod.close()
    assert serving.get() == CLOSED
    assert receiver.data == b"first\nsecond\n"


def test_a_pod_that_sends_much_waits_for_its_turn_and_one_that_sends_little_does_not() -> None:
    """A line of a quiet pod is read at once, however many pods wait for their turns."""
    turns = HeldTurns()
    flooding, quiet = Line(turns), Line(turns)
    try:
        read, read_quiet = Receiver(), Receiver()
        servings = [flooding.serve(read), quiet.serve(read_quiet)]
        flooding.pod.sendall(b"x" * (Receiver.most_bytes + MUCH_BYTES))
        wait_in_hub(lambda: turns.asked, "the first read of much")
        quiet.pod.sendall(b"POD2x 1\n")
        wait_in_hub(lambda: read_quiet.data, "the line of the quiet pod")
        assert len(read.data) == Receiver.most_bytes, "more was read without a turn"
        assert turns.asked == 1
        turns.given.set()
        wait_in_hub(lambda: len(read.data) == Receiver.most_bytes + MUCH_BYTES, "the rest")
    finally:
        gevent.killall(servings)
        for line in (flooding, quiet):
            line.close()
            line.pod.close()


def test_a_pod_that_has_sent_all_is_watched_again(line: Line) -> None:
    """After its turns, what it sends next is read whenever it comes."""
    receiver = Receiver()
    serving = line.serve(receiver)
    for sent in range(1, 4):
        line.pod.sendall(b"x" * Receiver.most_bytes)
        wait_in_hub(lambda sent=sent: len(receiver.data) == sent * Receiver.most_bytes, "what was sent")
        let_all_run()
    line.pod.close()
    assert serving.get() == CLOSED


def test_replies_are_never_waited_for(line: Line) -> None:
    """A pod that does not read: whoever replies goes on at once, without giving the hub a turn."""
    other = Event()
    gevent.spawn(other.set)
    for _ in range(200):
        line.connection.reply(b"".join(numbered(0, 1000)))
    assert not other.is_set(), "replying has waited"
    assert line.dropped


def test_reading_goes_on_beside_replies_that_nobody_reads(line: Line) -> None:
    """What such a pod sends is received, be there megabytes of replies for it."""
    receiver = Receiver(lambda data: line.connection.reply(b"OK: (x,1.0)\n" * data.count(b"\n") * 20))
    serving = line.serve(receiver)
    for _ in range(50):
        line.pod.sendall(b"POD2x 1\n" * 10_000)
    line.pod.shutdown(socket.SHUT_WR)
    wait_in_hub(lambda: receiver.finished, "the end of the pod's side")
    assert receiver.data == b"POD2x 1\n" * 500_000
    assert line.dropped
    line.break_from_the_pod()
    serving.get()


def test_at_most_a_mebibyte_of_replies_waits(line: Line) -> None:
    """Beyond the kernel's buffer; the rest is dropped and counted."""
    assert REPLIES_BYTES == 1024 * 1024
    overflow(line)
    line.connection.reply(b"OK\n" * 1_000_000)
    assert len(line.connection._unsent) <= REPLIES_BYTES


def test_dropped_replies_are_whole_and_counted(line: Line) -> None:
    """What arrives later is whole lines, in order; with those that were dropped they are all that was sent."""
    sent = overflow(line)
    for size in (1, 3, 500, 20_000):
        more = numbered(len(sent), 300, size)
        line.connection.reply(b"".join(more))
        sent += more
    reading = gevent.spawn(line.read_all)
    wait_in_hub(lambda: not line.connection._unsent, "all that waits to be sent")
    last = numbered(0, 10, 7)
    line.connection.reply(b"".join(last))
    line.socket.shutdown(socket.SHUT_WR)
    arrived = reading.get().splitlines(keepends=True)
    assert len(arrived) + sum(line.dropped) == len(sent) + len(last)
    assert arrived[-10:] == last
    remaining = iter([*sent, *last])
    assert all(one in remaining for one in arrived), "a reply was torn, or came out of order"


def test_a_reply_that_was_sent_in_part_is_completed(line: Line) -> None:
    """One reply larger than the kernel takes at once: nothing of it is lost, and those behind it follow."""
    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    replies = numbered(0, 8, 60_000)
    for reply in replies:
        line.connection.reply(reply)
    reading = gevent.spawn(line.read_all)
    wait_in_hub(lambda: not line.connection._unsent, "all that waits to be sent")
    line.socket.shutdown(socket.SHUT_WR)
    assert reading.get() == b"".join(replies)
    assert not line.dropped


def test_a_failed_reply_does_not_end_reading(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod dies with replies unread, which resets the connection: what had arrived before is still received."""
    monkeypatch.setattr(Receiver, "most_bytes", 1000)
    line.connection.reply(b"OK: (unread,1.0)\n")
    sent = b"".join(numbered(0, 500))
    line.pod.sendall(sent)
    line.pod.close()
    receiver = Receiver(lambda data: line.connection.reply(b"OK: LOGGED\n" * 100))
    line.serve(receiver).get()
    assert receiver.data == sent
    assert receiver.finished == 1


def test_a_pod_that_dies_while_its_replies_wait_is_read_to_the_end(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """The greenlet that sends replies fails, the one that reads does not."""
    monkeypatch.setattr(Receiver, "most_bytes", 1000)
    overflow(line)
    sent = b"".join(numbered(0, 500))
    line.pod.sendall(sent)
    line.pod.close()
    receiver = Receiver()
    line.serve(receiver).get()
    assert receiver.data == sent
    wait_in_hub(lambda: not line.connection._unsent, "the end of the replying")
    line.connection.reply(b"OK\n")
    assert not line.connection._unsent


def test_a_pod_that_ends_its_side_still_gets_its_replies(line: Line) -> None:
    """Half-close: those of points that are in flight too."""
    receiver = Receiver()
    receiver.is_settled = False
    serving = line.serve(receiver)
    line.pod.sendall(b"POD2x 1\n")
    line.pod.shutdown(socket.SHUT_WR)
    wait_in_hub(lambda: receiver.finished, "the end of the pod's side")
    let_all_run()
    assert not serving.ready()
    replies = numbered(0, 20_000)
    line.connection.reply(b"".join(replies))
    receiver.is_settled = True
    reading = gevent.spawn(line.read_all)
    assert serving.get() == CLOSED
    line.connection.close()
    assert reading.get() == b"".join(replies)


def test_a_pod_that_is_gone_is_not_lingered_for(line: Line) -> None:
    """Nothing waits for replies that cannot arrive."""
    receiver = Receiver()
    serving = line.serve(receiver)
    line.break_from_the_pod()
    how = serving.get()
    assert "reset" in how
    assert receiver.finished == 1


def test_what_had_arrived_is_received_when_ods_is_stopped(line: Line) -> None:
    """SIGTERM: store what was read, and read what is there."""
    receiver = Receiver()
    serving = line.serve(receiver)
    let_all_run()
    sent = b"".join(numbered(0, 1000))
    line.pod.sendall(sent)
    serving.kill()
    assert serving.value == "ODS is stopping"
    assert receiver.data == sent
    assert receiver.finished == 1


def test_a_pod_that_never_stops_sending_does_not_keep_ods_from_stopping(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read at the end is bounded in time."""
    monkeypatch.setattr("ods.connection.SWEEP_SECONDS", 0.05)
    stopped = Event()

    def flood() -> None:
        while not stopped.is_set():
            try:
                line.pod.send(b"POD2x 1\n" * 1000)
            except OSError:
                return

    receiver = Receiver()
    serving = line.serve(receiver)
    flooding = gevent.spawn(flood)
    wait_in_hub(lambda: receiver.data, "the flood")
    serving.kill()
    assert receiver.finished == 1
    stopped.set()
    flooding.kill()


def test_other_pods_have_their_turn_beside_a_flood(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that always has data must not keep the hub."""
    monkeypatch.setattr(Receiver, "most_bytes", 1000)
    line.pod.sendall(b"POD2x 1\n" * 5000)
    turns: list[int] = []
    receiver = Receiver(lambda data: turns.append(len(turns)))
    seen: list[int] = []

    def other() -> None:
        while not receiver.finished:
            seen.append(len(turns))
            gevent.sleep(0)

    gevent.spawn(other)
    serving = line.serve(receiver)
    line.pod.shutdown(socket.SHUT_WR)
    serving.get()
    assert len(turns) == 40
    assert len(set(seen)) > 30


def test_a_read_that_is_taken_in_pieces_leaves_the_other_pods_their_turns(line: Line) -> None:
    """One piece a turn, however much was read at once; all of it is received, in order."""
    sent = b"".join(numbered(0, 1000))
    line.pod.sendall(sent)
    line.pod.shutdown(socket.SHUT_WR)
    turns: list[str] = []
    receiver = Receiver(lambda data: turns.append("this pod"), piece_bytes=1000)

    def other() -> None:
        while not receiver.finished:
            turns.append("another")
            gevent.sleep(0)

    gevent.spawn(other)
    line.serve(receiver).get()
    assert receiver.data == sent
    assert turns.count("this pod") >= len(sent) / 1000
    together = sum(pair == ("this pod", "this pod") for pair in itertools.pairwise(turns))
    assert together == 0, "two pieces were taken in one turn"


def test_pieces_that_were_left_are_received_before_what_follows_when_ods_is_stopped(line: Line) -> None:
    """SIGTERM between two pieces of a read: nothing is lost, nothing out of order."""
    sent = [b"".join(numbered(first, 1000)) for first in (0, 1000)]
    line.pod.sendall(sent[0])
    began = Event()
    receiver = Receiver(lambda data: began.set(), piece_bytes=100)
    serving = line.serve(receiver)
    began.wait()
    assert len(receiver.data) < len(sent[0])
    line.pod.sendall(sent[1])
    serving.kill()
    assert serving.value == "ODS is stopping"
    assert receiver.data == b"".join(sent)
    assert receiver.finished == 1


@pytest.mark.parametrize("is_second_kill", [False, True])
def test_sweeps_of_many_pods_have_their_turns(
    line: Line, is_second_kill: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that each is still read for must not add up; one that is cut short finishes all the same."""
    monkeypatch.setattr("ods.connection.SWEEP_BYTES", 1000)
    receiver = Receiver()
    serving = line.serve(receiver)
    let_all_run()
    sent = b"".join(numbered(0, 1000))
    line.pod.sendall(sent)
    seen: list[int] = []

    def other() -> None:
        while not receiver.finished:
            seen.append(len(receiver.data))
            if is_second_kill and receiver.data:
                serving.kill(block=False)
            gevent.sleep(0)

    gevent.spawn(other)
    serving.kill()
    assert serving.value == "ODS is stopping"
    assert receiver.finished == 1
    if not is_second_kill:
        assert receiver.data == sent
        assert len(set(seen)) > 30


def test_a_failed_reply_does_not_lose_the_pieces_that_were_left(line: Line) -> None:
    """The pod dies, with its replies unread, between two pieces of a read: the greenlet that replies fails alone."""
    overflow(line)
    sent = b"".join(numbered(0, 1000))
    line.pod.sendall(sent)
    receiver = Receiver(lambda data: line.pod.close(), piece_bytes=5)
    line.serve(receiver).get()
    assert receiver.data == sent
    assert receiver.finished == 1


def test_the_socket_is_watched_by_keepalive_only(line: Line) -> None:
    """TCP_USER_TIMEOUT would cut off a live pod that does not read its replies."""
    assert line.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert line.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            assert line.socket.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value


def test_close_may_be_called_twice_and_replies_after_it_are_ignored(line: Line) -> None:
    """A chunk may be settled after its connection has ended."""
    line.connection.close()
    line.connection.close()
    line.connection.reply(b"OK\n")


# -- A connection that one process leaves and another takes over


@pytest.fixture
def memory() -> Iterator[int]:
    fd = Tape.make()
    yield fd
    os.close(fd)


@pytest.fixture
def taped(memory: int) -> Iterator[Line]:
    line = Line(Turns(), memory)
    yield line
    line.close()
    line.pod.close()


def successor(line: Line, memory: int) -> Connection:
    """The connection as another process has it, after the death of the one before."""
    connection = Connection(line.socket, line.poller, Turns(), Tape(memory))
    connection.take_over()
    return connection


def tape_of(connection: Connection) -> Tape:
    assert connection.tape is not None
    return connection.tape


def test_what_is_read_is_on_the_tape(taped: Line, memory: int) -> None:
    receiver = Receiver()
    serving = taped.serve(receiver)
    sent = b"".join(numbered(0, 5000))
    taped.pod.sendall(sent)
    wait_in_hub(lambda: len(receiver.data) == len(sent), "all of it")
    serving.kill(HandedOver)
    assert tape_of(successor(taped, memory)).between(0, len(sent)) == sent == receiver.data


def test_a_connection_that_is_handed_over_does_not_end(taped: Line, memory: int) -> None:
    """Its line is not torn, what waits in the kernel stays there, and what is in flight may be settled first."""
    receiver = Receiver()
    serving = taped.serve(receiver)
    taped.pod.sendall(b"POD2x 1")
    wait_in_hub(lambda: receiver.data, "what was sent")
    receiver.is_settled = False
    serving.kill(HandedOver, block=False)
    let_all_run()
    taped.pod.sendall(b".5\n")
    assert not serving.ready()
    receiver.is_settled = True
    assert serving.get() == HANDED_OVER
    assert (receiver.data, receiver.flushed, receiver.finished) == (b"POD2x 1", 1, 0)
    other = successor(taped, memory)
    assert tape_of(other).between(0, 7) == b"POD2x 1"
    going_on = Receiver()
    serving = gevent.spawn(other.serve, going_on)
    wait_in_hub(lambda: going_on.data == b".5\n", "what was sent meanwhile")
    serving.kill()


def test_a_connection_that_is_never_settled_is_handed_over_all_the_same(
    taped: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ods.connection, "HAND_OVER_SECONDS", 0.05)
    receiver = Receiver()
    receiver.is_settled = False
    serving = taped.serve(receiver)
    let_all_run()
    serving.kill(HandedOver, block=False)
    assert serving.get() == HANDED_OVER


def test_what_the_process_before_had_read_comes_first(taped: Line) -> None:
    receiver = Receiver(piece_bytes=3)
    taped.connection.go_on_with(b"before")
    taped.serve(receiver)
    wait_in_hub(lambda: receiver.data == b"before", "what was read before, though nothing comes after it")
    taped.pod.sendall(b"+after")
    wait_in_hub(lambda: receiver.data == b"before+after", "all of it, in order")


def test_replies_go_on_at_the_very_byte(taped: Line, memory: int) -> None:
    """The process before was killed when it had replied, and had not noted that."""
    taped.connection.reply(b"OK: 1\nOK: 2\n")
    tape_of(taped.connection).settle(Mark(0))
    taped.connection.reply(b"OK: 3\nOK")
    other = successor(taped, memory)
    other.reply(b"OK: 3\n")
    other.reply(b"OK: 4\nOK: 5\n")
    tape_of(other).settle(Mark(0))
    successor(taped, memory).reply(b"OK: 6\n")
    other.close()
    assert taped.read_all() == b"".join(b"OK: %d\n" % number for number in range(1, 7))


def test_replies_that_a_dead_process_held_back_are_missing_and_no_other_is_garbled(taped: Line, memory: int) -> None:
    sent = overflow(taped)
    tape_of(taped.connection).settle(Mark(0))
    taped.connection._end_replying()
    let_all_run()  # its greenlets are gone with it
    taped.connection = successor(taped, memory)
    taped.connection.reply(b"OK: after\n")
    tape_of(taped.connection).settle(Mark(0))
    reading = gevent.spawn(taped.read_all)
    wait_in_hub(lambda: not taped.connection._unsent, "all that is left to be sent")
    taped.connection.close()
    *before, cut, after, nothing = reading.get().split(b"\n")
    assert (after, nothing) == (b"OK: after", b"")
    whole = [reply[:-1] for reply in sent]
    assert before == whole[: len(before)]
    assert whole[len(before)].startswith(cut)


def test_where_nothing_counts_bytes_there_is_no_tape(
    taped: Line, memory: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ods.connection.consumed", failing)
    assert successor(taped, memory).tape is None
    assert "no tapes" in caplog.text


def failing(*_: object) -> int:
    raise OSError("no such option")
