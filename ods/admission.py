"""Bounds the memory of what is in flight, without ever making a pod wait for long.

When more comes in than the stores take, the reading of the pods that hold more than their share pauses until there is
room, so that what was read is answered soon; TCP holds what they send meanwhile. Of each pod no more is read at once
than would fit if all had sent as much, for the first reads of two thousand pods would fill the memory by themselves.

No pause is longer than 250 ms (a pod whose send stalls for a second brakes), and where the stores stand still there is
no second one: reading goes on, up to the limit of memory. Beyond it chunks are refused: dropped and counted.
"""

import time
from collections.abc import Callable

from gevent.event import Event

#: The most that is in flight, in all chunks together. Bytes.
LIMIT_BYTES = 64 * 1024 * 1024
#: Reading pauses for the heaviest pods from here on: about what the stores take in a tenth of a second. Bytes.
PAUSE_BYTES = 4 * 1024 * 1024
#: So many times the bytes of a line are what becomes of it: line protocol, a row of a recording, a reply.
GROWTH = 10
#: Of each pod at most so much is read at once, and, however little room there is, at least so much. Bytes. The most is
#: decoded in about a millisecond.
MOST_READ_BYTES, LEAST_READ_BYTES = 16 * 1024, 1024
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
        #: Connections that are read from.
        self._readers = 0
        self.in_flight_bytes = 0
        #: Whether the last chunk was refused.
        self.is_refusing = False

    def enter(self) -> None:
        """There is one more connection that is read from."""
        self._readers += 1

    def leave(self) -> None:
        """One has ended."""
        self._readers -= 1

    @property
    def read_bytes(self) -> int:
        """How much may be read at once of a connection."""
        share_bytes = (self._limit_bytes - self.in_flight_bytes) // (GROWTH * (self._readers or 1))
        return min(MOST_READ_BYTES, max(LEAST_READ_BYTES, share_bytes))

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
