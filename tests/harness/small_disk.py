"""A real file system of 64 MB in memory, to be filled, freed, made read-only and taken away. Needs root."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

SIZE_BYTES = 64 * 1024 * 1024


class SmallDisk:
    """A tmpfs that is mounted on `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @staticmethod
    def lacking() -> str:
        """What there lacks to mount one, as advice; empty where nothing does."""
        if sys.platform != "linux" or os.geteuid() != 0:
            return "mounting a small disk needs root, on Linux"
        return ""

    def mount(self) -> None:
        """Mount it, empty. Raises CalledProcessError where even root may not."""
        self.path.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES},mode=755", "tmpfs", str(self.path))

    def unmount(self) -> None:
        """Take it away, though files on it are open. May be called twice."""
        if os.path.ismount(self.path):
            _run("umount", "--lazy", str(self.path))

    def make_read_only(self) -> None:
        """Only possible while nobody has a file open to write."""
        _run("mount", "-o", "remount,ro", str(self.path))

    def make_writable(self) -> None:
        _run("mount", "-o", "remount,rw", str(self.path))

    @property
    def free_bytes(self) -> int:
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self, *, leaving_bytes: int = 0) -> None:
        """Have somebody else's file take up the room, but for so much, though others write meanwhile."""
        with self._ballast.open("ab") as file:
            for piece_bytes in (1024 * 1024, 4096):
                with contextlib.suppress(OSError):  # full
                    while self.free_bytes >= leaving_bytes + piece_bytes:
                        os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), piece_bytes)

    def free(self) -> None:
        """Somebody deletes that file."""
        self._ballast.unlink()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
