"""The zygote (`ods.zygote`) as the keeper sees it: how it is started, and what is asked of it."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import ods
from ods.channel import Channel, Message
from ods.child_process import ChildProcess
from ods.worker_process import WorkerProcess

#: The command that it is; not with the code of the folder in which somebody happens to be (`-P`).
COMMAND = (sys.executable, "-P", "-m", "ods", "worker")
#: What of its words is kept: the end, which says why it failed. Bytes.
SAID_BYTES = 4096
#: These reach keeper, zygote and worker alike from a terminal; the keeper alone acts on them.
_FROM_A_TERMINAL = {signal.SIGINT, signal.SIGHUP}
#: Of Linux's prctl: whose parent has ended becomes a child of this process.
_PR_SET_CHILD_SUBREAPER = 36


def adopt_workers() -> None:
    """Have each worker that a zygote forks become a child of this process. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "a worker cannot become a child of the keeper")


class ZygoteProcess(ChildProcess):
    """It is started at once; deaf to what a terminal sends to all, which the keeper acts on. Raises OSError."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        #: What it says on stderr.
        self._said = os.memfd_create("ods-said")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = self._begin(theirs.fileno(), argv, environment)
            super().__init__(self._process.pid, Channel(ours))
        except OSError:
            self._give_up()
            ours.close()
            os.close(self._said)
            raise
        #: What it told when it was ready, None before.
        self.told: Message | None = None
        #: Both ends of the channel to the worker that is being forked.
        self._asked: tuple[socket.socket, socket.socket] | None = None

    def _begin(self, channel: int, argv: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_A_TERMINAL)  # it and its workers inherit this
        try:
            return subprocess.Popen(
                [*COMMAND, str(channel), *argv],
                env=code_in(environment),
                pass_fds=[channel],
                stdin=subprocess.DEVNULL,
                stderr=self._said,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _give_up(self) -> None:
        if hasattr(self, "_process"):
            self._process.kill()
            self._process.wait()

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked for a worker."""
        return self.told is not None

    @property
    def is_asked(self) -> bool:
        """Whether a worker is being forked."""
        return self._asked is not None

    def ask_for_worker(self) -> None:
        """Have a worker forked; it tells when there is one. Raises OSError."""
        self._asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.began_at = time.monotonic()
        self.channel.send({"do": "fork"}, [self._asked[1].fileno()])

    def forked(self, process_id: int) -> WorkerProcess:
        """The worker that was asked for. Raises OSError."""
        assert self._asked is not None
        ours, theirs = self._asked
        self._asked = None
        theirs.close()
        try:
            return WorkerProcess(process_id, Channel(ours))
        except OSError:
            ours.close()
            raise

    def forget_asked(self) -> None:
        """There is no worker to come."""
        if self._asked is not None:
            for end in self._asked:
                end.close()
            self._asked = None

    def reap(self) -> bool:
        """Whether it is dead."""
        self.status = self._process.poll()
        return self.status is not None

    @property
    def said(self) -> str:
        """The end of what it said."""
        size_bytes = os.fstat(self._said).st_size
        begin = max(0, size_bytes - SAID_BYTES)
        return os.pread(self._said, SAID_BYTES, begin).decode("utf-8", "replace").strip()

    @property
    def cause(self) -> str:
        """What it died of, with its last words where it ended by itself."""
        cause, said = super().cause, self.said.splitlines()
        return f"{cause} ({said[-1].strip()})" if said and cause == f"status {self.status}" else cause

    def close(self) -> None:
        """Let go of all that is held of one that is dead."""
        super().close()
        self.forget_asked()
        os.close(self._said)


def code_in(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which the code of this ODS is found, where it lies now: a link in its path may have moved."""
    folder = str(Path(ods.__file__).parents[1])
    before = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", folder)]
    return {**environment, "PYTHONPATH": os.pathsep.join([folder, *before])}
