"""The sockets of the proxy, and the two ways in which they leave the other side without an answer."""

import asyncio
import contextlib
import socket
import struct

from faults.http_message import HEAD_BYTES, Message, read_answer

HOST = "127.0.0.1"
#: Connections that fill the queue of a socket that nobody accepts from.
FILLERS = 4


class Connection:
    """One connection of ODS, and the one to the server that belongs to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        #: Whatever comes is swallowed, and nothing is ever sent again.
        self.is_dead = False
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, request: Message, server_port: int) -> Message:
        """Pass a request on, return the server's answer. Raises OSError or IncompleteReadError."""
        if self._server is None:
            self._server = await asyncio.open_connection(HOST, server_port, limit=HEAD_BYTES)
        reader, writer = self._server
        writer.write(request.head + request.body)
        await writer.drain()
        return await read_answer(reader)

    async def swallow(self) -> None:
        """Read until the other side gives up."""
        while await self.reader.read(HEAD_BYTES):
            pass

    def reset(self) -> None:
        """End it as a process that is killed does, or a router that lost it: with a reset."""
        own: socket.socket = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """End it and its other half."""
        self.writer.transport.abort()
        if self._server is not None:
            self._server[1].transport.abort()


def unanswering_sockets(port: int) -> list[socket.socket]:
    """A listening socket with a full queue: on Linux the kernel then drops whoever else asks."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    listener.listen(0)
    fillers = [socket.socket() for _ in range(FILLERS)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex((HOST, port))
    return [listener, *fillers]
