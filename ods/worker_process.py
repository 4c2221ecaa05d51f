"""One worker as the keeper sees it: a process, a channel to it, how far it has come, and what it died of."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path

import ods
from ods.channel import Channel

#: The command that a worker is; not with the code of the folder in which somebody happens to be (`-P`).
COMMAND = (sys.executable, "-P", "-m", "ods", "worker")
#: What of a worker's first words is kept: the end, which says why it failed. Bytes.
SAID_BYTES = 4096
#: These reach keeper and worker alike from a terminal; the keeper alone acts on them.
_FROM_A_TERMINAL = {signal.SIGINT, signal.SIGHUP}


class Stage(IntEnum):
    """How far a worker has come."""

    STARTING = 0
    #: Imported, its options read; it waits for its go, and has touched nothing.
    READY = 1
    #: It was given its go, and the connections.
    GIVEN = 2
    SERVING = 3


class WorkerProcess:
    """It is started at once; deaf to what a terminal sends to all, which the keeper acts on. Raises OSError."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], *, is_first: bool = False) -> None:
        self.stage = Stage.STARTING
        #: Whether ODS has just been started, so that an error of its options is told by ending.
        self.is_first = is_first
        self.began_at = self.beat_at = time.monotonic()
        self.killed_at: float | None = None
        self.is_handing_over = False
        #: Whether its end of the channel is there.
        self.is_open = True
        self.is_stuck_said = False
        self._why_killed = ""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = Channel(ours)
        #: What it says before it has its go; then it is given the log.
        self._said = os.memfd_create("ods-said")
        with theirs:
            self._process = self._begin(theirs.fileno(), argv, environment)
        try:
            self.pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            self._process.kill()
            self._process.wait()
            self.channel.close()
            os.close(self._said)
            raise

    def _begin(self, channel: int, argv: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_A_TERMINAL)  # the worker inherits this
        try:
            return subprocess.Popen(
                [*COMMAND, str(channel), *argv],
                env=_with_code(environment),
                pass_fds=[channel],
                stdin=subprocess.DEVNULL,
                stderr=self._said,
            )
        except OSError:
            self.channel.close()
            os.close(self._said)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def process_id(self) -> int:
        """By which the system knows it."""
        return self._process.pid

    @property
    def takes_connections(self) -> bool:
        """Whether new connections are to be handed to it; otherwise its successor gets them."""
        return self.stage >= Stage.GIVEN and not self.is_handing_over

    def kill(self, why: str) -> None:
        """End it at once; `why` becomes the cause of its death. May be called twice."""
        if self.killed_at is None:
            self.killed_at, self._why_killed = time.monotonic(), why
            self._process.kill()

    def reap(self) -> bool:
        """Whether it is dead."""
        return self._process.poll() is not None

    @property
    def status(self) -> int:
        """The exit status of one that is dead; negative where a signal ended it."""
        return int(self._process.returncode)

    @property
    def cause(self) -> str:
        """What it died of."""
        if self._why_killed:
            return self._why_killed
        if self.status < 0:
            return _signal_name(-self.status)
        said = self.said.splitlines()
        return f"status {self.status}" + (f" ({said[-1].strip()})" if said else "")

    @property
    def said(self) -> str:
        """The end of what it said before it had its go."""
        size_bytes = os.fstat(self._said).st_size
        begin = max(0, size_bytes - SAID_BYTES)
        return os.pread(self._said, SAID_BYTES, begin).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Let go of all that is held of one that is dead."""
        self.channel.close()
        os.close(self.pidfd)
        os.close(self._said)


def _with_code(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which the code of this ODS is found, where it lies now: a link in its path may have moved."""
    folder = str(Path(ods.__file__).parents[1])
    before = environment.get("PYTHONPATH")
    return {**environment, "PYTHONPATH": f"{folder}{os.pathsep}{before}" if before else folder}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
