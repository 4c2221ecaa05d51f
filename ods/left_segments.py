"""What the runs before have left of their recordings: found after a crash, and closed once it is stored.

A worker that died is followed at once by one that repeats what may not have been recorded (`ods.tape`): the times of
what was, found here, tell which is which. Every call may wait for the disk.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from ods.playback import play
from ods.recording import HEADERS, folder_name, segment_begin, segment_name
from ods.segment_files import COMPRESSED, OPEN, has_end, rename_closed
from ods.segments import SEGMENT_SECONDS

log = logging.getLogger(__name__)

#: How long a segment lasts at most, with much to spare for a disk that hangs. Nanoseconds.
LASTS_NS = 2 * int(SEGMENT_SECONDS * 1e9)
#: The part of a segment's name that tells when it begins.
BEGIN_LENGTH = len("20260921-141320")
#: A FAT card cuts the times of files to two seconds. Nanoseconds.
FAT_NS = 2_000_000_000
#: How much is read at a time to find the end of the last row. Bytes.
BLOCK_BYTES = 64 * 1024


def left_behind(directory: Path, settled_ns: int, begun_ns: int) -> list[Path]:
    """Segments of the runs before that may hold rows later than `settled_ns`: those left open, and the last closed.

    Some may be of this run, which began at `begun_ns`; of the closed ones, none is.
    """
    left_open = [path for path in sorted(directory.glob(f"*/*.csv{OPEN}")) if has_end(path)]
    if not settled_ns:
        return left_open
    closed = [path for path in sorted(directory.glob("*/*.csv*")) if path.suffix in (".csv", COMPRESSED)]
    return left_open + [path for path in closed if _may_hold_later(path, settled_ns, begun_ns)]


def _may_hold_later(closed: Path, settled_ns: int, begun_ns: int) -> bool:
    try:
        first_ns, _ = segment_begin(closed.name)
        # No segment lasts for longer than this; only few files have to be looked at.
        if not settled_ns - LASTS_NS < first_ns < begun_ns:
            return False
        return has_end(closed) and closed.stat().st_mtime_ns + FAT_NS > settled_ns
    except (OSError, ValueError):
        return False


def find_recorded_times(directory: Path, since: Mapping[str, int], found: dict[str, set[int]]) -> None:
    """Find the times of all rows of these pods that are no earlier than the time given for each, one pod after another.

    As the recovery reads them. What cannot be read is left out, and said: it is stored twice then, with the same time.
    """
    for pod, since_ns in since.items():
        times: set[int] = set()
        for path in _that_may_hold_since(directory / folder_name(pod), since_ns):
            try:
                for piece in play(path, after_ns=since_ns - 1):
                    times.update([int(row[0]) for row in piece.rows])
            except (OSError, ValueError) as error:
                log.warning("recordings: %s is not looked at: %s", path, error)
        found[pod] = times


def _that_may_hold_since(folder: Path, since_ns: int) -> list[Path]:
    """Those that were left open, and those closed later; of most closed ones the names tell that they end before."""
    too_early = segment_name(max(0, since_ns - LASTS_NS), "data")[:BEGIN_LENGTH]
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.endswith(OPEN) or (name >= too_early and name.endswith((".csv", COMPRESSED))):
                path = folder / name
                if has_end(path) and (name.endswith(OPEN) or path.stat().st_mtime_ns + FAT_NS >= since_ns):
                    found.append(path)
    return found


def close_left(path: Path, last_ns: int) -> Path | None:
    """Close a segment that was left open after its last whole row; None where it has none, not even a header.

    Raises OSError; then it is as it was, or has at most lost what came after that row.
    """
    with path.open("r+b") as file:
        whole_bytes = _end_of_last_row(file)
        if whole_bytes or _is_beginning_of_header(file):
            file.truncate(whole_bytes)
        else:
            raise OSError(f"{path} holds no row")
    if not whole_bytes:
        path.unlink()
        return None
    return rename_closed(path, last_ns)


def _end_of_last_row(file: BinaryIO) -> int:
    """The offset after the last newline."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - BLOCK_BYTES)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found != -1:
            return begin + found + 1
        end = begin
    return 0


def _is_beginning_of_header(file: BinaryIO) -> bool:
    file.seek(0)
    begin = file.read(100)
    return any(header.startswith(begin) for header in HEADERS.values())
