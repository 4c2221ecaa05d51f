"""An SQLite file and its log, read page by page without SQLite, however damaged.

A page may have several images: one in the main file, others in frames of the log. Which of them counts depends on
whether the log belongs to the file at all. That is known only where both carry the same `application_id`, drawn at
random when the file was made: then a sound frame replaces what the main file has. Otherwise neither hides the other.
"""

import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Self

from ods.sqlite_pages import HEADER_BYTES, PAGE_SIZES, Header, base_of, header_of, looks_like_btree
from ods.sqlite_wal import Wal

#: SQLite's own default: tried first where no header tells.
DEFAULT_PAGE_SIZE = 4096
#: What is looked at to find the page size: so many windows of so many bytes, spread over the file.
_WINDOWS = 32
_WINDOW_BYTES = 2 * max(PAGE_SIZES)
#: Read at a time. Bytes.
_BLOCK_BYTES = 2**20
#: The unit in which a disk fails. Bytes.
_SECTOR_BYTES = 4096

#: The image of a page in the main file; that in frame n of the log is n + 1.
MAIN_IMAGE = 0


class RawFile:
    """A file of which any part may be unreadable: it reads as zeros, and is counted. A missing file is an empty one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.size_bytes = 0
        #: What the operating system refused first, and how many sectors it did not give.
        self.error: OSError | None = None
        self.unreadable_sectors = 0

    def open(self) -> None:
        """Open what is a regular file."""
        try:
            if self._path.is_file():  # opening a pipe would wait for ever
                self._file = self._path.open("rb", buffering=0)
                self.size_bytes = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            self.error = error

    def close(self) -> None:
        """Close it; what was counted stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, offset: int, size: int) -> bytes:
        """These bytes; fewer only at the end of the file."""
        size = min(size, self.size_bytes - offset)
        if self._file is None or size <= 0:
            return b""
        try:
            data = os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            self.error = self.error or error
            if size > _SECTOR_BYTES:
                parts = range(offset, offset + size, _SECTOR_BYTES)
                return b"".join([self.read(at, min(_SECTOR_BYTES, offset + size - at)) for at in parts])
            self.unreadable_sectors += 1
            return bytes(size)
        return data


class View(Enum):
    """Which image of a page is taken."""

    MAIN = "that of the main file"
    NEWEST = "the newest sound one"
    LOOSE = "the newest, sound or not"


class SqliteFile:
    """The main file and its log, open within a `with` block."""

    def __init__(self, path: Path) -> None:
        self.main = RawFile(path)
        self.log = RawFile(path.with_name(path.name + "-wal"))
        self.wal = Wal(self.log.read, 0)
        self.header: Header | None = None
        self.page_size = self.usable = DEFAULT_PAGE_SIZE
        self.main_pages = 0
        #: Whether the log is known to belong to the file.
        self.is_log_trusted = False

    def __enter__(self) -> Self:
        self.main.open()
        self.log.open()
        self.wal = Wal(self.log.read, self.log.size_bytes)
        self.wal.read_header()
        self.header = header_of(self.main.read(0, HEADER_BYTES))
        self.page_size = self._found_page_size()
        self.main_pages = -(-self.main.size_bytes // self.page_size)
        self.wal.read_frames(self.page_size)
        if self.wal.page_size != self.page_size:
            self.wal.frames.clear()  # another file's
        logged_image = self.image_of(1, View.NEWEST)
        logged = header_of(self.read(1, logged_image)) if logged_image else None
        ids = {header.application_id for header in (self.header, logged) if header}
        self.is_log_trusted = self.header is not None and logged is not None and len(ids) == 1 and 0 not in ids
        known = self.header or logged
        self.usable = known.usable_bytes if known and known.page_size == self.page_size else self.page_size
        return self

    def __exit__(self, *_: object) -> None:
        self.main.close()
        self.log.close()

    @property
    def truth(self) -> View:
        """The view that says how the pages hang together: with the log where that is whole, and known to belong."""
        is_log_whole = not self.wal.is_broken and not self.wal.is_torn
        return View.NEWEST if self.is_log_trusted and is_log_whole else View.MAIN

    @property
    def page_count(self) -> int:
        """Pages that the file has in the view `truth`."""
        return self.wal.page_count if self.truth is View.NEWEST else self.main_pages

    @property
    def logged_pages(self) -> int:
        """The last page that the log has; 0 without one. What stands in a damaged frame's head is not believed."""
        sound = (number for number, frames in self.wal.frames.items() if any(self.wal.is_sound[at] for at in frames))
        return max(sound, default=0)

    def image_of(self, number: int, view: View) -> int | None:
        """Which image of a page a view takes; None where there is none."""
        if view is not View.MAIN:
            for frame in reversed(self.wal.frames.get(number, ())):
                if view is View.LOOSE or self.wal.is_sound[frame]:
                    return frame + 1
        return MAIN_IMAGE if 0 < number <= self.main_pages else None

    def read(self, number: int, image: int) -> bytes:
        """An image of a page; what is missing at the end of the file is zeros."""
        if image == MAIN_IMAGE:
            return self.main.read((number - 1) * self.page_size, self.page_size).ljust(self.page_size, b"\0")
        return self.log.read(self.wal.offset_of(image - 1), self.page_size).ljust(self.page_size, b"\0")

    def page(self, number: int, view: View) -> bytes | None:
        """A page as a view has it."""
        image = self.image_of(number, view)
        return None if image is None else self.read(number, image)

    def chain(self, number: int, size: int, view: View) -> bytes | None:
        """So many bytes from a chain of overflow pages (section 1.7); None where it breaks off or runs in a circle."""
        parts = []
        seen = set()
        while size > 0:
            page = None if number in seen else self.page(number, view)
            if page is None:
                return None
            seen.add(number)
            parts.append(page[4 : min(self.usable, 4 + size)])
            size -= len(parts[-1])
            number = int.from_bytes(page[:4])
        return b"".join(parts)

    def true_pages(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, image and content of every page in the view `truth`."""
        at_once = _BLOCK_BYTES // self.page_size
        count = self.page_count
        for first in range(1, min(count, self.main_pages) + 1, at_once):
            block = self.main.read((first - 1) * self.page_size, _BLOCK_BYTES)
            for number in range(first, min(first + at_once, count + 1, self.main_pages + 1)):
                image = self.image_of(number, self.truth)
                if image:
                    yield number, image, self.read(number, image)
                else:
                    begin = (number - first) * self.page_size
                    yield number, MAIN_IMAGE, block[begin : begin + self.page_size].ljust(self.page_size, b"\0")
        for number in sorted(self.wal.frames):
            image = self.image_of(number, self.truth)
            if self.main_pages < number <= count and image:
                yield number, image, self.read(number, image)

    def other_pages(self) -> Iterator[tuple[int, int, bytes]]:
        """The other images that may hold rows.

        Of a broken log these are all: a row may have moved to a page of which only an older image is left.
        """
        if self.truth is View.NEWEST:
            return
        for number, frames in self.wal.frames.items():
            for frame in frames if self.wal.is_broken or self.wal.is_torn else frames[-1:]:
                yield number, frame + 1, self.read(number, frame + 1)

    def _found_page_size(self) -> int:
        """The page size with which most pages look like pages; what the headers say decides between equals."""
        said = [self.header.page_size] if self.header else []
        if self.wal.is_header_sound:
            said.append(self.wal.page_size)
        candidates = list(dict.fromkeys([*said, DEFAULT_PAGE_SIZE, *PAGE_SIZES]))
        step = max(_WINDOW_BYTES, self.main.size_bytes // _WINDOWS // _WINDOW_BYTES * _WINDOW_BYTES)
        scores = dict.fromkeys(candidates, 0)
        for begin in range(0, self.main.size_bytes, step):
            window = self.main.read(begin, _WINDOW_BYTES)
            for size in candidates:
                scores[size] += sum(
                    looks_like_btree(window[at : at + size], 0 if begin or at else base_of(1), size)
                    for at in range(0, len(window), size)
                )
        return max(candidates, key=scores.__getitem__)
