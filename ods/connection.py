"""One pod's connection: its socket, read by the poller or by a greenlet of its own, and the replies to be sent.

Promises that reading never waits for replying: replies are best effort, at most 1 MiB of them waits beyond the kernel's
buffer, then whole replies are dropped and counted. A reply that cannot be sent ends the replying, never the reading:
what the pod sent before it went away is still in the socket.

With a tape (`ods.tape`) it is read straight into that, and a connection that another process has read before goes on at
the very byte, of what is read as of the replies. `HandedOver` ends the reading so that a successor can do the same.
"""

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Protocol

import gevent
from gevent import socket as gsocket
from gevent.hub import Waiter

from ods import failpoints
from ods.errors import TapeRefused
from ods.poller import Poller
from ods.stream_offsets import consumed, written
from ods.tape import Tape
from ods.turns import Turns

log = logging.getLogger(__name__)

#: Where a read brought as much as this there is probably more, and the pod goes on in turns. Bytes.
MUCH_BYTES = 4 * 1024
#: The most that is sent at a time. Bytes.
SEND_BYTES = 64 * 1024
#: The most that waits for a pod that does not read its replies, beyond the kernel's buffer. Bytes.
REPLIES_BYTES = 1024 * 1024
#: How long the last replies may take after the pod has ended its side. Seconds.
LINGER_SECONDS = 5.0
#: How long what is in flight may take to be settled when another process goes on with the connection. Seconds.
HAND_OVER_SECONDS = 1.0
#: How long it may take to read what had arrived when ODS is stopped, and how much is read at once. Seconds, bytes.
SWEEP_SECONDS, SWEEP_BYTES = 0.5, 16 * 1024

CLOSED = "closed by the pod"
HANDED_OVER = "handed over"

#: Keepalive: idle seconds before the first probe, seconds between probes, lost probes that end a connection.
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}


class Receiver(Protocol):
    """What takes the bytes of a connection (`ods.intake`)."""

    @property
    def is_settled(self) -> bool: ...

    @property
    def is_to_pause(self) -> bool: ...

    @property
    def most_bytes(self) -> int: ...

    def pause(self, wait_for_turn: Callable[[], None]) -> None: ...

    def receive(self, data: bytes) -> bytes: ...

    def flush(self) -> None: ...

    def finish(self) -> None: ...


class HandedOver(gevent.GreenletExit):  # type: ignore[misc]
    """Another process goes on with the connection: it is no end, neither of the stream nor of a line in it."""


class PodsStay(HandedOver):
    """The same, but whether another process goes on is not known: what has arrived is read before."""


class Connection:
    """A socket, what reads from it, what is written to it."""

    def __init__(self, sock: gsocket.socket, poller: Poller, turns: Turns, tape: Tape | None = None) -> None:
        self._socket = sock
        #: -1 once it is closed.
        self._fd: int = sock.fileno()
        self._poller = poller
        self._turns = turns
        self.tape = tape
        #: How much of the next replies was sent by the process before. Bytes.
        self._replied_already = 0
        self._unread = b""
        self._was_much = False
        self._unsent = b""
        self._writer: gevent.Greenlet | None = None
        self._may_reply = True
        self._on_dropped: Callable[[int], None] = lambda replies: None

    def prepare(self, on_dropped: Callable[[int], None]) -> None:
        """Set the options of the socket; `on_dropped` hears how many replies were dropped."""
        self._on_dropped = on_dropped
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def take_over(self) -> None:
        """Go on where the process before stopped; where that cannot be known, where the kernel is."""
        if self.tape is None:
            return
        try:
            _take_over(self.tape, self._socket)
        except OSError as error:
            log.warning("connections have no tapes here: %s", error)
            self.tape = None
            return
        self._replied_already = self.tape.replied_already
        if self.tape.has_lost_replies:  # perhaps in the middle of one: the next begins a line all the same
            self.reply(b"\n")

    def go_on_with(self, unread: bytes) -> None:
        """Take this as what was read last."""
        self._unread = unread

    def serve(self, receiver: Receiver) -> str:
        """Read until the pod ends the connection or ODS is stopped; returns how it ended, in words."""
        try:
            how = self._read(receiver)
        except HandedOver as end:
            if isinstance(end, PodsStay):
                self._sweep(receiver)
            receiver.flush()
            self._linger(receiver, HAND_OVER_SECONDS, for_replies=False)
            return HANDED_OVER
        except gevent.GreenletExit:
            how = "ODS is stopping"
            self._sweep(receiver)
        receiver.finish()
        if how == CLOSED:
            self._linger(receiver, LINGER_SECONDS)
        return how

    def reply(self, replies: bytes) -> None:
        """Send whole replies, now or later or never. Never waits."""
        if self._replied_already:
            replies = self._left_of(replies)
        if not self._may_reply or not replies:
            return
        if self.tape is not None:
            self.tape.replied += len(replies)
        if self._unsent:
            self._queue(replies)
            return
        try:
            sent = os.write(self._fd, replies)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end_replying()
            return
        if sent < len(replies):
            self._queue(replies[sent:])

    def close(self) -> None:
        """Close the socket."""
        self._end_replying()
        self._fd = -1
        self._socket.close()

    def _left_of(self, replies: bytes) -> bytes:
        """What of these the process before had not sent."""
        already = min(self._replied_already, len(replies))
        self._replied_already -= already
        if self.tape is not None:
            self.tape.replied += already
        return replies[already:]

    def _read(self, receiver: Receiver) -> str:
        """Read whenever there is something: a little as it comes, much in turns with the other pods that send so."""
        try:
            if self._unread:
                self._read_in_turns(receiver)
            while True:
                self._read_little(receiver)
                self._read_in_turns(receiver)
        except _Ended:
            return CLOSED
        except OSError as error:
            return f"broken: {error.strerror or error}"

    def _read_little(self, receiver: Receiver) -> None:
        """Have the poller read, as long as it is little. Raises _Ended, OSError, and what the receiver raises."""
        fd, loop = self._fd, gevent.get_hub().loop
        own: Waiter[None] = Waiter()

        def read() -> None:
            try:
                if self._has_more(receiver):
                    self._poller.remove(fd)
                    loop.run_callback(own.switch, None)
            except BaseException:  # noqa: BLE001 - it is this connection's, and not that of all others
                self._poller.remove(fd)
                loop.run_callback(own.throw, *sys.exc_info())

        self._poller.add(fd, read)
        try:
            own.get()
        finally:
            self._poller.remove(fd)

    def _read_in_turns(self, receiver: Receiver) -> None:
        receiver.pause(self._turns.wait)
        while self._has_more(receiver):
            receiver.pause(self._turns.wait)

    def _has_more(self, receiver: Receiver) -> bool:
        """Hand on what is left of the last read, or read; whether to go on in another turn. Raises _Ended, OSError."""
        if not self._unread:
            most_bytes = receiver.most_bytes
            data = self._receive(most_bytes)
            if data is None:
                return False
            if not data:
                raise _Ended
            self._unread, self._was_much = data, len(data) >= min(MUCH_BYTES, most_bytes)
        return self._take(receiver) or self._was_much or receiver.is_to_pause

    def _take(self, receiver: Receiver) -> bool:
        """Hand on what was read; whether some of it is left for another turn."""
        self._unread = receiver.receive(self._unread)
        return bool(self._unread)

    def _receive(self, most_bytes: int) -> bytes | None:
        """What has arrived, at most so much; None where there was nothing after all."""
        try:
            data = self.tape.read(self._fd, most_bytes) if self.tape is not None else os.read(self._fd, most_bytes)
        except BlockingIOError:
            return None
        failpoints.reach("read")
        return data

    def _sweep(self, receiver: Receiver) -> None:
        """Read what has arrived already."""
        deadline = time.monotonic() + SWEEP_SECONDS
        while self._unread:
            self._take(receiver)
        with contextlib.suppress(OSError, gevent.GreenletExit):
            while time.monotonic() < deadline and (data := self._receive(SWEEP_BYTES)):
                self._unread = data
                while self._take(receiver):
                    pass
                gevent.sleep(0)  # every pod has its turn here too, or those of many would add up

    def _linger(self, receiver: Receiver, seconds: float, *, for_replies: bool = True) -> None:
        """A pod that has only ended its own side still gets its last replies."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(gevent.GreenletExit):
            while self._may_reply and self._has_to_reply(receiver, for_replies) and time.monotonic() < deadline:
                gevent.sleep(0.01)

    def _has_to_reply(self, receiver: Receiver, for_replies: bool) -> bool:
        return not receiver.is_settled or (for_replies and bool(self._unsent))

    def _queue(self, replies: bytes) -> None:
        room = REPLIES_BYTES - len(self._unsent)
        if len(replies) > room:
            cut = replies.rfind(b"\n", 0, max(room, 0)) + 1
            self._on_dropped(replies.count(b"\n", cut))
            if self.tape is not None:
                self.tape.replied -= len(replies) - cut
            replies = replies[:cut]
        self._unsent += replies
        if self._unsent and self._writer is None:
            self._writer = gevent.Greenlet.spawn(self._write)

    def _write(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent[:SEND_BYTES])
                self._unsent = self._unsent[sent:]
        except OSError:
            self._may_reply = False
        self._unsent = b""
        self._writer = None

    def _end_replying(self) -> None:
        self._may_reply = False
        self._unsent = b""
        if self._writer is not None:
            self._writer.kill(block=False)
            self._writer = None


def _take_over(tape: Tape, sock: gsocket.socket) -> None:
    was_read, was_written = consumed(sock, tape.read_to), written(sock)
    try:
        tape.take_over(was_read, was_written)
    except TapeRefused as error:
        log.warning("what was read of a connection and not stored yet is not repeated: %s", error)
        tape.begin(was_read, was_written)


class _Ended(Exception):
    """The pod has ended its side."""
