"""What pods do, each in a process of its own (`bench.processes.Load`): flood, wait for each reply, trickle.

Each function is the work of such a process: it connects, answers `None`, and then does what it is asked to. Times are
of the monotonic clock, which all processes of a machine share. All pods read their replies, which are measured.
"""

import selectors
import socket
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from bench.points import addresses, pod_lines

#: What is given to the kernel at once, and taken from it. Bytes.
PIECE_BYTES = 65536
#: After so long without a single reply a pod gives up. Seconds.
PATIENCE_SECONDS = 60.0


def connect(port: int, address: str) -> socket.socket:
    """A pod's connection, from its own address."""
    sock = socket.socket()
    sock.settimeout(PATIENCE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((address, 0))
    sock.connect(("127.0.0.1", port))
    return sock


def flood(connection: Connection, port: int, pods: int, lines: int) -> None:
    """Pods that send as fast as they can. Asked, they send `lines` in all; answers begin and last reply."""
    senders = [_Flooding(connect(port, address), lines // pods) for address in addresses(pods)]
    with selectors.DefaultSelector() as selector:
        for sender in senders:
            selector.register(sender.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, sender)
        connection.send(None)
        connection.recv()
        began = time.monotonic()
        while any(sender.unanswered for sender in senders):
            events = selector.select(PATIENCE_SECONDS)
            if not events:
                raise TimeoutError(f"no reply within {PATIENCE_SECONDS:g} s")
            for key, mask in events:
                key.data.step(selector, mask)
        connection.send((began, time.monotonic()))
        connection.recv()  # they stay connected until nobody asks any more


class _Flooding:
    """One pod that floods."""

    def __init__(self, sock: socket.socket, lines: int) -> None:
        self.sock = sock
        self.unanswered = lines
        self._rest = memoryview(pod_lines(lines))
        sock.setblocking(False)

    def step(self, selector: selectors.BaseSelector, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._rest = self._rest[self.sock.send(self._rest[:PIECE_BYTES]) :]
            if not self._rest:
                selector.modify(self.sock, selectors.EVENT_READ, self)
        if mask & selectors.EVENT_READ:
            data = self.sock.recv(PIECE_BYTES)
            if not data:
                raise ConnectionError("ODS has closed the connection of a pod")
            self.unanswered -= data.count(b"\n")


def wait_for_each(connection: Connection, port: int) -> None:
    """One pod that sends a line when the one before was answered. Asked for so many seconds, answers lines a second."""
    with connect(port, *addresses(1)) as sock:
        connection.send(None)
        (seconds,) = connection.recv()
        lines = pod_lines(1000).splitlines(keepends=True)
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            sock.sendall(lines[count % len(lines)])
            while not sock.recv(PIECE_BYTES).endswith(b"\n"):
                pass
            count += 1
        connection.send(count / (time.monotonic() - began))
        connection.recv()


def trickle(connection: Connection, port: int, lines_per_second: float) -> None:
    """One pod that sends one line at a time, at a steady rate, from its begin until nobody asks any more."""
    with connect(port, *addresses(1)) as sock:
        connection.send(None)
        lines = pod_lines(1000).splitlines(keepends=True)
        began, count = time.monotonic(), 0
        sock.setblocking(False)
        while not connection.poll(max(0.0, began + count / lines_per_second - time.monotonic())):
            sock.send(lines[count % len(lines)])
            count += 1
            if not count % 100:
                _discard([sock])


def come_and_go(connection: Connection, port: int) -> None:
    """Pods that connect, send a line, have it answered and leave. Asked for so many, answers when they have left."""
    connection.send(None)
    while True:
        (count,) = connection.recv()
        for address in addresses(count):
            with connect(port, address) as sock:
                sock.sendall(b"POD2here 1\n")
                sock.recv(PIECE_BYTES)
        connection.send(None)


def _discard(socks: Sequence[socket.socket]) -> None:
    for sock in socks:
        try:
            while sock.recv(PIECE_BYTES):
                pass
        except BlockingIOError:
            continue
