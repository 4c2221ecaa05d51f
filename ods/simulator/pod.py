"""One simulated pod: it connects, sends its records in bursts at its rate, reads or ignores the replies, and leaves.

It behaves as a real pod does on the wire: it never connects again, and what it sends follows the monotonic clock, not
ODS. A pod that is late catches up; so a paced run sends all of its records, however long they take. It never raises
for what the network does: that is in its report.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ods.simulator.records import DataPoint, Record
from ods.simulator.replies import ReplyChecker, ReplyCounts

#: Linux: the first byte of TCP_INFO is the state; FIN_WAIT1 is "closed our side, not all of it acknowledged".
_TCP_FIN_WAIT1 = 4
_DELIVERY_POLL_SECONDS = 0.01
_RECEIVE_BYTES = 262_144


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
class PodReport:
    """What a pod did. Without `replies` it did not read any; an empty `failure` is a connection that held."""

    name: str
    data_points: int = 0
    log_messages: int = 0
    longest_send_seconds: float = 0.0
    replies: ReplyCounts | None = None
    first_wrong: str = ""
    failure: str = ""

    @property
    def is_clean(self) -> bool:
        return not self.failure and (self.replies is None or self.replies.is_all_acknowledged)


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
        patience_seconds: float = 10.0,
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._records = records
        self._pacing = pacing
        self._patience_seconds = patience_seconds
        self._checker = ReplyChecker() if is_reading_replies else None
        self._sender: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._data_points = 0
        self._log_messages = 0
        self._longest_send_seconds = 0.0
        self._failure = ""

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
            self._failure = os.strerror(error.errno).lower() if error.errno else str(error)
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
            await self._send(connection, burst)
            sent += len(burst)

    async def _send(self, connection: socket.socket, burst: Sequence[Record]) -> None:
        self._note_as_sent(burst)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(self._patience_seconds):
                await loop.sock_sendall(connection, b"".join([record.wire for record in burst]))
        except TimeoutError as error:
            raise TimeoutError(f"ODS took nothing for {self._patience_seconds:g} s") from error
        finally:
            self._longest_send_seconds = max(self._longest_send_seconds, loop.time() - begun)

    def _note_as_sent(self, burst: Sequence[Record]) -> None:
        points = [record for record in burst if isinstance(record, DataPoint)]
        self._data_points += len(points)
        self._log_messages += len(burst) - len(points)
        if self._checker is not None:
            for point in points:
                self._checker.expect(point)

    async def _await_replies(self, reader: asyncio.Task[None], checker: ReplyChecker) -> None:
        """Until ODS closes the connection, which says that it has everything, or falls silent."""
        received_bytes = -1
        while not reader.done() and received_bytes != checker.received_bytes:
            received_bytes = checker.received_bytes
            await asyncio.wait({reader}, timeout=self._patience_seconds)

    async def _leave_unread(self, connection: socket.socket) -> None:
        """Half-close, and wait until ODS's machine has it all.

        Closing a socket that holds unread replies resets the connection and throws away what is not yet delivered.
        """
        connection.shutdown(socket.SHUT_WR)
        if sys.platform != "linux":
            return
        try:
            async with asyncio.timeout(self._patience_seconds):
                while connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_FIN_WAIT1:
                    await asyncio.sleep(_DELIVERY_POLL_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"ODS did not take the last records within {self._patience_seconds:g} s") from error

    def _report(self) -> PodReport:
        return PodReport(
            name=self._name,
            data_points=self._data_points,
            log_messages=self._log_messages,
            longest_send_seconds=self._longest_send_seconds,
            replies=self._checker.counts() if self._checker is not None else None,
            first_wrong=self._checker.first_wrong if self._checker is not None else "",
            failure=self._failure,
        )


async def _read_replies(connection: socket.socket, checker: ReplyChecker) -> None:
    while chunk := await asyncio.get_running_loop().sock_recv(connection, _RECEIVE_BYTES):
        checker.receive(chunk)


def _raise_failure_of(task: asyncio.Task[None]) -> None:
    """Raise what ended a task early; being stopped is no failure."""
    if task.done() and not task.cancelled():
        task.result()
