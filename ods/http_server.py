"""An HTTP server that pods do not notice: gevent's, with bounds on all that a peer may take of ODS.

gevent's own keeps every connection for as long as its peer likes, reads a body of any length, takes a hundred headers
of 64 KiB each, and writes a traceback for some that it does not understand. Here

- there are at most `CONNECTIONS` connections, less where few files may be open: one more takes the place of that which
  has been idle longest, else it is closed at once, so that pods always find a file descriptor;
- a connection is bounded in time and bytes (`ods.http_connection`), and is closed after a request with a body;
- accepting, parsing and answering take a bounded share of the hub's time (`ods.pace`).
"""

import errno
import logging
import resource
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from ods.http_connection import HeadTooLarge, HttpConnection
from ods.http_guard import SECURITY_HEADERS
from ods.pace import Pace

log = logging.getLogger(__name__)

#: The most connections at a time.
CONNECTIONS = 200
#: The most connections that are accepted in one round of the hub.
ACCEPTS = 10
#: What a connection takes of the hub's time besides its requests. Seconds.
CONNECTION_SECONDS = 0.0002
#: How long none is accepted when the system has run out of file descriptors. Seconds.
OUT_OF_FILES_SECONDS = 1.0

#: The connection that a request came by, and the time at which it was asked (monotonic, seconds), in its environment.
CONNECTION, ASKED = "ods.connection", "ods.asked"

_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def limit_of_connections() -> int:
    """How many there may be: all others of a process's files are for pods."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if soft == resource.RLIM_INFINITY else max(ACCEPTS + 1, min(CONNECTIONS, soft // 5))


class HttpServer(WSGIServer):  # type: ignore[misc]
    """Serves a WSGI application. `where` is an address with a port, or a listening socket."""

    max_accept = ACCEPTS

    def __init__(self, where: Any, application: _Application, *, pace: Pace, connections: int = CONNECTIONS) -> None:
        # Without a name given, gevent asks the DNS for its own, which could delay the start.
        environ = {"SERVER_NAME": "ods", "SERVER_PORT": ""}
        super().__init__(
            where, application, spawn=Pool(), log=None, error_log=log, handler_class=HttpHandler, environ=environ
        )
        self.pace = pace
        self._limit = connections
        self._connections: set[HttpConnection] = set()

    def stop(self, timeout: float | None = None) -> None:
        """Accept no more, and end every connection."""
        self.close()
        for connection in self._connections:
            connection.end()
        super().stop(timeout)

    def do_read(self) -> tuple[HttpConnection, Any] | None:
        """Accept a connection; None where there is none, or no room for it."""
        try:
            accepted = super().do_read()
        except OSError as error:
            if error.errno not in _OUT_OF_FILES:
                raise
            log.debug("HTTP: %s", error)
            self._end_idlest()
            self._rest(OUT_OF_FILES_SECONDS)
            return None
        if accepted is None:
            return None
        sock, peer = accepted
        self.pace.spent(CONNECTION_SECONDS)
        if len(self._connections) >= self._limit:
            sock.close()
            return None
        if len(self._connections) >= self._limit - ACCEPTS:  # it takes a round of the hub until one that ends is gone
            self._end_idlest()
        connection = HttpConnection(sock, self.pace)
        self._connections.add(connection)
        return connection, peer

    def handle(self, connection: HttpConnection, peer: Any) -> None:
        """Answer the requests of a connection, in a greenlet of its own."""
        connection.prepare()
        self.handler_class(connection, peer, self).handle()

    def do_close(self, connection: HttpConnection, *_: Any) -> None:
        """Close a connection; the end of `handle`."""
        try:
            connection.close()
        finally:
            self._connections.discard(connection)

    def _do_read(self) -> None:
        """Accept some of those that wait to be, unless HTTP has had its share of the time."""
        seconds = self.pace.seconds_to_wait()
        if seconds > 0:
            self._rest(seconds)
        else:
            super()._do_read()

    def _rest(self, seconds: float) -> None:
        """Accept none for a while."""
        self.stop_accepting()
        self._timer = self.loop.timer(seconds)
        self._timer.start(self._start_accepting_if_started)

    def _end_idlest(self) -> None:
        """End the connection that has waited longest for a question. Viewers do not wait for one."""
        idle = [connection for connection in self._connections if connection.idle_since is not None]
        if idle:
            idlest = min(idle, key=lambda connection: connection.idle_since or 0.0)
            idlest.idle_since = None
            idlest.end()


class HttpHandler(WSGIHandler):  # type: ignore[misc]
    """Answers the requests of one connection, one after the other."""

    content_length: int | None

    def __init__(self, connection: HttpConnection, peer: Any, server: HttpServer) -> None:
        super().__init__(None, peer, server, rfile=BytesIO())
        self._connection = connection
        self._has_turn = False
        self._asked = 0.0

    def handle(self) -> None:
        """Answer until there are no more requests."""
        answer: Any = True
        try:
            while answer is True:
                answer = self.handle_one_request()
            if answer is not None:
                self._connection.send(answer[1])
        except OSError as error:
            log.debug("HTTP: %s", error)

    def handle_one_request(self) -> Any:
        """True where there may be another request; a status and an answer where there may not; None for neither."""
        try:
            head = self._connection.read_head()
        except HeadTooLarge:
            self._connection.leaves_unread = True
            return _last_answer("431 Request Header Fields Too Large")
        if not head:
            return None
        self.rfile = BytesIO(head)
        self._asked = time.monotonic()
        self.server.pace.begin_turn()
        self._has_turn = True
        try:
            return super().handle_one_request()
        finally:
            self._end_turn()

    def read_request(self, raw_requestline: str) -> bool:
        """Parse the head. A body is not read, and no other request can follow it. Raises ValueError."""
        super().read_request(raw_requestline)
        if self.request_version == "HTTP/0.9":
            raise ValueError("HTTP/0.9")
        if self.content_length or "transfer-encoding" in self.headers:
            self.close_connection = self._connection.leaves_unread = True
        self.content_length = None
        for name in ("content-length", "transfer-encoding", "expect"):
            del self.headers[name]
        return True

    def get_environ(self) -> dict[str, Any]:
        """The WSGI environment of the request."""
        environ: dict[str, Any] = super().get_environ()
        return environ | {CONNECTION: self._connection, ASKED: self._asked}

    def start_response(self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None) -> Any:
        """Begin an answer."""
        return super().start_response(status, [*headers, *SECURITY_HEADERS], exc_info)

    def log_request(self) -> None:
        """Requests are not logged."""

    def _sendall(self, data: bytes | bytearray) -> None:
        """Send a piece of an answer; sending may wait, and others have their turn meanwhile."""
        self._end_turn()
        try:
            self._connection.send(data)
        except OSError as error:
            # One of those that gevent takes for what it is: the peer is gone, or as good as gone.
            raise BrokenPipeError(errno.EPIPE, str(error)) from error
        self.response_length += len(data)

    def _handle_client_error(self, error: Exception) -> tuple[str, bytes]:
        """What cannot be understood is the peer's affair: an answer, and no line in the log."""
        log.debug("HTTP: a request that is not understood: %r", error)
        self._connection.leaves_unread = True
        return _last_answer("400 Bad Request")

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self.server.pace.end_turn()


def _last_answer(status: str) -> tuple[str, bytes]:
    """An answer without a body, after which the connection is closed."""
    headers = [("Connection", "close"), ("Content-Length", "0"), *SECURITY_HEADERS]
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
    return status, "\r\n".join([*lines, "", ""]).encode()
