"""InfluxDB 1.x and what takes its writes: the only module that speaks to it, and the only one that imports `influxdb`.

Every answer becomes one of three outcomes: confirmed (returns), `Unavailable` (keep, try again), `Rejected` (some lines
are bad). Writes do not go through the client of `influxdb`: its `request` takes twice the time, and its exceptions of
5xx carry neither status nor `Retry-After`. Databases are created by it.
"""

import base64
import http.client
import json
import logging
import re
import time
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import gevent
import requests
from influxdb import InfluxDBClient
from influxdb.exceptions import InfluxDBClientError, InfluxDBServerError

from ods import __version__
from ods.errors import InfluxError, Rejected, Unavailable
from ods.influx_http import Answer, Connections
from ods.settings import InfluxSettings

log = logging.getLogger(__name__)

#: The longest that one request may take. Seconds.
WRITE_SECONDS = 10.0
#: A comment: passes authentication and the choice of the database, stores nothing, is answered 204 by InfluxDB 1.6.
PROBE = b"# is anybody there\n"

_CREDENTIALS_ADVICE = "check --influx-user and --influx-pass (or --influx-pass-file)"


class Influx:
    """Writes batches of line protocol. Safe to be used by many greenlets at once."""

    def __init__(self, settings: InfluxSettings) -> None:
        self.settings = settings
        self._connections: Connections | None = None
        credentials = base64.b64encode(f"{settings.user}:{settings.password}".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {credentials}",
            "Content-Type": "text/plain; charset=utf-8",
            "User-Agent": f"ods/{__version__}",
        }
        path = quote(settings.path.strip("/"), safe="/%")
        self._prefix = f"/{path}" if path else ""

    def start(self) -> None:
        """Prepare the connections; none is made before it is needed, and never through a proxy."""
        settings = self.settings
        self._connections = Connections(host=settings.host, port=settings.port, is_tls=settings.ssl)

    def stop(self) -> None:
        """Close the connections."""
        if self._connections is not None:
            self._connections.close()
            self._connections = None

    def write(self, lines: bytes, *, database: str, is_gzip: bool = False) -> None:
        """Write a batch; returns once InfluxDB has confirmed it. Raises Unavailable or Rejected."""
        try:
            self._post(lines, database, is_gzip, WRITE_SECONDS)
        except _DatabaseMissing:
            self._create(database)
            self._post(lines, database, is_gzip, WRITE_SECONDS)

    def probe(self) -> None:
        """Ask whether a write would be taken, without writing. Raises Unavailable when not."""
        try:
            self._post(PROBE, self.settings.database, False, WRITE_SECONDS)
        except _DatabaseMissing:
            self._create(self.settings.database)
        except Rejected as error:
            raise Unavailable(
                f"it answers every write with: {error.reason}", advice="check that it is an InfluxDB (--influx-path)"
            ) from error

    def _post(self, lines: bytes, database: str, is_gzip: bool, timeout_seconds: float) -> None:
        if self._connections is None:
            raise Unavailable("not started")
        url = f"{self._prefix}/write?db={quote(database, safe='')}&precision=ns"
        headers = self._headers | {"Content-Encoding": "gzip"} if is_gzip else self._headers
        try:
            with gevent.Timeout(timeout_seconds):
                answer = self._connections.post(url, lines, headers)
        except gevent.Timeout as error:
            raise Unavailable(f"no answer within {timeout_seconds:.0f} s") from error
        except (http.client.HTTPException, OSError, UnicodeError) as error:
            raise Unavailable(_in_words(error)) from error
        if answer.status != 204:
            raise _meaning(answer)

    def _create(self, database: str) -> None:
        settings = self.settings
        session = requests.Session()
        session.trust_env = False
        client = InfluxDBClient(
            session=session,
            host=f"[{settings.host}]" if ":" in settings.host else settings.host,
            port=settings.port,
            username=settings.user.encode(),
            password=settings.password.encode(),
            ssl=settings.ssl,
            verify_ssl=settings.ssl,
            path=self._prefix,
            timeout=WRITE_SECONDS,
            retries=1,
        )
        try:
            with gevent.Timeout(WRITE_SECONDS):
                client.create_database(database)
        except (gevent.Timeout, InfluxDBClientError, InfluxDBServerError, requests.RequestException) as error:
            raise Unavailable(
                f"database {database!r} does not exist and could not be created: {_in_words(error)}",
                advice=f"create it: influx -execute 'CREATE DATABASE \"{database}\"'",
            ) from error
        finally:
            client.close()
        log.info("InfluxDB: database %r created", database)


class _DatabaseMissing(Unavailable):
    """404, and the body says that it is the database."""


def _meaning(answer: Answer) -> InfluxError:
    """What an answer other than 204 means."""
    status, reason = answer.status, _reason(answer)
    if status == 404 and "database not found" in reason:
        return _DatabaseMissing(reason)
    if status in (400, 422):
        return Rejected(reason)
    if status in (401, 403):
        return Unavailable(f"it refuses the user or the password: {reason}", advice=_CREDENTIALS_ADVICE)
    if status == 413:
        return Unavailable(reason, advice="raise max-body-size in InfluxDB's configuration")
    if status < 400 or status == 404:
        return Unavailable(reason, advice="check --influx-host, --influx-port and --influx-path: is this an InfluxDB?")
    return Unavailable(reason, retry_after_seconds=_retry_after_seconds(answer))


def _reason(answer: Answer) -> str:
    """One line for a person."""
    text = answer.headers.get("X-Influxdb-Error") or answer.body.decode("utf-8", "backslashreplace")
    if not answer.headers.get("X-Influxdb-Error"):
        try:
            decoded = json.loads(text)
            text = str(decoded.get("error") or decoded.get("message") or text)
        except (ValueError, AttributeError, RecursionError):
            pass
    return f"HTTP {answer.status} {' '.join(text.split())[:300]}".strip()


def _retry_after_seconds(answer: Answer) -> float:
    value = answer.headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _in_words(error: BaseException) -> str:
    """What went wrong below HTTP, without the nesting of the libraries."""
    text = str(error)
    for sign, words in (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "its name cannot be resolved"),
        ("codec failed", "its name cannot be resolved"),
        ("nodename nor servname", "its name cannot be resolved"),
        ("Temporary failure in name resolution", "its name cannot be resolved"),
        ("No route to host", "no route to host"),
        ("Network is unreachable", "network is unreachable"),
        ("timed out", f"no answer within {WRITE_SECONDS:.0f} s"),
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
        ("reset by peer", "connection reset"),
        ("closed connection without response", "connection closed without an answer"),
        ("Connection aborted", "connection closed without an answer"),
        ("Broken pipe", "connection closed without an answer"),
    ):
        if sign in text:
            return words
    return f"{type(error).__name__}: {' '.join(text.split())[:200]}"
