"""A disk that is slow, full, read-only or broken below one directory, for one process, switched while it runs."""

import errno
from dataclasses import dataclass
from pathlib import Path

from harness.preload import SharedPage

#: The kinds of call, in the order of sick_disk.c.
KINDS = ("sync", "write", "read", "open", "change")


@dataclass(frozen=True)
class Sickness:
    """What is wrong with a disk: the errno with which calls fail (0: they do not), and how long a sync takes.

    `open` is opening to write or create; `change` is making, renaming, deleting, truncating and allocating.
    """

    name: str
    sync_wait_seconds: float = 0.0
    sync: int = 0
    write: int = 0
    read: int = 0
    open: int = 0
    change: int = 0


#: A worn card, or one that tidies itself up.
SLOW = Sickness("slow", sync_wait_seconds=10.0)
FULL = Sickness("full", write=errno.ENOSPC)
READ_ONLY = Sickness(
    "read-only", sync=errno.EROFS, write=errno.EROFS, open=errno.EROFS, change=errno.EROFS
)  # what a file system that found an error in itself becomes
BROKEN = Sickness("broken", sync=errno.EIO, write=errno.EIO, read=errno.EIO, open=errno.EIO, change=errno.EIO)
#: A cable that wiggles, while what is read is not in the kernel's cache.
UNREADABLE = Sickness("unreadable", read=errno.EIO)
#: Writes reach the cache of the kernel and never the disk.
UNSYNCED = Sickness("unsynced", sync=errno.EIO)


class SickDisk:
    """The disk below `directory`. It is sound until `fall_sick`."""

    def __init__(self, library: Path, folder: Path, directory: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._library = library
        self._page = SharedPage(folder / "sick_disk.page", code="i")

    @property
    def environment(self) -> dict[str, str]:
        """What the process is to be started with."""
        return {
            "LD_PRELOAD": str(self._library),
            "SICK_DISK_PAGE": str(self._page.path),
            "SICK_DISK_DIRECTORY": str(self.directory),
        }

    def fall_sick(self, sickness: Sickness) -> None:
        """From now on calls fail, or wait."""
        self.heal()
        self._page[1] = round(sickness.sync_wait_seconds * 1000)
        for index, kind in enumerate(KINDS):
            self._page[2 + index] = getattr(sickness, kind)
        self._page[0] = 1

    def heal(self) -> None:
        """Nothing is wrong any more; a sync that waits goes on at once."""
        self._page[0] = 0

    def hits(self, *kinds: str) -> int:
        """How many calls of these kinds, or of all, were made to fail or to wait so far."""
        return sum(self._page[2 + len(KINDS) + KINDS.index(kind)] for kind in kinds or KINDS)
