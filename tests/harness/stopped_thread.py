"""One thread of a process stopped by ptrace(2), while its other threads run on: a hub that stands still."""

import ctypes
import os
import platform
import sys
from types import TracebackType

#: From Linux's <linux/ptrace.h> and <sys/wait.h>.
_DETACH, _SEIZE, _INTERRUPT = 17, 0x4206, 0x4207
_WALL = 0x40000000


def lacking() -> str:
    """What this machine lacks for it, as advice; empty where it lacks nothing."""
    return "" if sys.platform == "linux" else f"threads are stopped by ptrace, which {platform.system()} has not"


class StoppedThread:
    """The main thread of a child of this process does not run as long as this context. Raises PermissionError."""

    def __init__(self, process_id: int) -> None:
        self._id = process_id
        self._ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self._ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._ptrace.restype = ctypes.c_long

    def __enter__(self) -> "StoppedThread":
        self._do(_SEIZE)
        self._do(_INTERRUPT)
        _, status = os.waitpid(self._id, _WALL)
        assert os.WIFSTOPPED(status), f"the thread ended with {status}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._has_ended():
            self._do(_DETACH)

    def _has_ended(self) -> bool:
        try:
            return os.waitid(os.P_PID, self._id, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def _do(self, request: int) -> None:
        if self._ptrace(request, self._id, None, None) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
