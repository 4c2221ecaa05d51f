"""InfluxDB 1.x and what takes its writes: the only module that speaks to it, and the only one that imports `influxdb`.

Every answer becomes one of four outcomes: confirmed (returns), `Unavailable` (keep, try again), `Rejected` (some lines
are bad), `Suspect` (the server failed over this batch and took another one). A body that is too large for the server is
sent in halves. Writes do not go through the client of `influxdb`: its `request` takes twice the time, and its
exceptions of 5xx carry neither status nor `Retry-After`. Databases are created by it.
"""

import base64
import gzip
import http.client
import logging
from urllib.parse import quote

import gevent
import requests
from influxdb import InfluxDBClient
from influxdb.exceptions import InfluxDBClientError, InfluxDBServerError

from ods import __version__
from ods.errors import InfluxError, Rejected, Suspect, Unavailable
from ods.influx_answers import DatabaseMissing, Failed, TooLarge, in_words, meaning_of
from ods.influx_http import Connections
from ods.settings import InfluxSettings

log = logging.getLogger(__name__)

#: The longest that one request may take. Seconds.
WRITE_SECONDS = 10.0
#: A comment: passes authentication and the choice of the database and stores nothing. InfluxDB 1.x, 2.x and
#: VictoriaMetrics answer it 204; InfluxDB 3.x says 400 ("incoming write was empty").
PROBE = b"# is anybody there\n"
#: How long a write that is to show whether the server takes writes at all may take. Seconds.
WITNESS_SECONDS = 2.5


class Influx:
    """Writes batches of line protocol. Safe to be used by many greenlets at once."""

    def __init__(self, settings: InfluxSettings) -> None:
        self.settings = settings
        self._connections: Connections | None = None
        #: A point of ODS's own that may be written at any time, again and again.
        self.witness = PROBE
        credentials = base64.b64encode(f"{settings.user}:{settings.password}".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {credentials}",
            "Content-Type": "text/plain; charset=utf-8",
            "User-Agent": f"ods/{__version__}",
        }
        self._secrets = _secrets(settings, credentials)
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

    def drop_idle(self) -> None:
        """Close the connections that nothing uses now."""
        if self._connections is not None:
            self._connections.close()

    def write(self, lines: bytes, *, database: str, is_gzip: bool = False) -> None:
        """Write a batch; returns once InfluxDB has confirmed it. Raises Unavailable, Suspect or Rejected."""
        try:
            self._post(lines, database, is_gzip=is_gzip)
        except DatabaseMissing:
            self._create(database)
            self._post(lines, database, is_gzip=is_gzip)
        except TooLarge as error:
            self._write_in_halves(gzip.decompress(lines) if is_gzip else lines, database, error)
        except Failed as error:
            if self._takes_others(database):
                raise Suspect(error.reason) from error
            raise

    def _write_in_halves(self, lines: bytes, database: str, error: InfluxError) -> None:
        middle = _middle(lines)
        if middle:
            self.write(lines[:middle], database=database)
            self.write(lines[middle:], database=database)
        elif self._takes_others(database):
            raise Rejected(error.reason) from error
        else:
            raise error

    def probe(self) -> None:
        """Ask whether a write would be taken. Raises Unavailable when not."""
        database = self.settings.database
        try:
            self._ask(PROBE, database)
        except Rejected:
            self._ask_with_a_point(database)

    def _ask_with_a_point(self, database: str) -> None:
        try:
            self._ask(self.witness, database)
        except Rejected as error:
            raise Unavailable(
                f"it answers every write with: {error.reason}", advice="check that it is an InfluxDB (--influx-path)"
            ) from error

    def _ask(self, lines: bytes, database: str) -> None:
        """On a connection of its own: those that are kept open may be dead without a sign."""
        try:
            self._post(lines, database, is_fresh=True)
        except DatabaseMissing:
            self._create(database)

    def _takes_others(self, database: str) -> bool:
        """Whether a write other than one that has just failed is taken; a server that refuses the line has read it."""
        try:
            self._post(self.witness, database, timeout_seconds=WITNESS_SECONDS, is_fresh=True)
        except Unavailable:
            return False
        except Rejected:
            return True
        return True

    def _post(
        self,
        lines: bytes,
        database: str,
        *,
        is_gzip: bool = False,
        timeout_seconds: float | None = None,
        is_fresh: bool = False,
    ) -> None:
        if self._connections is None:
            raise Unavailable("not started")
        url = f"{self._prefix}/write?db={quote(database, safe='')}&precision=ns"
        headers = self._headers | {"Content-Encoding": "gzip"} if is_gzip else self._headers
        timeout_seconds = timeout_seconds or WRITE_SECONDS
        try:
            with gevent.Timeout(timeout_seconds):
                answer = self._connections.post(url, lines, headers, is_fresh=is_fresh)
        except gevent.Timeout as error:
            self._connections.close()  # what is idle may be as dead
            raise Failed(f"no answer within {timeout_seconds:.0f} s") from error
        except (http.client.HTTPException, ConnectionResetError, BrokenPipeError) as error:
            raise Failed(in_words(error)) from error
        except (OSError, UnicodeError) as error:
            raise Unavailable(in_words(error)) from error
        if answer.status != 204:
            raise meaning_of(answer, secrets=self._secrets)

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
            reason = in_words(error, secrets=self._secrets)
            raise Unavailable(
                f"database {database!r} does not exist and could not be created: {reason}",
                advice=f"create it: influx -execute 'CREATE DATABASE \"{database}\"' (InfluxDB 2.x: a bucket of this "
                "name, and a token that may write to it)",
            ) from error
        finally:
            client.close()
        log.info("InfluxDB: database %r created", database)


def _secrets(settings: InfluxSettings, credentials: str) -> tuple[str, ...]:
    """What no answer may be quoted with; a password that is the user's name (as at first) is none."""
    return (credentials,) if settings.password in ("", settings.user) else (credentials, settings.password)


def _middle(lines: bytes) -> int:
    """Where to cut into two bodies of whole lines; 0 where there is but one line."""
    middle = lines.find(b"\n", len(lines) // 2) + 1
    return middle if 0 < middle < len(lines) else lines.rfind(b"\n", 0, max(0, len(lines) // 2)) + 1
