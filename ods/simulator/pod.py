"""One simulated pod: it connects, sends its records in bursts at its rate, reads or ignores the replies, and leaves.

It behaves as a real pod does on the wire: it never connects again, and what it sends follows the monotonic clock, not
ODS. A pod that is late catches up; so a paced run sends all of its records, however long they take. It never raises
for what the network does: that is in its report. How it ends can be rehearsed: in the middle of a line, and by a reset.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from ods.simulator.records import LogMessage, OddLine, Record
from ods.simulator.replies import ReplyChecker, ReplyCounts

#: Linux: the first byte of TCP_INFO is the state; FIN_WAIT1 is "closed our side, not all of it acknowledged".
_TCP_FIN_WAIT1 = 4
_DELIVERY_POLL_SECONDS = 0.01
_RECEIVE_BYTES = 262_144
#: SO_LINGER on, for no time: closing then resets the connection.
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a pod connects to, and the address that it comes from (None: the system's choice)."""

    family: int
    address: tuple[object, ...]
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pacing:
    """How records go out: `burst` at once, `rate` a second; with a rate of 0 as fast as possible for `seconds`."""

    rate: float
    seconds: float
    burst: int


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a pod goes: after these last words without a newline, having been silent so long, by a reset or in order."""

    last_words: bytes = b""
    silent_seconds: float = 0.0
    is_reset: bool = False


@dataclass(frozen=True, kw_only=True)
class PodReport:
    """What a pod did. Without `replies` it did not read any; an empty `failure` is a connection that held.

    `invalid` and `torn` are what ODS is to count as such.
    """

    name: str
    data_points: int = 0
    log_messages: int = 0
    invalid: int = 0
    torn: int = 0
    longest_send_seconds: float = 0.0
    replies: ReplyCounts | None = None
    first_wrong: str = ""
    failure: str = ""

    @property
    def is_clean(self) -> bool:
        return not self.failure and (self.replies is None or self.replies.is_all_acknowledged)

    def __add__(self, other: PodReport) -> PodReport:
        """Both as if they were one, by the name of the first, with the first trouble of the two."""
        replies = self.replies if other.replies is None else other.replies
        if self.replies is not None and other.replies is not None:
            replies = self.replies + other.replies
        return PodReport(
            name=self.name,
            data_points=self.data_points + other.data_points,
            log_messages=self.log_messages + other.log_messages,
            invalid=self.invalid + other.invalid,
            torn=self.torn + other.torn,
            longest_send_seconds=max(self.longest_send_seconds, other.longest_send_seconds),
            replies=replies,
            first_wrong=self.first_wrong or other.first_wrong,
            failure=self.failure or other.failure,
        )


class SimulatedPod:
    """Plays `records` to an endpoint, once. `patience_seconds` bounds each wait for ODS."""

    def __init__(
        self,
        *,
        name: str,
        endpoint: Endpoint,
        records: Iterator[Record],
        pacing: Pacing,
        is_reading_replies: bool = True,
        ending: Ending | None = None,
        patience_seconds: float = 10.0,
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._records = records
        self._pacing = pacing
        self._ending = ending or Ending()
        self._patience_seconds = patience_seconds
        self._checker = ReplyChecker() if is_reading_replies else None
        self._sender: asyncio.Task[None] | None = None
        self._is_stopping = False
        #: What was done so far, without the replies.
        self._done = PodReport(name=self._name)

    def stop(self) -> None:
        """Send no more; `play` then ends as at the end of a run."""
        self._is_stopping = True
        if self._sender is not None:
            self._sender.cancel()

    async def play(self) -> PodReport:
        """Connect, send everything, half-close, await what ODS owes, close. May be called once."""
        try:
            with socket.socket(self._endpoint.family, socket.SOCK_STREAM) as connection:
                await self._connect(connection)
                await self._converse(connection)
        except OSError as error:
            # TimeoutError is an OSError too; ours carry a text, the system's a number.
            failure = os.strerror(error.errno).lower() if error.errno else str(error)
            self._done = replace(self._done, failure=failure)
        return self._report()

    async def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._endpoint.source is not None:
            connection.bind((self._endpoint.source, 0))
        try:
            async with asyncio.timeout(self._patience_seconds):
                await asyncio.get_running_loop().sock_connect(connection, self._endpoint.address)
        except TimeoutError as error:
            raise TimeoutError(f"no connection within {self._patience_seconds:g} s") from error

    async def _converse(self, connection: socket.socket) -> None:
        sender = self._sender = asyncio.create_task(self._send_run(connection))
        if self._is_stopping:
            sender.cancel()
        if self._checker is None:
            await asyncio.wait({sender})
            _raise_failure_of(sender)
            await self._leave_unread(connection)
            await self._be_silent(connection)
        else:
            await self._converse_reading(connection, sender, self._checker)

    async def _converse_reading(
        self, connection: socket.socket, sender: asyncio.Task[None], checker: ReplyChecker
    ) -> None:
        reader = asyncio.create_task(_read_replies(connection, checker))
        try:
            await asyncio.wait({sender, reader}, return_when=asyncio.FIRST_COMPLETED)
            if not sender.done():
                _raise_failure_of(reader)
                raise ConnectionAbortedError("ODS closed the connection")
            _raise_failure_of(sender)
            if self._ending.is_reset:
                await self._await_owed(reader, checker)
                await self._be_silent(connection)
            else:
                connection.shutdown(socket.SHUT_WR)
                await self._await_replies(reader, checker)
            _raise_failure_of(reader)
        except OSError:
            # What ODS answered before the connection broke still counts, and is still in the socket.
            await self._await_replies(reader, checker)
            raise
        finally:
            sender.cancel()
            reader.cancel()
            await asyncio.gather(sender, reader, return_exceptions=True)

    async def _send_run(self, connection: socket.socket) -> None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        sent = 0
        while burst := tuple(islice(self._records, self._pacing.burst)):
            now = clock()
            if self._pacing.rate:
                # A sleep of nothing still lets the other pods have their turn.
                await asyncio.sleep(max(0.0, begun + sent / self._pacing.rate - now))
            elif now - begun < self._pacing.seconds:
                await asyncio.sleep(0)
            else:
                break
            self._note_as_sent(burst)
            await self._send(connection, b"".join([record.wire for record in burst]))
            sent += len(burst)
        if self._ending.last_words:
            self._done = replace(self._done, torn=1)
            await self._send(connection, self._ending.last_words)

    async def _send(self, connection: socket.socket, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(self._patience_seconds):
                await loop.sock_sendall(connection, data)
        except TimeoutError as error:
            raise TimeoutError(f"ODS took nothing for {self._patience_seconds:g} s") from error
        finally:
            longest_seconds = max(self._done.longest_send_seconds, loop.time() - begun)
            self._done = replace(self._done, longest_send_seconds=longest_seconds)

    def _note_as_sent(self, burst: Sequence[Record]) -> None:
        lines = [record for record in burst if not isinstance(record, LogMessage)]
        odd = [line for line in lines if isinstance(line, OddLine)]
        self._done = replace(
            self._done,
            data_points=self._done.data_points + len(lines) - len(odd) + sum(line.data_points for line in odd),
            log_messages=self._done.log_messages + len(burst) - len(lines) + sum(line.log_messages for line in odd),
            invalid=self._done.invalid + sum(line.invalid for line in odd),
        )
        if self._checker is not None:
            for line in lines:
                self._checker.expect(line)

    async def _await_replies(self, reader: asyncio.Task[None], checker: ReplyChecker) -> None:
        """Until ODS closes the connection, which says that it has everything, or falls silent."""
        received_bytes = -1
        while not reader.done() and received_bytes != checker.received_bytes:
            received_bytes = checker.received_bytes
            await asyncio.wait({reader}, timeout=self._patience_seconds)

    async def _await_owed(self, reader: asyncio.Task[None], checker: ReplyChecker) -> None:
        """Until each line has its reply: what a reset finds on its way is lost."""
        try:
            async with asyncio.timeout(self._patience_seconds):
                while checker.is_waiting and not reader.done():
                    await asyncio.sleep(_DELIVERY_POLL_SECONDS)
        except TimeoutError:
            return  # the report says how many are missing

    async def _be_silent(self, connection: socket.socket) -> None:
        """Say nothing for a while; then, where it is asked for, see to it that closing resets the connection."""
        silent_until = asyncio.get_running_loop().time() + self._ending.silent_seconds
        while not self._is_stopping and asyncio.get_running_loop().time() < silent_until:
            await asyncio.sleep(_DELIVERY_POLL_SECONDS)
        if self._ending.is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    async def _leave_unread(self, connection: socket.socket) -> None:
        """Half-close where it is to end in order, and wait until ODS's machine has it all.

        Closing a socket that holds unread replies resets the connection and throws away what is not yet delivered.
        """
        if not self._ending.is_reset:
            connection.shutdown(socket.SHUT_WR)
        if sys.platform != "linux":
            return
        try:
            async with asyncio.timeout(self._patience_seconds):
                while _is_under_way(connection):
                    await asyncio.sleep(_DELIVERY_POLL_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"ODS did not take the last records within {self._patience_seconds:g} s") from error

    def _report(self) -> PodReport:
        if self._checker is None:
            return self._done
        return replace(self._done, replies=self._checker.counts(), first_wrong=self._checker.first_wrong)


async def _read_replies(connection: socket.socket, checker: ReplyChecker) -> None:
    while chunk := await asyncio.get_running_loop().sock_recv(connection, _RECEIVE_BYTES):
        checker.receive(chunk)


def _is_under_way(connection: socket.socket) -> bool:
    """Whether ODS's machine has not confirmed all that was sent, the end of it included. Linux only."""
    (unconfirmed,) = struct.unpack("=i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return bool(unconfirmed) or connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_FIN_WAIT1


def _raise_failure_of(task: asyncio.Task[None]) -> None:
    """Raise what ended a task early; being stopped is no failure."""
    if task.done() and not task.cancelled():
        task.result()
