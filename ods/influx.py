"""InfluxDB 1.x and what takes its writes: the only module that speaks to it, and the only one that imports `influxdb`.

Every answer becomes one of three outcomes: confirmed (returns), `Unavailable` (keep, try again), `Rejected` (some lines
are bad). Facts about the client: `request` posts ready-made bytes; without `retries=1` it sends a slow batch again by
itself; its exceptions of 5xx carry no status, hence the hook on the session, which sees every answer first.
"""

import json
import logging
import os
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import gevent
import requests
from influxdb import InfluxDBClient

from ods.errors import InfluxError, Rejected, Unavailable

log = logging.getLogger(__name__)

#: The longest that one request may take. Seconds.
WRITE_SECONDS = 10.0
#: The longest that a probe may take: it must not hide that InfluxDB is back. Seconds.
PROBE_SECONDS = 1.0
#: A comment: passes authentication and the choice of the database, stores nothing, is answered 204 by InfluxDB 1.6.
PROBE = b"# is anybody there\n"
#: At most this many requests are under way at once.
CONNECTIONS = 16

_QUERY = "query"
_CREDENTIALS_ADVICE = "check --influx-user and --influx-pass (or --influx-pass-file)"


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxSettings:
    """Where InfluxDB is and who ODS is to it."""

    host: str
    port: int
    user: str
    password: str
    database: str
    ssl: bool = False
    path: str = ""

    @property
    def url(self) -> str:
        """Without secrets, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = f"/{self.path.strip('/')}" if self.path.strip("/") else ""
        return f"{'https' if self.ssl else 'http'}://{host}:{self.port}{path}"


class Influx:
    """Writes batches of line protocol. Safe to be used by many greenlets at once."""

    def __init__(self, settings: InfluxSettings) -> None:
        self.settings = settings
        self._client: InfluxDBClient | None = None

    def start(self) -> None:
        """Prepare the connections; none is made before it is needed."""
        session = requests.Session()
        session.trust_env = False  # no proxy between the shuttle and its database; and no look-up of one per request
        session.hooks["response"].append(_judge)
        settings = self.settings
        self._client = InfluxDBClient(
            host=f"[{settings.host}]" if ":" in settings.host else settings.host,
            port=settings.port,
            username=settings.user,
            password=settings.password,
            database=settings.database,
            ssl=settings.ssl,
            verify_ssl=settings.ssl and (os.environ.get("REQUESTS_CA_BUNDLE") or True),
            path=settings.path.rstrip("/"),
            timeout=WRITE_SECONDS,
            retries=1,
            pool_size=CONNECTIONS,
            session=session,
            headers={"Content-Type": "text/plain; charset=utf-8", "Accept": "application/json"},
        )

    def stop(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

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
            self._post(PROBE, self.settings.database, False, PROBE_SECONDS)
        except _DatabaseMissing:
            self._create(self.settings.database)
        except Rejected as error:
            raise Unavailable(
                f"it answers every write with: {error.reason}", advice="check that it is an InfluxDB (--influx-path)"
            ) from error

    def _post(self, lines: bytes, database: str, is_gzip: bool, timeout_seconds: float) -> None:
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if is_gzip:
            headers["Content-Encoding"] = "gzip"
        self._request("write", {"db": database, "precision": "ns"}, lines, headers, timeout_seconds)

    def _create(self, database: str) -> None:
        quoted = database.replace("\\", "\\\\").replace('"', '\\"')
        try:
            self._request(_QUERY, {"q": f'CREATE DATABASE "{quoted}"'}, None, {}, WRITE_SECONDS)
        except InfluxError as error:
            raise Unavailable(
                f"database {database!r} does not exist and could not be created: {error.reason}",
                advice=f"create it: influx -execute 'CREATE DATABASE \"{database}\"'",
            ) from error
        log.info("InfluxDB: database %r created", database)

    def _request(
        self, path: str, parameters: dict[str, str], body: bytes | None, headers: dict[str, str], timeout_seconds: float
    ) -> None:
        if self._client is None:
            raise Unavailable("not started")
        try:
            with gevent.Timeout(timeout_seconds):
                expected = 200 if path == _QUERY else 204
                self._client.request(path, "POST", parameters, body, headers=headers, expected_response_code=expected)
        except gevent.Timeout as error:
            raise Unavailable(f"no answer within {timeout_seconds:.0f} s") from error
        except requests.RequestException as error:
            raise Unavailable(_in_words(error)) from error


class _DatabaseMissing(InfluxError):
    """404, and the body says that it is the database."""


def _judge(response: requests.Response, *_: object, **__: object) -> None:
    """Returns for an answer that confirms, raises what any other means."""
    body = response.content  # read, so that the connection can be used again
    status, is_query = response.status_code, f"/{_QUERY}?" in str(response.request.path_url)
    if status == 204 or (status == 200 and is_query and b'"results"' in body):
        return
    reason = _reason(response)
    if status == 404 and "database not found" in reason:
        raise _DatabaseMissing(reason)
    if status in (400, 422) and not is_query:
        raise Rejected(reason)
    if status in (401, 403):
        raise Unavailable(f"it refuses the user or the password: {reason}", advice=_CREDENTIALS_ADVICE)
    if status == 413:
        raise Unavailable(reason, advice="raise max-body-size in InfluxDB's configuration")
    if status < 400 or status == 404:
        raise Unavailable(reason, advice="check --influx-host, --influx-port and --influx-path: is this an InfluxDB?")
    raise Unavailable(reason, retry_after_seconds=_retry_after_seconds(response))


def _reason(response: requests.Response) -> str:
    """One line for a person."""
    text = response.headers.get("X-Influxdb-Error") or response.text
    if not response.headers.get("X-Influxdb-Error"):
        try:
            decoded = json.loads(text)
            text = str(decoded.get("error") or decoded.get("message") or text)
        except (ValueError, AttributeError):
            pass
    text = " ".join(text.split())
    return f"HTTP {response.status_code} {text[:300]}".strip()


def _retry_after_seconds(response: requests.Response) -> float:
    value = response.headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _in_words(error: requests.RequestException) -> str:
    """What went wrong below HTTP, without the nesting of the libraries."""
    text = str(error)
    for sign, words in (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "its name cannot be resolved"),
        ("nodename nor servname", "its name cannot be resolved"),
        ("Temporary failure in name resolution", "its name cannot be resolved"),
        ("No route to host", "no route to host"),
        ("Network is unreachable", "network is unreachable"),
        ("timed out", f"no answer within {WRITE_SECONDS:.0f} s"),
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
        ("reset by peer", "connection reset"),
        ("Connection aborted", "connection closed without an answer"),
        ("Broken pipe", "connection closed without an answer"),
    ):
        if sign in text:
            return words
    return f"{type(error).__name__}: {text[:200]}"
