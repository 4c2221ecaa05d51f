"""The open segments of the recordings, which the recorder's thread writes: every call may wait for the disk.

A row is written whole or not at all. What becomes of a segment once it is closed is in `ods.segment_files`.
"""

import contextlib
import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ods.many_writes import ManyWrites
from ods.recording import HEADERS, folder_name, segment_name
from ods.segment_files import COMPRESSED, OPEN, rename_closed

#: A segment is closed when it has reached this size. Bytes.
SEGMENT_BYTES = 64 * 1024 * 1024
#: A segment is closed when it is this old. Seconds.
SEGMENT_SECONDS = 3600.0
#: A segment is closed when nothing was appended for this long. Seconds.
IDLE_SECONDS = 60.0
#: At most this many files are held open at once; the others are opened again for their next rows, which takes several
#: times as long. A quarter of what the process may have open, which is for the pods first, up to the most.
OPEN_FILES_SHARE, MOST_OPEN_FILES = 4, 4096
#: After so many segments that could not be begun no other is tried for the rows that were given with them.
MOST_NOT_BEGUN = 3
#: So many segments are looked at each time whether their files are still there: each look lets other threads go first.
LOOKED_AT = 100


@dataclass(slots=True, kw_only=True, eq=False)
class Segment:
    """An open segment. Times on the monotonic clock, in seconds, but for `last_ns`."""

    path: Path
    #: Its file; None where that is opened again for the next rows.
    file: int | None = None
    size_bytes: int
    begun_at: float
    appended_at: float
    last_ns: int


class Rows(NamedTuple):
    """Rows of one pod for its two segments, or for one of them, with the times of the first and the last."""

    pod: str
    data: bytes
    log: bytes
    first_ns: int
    last_ns: int


class Segments:
    """All open segments below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._open: dict[tuple[str, str], Segment] = {}
        #: Those whose files are open too, in the order in which they were opened.
        self._with_files: dict[Segment, None] = {}
        self._many_writes = ManyWrites()
        #: What is to be written before this call of `append` ends, each with rows of its segment's kind alone, and what
        #: the disk has refused in it.
        self._due: list[tuple[Segment, Rows]] = []
        self._refused: list[tuple[Rows, OSError]] = []
        #: Why segments could not be begun in it.
        self._not_begun: list[OSError] = []
        #: How many were looked at in this turn through all of them.
        self._looked_at = 0
        self._most_files = min(MOST_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // OPEN_FILES_SHARE)

    def append(self, rows: Iterable[Rows], now: float) -> list[tuple[Rows, OSError]]:
        """Append to the segments of many pods, each given once; returns what the disk did not take, and why.

        As little is done here as can be: a thousand pods have ten thousand rows a second, and while this thread has
        the interpreter, the hub waits.
        """
        self._due, self._refused, self._not_begun = [], [], []
        for each in rows:
            if each.data:
                self._append(each._replace(log=b"") if each.log else each, "data", now)
            if each.log:
                self._append(each._replace(data=b"") if each.data else each, "log", now)
        self._write_due()
        return self._refused

    def _append(self, rows: Rows, kind: str, now: float) -> None:
        segment = self._open.get((rows.pod, kind))
        try:
            if segment is None:
                self._new_segment(rows, kind, now)
                return
            if segment.file is None:
                self._open_file(segment)
        except OSError as error:
            self._refused.append((rows, error))
            return
        segment.appended_at = now
        if rows.last_ns > segment.last_ns:
            segment.last_ns = rows.last_ns
        self._due.append((segment, rows))

    def _write_due(self) -> None:
        due, self._due = self._due, []
        texts = [rows.data or rows.log for _, rows in due]
        written = self._many_writes.write([_file_of(segment) for segment, _ in due], texts)
        for (segment, rows), text, size in zip(due, texts, written, strict=True):
            if size == len(text):
                segment.size_bytes += size
            else:
                self._refused.append((rows, _refusal(segment, size, len(text))))

    def open_paths(self) -> set[Path]:
        """The segments that are open now."""
        return {segment.path for segment in self._open.values()}

    def close_old(self, now: float) -> list[Path]:
        """Close the segments that are large, old or idle; returns them, to be compressed."""
        return [self._close(key) for key, segment in list(self._open.items()) if _is_old(segment, now)]

    def close_all(self) -> list[Path]:
        """Close every segment; returns them, to be compressed. One that cannot be closed is left as it is."""
        closed = []
        for key in list(self._open):
            with contextlib.suppress(OSError):
                closed.append(self._close(key))
        self._many_writes.close()
        return closed

    def leave_lost(self) -> int:
        """Forget the segments whose files were deleted or replaced; their next rows begin others. Returns how many.

        Of many segments the next `LOOKED_AT` are looked at.
        """
        some = list(self._open)[self._looked_at : self._looked_at + LOOKED_AT]
        lost = [key for key in some if self._is_lost(self._open[key])]
        self._looked_at = self._looked_at + len(some) - len(lost) if len(some) == LOOKED_AT else 0
        for key in lost:
            self._forget_file(self._open.pop(key))
        return len(lost)

    def _is_lost(self, segment: Segment) -> bool:
        try:
            status = segment.path.stat()
        except OSError:
            return True
        return segment.file is not None and not os.path.samestat(status, os.fstat(segment.file))

    def _new_segment(self, rows: Rows, kind: str, now: float) -> None:
        """Begin one with these rows. Raises OSError, and then it is not there.

        Where the disk has refused some already, it is not asked for each of a thousand pods.
        """
        if len(self._not_begun) >= MOST_NOT_BEGUN:
            raise self._not_begun[-1]
        try:
            self._open[rows.pod, kind] = self._make_segment(rows, kind, now)
        except OSError as error:
            self._not_begun.append(error)
            raise

    def _make_segment(self, rows: Rows, kind: str, now: float) -> Segment:
        folder = self.directory / folder_name(rows.pod)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / (_free_name(folder, rows.first_ns, kind) + OPEN)
        segment = Segment(path=path, size_bytes=0, begun_at=now, appended_at=now, last_ns=rows.last_ns)
        self._begin(segment, HEADERS[kind] + (rows.data or rows.log))
        return segment

    def _begin(self, segment: Segment, text: bytes) -> None:
        """Not with those that are due: to make a thousand files may take long, and what is written is safe."""
        try:
            written = os.write(self._open_file(segment), text)
            if written != len(text):
                raise _refusal(segment, written, len(text))
        except OSError:
            self._forget_file(segment)
            segment.path.unlink(missing_ok=True)
            raise
        segment.size_bytes = written

    def _open_file(self, segment: Segment) -> int:
        if len(self._with_files) >= self._most_files:
            self._write_due()
            self._forget_file(next(iter(self._with_files)))
        segment.file = file = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._with_files[segment] = None
        return file

    def _forget_file(self, segment: Segment) -> None:
        file, segment.file = segment.file, None
        if file is not None:
            del self._with_files[segment]
            os.close(file)

    def _close(self, key: tuple[str, str]) -> Path:
        segment = self._open.pop(key)
        self._forget_file(segment)
        return rename_closed(segment.path, segment.last_ns)


def _file_of(segment: Segment) -> int:
    assert segment.file is not None
    return segment.file


def _refusal(segment: Segment, written: int, size_bytes: int) -> OSError:
    """Why a write did not succeed; what of it did is taken back."""
    if written < 0:
        return OSError(-written, os.strerror(-written))
    try:
        os.ftruncate(_file_of(segment), segment.size_bytes)
    except OSError as error:
        return error
    return OSError(f"{segment.path} took {written} of {size_bytes} bytes")


def _free_name(folder: Path, first_ns: int, kind: str) -> str:
    """The name of a segment that begins then, or just before where a run that died has left one of that name."""
    name = segment_name(first_ns, kind)
    while any((folder / (name + state)).exists() for state in (OPEN, "", COMPRESSED)):
        first_ns -= 1
        name = segment_name(first_ns, kind)
    return name


def _is_old(segment: Segment, now: float) -> bool:
    return (
        segment.size_bytes >= SEGMENT_BYTES
        or now - segment.begun_at >= SEGMENT_SECONDS
        or now - segment.appended_at >= IDLE_SECONDS
    )
