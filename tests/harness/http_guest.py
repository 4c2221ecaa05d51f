"""Guests of ODS's HTTP port: one that says whatever it likes, and one that looks at the live events as a page does."""

import contextlib
import http.client
import json
import re
import socket
import threading
from typing import Any

from harness.wait import wait_until

#: A connection that says nothing for so long hangs. Seconds.
PATIENCE_SECONDS = 30.0


def connect(port: int, *, host: str = "127.0.0.1", receive_buffer_bytes: int | None = None) -> socket.socket:
    """Return a connection."""
    guest = socket.socket()
    if receive_buffer_bytes is not None:
        guest.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    guest.settimeout(PATIENCE_SECONDS)
    guest.connect((host, port))
    return guest


def request(path: str, *headers: str, method: str = "GET", host: str | None = "localhost") -> bytes:
    """Return a request as it is sent."""
    hosts = [] if host is None else [f"Host: {host}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *hosts, *headers, "", ""]).encode("latin-1")


def say(port: int, data: bytes, *, host: str = "127.0.0.1") -> tuple[int, bytes]:
    """Say something, whole or as far as it is listened to; return the status of the answer (0: none) and the rest."""
    with connect(port, host=host) as guest:
        with contextlib.suppress(ConnectionError):
            guest.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := guest.recv(65536):
                answer += data
                if _is_whole(answer):
                    break
    status = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    return (int(status[1]), answer.partition(b"\r\n\r\n")[2]) if status else (0, answer)


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: (\d+)", head)
    return b"event-stream" in head or (length is not None and len(body) >= int(length[1]))


def has_ended(guest: socket.socket) -> bool:
    """Tell, without waiting, whether the other side has ended a connection that it never said anything on."""
    guest.settimeout(0)
    try:
        return not guest.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        guest.settimeout(PATIENCE_SECONDS)


class Viewer:
    """Looks at `/events` with a thread that keeps the events, and comes back when the connection ends, as pages do."""

    def __init__(self, port: int, query: str = "", *, comes_back: bool = True) -> None:
        self.port = port
        self.events: list[tuple[str, Any]] = []
        self.statuses: list[int] = []
        self._query = query
        self._comes_back = comes_back
        self._is_leaving = threading.Event()
        self._guest: socket.socket | None = None
        self._thread = threading.Thread(target=self._look, name="viewer", daemon=True)

    def __enter__(self) -> "Viewer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_leaving.set()
        if self._guest is not None:
            with contextlib.suppress(OSError):
                self._guest.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=10)

    @property
    def latest(self) -> dict[str, Any]:
        """The status that it was told last."""
        return next((data for name, data in reversed(self.events) if name == "status"), {})

    def count(self, name: str) -> int:
        """How many events of this name it was told."""
        return sum(1 for event, _ in list(self.events) if event == name)

    def wait_for(self, name: str, count: int = 1) -> None:
        """Return when it was told so many events of this name in all."""
        wait_until(
            lambda: self.count(name) >= count,
            timeout_seconds=30,
            what=f"{count} events {name}",
            state=lambda: (self.statuses, [event for event, _ in self.events[-5:]]),
        )

    def _look(self) -> None:
        while not self._is_leaving.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._look_once()
            if not self._comes_back:
                return
            self._is_leaving.wait(0.1)

    def _look_once(self) -> None:
        with connect(self.port) as guest:
            self._guest = guest
            connection = http.client.HTTPConnection("localhost")
            connection.sock = guest
            connection.request("GET", f"/events{self._query}")
            answer = connection.getresponse()
            self.statuses.append(answer.status)
            name = ""
            while line := answer.readline():
                if line.startswith(b"event: "):
                    name = line[7:].strip().decode()
                elif line.startswith(b"data: "):
                    self.events.append((name, json.loads(line[6:])))
