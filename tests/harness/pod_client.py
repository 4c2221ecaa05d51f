"""A pod for tests: plain blocking sockets, an address of its own, and a real pod's impatience.

Its sends time out after one second, as those of the pod's own logging client do: a send that ODS makes wait as long as
that raises TimeoutError, and the test fails.
"""

import contextlib
import fcntl
import socket
import struct
import termios
import threading
import time
from bisect import bisect_right
from collections.abc import Sequence

from harness.loopback import unread_bytes
from harness.wait import wait_until

#: The send timeout of the pod's own logging client.
SEND_TIMEOUT_SECONDS = 1.0
#: A burst is what a pod gives the kernel in one send.
BURST_BYTES = 4096


class PodClient:
    """One connection of one pod. Use it as a context manager, or call `connect` and `close`."""

    def __init__(
        self, port: int, *, address: str = "127.0.2.1", host: str = "127.0.0.1", receive_buffer_bytes: int | None = None
    ) -> None:
        self.port = port
        self.address = address
        self.host = host
        self.longest_send_seconds = 0.0
        self.replies: list[bytes] = []
        self.has_ended = threading.Event()
        #: Whether ODS left bytes of this connection unread when it closed it: the kernel then sends a reset.
        self.was_reset = False
        self._receive_buffer_bytes = receive_buffer_bytes
        self._socket = socket.socket()
        self._is_connected = False
        self._arrived = threading.Condition()
        self._reader: threading.Thread | None = None
        self.lines_sent = 0
        self._sends: list[tuple[int, float]] = []  # the number of a send's first line, and when it began
        self._arrivals: list[tuple[int, float]] = []  # the number of an arrival's first reply, and when it came

    def __enter__(self) -> "PodClient":
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect from the pod's own address."""
        if self._receive_buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(SEND_TIMEOUT_SECONDS)
        self._socket.bind((self.address, 0))
        self._socket.connect((self.host, self.port))
        self._is_connected = True
        if self._reader is not None:
            self._reader.start()

    def read_replies(self) -> "PodClient":
        """Collect replies, with the times of their arrival, from now on or from `connect` on."""
        self._reader = threading.Thread(target=self._read, name=f"replies to {self.address}", daemon=True)
        if self._is_connected:
            self._reader.start()
        return self

    def send(self, data: bytes) -> None:
        """Send `data` in one burst, however many pieces the kernel takes it in. Raises TimeoutError after a second."""
        self._sends.append((self.lines_sent, time.monotonic()))
        self.lines_sent += data.count(b"\n")
        view = memoryview(data)
        while view:
            began = time.monotonic()
            try:
                view = view[self._socket.send(view) :]
            finally:
                self.longest_send_seconds = max(self.longest_send_seconds, time.monotonic() - began)

    def send_lines(self, lines: Sequence[bytes]) -> None:
        """Send lines as fast as they go, in bursts of about `BURST_BYTES`."""
        burst: list[bytes] = []
        size = 0
        for line in lines:
            burst.append(line)
            size += len(line)
            if size >= BURST_BYTES:
                self.send(b"".join(burst))
                burst, size = [], 0
        if burst:
            self.send(b"".join(burst))

    def send_at_rate(self, lines: Sequence[bytes], *, lines_per_second: float, burst_lines: int) -> None:
        """Send lines in bursts of `burst_lines`, at a steady rate. A late burst does not delay those after it."""
        began = time.monotonic()
        for first in range(0, len(lines), burst_lines):
            time.sleep(max(0.0, began + first / lines_per_second - time.monotonic()))
            self.send(b"".join(lines[first : first + burst_lines]))

    def wait_for_replies(self, count: int, *, timeout_seconds: float = 30.0) -> list[bytes]:
        """Return the replies so far once there are `count` of them since the connection began."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self.replies) >= count or self.has_ended.is_set(), timeout_seconds)
        state = f"{len(self.replies)}, the last {self.replies[-1:]!r}, ended: {self.has_ended.is_set()}"
        assert len(self.replies) >= count, f"{count} replies to {self.address} within {timeout_seconds:g} s: {state}"
        return self.replies

    def exchange(self, data: bytes, *, timeout_seconds: float = 10.0) -> bytes:
        """Send one line, and return the reply to it. Needs `read_replies`."""
        number = len(self.replies)
        self.send(data)
        return self.wait_for_replies(number + 1, timeout_seconds=timeout_seconds)[number]

    def reply_latencies_seconds(self) -> list[float]:
        """Return, for each reply so far, the time from the send of its line to its arrival."""
        send_firsts = [first for first, _ in self._sends]
        arrival_firsts = [first for first, _ in self._arrivals]
        latencies = []
        for number in range(len(self.replies)):
            sent = self._sends[bisect_right(send_firsts, number) - 1][1]
            arrived = self._arrivals[bisect_right(arrival_firsts, number) - 1][1]
            latencies.append(arrived - sent)
        return latencies

    def wait_until_delivered(self) -> None:
        """Return when the kernel of ODS's side has everything that was sent, whether ODS has read it or not."""
        wait_until(lambda: self._unacknowledged_bytes() == 0, timeout_seconds=10, what="the kernel to deliver")

    def wait_until_read(self) -> None:
        """Return when ODS has read everything that was sent (on Linux; at once elsewhere)."""
        self.wait_until_delivered()
        port = self._socket.getsockname()[1]
        wait_until(
            lambda: unread_bytes(server_port=self.port, client_port=port) == 0, timeout_seconds=10, what="ODS to read"
        )

    def finish(self) -> None:
        """End the connection as a process that exits does, and return when ODS has closed its side too."""
        self._socket.shutdown(socket.SHUT_WR)
        if self._reader is None:
            self.read_replies()
        assert self.has_ended.wait(10), f"ODS did not close the connection of {self.address} after its end"
        self.close()

    def reset(self) -> None:
        """End the connection with a reset, as the kernel does when there are unread replies."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close the socket, and end the reader. May be called twice."""
        reader = self._reader if self._is_connected else None
        if reader is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if reader is not None:
            reader.join(timeout=5)

    def _unacknowledged_bytes(self) -> int:
        return int(struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0\0\0\0"))[0])

    def _read(self) -> None:
        rest = b""
        while True:
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue
            except OSError as error:
                self.was_reset = isinstance(error, ConnectionResetError)
                break
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            with self._arrived:
                self._arrivals.append((len(self.replies), time.monotonic()))
                self.replies.extend(lines)
                self._arrived.notify_all()
        with self._arrived:
            self.has_ended.set()
            self._arrived.notify_all()
