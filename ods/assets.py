"""The files of the status page, read at the start and kept in memory: no request ever reaches the disk."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

#: Where they are, in the package.
FOLDER = Path(__file__).parent / "page"

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_OTHER_KIND = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file as it is served."""

    kind: str
    body: bytes
    #: An entity tag, which differs where the content does (RFC 9110, 8.8.3).
    tag: str


def read_assets(folder: Path = FOLDER) -> Mapping[str, Asset]:
    """The files in a folder and in those below it, by their path from there, `/` between its parts.

    A file that cannot be read is missing, and told: ODS starts without a page too.
    """
    assets = {}
    try:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in paths:
            assets[path.relative_to(folder).as_posix()] = _asset(path)
    except OSError as error:
        log.warning("status page: %s", error)
    if "index.html" not in assets:
        log.warning("status page: %s has no index.html; only programs are answered", folder)
    return assets


def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Asset(kind=_KINDS.get(path.suffix.lower(), _OTHER_KIND), body=body, tag=tag)
