"""A peer of an HTTP server that runs in the test's own hub: it says what it likes, as it likes."""

import re
from typing import Any

from gevent import socket

#: A read that takes longer hangs. Seconds.
READ_SECONDS = 10.0


class HttpPeer:
    """One connection, raw."""

    def __init__(self, port: int, *, receive_buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(READ_SECONDS)
        self.socket.connect(("127.0.0.1", port))
        self._unread = b""

    def __enter__(self) -> "HttpPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, text: str | bytes) -> None:
        """Send text; of a str, each line end becomes CR LF."""
        self.socket.sendall(text if isinstance(text, bytes) else text.replace("\n", "\r\n").encode())

    def ask(self, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Ask, and return the status, the headers (names in lower case) and the body of a finite answer."""
        self.say("\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]))
        return self.answer(has_body=method != "HEAD")

    def answer(self, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """The next answer: its status, headers and body. Raises EOFError where there is none."""
        status, headers = self.head()
        if not has_body or status == 304:
            return status, headers, b""
        if headers.get("transfer-encoding") != "chunked":
            return status, headers, self._take(int(headers["content-length"]))
        body = b""
        while chunk := self.chunk():
            body += chunk
        return status, headers, body

    def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers of the next answer."""
        first, *rest = self._until(b"\r\n\r\n").decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in rest if line)
        return int(first.split()[1]), {name.lower(): value for name, value in headers.items()}

    def chunk(self) -> bytes:
        """The next chunk of an answer that comes in chunks; empty at its end."""
        data = self._take(int(self._until(b"\r\n"), 16))
        self._take(2)
        return data

    def events_until(self, name: str) -> list[tuple[str, str]]:
        """The server-sent events up to the first of this name: of each its name and its data."""
        text = ""
        while not (found := re.search(rf"event: {name}\ndata: .*\n\n", text)):
            text += self.chunk().decode()
        return re.findall(r"event: (.*)\ndata: (.*)\n\n", text[: found.end()])

    def has_ended(self) -> bool:
        """Wait for the end of the connection; true where it came, in good order or by a reset."""
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def _until(self, end: bytes) -> bytes:
        while end not in self._unread:
            self._unread += self._receive()
        found, self._unread = self._unread.split(end, 1)
        return found

    def _take(self, count: int) -> bytes:
        while len(self._unread) < count:
            self._unread += self._receive()
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken

    def _receive(self) -> bytes:
        data: Any = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the connection has ended after {self._unread[-200:]!r}")
        return bytes(data)
