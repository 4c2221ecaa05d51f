"""The file of an export: whole or not there. Its size and checksum are known when it is written.

It is written under the name `FILE.part`, and takes its own once all of it is on the disk; what was there under that
name stays until then. A pipe, a device and standard output are written to as they are.
"""

import errno
import fcntl
import hashlib
import os
import stat
import zlib
from pathlib import Path
from typing import BinaryIO, Protocol

PART = ".part"
#: zlib's level, where the file is compressed: on telemetry, 6 gains a tenth of the size and takes twice the time.
COMPRESSION_LEVEL = 3
#: What zlib calls a gzip member; it bears no time, so that the same rows make the same file.
_GZIP = 31


class _Packer(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _AsItIs:
    """Stands for a compressor where nothing is to be compressed."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class Output:
    """Bytes to a file, counted and summed up."""

    def __init__(self, path: Path | None, stdout: BinaryIO, *, is_compressed: bool = False) -> None:
        self._path = path
        self._stdout = stdout
        self._packer: _Packer = (
            zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, _GZIP) if is_compressed else _AsItIs()
        )
        self._sum = hashlib.sha256()
        self._file: BinaryIO | None = None
        #: Whether it becomes a file, and not a pipe's or a device's.
        self.is_file = path is not None and _is_plain(path)
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """Of all that the file holds so far, in hexadecimal."""
        return self._sum.hexdigest()

    def open(self) -> None:
        """Begin. Raises OSError, also where another process writes the same file."""
        if self._path is None:
            self._file = self._stdout
        elif not self.is_file:
            self._file = self._path.open("wb")
        else:
            self._file = _opened_alone(_part(self._path))

    def write(self, data: bytes) -> int:
        """Write. Raises OSError."""
        self._put(self._packer.compress(data))
        return len(data)

    def finish(self) -> None:
        """Write what is left, and see that it is on the disk; `keep` is what is left to do. Raises OSError."""
        assert self._file is not None
        self._put(self._packer.flush())
        self._file.flush()
        if self.is_file:
            os.fsync(self._file.fileno())

    def keep(self) -> None:
        """Give the file its name. Raises OSError."""
        if self._path is not None and self.is_file:
            _part(self._path).replace(self._path)
            sync_folder(self._path)
        self._close()

    def discard(self) -> None:
        """Leave nothing of the file; where it was kept, do nothing. Raises OSError."""
        if self._file is not None and self._path is not None and self.is_file:
            _part(self._path).unlink(missing_ok=True)
        self._close()

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        if data:
            self._file.write(data)
            self._sum.update(data)
            self.size_bytes += len(data)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None and file is not self._stdout:
            file.close()


def write_whole(path: Path, text: bytes) -> None:
    """Write a small file, whole or not at all. Raises OSError."""
    part = _part(path)
    try:
        with part.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path)


def sync_folder(path: Path) -> None:
    """See that the name of a file is on the disk."""
    folder = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _opened_alone(part: Path) -> BinaryIO:
    file = part.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_still_there = part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat())
    except BlockingIOError:
        is_still_there = False
    if not is_still_there:  # it is being written, or just got its name
        file.close()
        raise OSError(errno.EBUSY, "another process writes this file", str(part))
    file.truncate(0)
    return file


def _part(path: Path) -> Path:
    return path.with_name(path.name + PART)


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True
