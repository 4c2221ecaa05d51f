"""The status over HTTP: `/healthz` and `/api/status`, on the network and on the control socket.

On the network it is read-only; what changes something is asked for on the control socket (`ods.control`), which only
the user that ODS runs as can open.
"""

import http
import json
import logging
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

from gevent import socket as gsocket
from gevent.pywsgi import WSGIServer

from ods.control import QUARANTINE, Control
from ods.directory import DataDirectory
from ods.errors import SettingsError
from ods.status import Status

log = logging.getLogger(__name__)

_Answer = tuple[str, str, bytes]


class Web:
    """One server on TCP (where `port` is not None) and one on the control socket in the data directory."""

    def __init__(
        self, *, status: Status, control: Control, directory: DataDirectory, host: str, port: int | None
    ) -> None:
        self._status = status
        self._commands = control
        self._directory = directory
        self._host = host
        self._port = port
        self._server: WSGIServer | None = None
        self._control: WSGIServer | None = None

    @property
    def url(self) -> str | None:
        """Where a person finds it; None where it is off."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._host, self._host)
        return None if self._server is None else f"http://{host}:{self._server.server_port}/api/status"

    def bind(self) -> None:
        """Take the port, without serving yet. Raises SettingsError."""
        if self._port is None:
            return
        self._server = self._new_server((self._host, self._port), self._serve)
        try:
            self._server.init_socket()
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {self._host} port {self._port}: {error.strerror or error}"
            ) from error

    def start(self) -> None:
        """Serve. The control socket is best effort: without it only the other commands of ODS are missing."""
        if self._server is not None:
            self._server.start()
        self.open_control()

    def open_control(self) -> None:
        """Serve on the control socket; where it was deleted, on a new one."""
        if self._control is not None:
            self._control.stop(timeout=0.1)
            self._control = None
        try:
            self._control = self._new_server(self._control_socket(), self._serve_control)
            self._control.start()
        except OSError as error:
            log.warning("control socket: %s; `ods status` and the other commands cannot reach this ODS", error)

    def stop(self) -> None:
        """Serve no more."""
        for server in (self._server, self._control):
            if server is not None:
                server.stop(timeout=0.1)

    def _new_server(self, where: Any, serve: Callable[..., Iterable[bytes]]) -> WSGIServer:
        return WSGIServer(where, serve, log=None, error_log=log)

    def _control_socket(self) -> Any:
        address, folder = self._directory.control_address()
        try:
            if os.path.lexists(address):
                os.unlink(address)  # noqa: PTH108 - it may lead through /proc, where a Path would be the same
            listener = gsocket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(address)
            os.chmod(address, 0o600)  # noqa: PTH101
        finally:
            if folder is not None:
                os.close(folder)
        listener.listen(16)
        return listener

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return _respond(environ, start_response, self._answer(environ["REQUEST_METHOD"], environ["PATH_INFO"]))

    def _serve_control(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if not path.startswith(QUARANTINE):
            return self._serve(environ, start_response)
        code, body = self._commands.answer(method, path, environ["QUERY_STRING"])
        answer = f"{code} {http.HTTPStatus(code).phrase}", "application/json", body
        return _respond(environ, start_response, answer)

    def _answer(self, method: str, path: str) -> _Answer:
        text, found = "text/plain; charset=utf-8", "200 OK"
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", text, b"read-only\n"
        if path == "/api/status":
            return found, "application/json", json.dumps(self._status.snapshot()).encode() + b"\n"
        if path == "/healthz":
            healthy = self._status.is_healthy()
            return (found, text, b"ok\n") if healthy else ("503 Service Unavailable", text, b"points are dropped\n")
        return "404 Not Found", text, b"there are /api/status and /healthz\n"


def _respond(environ: dict[str, Any], start_response: Callable[..., Any], answer: _Answer) -> Iterable[bytes]:
    status, kind, body = answer
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
