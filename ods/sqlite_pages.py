"""What a page of an SQLite file holds, read without SQLite. Pure.

The facts are those of https://www.sqlite.org/fileformat2.html, by its numbered sections. Nothing here trusts what it
reads: every length and every pointer may be damaged, so each is held against the page before it is followed. What makes
no sense is left out, and never raises.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

#: Section 1.3.1: how every SQLite file begins.
MAGIC = b"SQLite format 3\0"
#: Section 1.3: what page 1 has before its content. Bytes.
HEADER_BYTES = 100
#: Section 1.3.2.
PAGE_SIZES = tuple(1 << power for power in range(9, 17))
#: Section 1.6: the first byte of a b-tree page: interior and leaf, of an index and of a table.
INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF = 0x02, 0x05, 0x0A, 0x0D
BTREE = frozenset((INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF))
#: Section 1.4: the page that holds this byte is never used.
LOCK_BYTE = 2**30
#: Section 1.8: what a pointer map says of a page (root of a b-tree, on the free list, first page of an overflow chain,
#: a later one, any other page of a b-tree), and the size of what it says. Bytes.
MAP_ROOT, MAP_FREE, MAP_OVERFLOW, MAP_OVERFLOW_NEXT, MAP_BTREE = range(1, 6)
MAP_ENTRY_BYTES = 5

#: Section 1.3.4: the least that a page has for content. Bytes.
_MIN_USABLE_BYTES = 480
#: Section 2.1: bytes of a column by its serial type, below those of blobs and texts.
_FIXED_BYTES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
_FIRST_BLOB_TYPE = 12
#: The longest record header that is believed: some hundred columns. Bytes.
_MAX_RECORD_HEADER_BYTES = 300

Value = int | bytes | None


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of the file's header that matter here."""

    page_size: int
    usable_bytes: int
    #: 0 where the last writer did not keep it.
    page_count: int
    user_version: int
    application_id: int
    text_encoding: int
    #: Whether the two fields that tell of pointer maps agree.
    is_consistent: bool


def header_of(data: bytes) -> Header | None:
    """The header at the begin of page 1 (section 1.3); None where there is none."""
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        return None
    size, reserved, most, least, leaf = struct.unpack_from(">H2x4B", data, 16)
    size = 65536 if size == 1 else size
    if size not in PAGE_SIZES or size - reserved < _MIN_USABLE_BYTES or (most, least, leaf) != (64, 32, 32):
        return None
    change, count = struct.unpack_from(">II", data, 24)
    largest_root, encoding, version, incremental, application = struct.unpack_from(">5I", data, 52)
    (valid_for,) = struct.unpack_from(">I", data, 92)
    return Header(
        page_size=size,
        usable_bytes=size - reserved,
        page_count=count if change == valid_for else 0,
        user_version=version,
        application_id=application,
        text_encoding=encoding,
        is_consistent=bool(largest_root) or not incremental,
    )


def base_of(number: int) -> int:
    """Where the b-tree page begins within page `number`."""
    return HEADER_BYTES if number == 1 else 0


def looks_like_btree(page: bytes, base: int, usable: int) -> bool:
    """Whether a page's own head, and where its cells begin, are those of a b-tree page that is not empty."""
    if len(page) < usable or page[base] not in BTREE:
        return False
    count, content = struct.unpack_from(">HH", page, base + 3)
    begin = base + (8 if page[base] in (INDEX_LEAF, TABLE_LEAF) else 12)
    if not count or not begin + 2 * count <= (content or 65536) < usable:
        return False
    return all(content <= at < usable for (at,) in struct.iter_unpack(">H", page[begin : begin + 2 * count]))


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The variable-length integer at `at` (section 1.6) and where it ends. The caller leaves nine bytes for it."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for end in range(at + 1, at + 8):
        byte = data[end]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, end + 1
    return value << 8 | data[at + 8], at + 9


def cells_of(page: bytes, base: int, usable: int) -> list[tuple[int, int]]:
    """Row id and offset of each cell of a table's leaf (section 1.6); pointers that make no sense are left out."""
    (count,) = struct.unpack_from(">H", page, base + 3)
    begin = base + 8
    count = min(count, (usable - begin) // 2)
    padded = page + b"\0" * 18  # so that no damaged pointer makes an integer end beyond the page
    cells = []
    for (at,) in struct.iter_unpack(">H", page[begin : begin + 2 * count]):
        if begin <= at < usable - 4:
            row_id, _ = varint(padded, varint(padded, at)[1])
            if 0 < row_id < 2**63:
                cells.append((row_id, at))
    return cells


def children_of(page: bytes, base: int, usable: int) -> list[int]:
    """The pages that an interior page of a table points to."""
    count, rightmost = struct.unpack_from(">H3xI", page, base + 3)
    begin = base + 12
    count = min(count, (usable - begin) // 2)
    pointers = struct.iter_unpack(">H", page[begin : begin + 2 * count])
    return [rightmost, *(int.from_bytes(page[at : at + 4]) for (at,) in pointers if at <= usable - 4)]


class Shape(NamedTuple):
    """What the header of a record says (section 2.1)."""

    #: Serial types of the columns, and where in the record each of them begins and ends.
    types: tuple[int, ...]
    bounds: tuple[tuple[int, int], ...]
    record_bytes: int


class Cell(NamedTuple):
    """A row in its leaf: what of its record stands there, and where the rest of it is."""

    row_id: int
    shape: Shape
    local: bytes
    #: The first page of the rest; 0 where there is none.
    overflow: int

    def values(self, record: bytes, count: int) -> list[Value]:
        """The first columns of the whole record; text as its bytes."""
        types, bounds, _ = self.shape
        return [
            record[begin:end]
            if kind >= _FIRST_BLOB_TYPE
            else None
            if kind in (0, 7)
            else int.from_bytes(record[begin:end], signed=True)
            if kind < 7
            else kind - 8
            for kind, (begin, end) in zip(types[:count], bounds, strict=False)
        ]


def cell_at(page: bytes, at: int, usable: int) -> Cell | None:
    """The cell at an offset (sections 1.6, 2.1); None where its lengths do not agree with each other."""
    head = page[at : at + 18] + b"\0" * 18
    size, end = varint(head, 0)
    row_id, end = varint(head, end)
    begin = at + end
    local = _local_bytes(size, usable)
    overflow = 0
    if local < size:
        overflow = int.from_bytes(page[begin + local : begin + local + 4])
        if not overflow or begin + local + 4 > usable:
            return None
    elif begin + local > usable:
        return None
    record = page[begin : begin + local]
    header_bytes, _ = varint(record[:9] + b"\0" * 9, 0)
    if header_bytes > min(local, _MAX_RECORD_HEADER_BYTES):
        return None
    shape = _shape_of(record[:header_bytes])
    return Cell(row_id, shape, record, overflow) if shape and shape.record_bytes == size else None


@lru_cache(maxsize=4096)
def _shape_of(header: bytes) -> Shape | None:
    """The shape that a record's header gives; kept, since rows of one table hardly differ in it."""
    padded = header + b"\0" * 9
    _, at = varint(padded, 0)
    types = []
    while at < len(header):
        kind, at = varint(padded, at)
        types.append(kind)
    ends = list(accumulate(map(column_bytes, types), initial=len(header)))
    return Shape(tuple(types), tuple(pairwise(ends)), ends[-1]) if at == len(header) else None


def _local_bytes(size: int, usable: int) -> int:
    """How much of a record of this size stands in the leaf of a table (section 1.6)."""
    if size <= usable - 35:
        return size
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    return local if local <= usable - 35 else least


def column_bytes(kind: int) -> int:
    """The length of a column of this serial type (section 2.1)."""
    return (kind - _FIRST_BLOB_TYPE) // 2 if kind >= _FIRST_BLOB_TYPE else (*_FIXED_BYTES, 0, 0)[kind]


def is_integer(kind: int) -> bool:
    """Whether a column of this serial type is a whole number."""
    return 1 <= kind <= 6 or kind in (8, 9)


def is_blob(kind: int) -> bool:
    """Whether a column of this serial type is a blob."""
    return kind >= _FIRST_BLOB_TYPE and kind % 2 == 0


def is_text(kind: int) -> bool:
    """Whether a column of this serial type is a text."""
    return kind > _FIRST_BLOB_TYPE and kind % 2 == 1
