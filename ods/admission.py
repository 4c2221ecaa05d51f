"""Bounds the memory of what is in flight, without ever making a pod wait for long.

When more comes in than the stores take, the reading of the pods that hold more than their share pauses until there is
room, so that what was read is answered soon; TCP holds what they send meanwhile. No pause is longer than 250 ms (a pod
whose send stalls for a second brakes), and where the stores stand still there is no second one: reading goes on, up to
the limit of memory. Beyond it chunks are refused: dropped and counted.
"""

import time
from collections.abc import Callable

from gevent.event import Event

#: The most that is in flight, in all chunks together. Bytes.
LIMIT_BYTES = 64 * 1024 * 1024
#: Reading pauses for the heaviest pods from here on: about what the stores take in a tenth of a second. Bytes.
PAUSE_BYTES = 4 * 1024 * 1024
#: The longest that reading from a pod pauses. Seconds.
PAUSE_SECONDS = 0.25


class Admission:
    """Counts the bytes in flight of each pod; belongs to the hub."""

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES, pause_bytes: int = PAUSE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._pause_bytes = pause_bytes
        self._held: dict[str, int] = {}
        self._room = Event()
        self._room.set()
        #: Whether nothing was released during the last pause, nor since.
        self._stands_still = False
        self._released = 0
        self.in_flight_bytes = 0
        #: Whether the last chunk was refused.
        self.is_refusing = False

    def is_to_pause(self, pod: str) -> bool:
        """Whether reading from this pod should pause."""
        if self._stands_still or self.in_flight_bytes <= self._pause_bytes:
            return False
        return self._held.get(pod, 0) * len(self._held) >= self.in_flight_bytes

    def pause(self, pod: str, wait_for_turn: Callable[[], None]) -> None:
        """Wait for a turn at which reading from this pod should not pause, `PAUSE_SECONDS` at most."""
        deadline = time.monotonic() + PAUSE_SECONDS
        while True:
            if self.is_to_pause(pod):
                self._wait_for_room(deadline)
            wait_for_turn()
            if not self.is_to_pause(pod) or time.monotonic() >= deadline:
                return

    def _wait_for_room(self, deadline: float) -> None:
        released = self._released
        while self.in_flight_bytes > self._pause_bytes:
            self._room.clear()
            if not self._room.wait(max(0.0, deadline - time.monotonic())):
                self._stands_still = self._released == released
                return

    def admit(self, pod: str, size_bytes: int) -> bool:
        """Take a chunk in. False: there is no memory for it, and it is refused."""
        self.is_refusing = self.in_flight_bytes + size_bytes > self._limit_bytes
        if self.is_refusing:
            return False
        self.in_flight_bytes += size_bytes
        self._held[pod] = self._held.get(pod, 0) + size_bytes
        return True

    def release(self, pod: str, size_bytes: int) -> None:
        """A chunk that was taken in is settled."""
        self.in_flight_bytes -= size_bytes
        if held := self._held.pop(pod) - size_bytes:
            self._held[pod] = held
        self._released += 1
        self._stands_still = False
        if self.in_flight_bytes <= self._pause_bytes:
            self._room.set()
