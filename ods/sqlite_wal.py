"""The write-ahead log beside an SQLite file, read without SQLite: which page images in it were committed.

The facts are those of https://www.sqlite.org/fileformat2.html, section 4. SQLite itself believes the log up to the
first frame whose salts or whose checksum is wrong, and is silent about the committed frames behind it: one flipped bit
takes back every later commit. Here the frames behind such a break are found again:

- A frame's checksum goes on from that of the frame before. Reckoned from the value *stored* in the frame before, it
  tells of each frame alone whether it is sound, wherever the chain is broken.
- A frame belongs to this log if its salts are right, or if its checksum goes on from a frame that belongs.
- What follows the last commit was never committed, and is left out. Only where the slot behind it is destroyed (neither
  this log's, nor an older round's) may that slot have been the commit: then the sound frames before it are kept.
"""

import struct
import sys
from array import array
from collections.abc import Callable, Iterator

from ods.sqlite_pages import PAGE_SIZES

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
#: Section 4.1; its last bit says that checksums are reckoned over big-endian words.
_MAGIC = 0x377F0682
#: Rounds of the log that an older frame may be behind: the first salt grows by one with each.
_OLDER_ROUNDS = 2**20
#: Frames that are looked at for the log's salts where its header is destroyed.
_LOOKED_AT_FRAMES = 2000
#: Read at a time. Bytes.
_BLOCK_BYTES = 2**20
_MASK = 2**32 - 1

Sums = tuple[int, int]


def checksum(words: "array[int]", sums: Sums) -> Sums:
    """SQLite's checksum (section 4.2) over an even number of words, going on from `sums`.

    Reduced to 32 bits only every eight words, which halves its time.
    """
    first, second = sums
    head = len(words) % 8
    for at in range(0, head, 2):
        first = first + words[at] + second & _MASK
        second = second + words[at + 1] + first & _MASK
    rest = iter(words[head:])
    for a, b, c, d, e, f, g, h in zip(*[rest] * 8, strict=True):
        first += a + second
        second += b + first
        first += c + second
        second += d + first
        first += e + second
        second += f + first
        first = first + g + second & _MASK
        second = second + h + first & _MASK
    return first, second


class Wal:
    """The frames of a log that were committed, by page."""

    def __init__(self, read: Callable[[int, int], bytes], size_bytes: int) -> None:
        """`read(offset, size)` returns less only at the end of the file."""
        self._read = read
        self._size_bytes = size_bytes
        #: 0 until it is known.
        self.page_size = 0
        self.is_header_sound = False
        #: Whether SQLite would not see frames that were committed.
        self.is_broken = False
        #: Whether frames were kept whose commit is destroyed, if there was one.
        self.is_torn = False
        #: Page number to its committed frames, oldest first; and by frame, whether its checksum is right.
        self.frames: dict[int, list[int]] = {}
        self.is_sound = bytearray()
        #: The file's pages after the last commit; 0 without one.
        self.page_count = 0
        self._order = sys.byteorder
        self._salts = (0, 0)
        self._sums: Sums = (0, 0)

    def read_frames(self, page_size: int) -> None:
        """Walk through the log once; `page_size` counts where its header is destroyed."""
        if not self.is_header_sound:
            self.page_size = page_size
            self._salts = self._guessed_salts()
        self._walk()

    def offset_of(self, frame: int) -> int:
        """Where the page image of a frame stands in the file."""
        return HEADER_BYTES + frame * self._frame_bytes + FRAME_HEADER_BYTES

    @property
    def _frame_bytes(self) -> int:
        return FRAME_HEADER_BYTES + self.page_size

    def read_header(self) -> None:
        """Learn what the log says of itself, where its header is sound."""
        head = self._read(0, HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            return
        magic, _, page_size, _, *rest = struct.unpack(">8I", head)
        if magic & ~1 == _MAGIC:
            self._order = "big" if magic & 1 else "little"
        self._sums = rest[2], rest[3]
        is_known = magic & ~1 == _MAGIC and page_size in PAGE_SIZES
        self.is_header_sound = is_known and checksum(self._words(head[:24]), (0, 0)) == self._sums
        if self.is_header_sound:
            self.page_size = page_size
            self._salts = rest[0], rest[1]

    def _guessed_salts(self) -> Sums:
        """The salts of the first two frames that agree: those of this round stand first."""
        last = (0, 0)
        for frame in range(min(_LOOKED_AT_FRAMES, self._slots)):
            head = self._read(self.offset_of(frame) - FRAME_HEADER_BYTES, FRAME_HEADER_BYTES)
            salts = struct.unpack_from(">II", head, 8) if len(head) == FRAME_HEADER_BYTES else (0, 0)
            if salts == last and any(salts):
                return salts
            last = salts
        return last if self._slots == 1 else (0, 0)

    @property
    def _slots(self) -> int:
        return max(0, self._size_bytes - HEADER_BYTES) // self._frame_bytes

    def _words(self, data: bytes) -> "array[int]":
        words = array("I", data)
        if self._order != sys.byteorder:
            words.byteswap()
        return words

    def _images(self) -> Iterator[bytes]:
        """Frames with their heads, in order."""
        at_once = max(1, _BLOCK_BYTES // self._frame_bytes)
        for first in range(0, self._slots, at_once):
            count = min(at_once, self._slots - first)
            begin = self.offset_of(first) - FRAME_HEADER_BYTES
            block = self._read(begin, count * self._frame_bytes)
            for at in range(0, count * self._frame_bytes, self._frame_bytes):
                yield block[at : at + self._frame_bytes].ljust(self._frame_bytes, b"\0")  # if it shrank meanwhile

    def _walk(self) -> None:
        seeds = [self._sums]
        is_chained = was_ours = was_sound = self.is_header_sound
        waiting: list[tuple[int, int]] = []  # frames of a transaction whose commit has not been met
        destroyed_at = -1
        for frame, image in enumerate(self._images()):
            number, commit, salt, other_salt, first, second = struct.unpack_from(">6I", image)
            stored = first, second
            has_salts = (salt, other_salt) == self._salts
            sums = self._sums_of(image, seeds) if number and (has_salts or was_ours) else []
            if stored in sums[1:]:
                self.is_sound[-1] = 1  # only its own sum was damaged: the chain goes on from what it should have been
            is_ours = bool(number) and any(self._salts) and (has_salts or stored in sums)
            is_chained = is_chained and is_ours and has_salts and sums[0] == stored
            # Behind a frame that is damaged, nothing speaks against this one.
            self.is_sound.append(is_ours and (stored in sums or not was_sound))
            seeds = [stored] if stored in sums else [stored, *sums[:1]]
            if is_ours:
                waiting.append((number, frame))
                if commit:
                    self._keep(waiting)
                    waiting.clear()
                    self.page_count = commit if self.is_sound[frame] else self.page_count
                    self.is_broken = self.is_broken or not is_chained
            elif not 0 < (self._salts[0] - salt) % 2**32 < _OLDER_ROUNDS:
                destroyed_at = frame
            was_ours, was_sound = is_ours, bool(self.is_sound[frame])
        waiting = [(number, frame) for number, frame in waiting if frame < destroyed_at and self.is_sound[frame]]
        self._keep(waiting)
        self.is_torn = bool(waiting)

    def _sums_of(self, image: bytes, seeds: list[Sums]) -> list[Sums]:
        words = self._words(image[:8] + image[FRAME_HEADER_BYTES:])
        return [checksum(words, seed) for seed in seeds]

    def _keep(self, frames: list[tuple[int, int]]) -> None:
        for number, frame in frames:
            self.frames.setdefault(number, []).append(frame)
