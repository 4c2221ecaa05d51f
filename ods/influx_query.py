"""Asks InfluxDB for what it holds, a piece of the answer at a time: for commands, which may wait for it."""

import base64
import http.client
import json
import re
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from ods import __version__
from ods.errors import Unavailable
from ods.influx_answers import in_words, meaning_of
from ods.influx_http import ANSWER_BYTES, Answer
from ods.settings import InfluxSettings

#: How long InfluxDB may be silent. Seconds.
SILENT_SECONDS = 30.0
#: Rows of one series that InfluxDB puts in one piece of its answer.
CHUNK_ROWS = 5000

_NEGATIVE_ZERO = re.compile(rb",-0[],]")

#: A series of an answer: `name`, `columns`, `values`, perhaps `tags`.
Series = dict[str, Any]


class InfluxQuery:
    """Queries of the database of these settings, each on a connection of its own."""

    def __init__(self, settings: InfluxSettings) -> None:
        self.settings = settings
        credentials = base64.b64encode(f"{settings.user}:{settings.password}".encode()).decode()
        self._secrets = (credentials,) if settings.password in ("", settings.user) else (credentials, settings.password)
        self._headers = {
            "Authorization": f"Basic {credentials}",
            "Content-Type": "application/x-www-form-urlencoded",
            "User-Agent": f"ods/{__version__}",
        }
        path = quote(settings.path.strip("/"), safe="/%")
        self._url = f"/{path}/query" if path else "/query"

    def series(self, statement: str) -> Iterator[Series]:
        """The series that a query finds, a long one in several pieces, with times in nanoseconds.

        Raises Unavailable, also where InfluxDB refuses. Who does not read to the end need not.
        """
        connection = self._connection()
        try:
            connection.request("POST", self._url, self._body(statement), self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                said = Answer(answer.status, answer.headers, answer.read(ANSWER_BYTES))
                raise meaning_of(said, secrets=self._secrets)
            while line := answer.readline():
                yield from _series_of(line)
        except TimeoutError as error:
            raise Unavailable(f"no answer within {SILENT_SECONDS:.0f} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(in_words(error, secrets=self._secrets)) from error
        except ValueError as error:
            advice = "check --influx-host and --influx-path"
            raise Unavailable(f"its answer is not understood ({error})", advice=advice) from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        settings = self.settings
        if settings.ssl:
            tls = ssl.create_default_context()
            return http.client.HTTPSConnection(settings.host, settings.port, timeout=SILENT_SECONDS, context=tls)
        return http.client.HTTPConnection(settings.host, settings.port, timeout=SILENT_SECONDS)

    def _body(self, statement: str) -> bytes:
        chunks = {"chunked": "true", "chunk_size": str(CHUNK_ROWS)}
        return urlencode({"db": self.settings.database, "q": statement, "epoch": "ns", **chunks}).encode()


def _series_of(line: bytes) -> Iterator[Series]:
    """Raises ValueError and Unavailable."""
    # Python takes `-0`, as InfluxDB writes a negative zero, for the integer 0.
    answer = json.loads(line, parse_int=_number) if b"-0" in line and _NEGATIVE_ZERO.search(line) else json.loads(line)
    for result in [answer, *answer.get("results", ())]:
        if "error" in result:
            raise Unavailable(f"it refuses the query: {result['error']}", advice="check --influx-name")
        yield from result.get("series", ())


def _number(digits: str) -> int | float:
    return -0.0 if digits == "-0" else int(digits)


def literal(text: str) -> str:
    """A text as a string of InfluxQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(text: str) -> str:
    """A name as an identifier of InfluxQL."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
