"""Stand-ins for the InfluxDB 2.x and 3.x that no Debian has: their 1.x endpoints, in memory, in native threads.

They give the answers that the sources of InfluxDB 2.9.1 (`http/legacy/`, `http/points/`, `tsdb/`) and InfluxDB 3.10.1
(`influxdb3_server/src/http.rs`, `influxdb3_write/src/write_buffer/`) give; each docstring names its place there. What
they have in common with a real InfluxDB 1.x is held by `test_other_servers.py`, which runs against all three.
"""

import base64
import gzip
import json
import math
import socket
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from harness.influx_server import Points
from harness.line_protocol import BadLine, Point, Value, parse_line, significant_lines, type_of
from harness.loopback import free_port

Tags = tuple[tuple[str, str], ...]


class Answer(NamedTuple):
    """What a server says."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Request(NamedTuple):
    """What a server was asked."""

    path: str
    parameters: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Exchange(NamedTuple):
    """A request for `path`, when it came (monotonic, seconds), and the status that it was answered with."""

    path: str
    at: float
    status: int


class OtherServer(ABC):
    """An HTTP server of the test's own. It comes back on the same port, with the same points, however it went."""

    def __init__(self) -> None:
        self.port = free_port()
        #: More than this is refused. Bytes, both of the body as it is sent and as it is unpacked.
        self.limit_bytes: int | None = None
        self.exchanges: list[Exchange] = []
        self._refusal: Answer | None = None
        self._lock = threading.Lock()
        self._points: dict[str, dict[tuple[str, Tags, int], dict[str, Value]]] = defaultdict(dict)
        self._types: dict[tuple[str, str, str], str] = {}
        self._http: _HttpServer | None = None

    def __enter__(self) -> "OtherServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen."""
        self._http = _HttpServer(self)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), name="other server", daemon=True).start()

    def kill(self) -> None:
        """Close the port and every connection, whatever is under way. May be called twice."""
        if self._http is not None:
            self._http.kill()
            self._http = None

    def refuse(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer everything with this; an underscore in a header's name stands for a dash."""
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        self._refusal = Answer(status, body, named)

    def accept(self) -> None:
        """Answer as usual again."""
        self._refusal = None

    def write(self, database: str, lines: str) -> None:
        """Store line protocol past HTTP."""
        with self._lock:
            for line in significant_lines(lines):
                self._store(database, parse_line(line))

    def databases(self) -> list[str]:
        """Names of the databases that hold points."""
        return [name for name, points in self._points.items() if points]

    def points(self, database: str) -> Points:
        """Every data point that `database` holds."""
        points: Points = defaultdict(list)
        for name, tags, time_ns, fields in self._rows(database):
            if "value" in fields:
                value = fields["value"]
                points[name, tags["pod"]].append((time_ns, value if isinstance(value, str) else float(value)))
        return dict(points)

    def messages(self, database: str) -> dict[str, list[tuple[int, str, str]]]:
        """Every log message by pod, in the order of time, as time, level (or empty) and text."""
        messages: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        for name, tags, time_ns, fields in self._rows(database):
            if name == "pod_log":
                messages[tags["pod"]].append((time_ns, tags.get("level", ""), str(fields["message"])))
        return dict(messages)

    def answer(self, request: Request) -> Answer:
        """What to say to a request whose body has been read."""
        if self._refusal is not None:
            return self._refusal
        refused = self.authenticate(request)
        if refused is not None:
            return refused
        if request.path == "/write":
            return self.answer_to_write(request)
        return self.answer_to_other(request)

    @abstractmethod
    def authenticate(self, request: Request) -> Answer | None:
        """Who asks is known: None. Else the answer that says no."""

    @abstractmethod
    def answer_to_write(self, request: Request) -> Answer:
        """Take line protocol."""

    @abstractmethod
    def answer_to_other(self, request: Request) -> Answer:
        """Anything but /write."""

    @abstractmethod
    def answer_to_too_much(self) -> Answer:
        """The body is larger than `limit_bytes`."""

    def _rows(self, database: str) -> Iterator[tuple[str, dict[str, str], int, dict[str, Value]]]:
        with self._lock:
            rows = sorted(self._points.get(database, {}).items(), key=lambda row: row[0][2])
        return ((name, dict(tags), time_ns, fields) for (name, tags, time_ns), fields in rows)

    def _conflict(self, database: str, point: Point) -> tuple[str, str, str] | None:
        """A field, its type in this point, and the one that it has already, where they differ."""
        for field, value in point.fields.items():
            had = self._types.get((database, point.name, field))
            if had is not None and had != type_of(value):
                return field, type_of(value), had
        return None

    def _store(self, database: str, point: Point) -> None:
        for field, value in point.fields.items():
            self._types.setdefault((database, point.name, field), type_of(value))
        time_ns = point.time_ns if point.time_ns is not None else time.time_ns()
        self._points[database].setdefault((point.name, point.tags, time_ns), {}).update(point.fields)


class InfluxTwo(OtherServer):
    """InfluxDB 2.x OSS. Every request must prove who it is."""

    def __init__(self) -> None:
        super().__init__()
        #: Users made with `influx v1 auth create`, and their passwords. Those of the web page cannot write here.
        self.users: dict[str, str] = {}
        self.tokens: set[str] = set()
        #: Points before this time are beyond the retention of every bucket.
        self.not_before_ns = 0
        #: What can be written to: a bucket answers for the database of its name, or `influx v1 dbrp create` maps one.
        self.mapped: set[str] = set()

    def authenticate(self, request: Request) -> Answer | None:
        """`influx1x_authentication_handler.go`, `v1/authorization/authorizer.go`.

        `u` and `p` in the address come first, then the schemes Token and Basic. Basic is a user of the 1.x kind; where
        there is no such user the password is a token, whatever the user's name.
        """
        user, secret = request.parameters.get("u", ""), request.parameters.get("p", "")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme == "Token" and not (user and secret):
            is_known = given.rpartition(":")[2] in self.tokens
        else:
            if scheme == "Basic" and not (user and secret):
                user, _, secret = base64.b64decode(given).decode().partition(":")
            is_known = self.users[user] == secret if user in self.users else secret in self.tokens
        return None if is_known else _code_and_message(401, "unauthorized", "unauthorized access")

    def answer_to_write(self, request: Request) -> Answer:
        """`http/legacy/write_handler.go`: unpack, find the bucket, parse all, then write what fits.

        One line that cannot be parsed, and nothing is stored (400); a field of another type, and all others are (422).
        A comment alone is no point, and no error.
        """
        database = request.parameters.get("db", "")
        if not database:
            return _code_and_message(400, "invalid", "missing db")
        try:
            body = _unpacked(request)
        except (OSError, EOFError, zlib.error):  # `points_parser.go`: a cut body is the server's own fault there
            return _code_and_message(500, "internal error", "unable to read data: unexpected EOF")
        if self.limit_bytes is not None and len(body) > self.limit_bytes:
            return self.answer_to_too_much()
        if database not in self.mapped:
            return _code_and_message(404, "not found", "no dbrp mapping found")
        return self._write(database, body.decode())

    def answer_to_other(self, request: Request) -> Answer:
        """`v1/coordinator/statement_executor.go`: databases are not made by InfluxQL."""
        if request.path == "/ping":
            return Answer(204)
        statement = request.parameters.get("q") or parse_qs(request.body.decode()).get("q", [""])[0]
        if request.path == "/query" and statement.upper().startswith("CREATE DATABASE"):
            return _json(200, {"results": [{"statement_id": 0, "error": "not implemented: CREATE DATABASE"}]})
        return _code_and_message(404, "not found", "path not found")

    def answer_to_too_much(self) -> Answer:
        """`http/points/points_parser.go`. OSS sets no limit for /write itself; InfluxDB Cloud does."""
        return _code_and_message(413, "request too large", "unable to read data: points batch is too large")

    def _write(self, database: str, body: str) -> Answer:
        points, failed = [], []
        for line in significant_lines(body):
            try:
                points.append(parse_line(line))
            except BadLine as error:
                failed.append(f"unable to parse '{line}': {error}")
        if failed:
            return _code_and_message(400, "invalid", "\n".join(failed))
        reasons = []
        with self._lock:
            for point in points:
                if reason := self._refused(database, point):
                    reasons.append(reason)
                else:
                    self._store(database, point)
        if not reasons:
            return Answer(204, b"", (("X-Influxdb-Build", "OSS"), ("X-Influxdb-Version", "v2.9.1")))
        message = f"failure writing points to database: partial write: {reasons[0]} dropped={len(reasons)}"
        return _code_and_message(422, "unprocessable entity", message)

    def _refused(self, database: str, point: Point) -> str:
        """`tsdb/field_validator.go`; `v1/coordinator/points_writer.go` (2.7.12 and later; also 1.12.3 and later)."""
        if point.time_ns is not None and point.time_ns < self.not_before_ns:
            return "dropped 1 points outside retention policy of duration 1h0m0s - oldest point ..., newest point ..."
        conflict = self._conflict(database, point)
        if conflict is None:
            return ""
        field, given, had = conflict
        return (
            f'field type conflict: input field "{field}" on measurement "{point.name}" is type {given}, '
            f"already exists as type {had}"
        )


class InfluxThree(OtherServer):
    """InfluxDB 3 Core. It makes its databases itself."""

    #: What `--max-http-request-size` is where nothing is said. Bytes.
    LIMIT_BYTES = 10_485_760

    def __init__(self) -> None:
        super().__init__()
        self.limit_bytes = self.LIMIT_BYTES
        #: None: started with `--without-auth`.
        self.token: str | None = None
        #: How many databases there may be (100 in 3.10).
        self.limit_databases = 100
        #: A write is confirmed at the next flush of the log before it; every so many seconds (1 by default).
        self.flush_seconds = 0.0

    def authenticate(self, request: Request) -> Answer | None:
        """`http.rs`, `authenticate_request`: a token, as `p`, or by Bearer, Token or Basic, whoever the user is.

        A user or a password with a colon in it cannot be told apart, and is a bad request, with or without a token.
        """
        given: str | None = request.parameters.get("p")
        header = request.headers.get("authorization")
        if given is None and header is not None:
            scheme, _, given = header.partition(" ")
            if scheme == "Basic":
                user, _, given = base64.b64decode(given).decode().rpartition(":")
                if ":" in user:
                    return _json(400, {"error": _MALFORMED})
            elif scheme not in ("Bearer", "Token"):
                return _json(400, {"error": _MALFORMED})
        if self.token is None or given == self.token:
            return None
        return _json(401, {"error": "the request was not authenticated"})

    def answer_to_write(self, request: Request) -> Answer:
        """`http.rs`, `write_lp_inner` with `accept_partial`, and `write_buffer/mod.rs`, `write_lp`.

        A bad line does not keep its neighbours from being stored: 400 names it. A body without any line is a 400 too.
        """
        database = request.parameters.get("db", "")
        if not database:
            return _json(400, {"error": "failed to deserialize db/rp/precision in request: missing field `db`"})
        if not database[0].isalnum() or not all(character.isalnum() or character in "_-/" for character in database):
            return _json(400, {"error": "invalid character in database or rp name: must be ASCII, ..."})
        try:
            body = _unpacked(request)
        except (OSError, EOFError, zlib.error) as error:
            return Answer(400, f"error decoding gzip stream: {error}".encode())
        if self.limit_bytes is not None and len(body) > self.limit_bytes:
            return self.answer_to_too_much()
        if database not in self._points and len(self._points) >= self.limit_databases:
            return _json(
                422, {"error": f"Adding a new database would exceed limit of {self.limit_databases} databases"}
            )
        return self._write(database, body.decode())

    def answer_to_other(self, request: Request) -> Answer:
        """Nothing else is stood in for: there is nothing to create."""
        return Answer(200 if request.path == "/ping" else 404, b"Not found")

    def answer_to_too_much(self) -> Answer:
        """`http.rs`, `RequestSizeExceeded`."""
        return Answer(413, f"max request size ({self.limit_bytes} bytes) exceeded".encode())

    def _write(self, database: str, body: str) -> Answer:
        lines = significant_lines(body)
        if not lines:
            return Answer(400, b"incoming write was empty")
        invalid: list[dict[str, Any]] = []
        with self._lock:
            for number, line in enumerate(lines, start=1):
                error = self._write_line(database, line)
                if error:
                    invalid.append({"original_line": line, "line_number": number, "error_message": error})
        if self.flush_seconds and len(invalid) < len(lines):
            now = time.monotonic()
            time.sleep(math.ceil(now / self.flush_seconds) * self.flush_seconds - now)
        if invalid:
            return _json(400, {"error": "partial write of line protocol occurred", "data": invalid})
        return Answer(204)

    def _write_line(self, database: str, line: str) -> str:
        """`write_buffer/validator.rs`. Returns what is wrong with the line."""
        try:
            point = parse_line(line)
        except BadLine:
            return "No fields were provided"
        conflict = self._conflict(database, point)
        if conflict is not None:
            field, given, had = conflict
            kind = "iox::column_type::field::"
            return f"invalid column type for column '{field}', expected {kind}{had}, got {kind}{given}"
        self._store(database, point)
        return ""


_MALFORMED = (
    "Authorization header was malformed, the request was not in the form of 'Authorization: <auth-scheme> <token>', "
    "supported auth-schemes are Bearer, Token and Basic"
)


class _HttpServer(ThreadingHTTPServer):
    """The plumbing. Keeps its connections, to be able to cut them off."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: OtherServer) -> None:
        self.other = server
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", server.port), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut off is no news."""

    def kill(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HttpServer

    def do_POST(self) -> None:
        """Answer; what is announced as too large is not read, and its connection closed, as the real ones do."""
        other, began = self.server.other, time.monotonic()
        announced = int(self.headers.get("Content-Length", 0))
        address = urlsplit(self.path)
        if other.limit_bytes is not None and announced > other.limit_bytes:
            self.close_connection = True
            answer = other.answer_to_too_much()
        else:
            parameters = {key: values[0] for key, values in parse_qs(address.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = other.answer(Request(address.path, parameters, headers, self.rfile.read(announced)))
        other.exchanges.append(Exchange(address.path, began, answer.status))
        self._say(answer)

    def do_GET(self) -> None:
        self.do_POST()

    def _say(self, answer: Answer) -> None:
        head = [f"HTTP/1.1 {answer.status} {self.responses.get(answer.status, ('Whatever',))[0]}"]
        head += [f"{name}: {value}" for name, value in answer.headers]
        if answer.status != 204:
            head.append(f"Content-Length: {len(answer.body)}")
        if self.close_connection:
            head.append("Connection: close")
        self.wfile.write("\r\n".join([*head, "", ""]).encode("latin-1") + answer.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _unpacked(request: Request) -> bytes:
    if request.headers.get("content-encoding") == "gzip":
        return gzip.decompress(request.body)  # of any number of members, as Go's and Rust's readers
    return request.body


def _json(status: int, content: object, **headers: str) -> Answer:
    return Answer(status, json.dumps(content).encode(), (("Content-Type", "application/json"), *headers.items()))


def _code_and_message(status: int, code: str, message: str) -> Answer:
    """`kit/transport/http/error_handler.go` of InfluxDB 2.x."""
    return _json(status, {"code": code, "message": message}, **{"X-Platform-Error-Code": code})
