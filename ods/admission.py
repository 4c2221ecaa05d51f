"""Bounds the memory of what is in flight, without ever making a pod wait for long.

Near the limit the reading of a pod that holds more than its share pauses, for 250 ms at most; TCP holds what it sends
meanwhile. When that did not make room, its chunks are refused (dropped and counted) until there is room again: a pod
whose send stalls for a second brakes.
"""

import time
from collections import Counter

from gevent.event import Event

#: The most that is in flight, in all chunks together. Bytes.
LIMIT_BYTES = 64 * 1024 * 1024
#: Reading pauses for the heaviest pods from here on. Bytes.
PAUSE_BYTES = LIMIT_BYTES * 3 // 4
#: The longest that reading from a pod pauses. Seconds.
PAUSE_SECONDS = 0.25


class Admission:
    """Counts the bytes in flight of each pod; belongs to the hub."""

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES, pause_bytes: int = PAUSE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._pause_bytes = pause_bytes
        self._held: Counter[str] = Counter()
        self._room = Event()
        self._room.set()
        self._refusing: set[str] = set()
        self.in_flight_bytes = 0

    def admit(self, pod: str, size_bytes: int) -> bool:
        """Take a chunk in; pauses the caller where the pod is among the heaviest. False: the chunk is refused."""
        if self.in_flight_bytes + size_bytes > self._pause_bytes and self._is_heavy(pod):
            self._pause(pod, size_bytes)
        if self.in_flight_bytes + size_bytes > self._limit_bytes:
            self._refusing.add(pod)
            return False
        self._refusing.discard(pod)
        self.in_flight_bytes += size_bytes
        self._held[pod] += size_bytes
        return True

    def release(self, pod: str, size_bytes: int) -> None:
        """A chunk that was taken in is settled."""
        self.in_flight_bytes -= size_bytes
        self._held[pod] -= size_bytes
        if not self._held[pod]:
            del self._held[pod]
        if self.in_flight_bytes <= self._pause_bytes:
            self._room.set()

    def _is_heavy(self, pod: str) -> bool:
        return self._held.get(pod, 0) * len(self._held) >= self.in_flight_bytes

    def _pause(self, pod: str, size_bytes: int) -> None:
        if pod in self._refusing:
            return
        deadline = time.monotonic() + PAUSE_SECONDS
        while self.in_flight_bytes + size_bytes > self._pause_bytes:
            self._room.clear()
            if not self._room.wait(max(0.0, deadline - time.monotonic())):
                return
