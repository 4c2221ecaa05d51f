"""The data directory: who may use it, and the small notes kept in it besides the buffer and the recordings."""

import fcntl
import logging
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ods.errors import SettingsError

log = logging.getLogger(__name__)

#: The year 2200; InfluxDB's times end in 2262. A later note is damaged.
END_OF_TIME_NS = 7_258_118_400_000_000_000

#: How long to wait for the lock: a command that works on the buffer of a stopped ODS holds it for moments, a worker
#: whose keeper was killed until it has stored what it had read. Seconds.
LOCK_SECONDS = 3.0
LOCK_POLL_SECONDS = 0.01

_LOCK = "lock"
_CLOCK = "clock"
_SETTLED = "settled"
_CONTROL = "control.sock"


class DataDirectory:
    """The directory and the lock on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def buffer(self) -> Path:
        """The file of the buffer."""
        return self.path / "buffer.db"

    @property
    def recordings(self) -> Path:
        """The folder of the recordings."""
        return self.path / "recordings"

    @property
    def lock_file(self) -> int | None:
        """The open file that the lock is on; who is handed it holds the lock too."""
        return self._lock

    def adopt(self, lock: int) -> None:
        """Take over an open file that the lock is on."""
        self.close()
        self._lock = lock

    def open(self) -> None:
        """Make it and lock it. Raises SettingsError when another ODS uses it; a broken disk is only told of."""
        try:
            if self._lock is not None and _is_at(self._lock, self.path / _LOCK):
                return
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock()
        except OSError as error:
            log.error("data directory: %s; nothing can be buffered there until this is mended", error)

    def lock(self) -> None:
        """Lock it, as it is. Raises SettingsError when another ODS uses it, and OSError."""
        self.close()
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    holder = self._holder()
                    self.close()
                    raise SettingsError(f"another ODS uses {self.path} (process {holder})") from error
                time.sleep(LOCK_POLL_SECONDS)
            else:
                break
        self._note_holder()

    def hold(self) -> bool:
        """Make the directory and lock it where it was deleted, or could not be made at the start. Raises OSError.

        Returns whether it did: then what else was in it is gone too.
        """
        if self._lock is not None and _is_at(self._lock, self.path / _LOCK):
            return False
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        self.close()
        self._lock = lock
        self._note_holder()
        log.warning("data directory: %s was not there, or not usable; it is made and locked now", self.path)
        return True

    def close(self) -> None:
        """Let another ODS use it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_held(self) -> bool:
        """Whether another process holds the lock: an ODS that runs, starts or stops."""
        try:
            lock = os.open(self.path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def latest_ns(self) -> int:
        """The last reception time that the run before noted; 0 where it noted none."""
        return self._noted_ns(_CLOCK)

    def settled_ns(self) -> int:
        """What the run before knew to be settled up to this time; see `note_times`. 0 where it noted none."""
        return self._noted_ns(_SETTLED)

    def note_times(self, latest_ns: int, settled_ns: int) -> None:
        """Note the last reception time given out, and one up to which the fate of every record is decided.

        The second may be too early, which makes work for the next start after a crash, but never too late. Raises
        OSError.
        """
        self._note(_CLOCK, latest_ns)
        self._note(_SETTLED, settled_ns)

    def _noted_ns(self, name: str) -> int:
        try:
            noted, _, checksum = (self.path / name).read_text(encoding="ascii").strip().partition(" ")
            time_ns = int(noted)
        except (OSError, ValueError):
            return 0
        if checksum and checksum != _checksum(noted):  # earlier versions of ODS noted none
            return 0
        return time_ns if 0 < time_ns < END_OF_TIME_NS else 0

    def _note(self, name: str, time_ns: int) -> None:
        unfinished = self.path / f"{name}.part"
        unfinished.write_text(f"{time_ns} {_checksum(str(time_ns))}\n", encoding="ascii")
        unfinished.replace(self.path / name)

    def control_address(self) -> tuple[str, int | None]:
        """The address of the control socket, and a file descriptor to be closed after it was used.

        An address may have 107 bytes only; on Linux a longer path is reached through the open directory.
        """
        direct = str(self.path / _CONTROL)
        if len(os.fsencode(direct)) < 104 or not Path("/proc/self/fd").exists():
            return direct, None
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{folder}/{_CONTROL}", folder

    def _holder(self) -> str:
        assert self._lock is not None
        return os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "unknown"

    def _note_holder(self) -> None:
        assert self._lock is not None
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            log.debug("data directory: %s", error)


@contextmanager
def kept(path: Path) -> Iterator[str | None]:
    """Keep ODS from starting on a data directory, for moments, that it may be read; an ODS that starts waits so long.

    Gives the process that has locked it (`unknown` where it did not say), None where none has. Nothing is written.
    Raises OSError where it cannot be looked.
    """
    try:
        lock = os.open(path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    try:
        yield _holder_beside(lock)
    finally:
        os.close(lock)


def _holder_beside(lock: int) -> str | None:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
    return None


def _checksum(noted: str) -> str:
    """One wrong digit in a note would move all telemetry into another century, for good."""
    return f"{zlib.crc32(noted.encode()):08x}"


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False
