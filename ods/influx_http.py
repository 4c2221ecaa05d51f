"""The connections to InfluxDB: kept open, each used by one request at a time, over the standard library's HTTP.

A general HTTP client takes twice the time for each of the forty writes a second that a trickle makes. What is needed of
one here is little: POST, a body that is there already, a short answer. So the request is put together here, and sent
in one piece; the connecting, TLS and the reading of the answer are the library's.
"""

import http.client
import io
import socket
import ssl
from collections.abc import Mapping
from email.message import Message
from typing import Any, NamedTuple

from ods import failpoints

#: More of an answer than this is not read. Bytes.
ANSWER_BYTES = 64 * 1024


class Answer(NamedTuple):
    """What came back: the status, the headers, and the beginning of the body."""

    status: int
    headers: Message
    body: bytes


class Connections:
    """As many connections as there are requests at once; those that are idle are used again."""

    def __init__(self, *, host: str, port: int, is_tls: bool) -> None:
        self._host = host
        self._port = port
        self._tls = ssl.create_default_context() if is_tls else None
        self._idle: list[http.client.HTTPConnection] = []

    def post(self, target: str, body: bytes, headers: Mapping[str, str], *, is_fresh: bool = False) -> Answer:
        """Send and wait for the answer. Raises OSError or http.client.HTTPException.

        A connection that was idle may have been closed by the server at any time since: then another one is tried.
        It may also be dead without a sign; with `is_fresh` none of them is used.
        """
        while self._idle and not is_fresh:
            connection = self._idle.pop()
            try:
                return self._post(connection, target, body, headers)
            except ConnectionError:
                continue
        return self._post(self._new(), target, body, headers)

    def close(self) -> None:
        """Close those that are idle."""
        while self._idle:
            self._idle.pop().close()

    def _head(self, target: str, body_bytes: int, headers: Mapping[str, str]) -> bytes:
        host = f"[{self._host}]" if ":" in self._host else self._host
        lines = [f"POST {target} HTTP/1.1", f"Host: {host}:{self._port}", f"Content-Length: {body_bytes}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _new(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port)

    def _post(
        self, connection: http.client.HTTPConnection, target: str, body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        try:
            if connection.sock is None:
                connection.connect()
            begun = _exchange(connection.sock, self._head(target, len(body), headers) + body)
            if _is_plain_204(begun):
                self._idle.append(connection)
                return Answer(204, Message(), b"")
            response = http.client.HTTPResponse(_Begun(begun, connection.sock), method="POST")  # type: ignore[arg-type]
            response.begin()
            answer = Answer(response.status, response.headers, _beginning(response))
            is_whole = response.isclosed()
        except BaseException:  # also a timeout, which gevent raises here from outside
            connection.close()
            raise
        if is_whole and not response.will_close:
            self._idle.append(connection)
        else:
            connection.close()
        return answer


def _exchange(sock: socket.socket, request: bytes) -> bytes:
    """Send a request; returns the beginning of the answer.

    A server may refuse a large body by its head alone (413), and close: that the rest could not be sent is then less
    than what it has said.
    """
    try:
        sock.sendall(request)
    except ConnectionError as error:
        try:
            begun = sock.recv(ANSWER_BYTES)
        except OSError:
            begun = b""
        if not begun:
            raise error
        return begun
    failpoints.reach("requested")
    return sock.recv(ANSWER_BYTES)


def _is_plain_204(begun: bytes) -> bool:
    """Whether this is all of what InfluxDB says to a write that it has stored, and the connection stays open.

    Parsing the headers of this one answer, forty times a second, took an eighth of a trickle's time.
    """
    head = begun.lower()
    is_whole = head.endswith(b"\r\n\r\n") and head.count(b"\r\n\r\n") == 1
    return is_whole and head.startswith(b"http/1.1 204 ") and b"\r\nconnection: close" not in head


class _Begun(io.RawIOBase):
    """A socket of which something was read already, as the library's `HTTPResponse` reads one."""

    def __init__(self, begun: bytes, sock: socket.socket) -> None:
        super().__init__()
        self._begun = begun
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        """The whole answer, from its first byte."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What was read already first."""
        if not self._begun:
            return self._sock.recv_into(buffer)
        size = min(len(buffer), len(self._begun))
        buffer[:size] = self._begun[:size]
        self._begun = self._begun[size:]
        return size


def _beginning(response: http.client.HTTPResponse) -> bytes:
    """The first `ANSWER_BYTES` of the body. Raises IncompleteRead when it was cut off before."""
    announced: int | None = response.length
    body = response.read(ANSWER_BYTES)
    if announced is not None and len(body) < min(announced, ANSWER_BYTES):
        raise http.client.IncompleteRead(body, announced - len(body))
    return body
