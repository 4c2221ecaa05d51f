"""InfluxDB: whether it is there, takes the user and the password, has the database, and keeps a point as it is.

It is asked as ODS asks it, but by ordinary blocking requests, each bounded. A database that is missing is created, as
ODS does at its first write: that is the only way to know that it can be. A point `ods_check` is written, read back and
deleted. Each check stands on the one before, so that the first that fails is the last.
"""

import base64
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

from ods import __version__
from ods.check.finding import Finding, failed, ok, warning
from ods.errors import InfluxError, Unavailable
from ods.influx_answers import DatabaseMissing, meaning_of
from ods.influx_http import ANSWER_BYTES, Answer
from ods.settings import InfluxSettings

#: How long one request may take, and all of them. Seconds.
REQUEST_SECONDS, ALL_SECONDS = 3.0, 10.0
#: The measurement of the point that is written.
MEASUREMENT = "ods_check"
#: A clock of InfluxDB's machine that is further off than this is told of. Seconds; its answers tell whole ones.
CLOCK_SECONDS = 3.0

_SERVER, _USER, _DATABASE, _POINT = "InfluxDB", "InfluxDB user", "database", "point"
_START_IT = "start it, or check --influx-host and --influx-port; meanwhile ODS buffers"


def look(settings: InfluxSettings) -> Iterator[Finding]:
    """One finding after the other, as far as it goes."""
    server = _Server(settings)
    try:
        yield from _look(server)
    except _Silent as error:
        yield failed(_SERVER, f"{settings.url} {error}", error.advice)
    except InfluxError as error:
        yield failed(_SERVER, f"{settings.url}: {error.reason}", getattr(error, "advice", "") or _START_IT)
    finally:
        server.close()


def _look(server: "_Server") -> Iterator[Finding]:
    answer = server.ask("GET", "/ping")
    if answer.status not in (200, 204, 401):
        raise meaning_of(answer)
    yield _version(server.settings.url, answer)
    yield from _clock(answer)
    time_ns = time.time_ns() // 1000 * 1000 + 123  # InfluxDB must keep the last digits too
    name = server.settings.database
    trouble, is_new = _written(server, f"{MEASUREMENT},pod=ods value={_value(time_ns)} {time_ns}\n")
    if trouble is not None:
        yield trouble
        return
    yield ok(_USER, f"{server.settings.user!r} may write to the database {name!r}")
    yield ok(_DATABASE, f"{name!r} {'was missing, and is created now' if is_new else 'is there'}")
    yield _read_back(server, time_ns)


def _version(url: str, answer: Answer) -> Finding:
    version = answer.headers.get("X-Influxdb-Version", "")
    if not version:
        return warning(_SERVER, f"{url} answers, and tells no version", "check that it is an InfluxDB")
    if version.lstrip("v").startswith("1."):
        return ok(_SERVER, f"{url} answers, version {version}")
    return ok(_SERVER, f"{url} answers, version {version}; ODS uses its interface of version 1")


def _clock(answer: Answer) -> Iterator[Finding]:
    """A clock that is an hour off puts the curves where nobody looks for them."""
    try:
        ahead = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return
    if abs(ahead) > CLOCK_SECONDS:
        side = "ahead of" if ahead > 0 else "behind"
        found = f"the clock of its machine is {abs(ahead):.0f} s {side} this one"
        yield warning("InfluxDB's clock", found, "set the one that is wrong")


def _written(server: "_Server", line: str) -> tuple[Finding | None, bool]:
    """Write the line; what keeps it from that, and whether the database had to be created."""
    is_new = False
    while True:
        try:
            server.write(line)
        except DatabaseMissing as error:
            if is_new:
                return _refusal(server, error), is_new
            trouble = _created(server)
            if trouble is not None:
                return trouble, is_new
            is_new = True
        except InfluxError as error:
            return _refusal(server, error), is_new
        else:
            return None, is_new


def _created(server: "_Server") -> Finding | None:
    """Create the database; what keeps it from that."""
    name, user = server.settings.database, server.settings.user
    reason = server.execute("CREATE DATABASE " + _identifier(name))
    if reason is None:
        return None
    return failed(
        _DATABASE,
        f"{name!r} is not there, and {user!r} may not create it: {reason}",
        f"as an administrator: CREATE DATABASE {_identifier(name)}; GRANT ALL ON {_identifier(name)} TO "
        f"{_identifier(user)} (InfluxDB 2.x: a bucket of this name)",
    )


def _refusal(server: "_Server", error: InfluxError) -> Finding:
    settings, reason = server.settings, error.reason
    if "refuses the user or the password: HTTP 403" in reason:
        grant = f"GRANT WRITE ON {_identifier(settings.database)} TO {_identifier(settings.user)}"
        return failed(_USER, f"{settings.user!r} may not write: {reason}", f"as an administrator: {grant}")
    if "refuses the user or the password" in reason:
        return failed(_USER, reason, "check --influx-user and --influx-pass (or --influx-pass-file)")
    advice = error.advice if isinstance(error, Unavailable) else ""
    return failed(_POINT, f"not written: {reason}", advice or "see InfluxDB's log")


def _read_back(server: "_Server", time_ns: int) -> Finding:
    try:
        row = server.first_row(f"SELECT value FROM {MEASUREMENT} WHERE pod = 'ods' AND time = {time_ns}")
    except InfluxError as error:
        return warning(_POINT, f"written; it cannot be read back: {error.reason}", "none needed: ODS only writes")
    finally:
        left = server.execute(f"DROP SERIES FROM {MEASUREMENT} WHERE pod = 'ods'")
    rest = "deleted again" if left is None else f"left there as {MEASUREMENT}"
    if row is None:
        return warning(_POINT, f"written, and not found again; {rest}", "ODS needs InfluxDB 1.x to keep nanoseconds")
    if row[:2] != [time_ns, _value(time_ns)]:
        return failed(_POINT, f"written at {time_ns} ns, and read back as {row}", "is it an InfluxDB that answers?")
    return ok(_POINT, f"written and read back, to the nanosecond; {rest}")


def _value(time_ns: int) -> float:
    """Another one each time."""
    return time_ns % 1_000_003 + 0.5


class _Silent(Exception):
    """No answer: in words, and what to do."""

    def __init__(self, words: str, advice: str) -> None:
        super().__init__(words)
        self.advice = advice


class _Server:
    """InfluxDB, asked one thing after the other. Every method raises InfluxError or _Silent."""

    def __init__(self, settings: InfluxSettings) -> None:
        self.settings = settings
        self._deadline = time.monotonic() + ALL_SECONDS
        self._connection: http.client.HTTPConnection | None = None
        credentials = base64.b64encode(f"{settings.user}:{settings.password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}", "User-Agent": f"ods/{__version__} (check)"}
        is_secret = settings.password not in ("", settings.user)
        self._secrets = (credentials, settings.password) if is_secret else (credentials,)
        path = quote(settings.path.strip("/"), safe="/%")
        self._prefix = f"/{path}" if path else ""

    def write(self, line: str) -> None:
        """Write a line."""
        target = f"/write?db={quote(self.settings.database, safe='')}&precision=ns"
        answer = self.ask("POST", target, line.encode())
        if answer.status != 204:
            raise meaning_of(answer, secrets=self._secrets)

    def execute(self, statement: str) -> str | None:
        """Have a statement done; what keeps it from that."""
        try:
            self._query("POST", statement)
        except InfluxError as error:
            return error.reason
        return None

    def first_row(self, statement: str) -> list[Any] | None:
        """The first row of what a statement finds."""
        try:
            row: list[Any] = self._query("GET", statement)["series"][0]["values"][0]
        except (LookupError, TypeError):
            return None
        return row

    def _query(self, method: str, statement: str) -> dict[str, Any]:
        parameters = urlencode({"db": self.settings.database, "epoch": "ns", "q": statement})
        answer = self.ask(method, f"/query?{parameters}")
        if answer.status != 200:
            raise meaning_of(answer, secrets=self._secrets)
        try:
            result: dict[str, Any] = json.loads(answer.body)["results"][0]
        except (ValueError, LookupError, TypeError) as error:
            raise Unavailable("its answer to a query is none of InfluxDB's") from error
        if "error" in result:
            raise Unavailable(" ".join(str(result["error"]).split()))
        return result

    def ask(self, method: str, target: str, body: bytes = b"") -> Answer:
        """One request and its answer."""
        connection = self._connected()
        try:
            connection.request(method, self._prefix + target, body=body or None, headers=self._headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read(ANSWER_BYTES))
        except TimeoutError as error:
            raise _Silent(
                f"takes connections, and does not answer within {REQUEST_SECONDS:.0f} s",
                "see whether it is frozen or overloaded, and restart it; meanwhile ODS buffers",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise _Silent(
                f"breaks off instead of an answer ({type(error).__name__})",
                "check that this is InfluxDB's port, and --influx-ssl",
            ) from error
        if response.will_close:
            self.close()
        return answer

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> http.client.HTTPConnection:
        seconds = max(0.1, min(REQUEST_SECONDS, self._deadline - time.monotonic()))
        if self._connection is not None:
            assert self._connection.sock is not None
            self._connection.sock.settimeout(seconds)
            return self._connection
        self._connection = _connection(self.settings, seconds)
        return self._connection


def _connection(settings: InfluxSettings, seconds: float) -> http.client.HTTPConnection:
    """An open connection. Raises _Silent, which tells the ways apart in which there is none."""
    host, port = settings.host, settings.port
    if settings.ssl:
        tls = ssl.create_default_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, timeout=seconds, context=tls)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.connect()
    except (socket.gaierror, UnicodeError) as error:
        raise _Silent(
            f"cannot be reached: the name {host!r} cannot be resolved", "check --influx-host; an address needs no name"
        ) from error
    except ConnectionRefusedError as error:
        raise _Silent("refuses the connection: nothing listens there", _START_IT) from error
    except TimeoutError as error:
        words = f"does not answer within {seconds:.0f} s: its machine is off, or a firewall is between"
        raise _Silent(words, "check --influx-host, the network and the firewall; meanwhile ODS buffers") from error
    except ssl.SSLError as error:
        is_untrusted = isinstance(error, ssl.SSLCertVerificationError)
        words = "has a certificate that is not trusted" if is_untrusted else "does not speak HTTPS"
        raise _Silent(words, "install its certificate on this machine, or leave out --influx-ssl") from error
    except OSError as error:
        raise _Silent(f"cannot be reached: {error.strerror or error}", "check the network") from error
    return connection


def _identifier(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
