"""The status over HTTP: on the network, and on the control socket.

On the network all is read-only (`ods.answers`), for those who may ask (`ods.http_guard`), and takes no more than
`SHARE` of the hub's time; what changes something is asked for on the control socket (`ods.control`), which only the
user that ODS runs as can open.
"""

import http
import logging
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

from gevent import socket as gsocket

from ods.answers import Answer, Answers
from ods.assets import read_assets
from ods.control import BUFFER, MARK, QUARANTINE, RESTART, Control
from ods.directory import DataDirectory
from ods.errors import SettingsError
from ods.feed import Feed, Latest
from ods.http_guard import own_names, refusal
from ods.http_server import CONNECTION, HttpServer, limit_of_connections
from ods.listener import own_addresses
from ods.pace import Pace, Unbounded
from ods.sensors import Sensors
from ods.status import Status

log = logging.getLogger(__name__)

#: The most that requests from the network may take of the hub's time, and what of it may be saved for the many requests
#: that loading the page is: seconds.
SHARE, BURST_SECONDS = 0.05, 0.25
#: How long the connections may take to end. Seconds.
STOP_SECONDS = 0.1

_StartResponse = Callable[..., Any]


class Web:
    """One server on TCP (where `port` is not None) and one on the control socket in the data directory."""

    def __init__(
        self,
        *,
        status: Status,
        latest: Latest,
        sensors: Sensors,
        control: Control,
        directory: DataDirectory,
        host: str,
        port: int | None,
    ) -> None:
        self._commands = control
        self._directory = directory
        self._host = host
        self._port = port
        self._pace = Pace(share=SHARE, burst_seconds=BURST_SECONDS)
        self._feed = Feed(status_json=lambda: self._answers.status_json(), latest=latest)
        self._answers = Answers(
            status=status, latest=latest, sensors=sensors, feed=self._feed, assets=read_assets(), pace=self._pace
        )
        self._names = own_names()
        self._server: HttpServer | None = None
        self._control: HttpServer | None = None

    @property
    def port(self) -> int | None:
        """The port that it listens on; None where it is off."""
        return None if self._server is None else self._server.server_port

    @property
    def urls(self) -> list[str]:
        """Where a person finds the page, on this machine last; nothing where it is off."""
        return [] if self.port is None else [_url(address, self.port) for address in own_addresses(self._host)]

    def bind(self) -> None:
        """Take the port, without serving yet. Raises SettingsError."""
        if self._port is None:
            return
        where = (self._host, self._port)
        self._server = HttpServer(where, self._serve, pace=self._pace, connections=limit_of_connections())
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
            self._control.stop(STOP_SECONDS)
            self._control = None
        try:
            self._control = HttpServer(self._control_socket(), self._serve_control, pace=Unbounded())
            self._control.start()
        except OSError as error:
            log.warning("control socket: %s; `ods status` and the other commands cannot reach this ODS", error)

    def stop(self) -> None:
        """Serve no more."""
        self._feed.stop()
        for server in (self._server, self._control):
            if server is not None:
                server.stop(STOP_SECONDS)

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

    def _serve(self, environ: dict[str, Any], start_response: _StartResponse) -> Iterable[bytes]:
        address = environ[CONNECTION].local_address
        refused = refusal(environ, local_address=address, own_names=self._names)
        if refused is not None:
            return _respond(environ, start_response, Answer(status=refused[0], body=refused[1].encode()))
        return _respond(environ, start_response, self._answers.answer(environ))

    def _serve_control(self, environ: dict[str, Any], start_response: _StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path not in (RESTART, MARK, BUFFER) and not path.startswith(QUARANTINE):
            return _respond(environ, start_response, self._answers.answer(environ))
        code, body = self._commands.answer(method, path, environ["QUERY_STRING"])
        status = f"{code} {http.HTTPStatus(code).phrase}"
        return _respond(environ, start_response, Answer(status=status, kind="application/json", body=body))


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _respond(environ: dict[str, Any], start_response: _StartResponse, answer: Answer) -> Iterable[bytes]:
    body, headers = answer.body, [("Content-Type", answer.kind), *answer.headers]
    if isinstance(body, bytes) and not answer.status.startswith("304"):
        headers.append(("Content-Length", str(len(body))))
    start_response(answer.status, headers)
    if environ["REQUEST_METHOD"] == "HEAD" or not body:
        return []
    return [body] if isinstance(body, bytes) else body
