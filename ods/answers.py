"""What is answered to a question over HTTP. All of it only reads; nothing here changes anything.

| path | answer |
| --- | --- |
| `/`, `/page/...` | the status page |
| `/events` | server-sent events, for the page |
| `/api/status`, `/api/values`, `/api/sensors` | JSON |
| `/metrics` | Prometheus's text format |
| `/healthz` | 200 while points can be kept |
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import gevent

from ods import metrics
from ods.assets import Asset
from ods.feed import Feed, Latest, history_pieces
from ods.http_server import ASKED, CONNECTION
from ods.pace import Pace
from ods.sensors import Sensors
from ods.status import Status

_TEXT, _JSON = "text/plain; charset=utf-8", "application/json"
_PATHS = b"there are /, /metrics, /api/status, /api/values, /api/sensors, /events and /healthz\n"
#: Longer than any name of a pod or of a value.
_MAX_TERM_CHARACTERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A status, a kind of content, and the content, whole or in pieces."""

    status: str = "200 OK"
    kind: str = _TEXT
    body: bytes | Iterable[bytes] = b""
    headers: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"),)


class Answers:
    """Answers by method, path and query. What many ask for at the same time is made once."""

    def __init__(
        self,
        *,
        status: Status,
        latest: Latest,
        sensors: Sensors,
        feed: Feed,
        assets: Mapping[str, Asset],
        pace: Pace,
    ) -> None:
        self._status = status
        self._latest = latest
        self._sensors_json = json.dumps(sensors.as_dict()).encode() + b"\n"
        self._feed = feed
        self._assets = assets
        self._pace = pace
        self._status_json = _Shared(self.status_json)
        self._metrics = _Shared(self._exposition)

    def status_json(self) -> bytes:
        """The status as of now."""
        return json.dumps(self._status.snapshot()).encode() + b"\n"

    def answer(self, environ: Mapping[str, Any]) -> Answer:
        """What to answer to the request of a WSGI environment."""
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            headers = (("Allow", "GET, HEAD"),)
            return Answer(status="405 Method Not Allowed", body=b"read-only\n", headers=headers)
        path = environ["PATH_INFO"]
        if path == "/" or path.startswith("/page/"):
            return self._page(path, environ)
        answer = self._routes().get(path)
        return Answer(status="404 Not Found", body=_PATHS) if answer is None else answer(environ)

    def _routes(self) -> Mapping[str, Callable[[Mapping[str, Any]], Answer]]:
        return {
            "/api/status": lambda environ: Answer(kind=_JSON, body=self._status_json.since(environ[ASKED])),
            "/api/values": self._values,
            "/api/sensors": lambda _: Answer(kind=_JSON, body=self._sensors_json),
            "/events": self._events,
            "/healthz": lambda _: self._health(),
            "/metrics": lambda environ: Answer(kind=metrics.CONTENT_TYPE, body=self._metrics.since(environ[ASKED])),
        }

    def _page(self, path: str, environ: Mapping[str, Any]) -> Answer:
        asset = self._assets.get("index.html" if path == "/" else path.removeprefix("/page/"))
        if asset is None:
            return Answer(status="404 Not Found", body=_PATHS)
        headers = (("Cache-Control", "no-cache"), ("ETag", asset.tag))
        if asset.tag in environ.get("HTTP_IF_NONE_MATCH", ""):
            return Answer(status="304 Not Modified", kind=asset.kind, headers=headers)
        return Answer(kind=asset.kind, body=asset.body, headers=headers)

    def _health(self) -> Answer:
        if self._status.is_healthy():
            return Answer(body=b"ok\n")
        return Answer(status="503 Service Unavailable", body=b"points are dropped\n")

    def _values(self, environ: Mapping[str, Any]) -> Answer:
        pod, match = _terms(environ)
        if pod is None:
            return Answer(status="400 Bad Request", body=b"which pod? (?pod=NAME, and &match=PART of its names)\n")
        return Answer(kind=_JSON, body=self._values_pieces(pod, match))

    def _values_pieces(self, pod: str, match: str) -> Iterable[bytes]:
        yield b'{"history": '
        yield from history_pieces(self._latest, pod, match, self._pace)
        yield b', "frame": %s}\n' % json.dumps(self._latest.frame(pod, since=0, match=match)).encode()

    def _events(self, environ: Mapping[str, Any]) -> Answer:
        if self._feed.is_full:
            headers = (("Cache-Control", "no-store"), ("Retry-After", "10"))
            return Answer(status="503 Service Unavailable", body=b"too many look already\n", headers=headers)
        pod, match = _terms(environ)
        events = self._feed.events(environ[CONNECTION], pod=pod, match=match, pace=self._pace)
        headers = (("Cache-Control", "no-store"), ("Connection", "close"))
        return Answer(kind="text/event-stream", body=events, headers=headers)

    def _exposition(self) -> bytes:
        """On a thread: with a thousand pods it takes longer than the hub can be spared."""
        snapshot = self._status.snapshot()
        latencies = {name: copy(latency) for name, latency in self._status.latencies.items()}
        text: bytes = gevent.get_hub().threadpool.apply(metrics.exposition, (snapshot, latencies))
        return text


class _Shared:
    """What is made once for all who asked before it was begun."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._made = b""
        self._begun = float("-inf")

    def since(self, asked: float) -> bytes:
        """What was made at or after this time (monotonic, seconds)."""
        if self._begun < asked:
            begun = time.monotonic()
            self._made = self._make()
            self._begun = begun
        return self._made


def _terms(environ: Mapping[str, Any]) -> tuple[str | None, str]:
    """The pod that is asked for, and the part of the names."""
    query = environ["QUERY_STRING"].encode("latin-1", "replace").decode(errors="replace")
    terms = parse_qs(query, keep_blank_values=True, errors="replace")
    pod, match = terms.get("pod"), terms.get("match", [""])
    return None if pod is None else pod[-1][:_MAX_TERM_CHARACTERS], match[-1][:_MAX_TERM_CHARACTERS]
