"""The files of the recordings as they lie on the disk, whoever has written them: every call may wait for the disk.

While open a segment is called `NAME.csv.open` (`ods.segments` writes it). Closed, it is `NAME.csv` for as long as it
takes to compress it, then `NAME.csv.gz`.
"""

import contextlib
import gzip
import os
import shutil
import stat
from pathlib import Path

OPEN = ".open"
COMPRESSED = ".gz"


def rename_closed(path: Path, last_ns: int) -> Path:
    """Give an open segment the name of a closed one, and the time of its last row."""
    closed = path.with_suffix("")
    path.rename(closed)
    os.utime(closed, ns=(last_ns, last_ns))
    return closed


def compress(closed: Path) -> Path:
    """Replace a closed segment by its compressed form, which keeps its time. Raises OSError; then nothing is lost."""
    finished = closed.with_name(closed.name + COMPRESSED)
    unfinished = finished.with_name(finished.name + ".part")
    try:
        with closed.open("rb") as source, unfinished.open("wb") as target:
            with gzip.GzipFile(filename=closed.name, mode="wb", fileobj=target, compresslevel=6, mtime=0) as packed:
                shutil.copyfileobj(source, packed, 1024 * 1024)
            target.flush()
            os.fsync(target.fileno())
        shutil.copystat(closed, unfinished)
        unfinished.replace(finished)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)  # a full disk needs the room
        raise
    closed.unlink()
    return finished


def left_to_compress(directory: Path) -> list[Path]:
    """Closed segments that the run before did not come to compress."""
    return [path for path in sorted(directory.glob("*/*.csv")) if has_end(path)]


def has_end(path: Path) -> bool:
    """Whether reading what is at a path would ever end: not so with a pipe or a device. Raises OSError."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def prune(directory: Path, *, limit_bytes: int, confirmed_before_ns: int) -> list[Path]:
    """Delete compressed segments, oldest first, until the recordings fit the limit; returns those deleted.

    Only those whose last record is older than `confirmed_before_ns`, the oldest one that is not yet in InfluxDB.
    """
    files = [(path, path.stat()) for path in directory.glob("*/*.csv*")]
    excess_bytes = sum(status.st_size for _, status in files) - limit_bytes
    deleted: list[Path] = []
    for path, status in sorted(files, key=lambda file: file[0].name):
        if excess_bytes <= 0:
            break
        if path.suffix == COMPRESSED and status.st_mtime_ns < confirmed_before_ns:
            path.unlink()
            excess_bytes -= status.st_size
            deleted.append(path)
    return deleted


def size_bytes(directory: Path) -> int:
    """What all recordings take on the disk, open segments included. Raises OSError."""
    sizes = []
    for path in directory.glob("*/*.csv*"):
        with contextlib.suppress(FileNotFoundError):  # it was closed, compressed or deleted meanwhile
            sizes.append(path.stat().st_size)
    return sum(sizes)
