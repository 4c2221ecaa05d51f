"""The data directory: whether it can be written to and what it lies on; and how long its disk lasts.

Nothing is left behind, and a directory that is not there is not made: it would belong to whoever runs the check.
"""

import contextlib
import errno
import os
import tempfile
from pathlib import Path

import psutil

from ods.check.finding import Finding, failed, ok, warning
from ods.disk import POINT_BYTES, Disk

#: A disk that lasts for less than this, while InfluxDB is away, is too full to begin with. Hours.
TOO_FEW_HOURS = 1.0
#: One that lasts for less than a day on the track is worth knowing. Hours.
FEW_HOURS = 8.0

_DIRECTORY, _DISK = "data directory", "disk"
#: File systems that lose what is on them, or have no locks that SQLite could rely on, and what to say of them.
_UNFIT = {
    "overlay": "keeps nothing beyond a restart of its container or board",
    "tmpfs": "is lost when the machine stops",
    "ramfs": "is lost when the machine stops",
    "vfat": "is FAT, which a power cut damages",
    "exfat": "is exFAT, which a power cut damages",
    "nfs": "is a network share: SQLite needs a local disk",
    "nfs4": "is a network share: SQLite needs a local disk",
    "cifs": "is a network share: SQLite needs a local disk",
    "fuse.sshfs": "is a network share: SQLite needs a local disk",
}
_ADVICE = {
    errno.EROFS: "mount its disk writable, or choose another directory (--directory)",
    errno.EACCES: "give it to the user that ODS runs as, or choose another directory (--directory)",
    errno.EPERM: "give it to the user that ODS runs as, or choose another directory (--directory)",
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room within the quota of this user",
}


def look_at_directory(path: Path) -> Finding:
    """Whether ODS could write there."""
    try:
        if not path.exists():
            return _look_at_parent(path)
        if not path.is_dir():
            return failed(_DIRECTORY, f"{path} is no directory", "choose another one (--directory)")
        _try_writing(path)
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "mend its disk, or choose another directory (--directory)")
        return failed(_DIRECTORY, f"{path}: {error.strerror or error}", advice)
    unfit = _UNFIT.get(_kind_of_file_system(path))
    if unfit:
        return warning(_DIRECTORY, f"{path} is writable, but its file system {unfit}", "choose one on a local disk")
    return ok(_DIRECTORY, f"{path} is writable")


def look_at_disk(path: Path, *, limit_bytes: int, used_bytes: int | None, points_per_second: float) -> Finding:
    """How long an outage may last at this rate; `used_bytes` is what the running ODS says that its buffer takes."""
    try:
        free_bytes = Disk(_nearest(path)).free_for_buffer_bytes()
        if used_bytes is None:
            used_bytes = _size(path / "buffer.db")
    except OSError as error:
        return failed(_DISK, f"{path}: {error.strerror or error}", "mend the disk: it does not say how much is free")
    room_bytes = max(0, min(free_bytes, limit_bytes - used_bytes))
    hours = room_bytes / POINT_BYTES / points_per_second / 3600
    lasts = f"{_megabytes(room_bytes)} for ODS last {hours:.1f} hours at {points_per_second:g} points a second"
    is_limit = limit_bytes - used_bytes < free_bytes
    advice = "raise --buffer-limit, or wait for the drain" if is_limit else "make room on the disk"
    if hours < TOO_FEW_HOURS:
        return failed(_DISK, f"nearly full: {lasts}", advice)
    return warning(_DISK, lasts, f"{advice}, for a long outage") if hours < FEW_HOURS else ok(_DISK, lasts)


def _look_at_parent(path: Path) -> Finding:
    parent = _nearest(path)
    if not os.access(parent, os.W_OK | os.X_OK):
        is_read_only = bool(os.statvfs(parent).f_flag & os.ST_RDONLY)
        advice = _ADVICE[errno.EROFS if is_read_only else errno.EACCES]
        return failed(_DIRECTORY, f"{path} is not there, and nothing can be made in {parent}", advice)
    return ok(_DIRECTORY, f"{path} is not there yet; ODS makes it at its start")


def _nearest(path: Path) -> Path:
    """The directory itself, or the nearest above it that exists."""
    return next(one for one in (path, *path.parents) if one.is_dir())


def _try_writing(path: Path) -> None:
    """Write a small file there and take it away. Raises OSError."""
    file, name = tempfile.mkstemp(prefix=".check-", dir=path)
    try:
        os.write(file, b"x" * 4096)
        os.fsync(file)
    finally:
        os.close(file)
        with contextlib.suppress(OSError):
            Path(name).unlink()


def _kind_of_file_system(path: Path) -> str:
    """By the longest mount point above it; empty where that is not known."""
    try:
        mounts = {Path(one.mountpoint): one.fstype for one in psutil.disk_partitions(all=True)}
    except (psutil.Error, OSError):
        return ""
    resolved = path.resolve()
    return next((mounts[one] for one in (resolved, *resolved.parents) if one in mounts), "")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
