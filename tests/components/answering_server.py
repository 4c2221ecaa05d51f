"""An HTTP server that answers with whatever a test says, in native threads: it works beside gevent and without it."""

import os
import socket
import socketserver
import struct
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

#: An answer that is none: the server closes, resets, is silent until its end, or goes on for ever byte by byte.
CLOSE, RESET, SILENCE, TRICKLE = "close", "reset", "silence", "trickle"
#: Between two bytes of a trickle. Seconds.
TRICKLE_SECONDS = 0.05


def answer(status: int, body: bytes | str = b"", **headers: str) -> bytes:
    """An answer as it goes over the wire; an underscore in a header's name stands for a dash."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Whatever"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if status != 204:
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    parameters: dict[str, str]
    headers: dict[str, str]
    body: bytes


class AnsweringServer:
    """Gives `answers` one by one; the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[bytes | str] = [answer(204)]
        self.requests: list[Request] = []
        self._ended = threading.Event()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer._serve(self.rfile, self.connection)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> "AnsweringServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def will_answer(self, *answers: bytes | str) -> None:
        """Forget what was asked, and answer so from now on."""
        self.requests.clear()
        self.answers = list(answers)

    def _serve(self, incoming: Any, connection: socket.socket) -> None:
        while (request := _read(incoming)) is not None:
            self.requests.append(request)
            given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if not self._give(given, connection):
                return

    def _give(self, given: bytes | str, connection: socket.socket) -> bool:
        if isinstance(given, bytes):
            connection.sendall(given)
            return b"close" not in given.partition(b"\r\n\r\n")[0] and given.startswith(b"HTTP/1.1 ")
        if given == RESET:
            connection.sendall(b"HTTP/1.1 500 Inter")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(connection.detach())  # at once, without the end in good order that socketserver would make
        elif given == SILENCE:
            self._ended.wait()
        elif given == TRICKLE:
            self._trickle(connection)
        return False

    def _trickle(self, connection: socket.socket) -> None:
        try:
            connection.sendall(b"HTTP/1.1 500 Slow\r\nContent-Length: 1000000\r\n\r\n")
            while not self._ended.wait(TRICKLE_SECONDS):
                connection.sendall(b".")
        except OSError:
            return  # the other end has had enough


def _read(incoming: Any) -> Request | None:
    try:
        first = incoming.readline().decode("latin-1").split()
        if len(first) != 3:
            return None
        headers: dict[str, str] = {}
        while (line := incoming.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        body = incoming.read(int(headers.get("content-length", "0")))
    except OSError:
        return None
    target = urlsplit(first[1])
    parameters = {name: values[0] for name, values in parse_qs(target.query, keep_blank_values=True).items()}
    return Request(first[0], target.path, parameters, headers, body)
