"""Which pages of a damaged SQLite file may hold rows that count: every leaf, but those that are surely free.

A drained row's page goes to the free list, often with the row still in it. Bringing it back does no harm (a point that
is sent again overwrites itself) but wastes time, while leaving out a live one is a loss. So a leaf is left out only
where three kinds of page agree, none of which can make the others lie:

- its entry in the pointer map says free;
- a trunk of the free list names it, all of whose entries the pointer map calls free;
- no interior page that is in use points to it.

And the map may not be older than the leaf itself. Where the log may belong to another file, or is broken, none
of its pages is left out.
"""

import struct
from collections.abc import Iterable, Iterator

from ods.sqlite_file import SqliteFile, View
from ods.sqlite_pages import (
    BTREE,
    LOCK_BYTE,
    MAP_BTREE,
    MAP_ENTRY_BYTES,
    MAP_FREE,
    MAP_ROOT,
    TABLE_INTERIOR,
    TABLE_LEAF,
    base_of,
    cells_of,
    children_of,
)

#: What is known of a page.
_MAPPED_FREE, _MAPPED_BTREE, _LISTED, _IS_CHILD = 1, 2, 4, 8
#: By what the pointer map says, and whether it names no parent.
_MARKS = {(MAP_FREE, True): _MAPPED_FREE, (MAP_ROOT, True): _MAPPED_BTREE, (MAP_BTREE, False): _MAPPED_BTREE}
#: How a leaf is packed into one integer that sorts by its first row: beside 2.6 million pages, objects are too large.
_ID_SHIFT, _IMAGE_SHIFT = 64, 33
_NUMBER_MASK = 2**32 - 1


class Scan:
    """One walk over all pages, in the order in which they stand; then the leaves in the order of their rows."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._marks = bytearray()
        self._map_images: dict[int, int] = {}
        self._leaves: list[int] = []
        #: Pages that should be read, and could not be.
        self.unreadable = 0

    def run(self) -> None:
        """Read every page once."""
        self._marks = bytearray(self._file.page_count + 1)
        self._read_maps()
        for number, image, page in self._file.true_pages():
            self._note(number, image, page, is_true=True)
        for number, image, page in self._file.other_pages():
            self._note(number, image, page, is_true=False)
        self._leaves.sort()
        header = self._file.header
        if header and self._file.truth is View.MAIN:
            self.unreadable += max(0, header.page_count - max(self._file.page_count, self._file.logged_pages))

    def leaves(self) -> Iterator[tuple[int, int, int, bool]]:
        """First row id, page number and image of each leaf, and whether its rows surely count; by first row id."""
        for packed in self._leaves:
            number, image = packed >> 1 & _NUMBER_MASK, packed >> _IMAGE_SHIFT & 2**31 - 1
            is_judged = packed & 1
            if not is_judged or not self._is_free(number, image):
                is_doomed = is_judged and self._marks[number] & _MAPPED_FREE
                is_newest = image == self._file.image_of(number, View.LOOSE)
                yield packed >> _ID_SHIFT, number, image, is_newest and not is_doomed

    def _is_free(self, number: int, image: int) -> bool:
        marks = self._marks[number] & (_MAPPED_FREE | _LISTED | _IS_CHILD)
        if marks != _MAPPED_FREE | _LISTED:
            return False
        return self._map_images[self._map_of(number)] >= image

    def _note(self, number: int, image: int, page: bytes, *, is_true: bool) -> None:
        base, usable = base_of(number), self._file.usable
        marks = self._marks[number] if is_true else 0
        kind = page[base]
        if kind == TABLE_LEAF:
            cells = cells_of(page, base, usable)
            if cells:
                self._leaves.append(min(cells)[0] << _ID_SHIFT | image << _IMAGE_SHIFT | number << 1 | is_true)
        elif number == self._map_of(number) or number == self._lock_page:
            return
        elif marks & _MAPPED_FREE:
            self._read_trunk(page)
        elif kind == TABLE_INTERIOR:
            self._mark(children_of(page, base, usable), _IS_CHILD)
        elif marks & _MAPPED_BTREE and kind not in BTREE:
            self.unreadable += 1

    def _mark(self, numbers: Iterable[int], mark: int) -> None:
        for number in numbers:
            if 0 < number < len(self._marks):
                self._marks[number] |= mark

    def _read_trunk(self, page: bytes) -> None:
        """Mark what a trunk of the free list names (section 1.5), if it can be one."""
        following, count = struct.unpack_from(">II", page)
        if count > self._file.usable // 4 - 2:
            return
        listed = struct.unpack_from(f">{count}I", page, 8)
        if all(self._is_mapped_free(number) for number in ((*listed, following) if following else listed)):
            self._mark(listed, _LISTED)

    def _is_mapped_free(self, number: int) -> bool:
        return 0 < number < len(self._marks) and bool(self._marks[number] & _MAPPED_FREE)

    # Section 1.8: the pointer map says of each page that follows it what it is, up to the next one.

    @property
    def _lock_page(self) -> int:
        return LOCK_BYTE // self._file.page_size + 1

    @property
    def _map_step(self) -> int:
        return self._file.usable // MAP_ENTRY_BYTES + 1

    def _map_of(self, number: int) -> int:
        """The page with the map that covers a page; a map page covers itself."""
        found = (number - 2) // self._map_step * self._map_step + 2
        return found + 1 if found == self._lock_page else found

    def _read_maps(self) -> None:
        for first in range(2, len(self._marks), self._map_step):
            number = self._map_of(first)
            image = self._file.image_of(number, self._file.truth)
            if image is None:
                continue
            covered = max(0, min(self._map_step - 1, len(self._marks) - 1 - number))  # behind the end it is out of date
            data = self._file.read(number, image)[: covered * MAP_ENTRY_BYTES]
            marks = (_MARKS.get((kind, not parent), 0) for kind, parent in struct.iter_unpack(">BI", data))
            self._marks[number + 1 : number + 1 + covered] = bytes(marks)
            self._map_images[number] = image
