"""Plays one pod's lines to a server: one connection, at the pace of the recording, counting what is answered.

As a pod does, it never connects again. It never raises for what the network does: that is in its report.
"""

import asyncio
import contextlib
import math
import os
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ods.replay.timeline import TimedLine
from ods.simulator.pod import Endpoint

#: Each wait for the server is so long at most. Seconds.
PATIENCE_SECONDS = 10.0
#: What is due so soon goes out with what is due now. Seconds.
GRAIN_SECONDS = 0.002
#: What goes out at once at most, and what is read at once. Bytes.
BURST_BYTES, RECEIVE_BYTES = 16 * 1024, 256 * 1024

NOT_STORED = b"ERROR: Not Stored"


@dataclass(slots=True)
class Report:
    """What a pod did; an empty `failure` is a connection that held."""

    pod: str
    sent: int = 0
    left_out: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    failure: str = ""


class Pace:
    """`speed` times as fast as it was, from now on; infinite: everything is due."""

    def __init__(self, first_ns: int, speed: float) -> None:
        self._first_ns = first_ns
        self._speed = speed
        self._begun = asyncio.get_running_loop().time()

    def seconds_until(self, time_ns: int) -> float:
        """How long until what was received then is to be sent; negative where it is late."""
        if math.isinf(self._speed):
            return 0.0
        due = self._begun + (time_ns - self._first_ns) / 1e9 / self._speed
        return due - asyncio.get_running_loop().time()


class Player:
    """Plays `lines` to an endpoint, once."""

    def __init__(self, pod: str, lines: Iterator[TimedLine], endpoint: Endpoint, stopped: asyncio.Event) -> None:
        self.report = Report(pod)
        self._lines = lines
        self._endpoint = endpoint
        self._stopped = stopped
        self._burst: list[bytes] = []
        self._burst_bytes = 0
        self._unfinished = b""
        self._received_bytes = 0

    async def play(self, pace: Pace) -> Report:
        """Connect when the first line is due, send all of them, half-close, wait for what is owed, close."""
        first = await self._first_to_send(pace)
        if first is None:
            return self.report
        try:
            with socket.socket(self._endpoint.family, socket.SOCK_STREAM) as connection:
                await self._connect(connection)
                await self._converse(connection, first, pace)
        except OSError as error:
            # TimeoutError is an OSError too; ours carry a text, the system's a number.
            self.report.failure = os.strerror(error.errno).lower() if error.errno else str(error)
        return self.report

    async def _first_to_send(self, pace: Pace) -> bytes | None:
        for time_ns, line in self._lines:
            if line is not None:
                await self._wait(pace.seconds_until(time_ns))
                return None if self._stopped.is_set() else line
            self.report.left_out += 1
        return None

    async def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._endpoint.source is not None:
            connection.bind((self._endpoint.source, 0))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.get_running_loop().sock_connect(connection, self._endpoint.address)
        except TimeoutError as error:
            raise TimeoutError(f"no connection within {PATIENCE_SECONDS:g} s") from error

    async def _converse(self, connection: socket.socket, first: bytes, pace: Pace) -> None:
        reader = asyncio.create_task(self._read_answers(connection))
        sender = asyncio.create_task(self._send_all(connection, first, pace))
        try:
            await asyncio.wait({sender, reader}, return_when=asyncio.FIRST_COMPLETED)
            if not sender.done():
                reader.result()
                raise ConnectionAbortedError("the server closed the connection")
            sender.result()
            connection.shutdown(socket.SHUT_WR)
            await self._await_answers(reader)
            if reader.done():
                reader.result()
        except OSError:
            await self._await_answers(reader)  # what was answered before the connection broke still counts
            raise
        finally:
            sender.cancel()
            reader.cancel()
            await asyncio.gather(sender, reader, return_exceptions=True)

    async def _send_all(self, connection: socket.socket, first: bytes, pace: Pace) -> None:
        self._take(first)
        for time_ns, line in self._lines:
            if line is None:
                self.report.left_out += 1
                continue
            seconds = pace.seconds_until(time_ns)
            if seconds > GRAIN_SECONDS:
                await self._flush(connection)
                await self._wait(seconds)
            elif self._burst_bytes >= BURST_BYTES:
                await self._flush(connection)
                await asyncio.sleep(0)  # the others have their turn
            if self._stopped.is_set():
                break
            self._take(line)
        await self._flush(connection)

    def _take(self, line: bytes) -> None:
        self._burst.append(line)
        self._burst_bytes += len(line)

    async def _flush(self, connection: socket.socket) -> None:
        burst = self._burst
        self.report.sent += len(burst)
        self._burst, self._burst_bytes = [], 0
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.get_running_loop().sock_sendall(connection, b"".join(burst))
        except TimeoutError as error:
            raise TimeoutError(f"the server took nothing for {PATIENCE_SECONDS:g} s") from error

    async def _wait(self, seconds: float) -> None:
        """For so long, or until it is stopped."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), seconds)

    async def _read_answers(self, connection: socket.socket) -> None:
        while data := await asyncio.get_running_loop().sock_recv(connection, RECEIVE_BYTES):
            self._received_bytes += len(data)
            *answers, self._unfinished = (self._unfinished + data).split(b"\n")
            self.report.answers.update(map(_kind, answers))

    async def _await_answers(self, reader: "asyncio.Task[None]") -> None:
        """Until the server closes the connection, which says that it has everything, or falls silent."""
        seen_bytes = -1
        while not reader.done() and seen_bytes != self._received_bytes:
            seen_bytes = self._received_bytes
            await asyncio.wait({reader}, timeout=PATIENCE_SECONDS)


def _kind(answer: bytes) -> str:
    if answer == NOT_STORED:
        return "not stored"
    kind = answer.partition(b":")[0]
    return kind.decode() if kind in (b"OK", b"ERROR", b"FAIL") else "strange"
