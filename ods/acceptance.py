"""Accepting pods: always, whatever else the keeper is about."""

import errno
import logging
import socket
import time
from collections.abc import Iterator

from ods.held import Held

log = logging.getLogger(__name__)

#: So many pods are accepted before anything else is looked at; and the pause after a failure to accept one. Seconds.
ACCEPTED_AT_ONCE, ACCEPT_PAUSE_SECONDS = 100, 0.1


class Acceptance:
    """Takes connections from the listening socket, and has them held."""

    def __init__(self, listening: socket.socket, held: Held) -> None:
        self._listening = listening
        self._held = held
        self._again_at = 0.0
        self._is_failure_said = False

    def fileno(self) -> int:
        """To be waited for: a pod connects."""
        return self._listening.fileno()

    def is_due(self, now: float) -> bool:
        """Whether it is to be waited for."""
        return now >= self._again_at

    def accept(self) -> Iterator[int]:
        """The numbers of the connections that have come."""
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, peer = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ECONNABORTED:  # that pod is gone already
                    self._fail(error)
                    return
                continue
            self._is_failure_said = False
            yield self._held.add(sock, peer)

    def _fail(self, error: OSError) -> None:
        self._again_at = time.monotonic() + ACCEPT_PAUSE_SECONDS
        if not self._is_failure_said:
            self._is_failure_said = True
            log.error("a pod cannot be accepted: %s; it waits", error)
