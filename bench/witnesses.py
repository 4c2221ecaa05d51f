"""Pods that see the worker end: how long each of them waits for its first reply afterwards.

They send at a low, steady rate, so that the worker has work in hand when it ends. At that moment each pod sends one
line more, of its own kind; its reply tells that ODS has read again from that very pod, and has stored what it read.
"""

import contextlib
import os
import selectors
import socket
import time
from multiprocessing.connection import Connection

from bench.pods import PATIENCE_SECONDS, PIECE_BYTES, connect
from bench.points import addresses, pod_lines

#: What all pods together send meanwhile.
LINES_PER_SECOND = 1000.0


def witness(connection: Connection, port: int, pods: int) -> None:
    """Asked to end a process by a signal, answers after how many seconds each pod was answered, in that order."""
    fleet = _Fleet(port, pods)
    connection.send(None)
    while True:
        while not connection.poll():
            fleet.step()
        process_id, number = connection.recv()
        connection.send(fleet.end(process_id, number))


class _Fleet:
    """All pods, in one thread."""

    def __init__(self, port: int, pods: int) -> None:
        self._pods = [_Pod(connect(port, address)) for address in addresses(pods)]
        self._lines = pod_lines(1000).splitlines(keepends=True)
        self._began, self._sent, self._marks = time.monotonic(), 0, 0
        self._selector = selectors.DefaultSelector()
        for pod in self._pods:
            self._selector.register(pod.sock, selectors.EVENT_READ, pod)

    def step(self) -> list["_Pod"]:
        """Send what is due, take what is there; returns the pods that their mark was answered."""
        due = int((time.monotonic() - self._began) * LINES_PER_SECOND)
        for number in range(self._sent, due):
            self._pods[number % len(self._pods)].send(self._lines[number % len(self._lines)])
        self._sent = due
        for pod in self._pods:
            pod.flush()
        return [key.data for key, _ in self._selector.select(0.001) if key.data.take()]

    def end(self, process_id: int, number: int) -> list[float]:
        """End the process, and time the pods."""
        self._marks += 1
        mark = f"mark_{self._marks}"
        for pod in self._pods:
            pod.expect(f"OK: ({mark},".encode())
        os.kill(process_id, number)
        began = time.monotonic()
        for pod in self._pods:
            pod.send(f"POD2{mark} 1\n".encode())
        waited: list[float] = []
        while len(waited) < len(self._pods):
            answered = self.step()
            now = time.monotonic()
            waited.extend(now - began for _ in answered)
            if now - began > PATIENCE_SECONDS:
                raise TimeoutError(f"{len(self._pods) - len(waited)} pods have no reply after {PATIENCE_SECONDS:g} s")
        return waited


class _Pod:
    """One of them."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._tail = b""
        self._expected = b""
        self._unsent = b""
        sock.setblocking(False)

    def send(self, data: bytes) -> None:
        """Send now, or, where the kernel takes no more while no worker reads, as soon as it does."""
        self._unsent += data
        self.flush()

    def flush(self) -> None:
        """Send what was not sent yet."""
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]

    def expect(self, reply: bytes) -> None:
        self._expected = reply

    def take(self) -> bool:
        """Read replies; whether the expected one has come."""
        data = self.sock.recv(PIECE_BYTES)
        if not data:
            raise ConnectionError("ODS has closed the connection of a pod")
        self._tail = (self._tail + data)[-PIECE_BYTES:]
        if not self._expected or self._expected not in self._tail:
            return False
        self._expected = b""
        return True
