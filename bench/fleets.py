"""Many pods that send in bursts at a steady rate, as real ones do, and see when each burst is answered."""

import contextlib
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection

from bench.pods import PATIENCE_SECONDS, PIECE_BYTES, connect
from bench.points import addresses, pod_lines

#: Lines that a pod sends at once.
BURST_LINES = 10


@dataclass(frozen=True)
class Seen:
    """What the pods saw: how many lines they sent, for how long, and after how long each burst was answered in full."""

    lines: int
    seconds: float
    waited_seconds: list[float]


def bursts(connection: Connection, port: int, pods: int, lines_per_second: float) -> None:
    """Asked for so many seconds, all pods together send at this rate, one after the other; answers `Seen`."""
    fleet = _Fleet([_Pod(connect(port, address)) for address in addresses(pods)], lines_per_second)
    connection.send(None)
    while True:
        (seconds,) = connection.recv()
        connection.send(fleet.run(seconds))


class _Fleet:
    """All pods, in one thread."""

    def __init__(self, pods: list["_Pod"], lines_per_second: float) -> None:
        self._pods = pods
        self._every_seconds = BURST_LINES / lines_per_second
        self._bursts = [pod_lines(BURST_LINES, first=begin) for begin in range(0, 1000, BURST_LINES)]
        self._selector = selectors.DefaultSelector()
        for pod in pods:
            self._selector.register(pod.sock, selectors.EVENT_READ, pod)

    def run(self, seconds: float) -> Seen:
        began, sent = time.monotonic(), 0
        waited: list[float] = []
        while (now := time.monotonic()) < began + seconds:
            due = int((now - began) / self._every_seconds)
            for number in range(sent, due):
                self._pods[number % len(self._pods)].send(self._bursts[number // len(self._pods) % len(self._bursts)])
            sent = due
            self._take(waited)
        took = time.monotonic() - began
        while any(pod.unanswered for pod in self._pods):
            if time.monotonic() > began + seconds + PATIENCE_SECONDS:
                raise TimeoutError(f"not every line was answered within {PATIENCE_SECONDS:g} s")
            self._take(waited)
        return Seen(sent * BURST_LINES, took, waited)

    def _take(self, waited: list[float]) -> None:
        for key, _ in self._selector.select(0.001):
            waited += key.data.take()


class _Pod:
    """One of them."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        #: When each burst was sent that is not answered in full. Monotonic clock, seconds.
        self.unanswered: deque[float] = deque()
        self._replies = 0
        self._unsent = b""
        sock.setblocking(False)

    def send(self, burst: bytes) -> None:
        """Send now what the kernel takes; the rest goes with the next burst, or when replies come."""
        self.unanswered.append(time.monotonic())
        self._unsent += burst
        self._flush()

    def take(self) -> list[float]:
        """Read replies; returns how long the bursts have waited that are answered now."""
        data = self.sock.recv(PIECE_BYTES)
        if not data:
            raise ConnectionError("ODS has closed the connection of a pod")
        self._flush()
        now = time.monotonic()
        answered, self._replies = divmod(self._replies + data.count(b"\n"), BURST_LINES)
        return [now - self.unanswered.popleft() for _ in range(answered)]

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
