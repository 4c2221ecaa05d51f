"""Where in the stream of its connection an intake stands: what it notes and settles on the tape (`ods.tape`).

Without a tape there is nobody to tell, and nothing is done.
"""

from collections.abc import Iterable, Sequence

from ods.chunk import Chunk
from ods.protocol import Decoder
from ods.tape import Mark, Note, Tape


class Places:
    """The stream of one connection as far as it was decoded, by this decoder."""

    def __init__(self, decoder: Decoder, tape: Tape | None) -> None:
        self._decoder = decoder
        self._tape = tape
        #: How much of the stream was decoded, and how many notes were written for that.
        self._offset = 0
        self._noted = 0

    def note(self, size_bytes: int, times: range, *, is_last: bool = False) -> None:
        """So much comes next, and its records have these times: to be told before anything is done with them."""
        self._offset += size_bytes
        if self._tape is not None and times:
            self._tape.note(self._offset, times.start, is_last=is_last)
            self._noted = self._tape.noted

    def mark(self, unsettled: Sequence[Chunk]) -> None:
        """What was decoded is settled when the last of these chunks is, or already where there is none."""
        tape = self._tape
        if tape is None:
            return
        decoder = self._decoder
        if decoder.is_at_begin:
            mark = Mark(self._offset, self._noted)
        else:
            mark = Mark(self._offset - decoder.rest_bytes, self._noted, *decoder.line)
        if unsettled:
            unsettled[-1].mark = mark
        elif mark > tape.mark:
            tape.settle(mark)
        if tape.is_nearly_full:
            _give_up_oldest(tape, unsettled)

    def settle(self, mark: Mark | None) -> None:
        """What comes before this place is settled and replied to."""
        if self._tape is not None and mark is not None:
            self._tape.settle(mark)

    # -- What the process before has left

    def go_back(self) -> list[Note]:
        """Go back to what was settled last; returns the notes of what comes then."""
        if self._tape is None:
            return []
        mark = self._tape.mark
        self._offset, self._noted = mark.settled, mark.notes
        self._decoder.begin_in(mark.taken, mark.is_overlong)
        return self._tape.notes()

    def read_again(self, note: Note) -> bytes:
        """What this note, the next one, speaks of."""
        assert self._tape is not None
        data = self._tape.between(self._offset, note.end)
        self._offset = note.end
        self._noted += 1
        return data

    def left_to_read(self) -> bytes:
        """What was read besides."""
        return b"" if self._tape is None else self._tape.between(self._offset, self._tape.read_to)


def _give_up_oldest(tape: Tape, unsettled: Iterable[Chunk]) -> None:
    """Too much is in flight for the tape: half of it is left to the recordings, so that this is seldom done."""
    marks = [chunk.mark for chunk in unsettled if chunk.mark is not None and chunk.mark > tape.mark]
    while marks and tape.is_nearly_full:
        tape.give_up(marks[len(marks) // 2])
        marks = marks[len(marks) // 2 + 1 :]
