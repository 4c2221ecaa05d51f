"""Where the status of an ODS is asked for: its control socket, or, of another machine's ODS, its HTTP."""

import http.client
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ods.control_client import ask
from ods.errors import Unreachable

#: ODS's port for HTTP, where none is given.
HTTP_PORT = 7777
#: A status is not longer than this: it is no ODS that answers so much. Bytes.
LIMIT_BYTES = 256 * 1024 * 1024
#: At the end of an address that was copied out of a browser or ODS's log.
_PAGES = ("/api/status", "/healthz", "/metrics")

#: Asks for a path within so many seconds; the HTTP status and the body. Raises OSError or HTTPException.
_Ask = Callable[[str, float], tuple[int, bytes]]


class Source:
    """One ODS. `name` is what a person calls it by, `where` the same in a sentence."""

    def __init__(self, name: str, where: str, ask: _Ask) -> None:
        self.name = name
        self.where = where
        self._ask = ask

    def fetch(self, timeout_seconds: float) -> dict[str, Any]:
        """The snapshot: what `/api/status` has. Raises Unreachable, with the reason alone."""
        try:
            code, body = self._ask("/api/status", timeout_seconds)
            snapshot = _snapshot(code, body)
            if not isinstance(snapshot.get("healthy"), bool):  # an older ODS
                snapshot["healthy"] = self._ask("/healthz", timeout_seconds)[0] == http.client.OK
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unreachable(_reason(error)) from error
        return snapshot


class FirstOf(Source):
    """The first of several that answers, for somebody who named none."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.name = sources[0].name
        self.where = " or ".join(source.where for source in sources)

    def fetch(self, timeout_seconds: float) -> dict[str, Any]:
        """Like that of any source; the name is that of the one which answered."""
        reasons = []
        for source in self._sources:
            try:
                snapshot = source.fetch(timeout_seconds)
            except Unreachable as error:
                reasons.append(str(error))
            else:
                self.name = source.name
                return snapshot
        raise Unreachable("; ".join(dict.fromkeys(reasons)))


def in_directory(directory: Path) -> Source:
    """The ODS that uses this data directory."""
    return Source(
        str(directory), f"in {directory}", lambda path, timeout: ask(directory, path, timeout_seconds=timeout)
    )


def at_url(url: str) -> Source:
    """The ODS that serves its status at `http://host:7777`; scheme and port may be left out. Raises ValueError."""
    has_scheme = "://" in url
    parts = urlsplit(url if has_scheme else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(f"{url!r} is no address like http://host:{HTTP_PORT}")
    port = parts.port or (None if has_scheme else HTTP_PORT)
    base = parts.path.rstrip("/")
    for page in _PAGES:
        base = base.removesuffix(page)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    name = f"{parts.scheme}://{host}{f':{port}' if port else ''}{base}"
    return Source(name, f"at {name}", lambda path, timeout: _get(parts, port, base + path, timeout))


def _get(parts: SplitResult, port: int | None, path: str, timeout_seconds: float) -> tuple[int, bytes]:
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", port, timeout=timeout_seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(LIMIT_BYTES)
    finally:
        connection.close()


def _snapshot(code: int, body: bytes) -> dict[str, Any]:
    try:
        snapshot = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unreachable(f"what answers is no ODS (HTTP status {code})") from error
    if code != http.client.OK or not isinstance(snapshot, dict) or "totals" not in snapshot:
        raise Unreachable(f"what answers is no ODS (HTTP status {code})")
    return snapshot


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return "none runs there"
    if isinstance(error, PermissionError):
        return "it belongs to another user; ask as that user, or by --url"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
