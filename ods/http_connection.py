"""One HTTP connection: the head of a request is read within bounds, an answer is sent or given up.

Promises that no peer holds anything for long: what does not ask, does not finish its question or does not take its
answer is closed, and what a request carries besides its head is never read.
"""

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket as gsocket

from ods.pace import Pace

#: How long a connection may be open without asking for anything. Seconds.
IDLE_SECONDS = 15.0
#: How long the head of a request may take, from its first byte. Seconds.
HEAD_SECONDS = 10.0
#: How long it may be, the request line included. Bytes.
HEAD_BYTES = 16 * 1024
#: How many bytes of empty lines may stand before it (RFC 9112, 2.2: some clients send one).
EMPTY_BYTES = 64
#: How long the peer may take none of an answer. Seconds.
STALL_SECONDS = 10.0
#: How long one piece of an answer may take in all. Seconds.
ANSWER_SECONDS = 60.0
#: How long a peer that still sends is given to read its answer, and how much of what it sends is thrown away meanwhile:
#: closed at once, its kernel would throw the answer away. Seconds, bytes.
LINGER_SECONDS, LINGER_BYTES = 1.0, 64 * 1024
#: What reading a part of a head takes of the hub's time: one that comes byte by byte is paid for by the byte. Seconds.
PART_SECONDS = 0.0001
#: What the kernel takes of answers: much of it would be old when a slow viewer gets it. Bytes.
SEND_BUFFER_BYTES = 128 * 1024

#: libev's event of a readable file descriptor.
_READABLE = 1
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class HeadTooLarge(Exception):
    """A request whose head is longer than anything that may be asked for."""


class HttpConnection:
    """The socket of a connection, and since when it waits for a question."""

    def __init__(self, sock: gsocket.socket, pace: Pace) -> None:
        self._socket = sock
        self._pace = pace
        self._unread = bytearray()
        self._searched = 0
        self._end_watcher: Any = None
        #: Monotonic clock, seconds; None while a request is answered.
        self.idle_since: float | None = time.monotonic()
        #: Whether the peer may be sending what nobody reads.
        self.leaves_unread = False
        self._hub_seconds = 0.0

    def prepare(self) -> None:
        """Set the options of the socket; what has none of them (a Unix socket) does without."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sys.platform == "linux":  # a peer whose cable was pulled; never for pods
                milliseconds = int(IDLE_SECONDS * 1000)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    @property
    def local_address(self) -> str | None:
        """The address that it came in at; None on a Unix socket. Raises OSError."""
        name = self._socket.getsockname()
        return str(name[0]) if isinstance(name, tuple) else None

    def read_head(self) -> bytes:
        """The head of the next request; empty where there is none. Raises OSError, HeadTooLarge."""
        self.idle_since = time.monotonic()
        has_begun = bool(self._unread)
        deadline = self.idle_since + (HEAD_SECONDS if has_begun else IDLE_SECONDS)
        while (head := self._take_head()) is None:
            if has_begun:
                self._pace.spent(PART_SECONDS)
                self._pace.wait()
            data = self._receive(deadline - time.monotonic())
            if not data:
                return b""
            self._unread += data
            if not has_begun:
                has_begun, deadline = True, time.monotonic() + HEAD_SECONDS
        self.idle_since = None
        return head

    def send(self, data: bytes | bytearray) -> None:
        """Send all of it. Raises OSError; TimeoutError where the peer does not take it."""
        left = memoryview(data)
        deadline = time.monotonic() + ANSWER_SECONDS
        while left:
            began = time.perf_counter()
            try:
                left = left[os.write(self._socket.fileno(), left) :]
            except BlockingIOError:
                patience = max(0.0, min(STALL_SECONDS, deadline - time.monotonic()))
                gsocket.wait_write(self._socket.fileno(), patience, TimeoutError("the answer is not taken"))
            else:
                self._hub_seconds += time.perf_counter() - began

    def take_hub_seconds(self) -> float:
        """What sending has taken of the hub's time since this was asked last."""
        seconds, self._hub_seconds = self._hub_seconds, 0.0
        return seconds

    def watch_end(self, ended: Callable[[], None]) -> None:
        """Have `ended` called when the peer ends its side, or sends what it was not asked for."""
        self._end_watcher = gevent.get_hub().loop.io(self._socket.fileno(), _READABLE)
        self._end_watcher.start(ended)

    def unwatch_end(self) -> None:
        """Have it called no more."""
        if self._end_watcher is not None:
            self._end_watcher.stop()
            self._end_watcher.close()
            self._end_watcher = None

    def end(self) -> None:
        """End both sides, whatever is under way: whoever waits for the connection finds it ended."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket, once the peer had time to read its answer."""
        self.unwatch_end()
        try:
            if self.leaves_unread:
                self._linger()
        finally:
            self._socket.close()

    def _take_head(self) -> bytes | None:
        """The head that has arrived whole, without the empty lines before it."""
        begin = len(self._unread) - len(self._unread.lstrip(b"\r\n"))
        if begin > EMPTY_BYTES:
            raise HeadTooLarge
        found = _END_OF_HEAD.search(self._unread, max(begin, self._searched - 3), HEAD_BYTES)
        if found is None:
            if len(self._unread) >= HEAD_BYTES:
                raise HeadTooLarge
            self._searched = len(self._unread)
            return None
        head = bytes(self._unread[begin : found.end()])
        del self._unread[: found.end()]
        self._searched = 0
        return head

    def _receive(self, seconds: float) -> bytes:
        """What has arrived; empty at the end, and where nothing does in time. Raises OSError."""
        if seconds <= 0:
            return b""
        self._socket.settimeout(seconds)
        try:
            data: bytes = self._socket.recv(HEAD_BYTES)
        except TimeoutError:
            return b""
        return data

    def _linger(self) -> None:
        self.idle_since = time.monotonic()
        deadline, left = self.idle_since + LINGER_SECONDS, LINGER_BYTES
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while left > 0:
                data = self._receive(deadline - time.monotonic())
                if not data:
                    return
                left -= len(data)
            gevent.sleep(max(0.0, deadline - time.monotonic()))
