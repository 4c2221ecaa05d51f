"""How much room a disk has, how much of it ODS leaves alone, and whether it can be read."""

import os
import time
from pathlib import Path

#: Left free for whatever else the machine does: this, or a tenth of a small disk. Bytes.
RESERVE_BYTES = 512 * 1024 * 1024
#: Recordings stop this much before the buffer does: this, or a fiftieth of a small disk and a checkpoint. Bytes.
RECORDINGS_MARGIN_BYTES = 128 * 1024 * 1024
#: What the buffer's file may grow by at once, when SQLite moves its log into it. Bytes.
CHECKPOINT_BYTES = 4 * 1024 * 1024
#: What a point takes on disk in the buffer and the recordings together, to tell how long the disk lasts. Bytes.
POINT_BYTES = 60


class Disk:
    """The file system that holds a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        #: The room above the reserve when it was last looked at; None before. Bytes.
        self.free_bytes: int | None = None

    def free_for_buffer_bytes(self) -> int:
        """Room above the reserve; negative when the reserve is touched. Raises OSError."""
        size_bytes, free_bytes = self._size_and_free_bytes()
        return free_bytes - min(RESERVE_BYTES, size_bytes // 10)

    def free_for_recordings_bytes(self) -> int:
        """Room above the reserve and the margin by which recordings stop earlier. Raises OSError."""
        size_bytes, free_bytes = self._size_and_free_bytes()
        margin_bytes = min(RECORDINGS_MARGIN_BYTES, size_bytes // 50 + CHECKPOINT_BYTES)
        return free_bytes - min(RESERVE_BYTES, size_bytes // 10) - margin_bytes

    def _size_and_free_bytes(self) -> tuple[int, int]:
        status = os.statvfs(self._directory)
        size_bytes, free_bytes = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
        self.free_bytes = max(0, free_bytes - min(RESERVE_BYTES, size_bytes // 10))
        return size_bytes, free_bytes


def read_through(path: Path, *, seconds: float) -> OSError | None:
    """Read a file from begin to end, for so long at most; returns what went wrong."""
    deadline = time.monotonic() + seconds
    try:
        with path.open("rb", buffering=0) as file:
            while file.read(1024 * 1024) and time.monotonic() < deadline:
                pass
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    return None
