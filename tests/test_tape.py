"""What is left of a connection when its reader is killed: every byte, where to begin, and the times of the records."""

import fcntl
import os
import random
import signal
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from harness.wait import wait_until

from ods.errors import TapeRefused
from ods.stream_offsets import consumed
from ods.tape import MAGIC, NOTES, RING_BYTES, SPARE_BYTES, SPARE_NOTES, TAPE_BYTES, Mark, Note, Tape

#: How often a reader is killed in each of the tests that do.
KILLS = 120
#: No byte of it stands where the same one of another round of the ring did.
PATTERN = random.Random(5).randbytes(3 * RING_BYTES)


def stream(begin: int, end: int) -> bytes:
    """What a pod sends, from one offset to another."""
    first, size = begin % len(PATTERN), end - begin
    return (PATTERN[first : first + size] + PATTERN)[:size] if size <= len(PATTERN) else b""


@pytest.fixture
def memory() -> Iterator[int]:
    fd = Tape.make()
    yield fd
    os.close(fd)


class Source:
    """A pipe whose bytes are those of the stream."""

    def __init__(self) -> None:
        self.fd, self._to = os.pipe()
        self._sent = 0

    def read(self, tape: Tape, size: int) -> bytes:
        """Have a tape read so much, in as many reads as it takes."""
        data = b""
        while len(data) < size:
            count = min(size - len(data), 30_000)
            os.write(self._to, stream(self._sent, self._sent + count))
            self._sent += count
            while len(data) < size and count > 0:
                piece = tape.read(self.fd, count)
                data, count = data + piece, count - len(piece)
        return data

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._to)


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    yield source
    source.close()


def successor(memory: int, consumed: int, written: int = 0) -> Tape:
    tape = Tape(memory)
    tape.take_over(consumed, written)
    return tape


# -- What a successor finds


def test_a_new_tape_is_empty(memory: int) -> None:
    tape = successor(memory, 0)
    assert (tape.mark, tape.notes(), tape.between(0, 0)) == (Mark(0), [], b"")


def test_what_was_read_is_there(memory: int, source: Source) -> None:
    assert source.read(Tape(memory), 1000) == stream(0, 1000)
    assert successor(memory, 1000).between(0, 1000) == stream(0, 1000)


def test_the_kernel_knows_better_how_far_was_read(memory: int, source: Source) -> None:
    """The reader may be killed before it could note its last read."""
    tape = Tape(memory)
    source.read(tape, 500)
    os.write(source._to, stream(500, 800))
    os.readv(source.fd, (tape._ring[500:800],))
    assert successor(memory, 800).between(0, 800) == stream(0, 800)


def test_notes_say_which_times_a_piece_had(memory: int, source: Source) -> None:
    tape = Tape(memory)
    source.read(tape, 100)
    tape.note(40, 1_790_000_000_000_000_000)
    tape.note(90, 1_790_000_000_000_000_007, is_last=True)
    expected = [Note(40, 1_790_000_000_000_000_000), Note(90, 1_790_000_000_000_000_007, is_last=True)]
    assert successor(memory, 100).notes() == expected


def test_what_is_settled_is_not_repeated(memory: int, source: Source) -> None:
    tape = Tape(memory)
    source.read(tape, 100)
    tape.note(40, 7)
    tape.note(90, 8)
    tape.settle(Mark(35, 1, taken=b"POD1[NOTE] x", is_overlong=True))
    found = successor(memory, 100)
    assert found.mark == Mark(35, 1, b"POD1[NOTE] x", is_overlong=True)
    assert found.notes() == [Note(90, 8)]
    tape.settle(Mark(90, 2))
    found = successor(memory, 100)
    assert (found.mark, found.notes()) == (Mark(90, 2), [])


def test_the_place_to_begin_at_never_goes_back(memory: int, source: Source) -> None:
    """What was given up is settled later, or not."""
    tape = Tape(memory)
    source.read(tape, 100)
    tape.give_up(Mark(50, 0, b"x"))
    tape.settle(Mark(20))
    assert successor(memory, 100).mark == Mark(50, 0, b"x")


def test_a_pod_that_sends_little_touches_few_pages(memory: int, source: Source) -> None:
    tape = Tape(memory)
    before = os.fstat(memory).st_blocks
    for number in range(1, 3 * RING_BYTES // 30_000):
        source.read(tape, 30_000)
        tape.settle(Mark(number * 30_000))
    assert (os.fstat(memory).st_blocks - before) * 512 <= 64 * 1024


def test_a_ring_that_is_never_empty_goes_round(memory: int, source: Source) -> None:
    tape = Tape(memory)
    for number in range(1, 40):
        data = source.read(tape, 100_000)
        assert data == stream(number * 100_000 - 100_000, number * 100_000)
        begin = max(0, number * 100_000 - 700_001)
        tape.settle(Mark(begin))
        assert successor(memory, number * 100_000).between(begin, number * 100_000) == stream(begin, number * 100_000)


def test_the_oldest_is_to_be_given_up_before_the_ring_is_full(memory: int, source: Source) -> None:
    tape = Tape(memory)
    source.read(tape, RING_BYTES - SPARE_BYTES)
    assert not tape.is_nearly_full
    source.read(tape, 1)
    assert tape.is_nearly_full
    tape.give_up(Mark(10))
    assert not tape.is_nearly_full
    assert successor(memory, tape.read_to).between(10, tape.read_to) == stream(10, tape.read_to)


def test_the_oldest_is_to_be_given_up_before_there_is_no_room_for_notes(memory: int) -> None:
    tape = Tape(memory)
    for number in range(NOTES - SPARE_NOTES):
        tape.note(0, number)
    assert not tape.is_nearly_full
    tape.note(0, NOTES)
    assert tape.is_nearly_full
    tape.give_up(Mark(0, 1))
    assert not tape.is_nearly_full


def test_a_full_ring_makes_no_pod_wait_and_is_refused_afterwards(memory: int, source: Source) -> None:
    tape = Tape(memory)
    assert source.read(tape, RING_BYTES + 5000) == stream(0, RING_BYTES + 5000)
    with pytest.raises(TapeRefused):
        successor(memory, RING_BYTES + 5000)


# -- Replies


def test_replies_that_the_kernel_has_are_not_sent_again(memory: int) -> None:
    tape = Tape(memory)
    tape.replied = 300
    tape.settle(Mark(0))
    found = successor(memory, 0, written=340)
    assert (found.replied, found.replied_already, found.has_lost_replies) == (300, 40, False)


def test_replies_that_never_reached_the_kernel_are_lost_once(memory: int) -> None:
    tape = Tape(memory)
    tape.replied = 300
    tape.settle(Mark(0))
    found = successor(memory, 0, written=250)
    assert (found.replied, found.replied_already, found.has_lost_replies) == (250, 0, True)
    assert not successor(memory, 0, written=250).has_lost_replies


# -- Tapes that cannot be used


def write_word(memory: int, number: int, value: int) -> None:
    os.pwrite(memory, value.to_bytes(8, "little"), number * 8)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (0, 0),
        (0, MAGIC + 1),
        (1, 51),  # the ring would begin after what is settled
        (8, 2000),  # settled, and never read
        (9, 100),  # more notes done than written
        (3, NOTES + 5),
        (11, 65 << 1),
        (512, 2000),  # a note of what was never read
        (512, 10),
        (515, 1 << 63),
    ],
)
def test_a_tape_that_makes_no_sense_is_refused(memory: int, source: Source, word: int, value: int) -> None:
    tape = Tape(memory)
    source.read(tape, 1000)
    tape.note(600, 5)
    tape.note(700, 6)
    tape.settle(Mark(40))
    tape.settle(Mark(50))
    successor(memory, 1000)
    write_word(memory, word, value)
    with pytest.raises(TapeRefused):
        successor(memory, 1000)


def test_garbage_is_refused_and_begun_anew(memory: int, source: Source) -> None:
    dice = random.Random(1)
    for _ in range(50):
        os.pwrite(memory, MAGIC.to_bytes(8, "little") + dice.randbytes(50_000), 0)
        with pytest.raises(TapeRefused):
            successor(memory, 1000)
    tape = Tape(memory)
    tape.begin(1000, 20)
    data = source.read(tape, 300)
    found = successor(memory, 1300, written=20)
    assert (found.mark, found.notes(), found.between(1000, 1300)) == (Mark(1000), [], data)
    assert found.replied == 20


def test_a_smaller_tape_of_another_version_is_refused_and_begun_anew() -> None:
    memory = os.memfd_create("old")
    os.ftruncate(memory, 5000)
    tape = Tape(memory)
    with pytest.raises(TapeRefused):
        tape.take_over(10, 0)
    tape.begin(10, 0)
    successor(memory, 10)
    assert os.fstat(memory).st_size == TAPE_BYTES
    os.close(memory)


# -- A reader that is killed


class Pod:
    """A connection whose end at ODS is read by one process after another, each killed at a random moment."""

    def __init__(self, dice: random.Random) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.socket = socket.create_connection(server.getsockname())
            self.ours, _ = server.accept()
        self.dice = dice
        self.memory = Tape.make()
        self.sent = 0
        self._child = 0

    def send(self, size: int) -> None:
        while size:
            count = min(size, self.dice.choice((1, 7, 100, 1460, 5000, 20_000)))
            self.socket.sendall(stream(self.sent, self.sent + count))
            self.sent, size = self.sent + count, size - count

    def begin_reader(self) -> None:
        """Read in a process of its own."""
        tape = Tape(self.memory)
        tape.take_over(consumed(self.ours, tape.read_to), 0)
        seed = self.dice.random()
        self._child = os.fork()
        if not self._child:
            try:
                _read_and_settle(tape, self.ours.fileno(), random.Random(seed))
            finally:
                os._exit(0)
        tape.close()

    def kill_reader(self) -> None:
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)
        self._child = 0

    def check(self) -> int:
        """What was left is the stream from where it was settled, with its notes; returns how far it was read."""
        tape = Tape(self.memory)
        end = consumed(self.ours, tape.read_to)
        tape.take_over(end, 0)
        assert tape.between(tape.mark.settled, end) == stream(tape.mark.settled, end)
        assert tape.mark.taken == str(tape.mark.settled).encode()
        for note in tape.notes():
            assert note.first_ns == note.end * 3
        assert all(one.end < other.end for one, other in pairwise(tape.notes()))
        tape.close()
        return end

    def read_rest(self) -> int:
        """Read what was not read yet, to the end; returns how much it was."""
        tape = Tape(self.memory)
        begin = tape.read_to = consumed(self.ours, tape.read_to)
        tape.take_over(begin, 0)
        self.ours.setblocking(True)
        try:
            while data := tape.read(self.ours.fileno(), 20_000):
                assert data == stream(tape.read_to - len(data), tape.read_to)
                tape.settle(Mark(tape.read_to, tape.noted, str(tape.read_to).encode()))
        except ConnectionResetError:
            pass
        return tape.read_to

    def end(self, how: str) -> None:
        """End the pod's side; a reset takes nothing with it that was sent."""
        wait_until(lambda: not self._on_the_way, timeout_seconds=10, what="all that was sent has arrived")
        if how in ("ended", "ended, then reset"):
            self.socket.shutdown(socket.SHUT_WR)
        if how in ("reset", "ended, then reset"):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()

    @property
    def _on_the_way(self) -> int:
        return int(struct.unpack("=i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)))[0])

    def close(self) -> None:
        if self._child:
            self.kill_reader()
        self.socket.close()
        self.ours.close()
        os.close(self.memory)


def _read_and_settle(tape: Tape, fd: int, dice: random.Random) -> None:
    """What a worker does, with times and marks that can be checked; until it is killed, or the connection ends."""
    os.set_blocking(fd, True)
    while tape.read(fd, dice.choice((1, 10, 1000, 4096, 16_384))):
        tape.note(tape.read_to, tape.read_to * 3)
        if dice.random() < 0.7 or tape.is_nearly_full:
            _settle(tape, dice)


def _settle(tape: Tape, dice: random.Random) -> None:
    notes = tape.notes()
    number = dice.randrange(len(notes))
    settled = max(tape.mark.settled, notes[number].end - dice.randrange(200))
    tape.settle(Mark(settled, tape.mark.notes + number + 1, str(settled).encode()))


def kill_readers(pod: Pod, kills: int) -> None:
    for _ in range(kills):
        pod.begin_reader()
        pod.send(pod.dice.choice((0, 1, 500, 20_000, 60_000, 300_000)))
        pod.kill_reader()
        pod.check()


@pytest.fixture(params=["ended", "reset", "ended, then reset"])
def ending(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_killed_reader_leaves_what_it_read(ending: str) -> None:
    """However it is killed, and however the pod ends the connection while it reads."""
    pod = Pod(random.Random(ending))
    Tape(pod.memory).settle(Mark(0, 0, b"0"))
    try:
        kill_readers(pod, KILLS)
        assert pod.sent > 2 * RING_BYTES
        pod.begin_reader()
        pod.send(30_000)
        pod.end(ending)
        pod.kill_reader()
        pod.check()
        assert pod.read_rest() == pod.sent
        assert pod.check() == pod.sent
    finally:
        pod.close()


@pytest.mark.parametrize("size", [0, 1, 3000, 60_000])
def test_a_reader_killed_at_the_end_leaves_what_it_read(ending: str, size: int) -> None:
    for seed in range(8):
        pod = Pod(random.Random(seed))
        Tape(pod.memory).settle(Mark(0, 0, b"0"))
        pod.begin_reader()
        pod.send(size)
        pod.end(ending)
        if seed % 2:
            wait_until(_reads_no_more(pod), timeout_seconds=10, what="the reader has come to the end")
        pod.kill_reader()
        pod.check()
        assert pod.read_rest() == pod.sent
        pod.close()


def _reads_no_more(pod: Pod) -> Callable[[], bool]:
    return lambda: consumed(pod.ours, pod.sent) == pod.sent
