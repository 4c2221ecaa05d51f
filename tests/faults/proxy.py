"""A proxy between ODS and InfluxDB that fails as networks and servers do. It runs in a thread of its own.

It reads a request whole before it passes it on, so it knows each write's points, and when the server confirmed some.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any, NamedTuple

from harness.loopback import free_port

from faults.behaviours import Answer, Behaviour, Blackhole, Cut, Delay, Pass, Refuse, Reset, Throttle, Unreachable
from faults.connection import HOST, Connection, unanswering_sockets
from faults.http_message import HEAD_BYTES, Message, answer, header, read_body, read_head

#: How long a switch of behaviour, or the end, may take. Seconds.
SWITCH_SECONDS = 10.0
#: What ends a connection: its other side, the behaviour, or the end of the proxy.
ENDS = (asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError, OSError, EOFError, ValueError)


class Confirmed(NamedTuple):
    """A write that the server confirmed and the proxy passed on. Monotonic clock, seconds."""

    at: float
    points: int


class Proxy:
    """Listens on `port`, passes on to `server_port`, and misbehaves as it is told."""

    def __init__(self, server_port: int) -> None:
        self.port = free_port()
        self.server_port = server_port
        self.behaviour: Behaviour = Pass()
        #: Answers that ODS was given by status, and requests that ended otherwise by the name of the behaviour.
        self.requests: Counter[str] = Counter()
        #: Points in writes that the server confirmed, whether ODS came to know it or not.
        self.points_written = 0
        self.confirmed: list[Confirmed] = []
        #: The end of the last `Retry-After` that was given. Monotonic clock, seconds.
        self.retry_at = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self._unanswering: list[socket.socket] = []
        self._connections: set[Connection] = set()
        self._switched = asyncio.Event()
        self._link_free_at = 0.0

    def __enter__(self) -> "Proxy":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._run(self._listen())

    def stop(self) -> None:
        """End all connections. May be called twice."""
        if not self._thread.is_alive():
            return
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SWITCH_SECONDS)
        self._loop.close()

    def behave(self, behaviour: Behaviour) -> None:
        """Behave so from now on, also towards connections that are open; returns when it does."""
        self._run(self._switch(behaviour))

    def heal(self) -> float:
        """Pass everything on again; returns since when."""
        self.behave(Pass())
        return time.monotonic()

    def reset_connections(self) -> None:
        """Reset all connections that are open, as the kernel does when the server is killed."""
        self._run(self._reset_all())

    def first_confirmed(self, since: float) -> float | None:
        """The time of the first write of points that the server confirmed through the proxy after `since`."""
        return next((confirmed.at for confirmed in self.confirmed if confirmed.at >= since), None)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(SWITCH_SECONDS)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, HOST, self.port, limit=HEAD_BYTES)

    async def _switch(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self._switched.set()
        self._switched = asyncio.Event()
        self._link_free_at = 0.0
        self._free_unanswering()
        if isinstance(behaviour, Refuse | Unreachable):
            self._stop_listening()
        if isinstance(behaviour, Refuse):
            await self._reset_all()
        if isinstance(behaviour, Unreachable | Blackhole):
            for connection in self._connections:
                connection.is_dead = True
        if isinstance(behaviour, Unreachable):
            self._unanswering = unanswering_sockets(self.port)
        elif not isinstance(behaviour, Refuse):
            await self._listen()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _free_unanswering(self) -> None:
        while self._unanswering:
            self._unanswering.pop().close()

    async def _reset_all(self) -> None:
        for connection in self._connections:
            connection.reset()

    async def _end(self) -> None:
        self._free_unanswering()
        self._stop_listening()
        await self._reset_all()
        own = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not own]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        self._connections.add(connection)
        try:
            while not connection.is_dead:
                await self._serve_one(connection)
            await connection.swallow()
        except ENDS:
            pass
        finally:
            self._connections.discard(connection)
            connection.close()

    async def _serve_one(self, connection: Connection) -> None:
        head = await read_head(connection.reader)
        request = await self._read_request(connection, head)
        behaviour = self.behaviour
        if request is None or self._swallows(connection):
            return
        if isinstance(behaviour, Answer) and _concerns(behaviour, request):
            self.retry_at = max(self.retry_at, time.monotonic() + behaviour.retry_after_seconds)
            self._pass_back(connection, answer(behaviour.status, behaviour.body, behaviour.headers), behaviour.status)
            return
        answered = await connection.exchange(request, self.server_port)
        points = len(request.lines()) if request.is_write and answered.status == 204 else 0
        self.points_written += points
        if isinstance(behaviour, Delay):
            await asyncio.sleep(behaviour.seconds)
        if self._swallows(connection):
            return
        if isinstance(behaviour, Cut):
            self.requests["cut"] += 1
            raise ConnectionAbortedError("cut after the server's answer")
        if points:
            self.confirmed.append(Confirmed(time.monotonic(), points))
        self._pass_back(connection, answered.head + answered.body, answered.status)

    async def _read_request(self, connection: Connection, head: bytes) -> Message | None:
        """The rest of the request; None where the behaviour is that it never arrives."""
        if self._swallows(connection):
            return None
        size = int(header(head, "Content-Length") or 0)
        if isinstance(self.behaviour, Reset) and size:
            await read_body(connection.reader, size // 2)
            self.requests["reset"] += 1
            connection.reset()
            return None
        return Message(head, await read_body(connection.reader, size, self._travel))

    def _swallows(self, connection: Connection) -> bool:
        connection.is_dead = connection.is_dead or isinstance(self.behaviour, Blackhole | Unreachable)
        self.requests["swallowed"] += connection.is_dead
        return connection.is_dead

    async def _travel(self, size: int) -> None:
        """Wait for as long as this many bytes take on the link, or until it is another one."""
        if not isinstance(self.behaviour, Throttle):
            return
        now = time.monotonic()
        self._link_free_at = max(now, self._link_free_at) + size / self.behaviour.bytes_per_second
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._switched.wait(), self._link_free_at - now)

    def _pass_back(self, connection: Connection, data: bytes, status: int) -> None:
        self.requests[str(status)] += 1
        connection.writer.write(data)


def _concerns(behaviour: Answer, request: Message) -> bool:
    """Whether this request gets this answer."""
    if not behaviour.is_selective:
        return True
    is_large = bool(behaviour.above_bytes) and len(request.body) > behaviour.above_bytes
    has_bytes = bool(behaviour.containing) and behaviour.containing in request.plain_body()
    return request.is_write and (is_large or has_bytes)
