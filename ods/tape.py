"""The tape of one connection: what was read of it and is not settled, in memory that outlives the process that read it.

The keeper makes a tape for each connection and holds it open; the worker reads straight into it, so that a worker that
is killed at any instruction leaves every byte that it took from the kernel. Its successor asks the kernel how far the
stream was read (`ods.stream_offsets`), and finds here where to begin, and the times that the records had.

    header   base      stream offset that lies at the begin of the ring; set anew whenever nothing in the ring is needed
                       any more, so that a pod that sends little touches few pages
             read_to   stream offset up to which was read, as its reader saw it; the kernel knows better
             noted     how many notes were ever written
             owner     whose it is, for a keeper that finds nothing else (`ods.tape_owner`)
             state     which of two slots counts: settled (stream offset before which nothing has to be repeated), how
                       many notes it needs no more, the offset of the replies to what follows it, and what the decoder
                       remembers of a line that was begun before it
    notes    a ring of (stream offset, first_ns): what was read up to this offset, from the note before, held records,
             and they were given consecutive times from this one on. Written before anything is done with them.
    ring     1 MiB: the byte at stream offset X lies at (X - base) % 1 MiB

Every change is one store of eight aligned bytes, made after all that it speaks of, so that there is no moment at which
a process that dies leaves half of a change (it is one machine's memory, which a power cut takes with it as a whole).

What is exact after the death of a worker (SIGKILL, a crash, a hang that was ended), however often it dies, also while
it repeats what the one before it left:

- Every byte is taken once: none is missing, none doubled.
- A record that was given its time keeps it, so a store that has it takes it again without a change. InfluxDB has each
  record once. One that the recordings hold is not written there again and not counted again.
- The reply to a line is sent once, where it was given to the kernel or not given to it yet.
- All of this in the middle of a line too, one of more than 64 KiB or with messages taken off it included, for the last
  words of a connection that has ended, and for two connections of one pod, which share its times.

What could double or be missing:

- A pod with more than 1 MiB, or more than 2048 reads with records in them, in flight at once: the tape gives up the
  oldest. What of that is in the recordings is recovered from there; what is not (a disk that does not answer, or is
  full, while both stores are slow) is missing. The replies to all of that are.
- Recordings that cannot be read within a second at the start: their records are stored again, with the same time and
  value, and counted twice, and have two rows in the recordings.
- A batch that the dead worker had in its buffer, and that its recordings do not hold, is counted twice there, and is
  once in InfluxDB. VictoriaMetrics, which does not overwrite, has it twice.
- Replies that waited in ODS for a pod that does not read them are missing; the cut one is ended by a newline. Where the
  dead worker had just answered that a record was not stored, and the successor stores it, a reply may be garbled.
- `--max-names`: the successor counts names from what it sees; a name that was refused may be taken.
- A connection that was reset after its end, of a worker killed within its last read: see `ods.stream_offsets`.
- A tape that the successor cannot read (of another version), or a machine that does not count (no Linux): what was read
  and not settled is as after a crash without a tape, and the line in the middle of which it happened is not understood.
- Urgent data: how far was read is not known then. Nobody sends ODS any.
- The machine fails, or the keeper too: as after a crash without a tape.
"""

import mmap
import os
from typing import NamedTuple

from ods.errors import TapeRefused

#: What a tape of this layout begins with.
MAGIC = int.from_bytes(b"ODStape1", "little")
#: What is kept of a connection. Bytes.
RING_BYTES = 1024 * 1024
#: Pieces with times of their own.
NOTES = 2048
#: When no more than this is left, the oldest has to be given up. Bytes, notes.
SPARE_BYTES = 64 * 1024
SPARE_NOTES = 512

#: Places in the memory, in words of eight bytes.
_MAGIC, _BASE, _READ_TO, _NOTED, _SELECTED = range(5)
_SLOTS = (8, 24)
_SETTLED, _NOTES_DONE, _REPLIED, _LINE, _TAKEN = range(5)
_NOTES_AT = 512
#: And in bytes.
_RING_AT = _NOTES_AT * 8 + NOTES * 16
TAPE_BYTES = _RING_AT + RING_BYTES

#: In the word of the unfinished line: whether it is overlong; above it the length of what was taken off it.
_IS_OVERLONG = 1
#: How much of what was taken off a line is kept (`ods.protocol.HEAD_BYTES`). Bytes.
_TAKEN_BYTES = 64
#: In the offset of a note: these are the last words of a connection that has ended.
_IS_LAST = 1 << 63
#: No time and no offset reaches this.
_BEYOND = 1 << 63


class Mark(NamedTuple):
    """A place in the stream from which reading can begin again, and what the decoder has to know there."""

    settled: int
    #: How many notes were written before it.
    notes: int = 0
    taken: bytes = b""
    is_overlong: bool = False


class Note(NamedTuple):
    """A piece of the stream up to `end`, its records' first time, and whether they are a connection's last words."""

    end: int
    first_ns: int
    is_last: bool = False


class Tape:
    """The tape of one connection, as the worker that reads from it sees it."""

    def __init__(self, fd: int) -> None:
        """Map the memory that the keeper has made; the descriptor may be closed then. Raises OSError."""
        if os.fstat(fd).st_size < TAPE_BYTES:  # one of another version
            os.ftruncate(fd, TAPE_BYTES)
        self._map = mmap.mmap(fd, TAPE_BYTES)
        self._ring = memoryview(self._map)[_RING_AT:]
        self._words = memoryview(self._map)[:_RING_AT].cast("Q")
        self._base = self.read_to = self.noted = 0
        self._mark = Mark(0)
        #: Where in the stream of the replies those stand that were given to the connection so far (`ods.connection`).
        self.replied = 0
        #: How much of the replies to what follows the mark was sent already, by the worker before. Bytes.
        self.replied_already = 0
        #: Whether replies of the worker before never reached the kernel, perhaps the end of one.
        self.has_lost_replies = False
        self._load()

    @staticmethod
    def make() -> int:
        """A new tape for a new connection; returns its descriptor, which is not inherited. Raises OSError."""
        fd = os.memfd_create("ods-tape")
        os.ftruncate(fd, TAPE_BYTES)
        os.pwrite(fd, MAGIC.to_bytes(8, "little"), 0)
        return fd

    def close(self) -> None:
        """Let go of the memory."""
        self._ring.release()
        self._words.release()
        self._map.close()

    # -- What the worker does while it reads

    def read(self, fd: int, size_bytes: int) -> bytes:
        """Read from a socket at most so much. Empty at its end; raises BlockingIOError, OSError."""
        end = self.read_to
        unsettled = end - self._mark.settled
        if not unsettled and end != self._base:
            self._words[_BASE] = self._base = end
        at = (end - self._base) % RING_BYTES
        size_bytes = min(size_bytes, RING_BYTES - at, RING_BYTES - unsettled)
        if not size_bytes or self._words[_MAGIC] != MAGIC:
            return self._read_untaped(fd)
        count = os.readv(fd, (self._ring[at : at + size_bytes],))
        self._words[_READ_TO] = self.read_to = end + count
        return self._map[_RING_AT + at : _RING_AT + at + count]

    def note(self, end: int, first_ns: int, *, is_last: bool = False) -> None:
        """Note that the records of the piece up to this offset have consecutive times from `first_ns` on."""
        at = _NOTES_AT + self.noted % NOTES * 2
        self._words[at] = end | _IS_LAST if is_last else end
        self._words[at + 1] = first_ns
        self.noted += 1
        self._words[_NOTED] = self.noted

    def settle(self, mark: Mark) -> None:
        """Nothing before this place has to be repeated, and the replies to all before it were given to the connection.

        One before the present place, which was given up, changes nothing but how far was replied.
        """
        self._mark = mark = max(mark, self._mark)
        self._select(mark)

    def give_up(self, mark: Mark) -> None:
        """As `settle` for what is neither settled nor replied to, when there is no room for it any more."""
        self.settle(mark)

    @property
    def is_nearly_full(self) -> bool:
        """Whether the oldest has to be given up now, for there to be room at the next read."""
        return (
            self.read_to - self._mark.settled > RING_BYTES - SPARE_BYTES
            or self.noted - self._mark.notes > NOTES - SPARE_NOTES
        )

    # -- What a successor does before it reads

    @property
    def mark(self) -> Mark:
        """The place to begin at."""
        return self._mark

    def take_over(self, consumed: int, written: int) -> None:
        """Go on where the reader before stopped: the kernel says that so much was read, and so much written.

        Raises TapeRefused when that does not fit what is found here.
        """
        self._load()
        if self._words[_MAGIC] != MAGIC:
            raise TapeRefused("it is of another version, or was given up")
        if not self._base <= self._mark.settled <= consumed <= min(self._mark.settled + RING_BYTES, _BEYOND - 1):
            raise TapeRefused(f"it was settled up to {self._mark.settled}, of {consumed} that were read")
        if not 0 <= self.noted - self._mark.notes <= NOTES or len(self._mark.taken) > _TAKEN_BYTES:
            raise TapeRefused(f"its header counts {self.noted} notes, {self._mark.notes} of them done")
        notes = self.notes()
        ends = [self._mark.settled, *(note.end for note in notes), consumed]
        if ends != sorted(ends) or any(note.first_ns >= _BEYOND for note in notes):
            raise TapeRefused("its notes are out of order")
        self._words[_READ_TO] = self.read_to = consumed
        self._find_replied(written)

    def begin(self, consumed: int, written: int) -> None:
        """Make this a new tape of a connection of which so much was read, and replied to."""
        self._words[_MAGIC] = 0
        self._words[_BASE] = self._words[_READ_TO] = consumed
        self._words[_NOTED] = 0
        self.replied, self.replied_already = written, 0
        self._words[_SELECTED] = 0
        self._select(Mark(consumed))
        self._words[_MAGIC] = MAGIC
        self._load()

    def notes(self) -> list[Note]:
        """The notes of what is not settled, in their order."""
        notes = []
        for number in range(self._mark.notes, self.noted):
            end, first_ns = self._words[_NOTES_AT + number % NOTES * 2 :][:2]
            notes.append(Note(end & ~_IS_LAST, first_ns, bool(end & _IS_LAST)))
        return notes

    def between(self, begin: int, end: int) -> bytes:
        """What was read from one offset to another, neither of them settled."""
        first, last = (begin - self._base) % RING_BYTES, (end - self._base) % RING_BYTES
        if begin < end and last <= first:
            return bytes(self._ring[first:]) + bytes(self._ring[:last])
        return bytes(self._ring[first:last])

    # -- Within

    def _find_replied(self, written: int) -> None:
        """See how much of the replies to what follows the mark the kernel has, or how much it lacks of those before."""
        given = self._words[_SLOTS[self._words[_SELECTED] & 1] + _REPLIED]
        self.replied = min(given, written)
        self.replied_already = max(0, written - given)
        self.has_lost_replies = written < given
        if self.has_lost_replies:
            self._select(self._mark)

    def _read_untaped(self, fd: int) -> bytes:
        """Nobody gave up the oldest in time. A pod is not made to wait for that; a successor refuses this tape."""
        self._words[_MAGIC] = 0
        return os.read(fd, SPARE_BYTES)

    def _load(self) -> None:
        words = self._words
        self._base, self.read_to, self.noted = words[_BASE], words[_READ_TO], words[_NOTED]
        at = _SLOTS[words[_SELECTED] & 1]
        line = words[at + _LINE]
        length = min(line >> 1, _TAKEN_BYTES + 1)
        taken = self._map[(at + _TAKEN) * 8 : (at + _TAKEN) * 8 + length]
        self._mark = Mark(words[at + _SETTLED], words[at + _NOTES_DONE], taken, bool(line & _IS_OVERLONG))

    def _select(self, mark: Mark) -> None:
        """Write a mark into the slot that does not count, then have it count."""
        words = self._words
        selected = words[_SELECTED] + 1
        at = _SLOTS[selected & 1]
        words[at + _SETTLED], words[at + _NOTES_DONE] = mark.settled, mark.notes
        words[at + _REPLIED] = self.replied
        words[at + _LINE] = len(mark.taken) << 1 | mark.is_overlong
        if mark.taken:
            self._map[(at + _TAKEN) * 8 : (at + _TAKEN) * 8 + len(mark.taken)] = mark.taken
        words[_SELECTED] = selected
