"""What is wrong with a buffer's files, found before SQLite opens them.

SQLite takes a cut file for an empty one, reads a log that is another file's, and drops without a word what was
committed behind one flipped bit of its log, then writes over it. These checks take milliseconds however large the file
is: they read its header and its log. The log has less than 5 MB in ordinary life, and is there only after a crash.

A log whose last frame says commit, and whose checksum is wrong, is called damaged, though a process killed between two
writes may have left it so: reading the file page by page then costs seconds, believing SQLite might cost a batch.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ods.sqlite_file import RawFile
from ods.sqlite_pages import HEADER_BYTES, Header, header_of
from ods.sqlite_wal import HEADER_BYTES as LOG_HEADER_BYTES
from ods.sqlite_wal import Wal

#: How much of a log is checked frame by frame: half a second's work. Bytes.
CHECKED_LOG_BYTES = 32 * 1024 * 1024
#: Section 1.3.13: UTF-8; 0 before the first table.
_UTF_8 = (0, 1)


class Trouble(Enum):
    """What may be wrong."""

    NOT_SQLITE = "it is no SQLite file, or its header is damaged"
    HEADER = "its header contradicts itself"
    VERSION = "its schema has another version"
    CUT = "it was cut off"
    ALONE = "it is gone, but its log is there"
    LOG_HEADER = "the header of its log is damaged"
    LOG_BROKEN = "a damaged page of its log hides later commits"
    LOG_FOREIGN = "its log belongs to another file"
    UNREADABLE = "the disk does not give it"


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong: its kind, and words for a person."""

    trouble: Trouble
    words: str


def damage_of(path: Path, *, schema_version: int) -> Damage | None:
    """What is wrong with a file and its log; None where nothing was found, or no file is there yet."""
    main, log = RawFile(path), RawFile(path.with_name(path.name + "-wal"))
    try:
        main.open()
        log.open()
        found = _trouble(main, log, schema_version)
    finally:
        main.close()
        log.close()
    error = main.error or log.error
    if error is not None:
        return Damage(Trouble.UNREADABLE, f"{Trouble.UNREADABLE.value}: {error}")
    return found and Damage(found, found.value)


def _trouble(main: RawFile, log: RawFile, schema_version: int) -> Trouble | None:
    if not main.size_bytes:
        return Trouble.ALONE if log.size_bytes > LOG_HEADER_BYTES else None
    header = header_of(main.read(0, HEADER_BYTES))
    if header is None:
        return Trouble.NOT_SQLITE
    wal = None
    newest = header
    if log.size_bytes > LOG_HEADER_BYTES:
        wal = Wal(log.read, min(log.size_bytes, CHECKED_LOG_BYTES))
        wal.read_header()
        wal.read_frames(header.page_size)
        if not wal.is_header_sound:
            return Trouble.LOG_HEADER
        if wal.page_size != header.page_size:
            return Trouble.LOG_FOREIGN
        if wal.is_broken:
            return Trouble.LOG_BROKEN
        newest = _logged_header(log, wal) or header
    return _header_trouble(header, newest, schema_version) or _size_trouble(main, log, wal, header)


def _logged_header(log: RawFile, wal: Wal) -> Header | None:
    """The header as the log has it: page 1 is not always in it."""
    frames = wal.frames.get(1)
    return header_of(log.read(wal.offset_of(frames[-1]), HEADER_BYTES)) if frames else None


def _header_trouble(header: Header, newest: Header, schema_version: int) -> Trouble | None:
    ids = {header.application_id, newest.application_id}
    if len(ids) > 1 and 0 not in ids:
        return Trouble.LOG_FOREIGN
    if not newest.is_consistent or newest.text_encoding not in _UTF_8:
        return Trouble.HEADER
    return None if newest.user_version in (0, schema_version) else Trouble.VERSION


def _size_trouble(main: RawFile, log: RawFile, wal: Wal | None, header: Header) -> Trouble | None:
    """Whether pages are in neither file."""
    if log.size_bytes > CHECKED_LOG_BYTES:
        return None  # not all of the log was looked at
    pages = main.size_bytes // header.page_size
    if wal is None or not wal.page_count:
        return Trouble.CUT if pages < header.page_count else None
    is_whole = all(number in wal.frames for number in range(pages + 1, wal.page_count + 1))
    return None if is_whole else Trouble.CUT
