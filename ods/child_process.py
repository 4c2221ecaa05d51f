"""A process of the keeper's: a channel to it, when it was killed and why, and what it died of."""

import contextlib
import os
import signal
import time
from collections.abc import Collection

from ods.channel import Channel


class ChildProcess:
    """One that runs already. Raises OSError where it cannot be watched; then it is the caller's to end."""

    def __init__(self, process_id: int, channel: Channel) -> None:
        self.process_id = process_id
        self.channel = channel
        self.pidfd = os.pidfd_open(process_id)
        #: When it was last given something to do, and last heard of.
        self.began_at = self.heard_at = time.monotonic()
        self.killed_at: float | None = None
        #: Whether its end of the channel is there.
        self.is_open = True
        self.is_stuck_said = False
        #: The exit status of one that is dead; negative where a signal ended it.
        self.status: int | None = None
        self._why_killed = ""

    def kill(self, why: str) -> None:
        """End it at once; `why` becomes the cause of its death. May be called twice."""
        if self.killed_at is None:
            self.killed_at, self._why_killed = time.monotonic(), why
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> bool:
        """Whether it is dead."""
        if self.status is None:
            dead, status = os.waitpid(self.process_id, os.WNOHANG)
            if dead:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    @property
    def cause(self) -> str:
        """What it died of."""
        if self._why_killed:
            return self._why_killed
        if self.status is None or self.status >= 0:
            return f"status {self.status}"
        try:
            return signal.Signals(-self.status).name
        except ValueError:
            return f"signal {-self.status}"

    def close(self) -> None:
        """Let go of all that is held of one that is dead."""
        self.is_open = False
        self.channel.close()
        os.close(self.pidfd)


def reap_stranger(known: Collection[int]) -> None:
    """Let go of one dead child that nobody knows, where there is one.

    A zygote that is killed while it forks leaves a worker, or the process between, to this process, and tells of none.
    """
    try:
        dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    if dead is not None and dead.si_pid not in known:
        os.waitpid(dead.si_pid, os.WNOHANG)
