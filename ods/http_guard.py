"""Who may ask over HTTP, and what a browser may do with the answers.

Anyone who reaches the port may look; nobody may change anything. What is guarded against are the web pages of others,
open in a browser on a machine that reaches ODS: they must neither read the telemetry nor load it with requests. A page
of another origin is told by its `Origin` and by what the browser says of the request (Fetch Metadata); one whose name
was pointed at this machine (DNS rebinding) by the `Host` that it was found under.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

#: With each answer: nothing is loaded from elsewhere, nothing is guessed, told on, framed or embedded.
#: `data:` is for a page's small pictures.
SECURITY_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)

#: Top-level domains that are nobody's in the public DNS, so that no page of the web can have a name there (RFC 6762,
#: RFC 6761, RFC 8375; .internal: ICANN, 2024; .lan and .localdomain are what routers and systems give out).
_PRIVATE_DOMAINS = ("localhost", "local", "lan", "internal", "home.arpa", "localdomain")

_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]+)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": "80", "https": "443"}

_FOREIGN = "this is another site's page; open the status page itself\n"
_WRONG_NAME = "this name is not known to lead here; use the machine's address, or localhost\n"


def refusal(headers: Mapping[str, str], *, local_address: str, own_names: frozenset[str]) -> tuple[str, str] | None:
    """Why a request is not answered, as an HTTP status and a text; None where it is.

    `headers` are those of a WSGI environment, `local_address` is the address that the connection came in at.
    """
    host = headers.get("HTTP_HOST")
    if host is None:
        if headers.get("SERVER_PROTOCOL") != "HTTP/1.0" or "HTTP_ORIGIN" in headers:
            return "400 Bad Request", "a Host is missing\n"
        return None
    match = _AUTHORITY.fullmatch(host)
    if match is None:
        return "400 Bad Request", "the Host is malformed\n"
    if not _is_served(match["host"], local_address, own_names):
        return "421 Misdirected Request", _WRONG_NAME
    if _is_foreign(headers, host):
        return "403 Forbidden", _FOREIGN
    return None


def own_names(resolver: Path = Path("/etc/resolv.conf"), hosts: Path = Path("/etc/hosts")) -> frozenset[str]:
    """The names of this machine, lower case, from its files alone: asking the network could take long."""
    name = socket.gethostname().lower()
    names = {name}
    for words in _words(resolver):
        if words[0] in ("search", "domain"):
            names |= {f"{name}.{domain.strip('.')}" for domain in words[1:]}
    for words in _words(hosts):
        if name in words[1:]:
            names |= set(words[1:])
    return frozenset(names - {""})


def _words(path: Path) -> Iterable[list[str]]:
    try:
        lines = path.read_text(errors="replace").lower().splitlines()
    except OSError:
        return
    for line in lines:
        if words := line.partition("#")[0].split():
            yield words


def _is_served(name: str, local_address: str, own_names: frozenset[str]) -> bool:
    """At loopback only names that no page of the web can have: another one was pointed here to get at the telemetry.

    Elsewhere the operator has opened ODS to a network (`--http-host`), whose names are the network's.
    """
    name = name.lower().removesuffix(".")
    return (
        not _is_loopback(local_address)
        or _is_address(name)
        or "." not in name
        or name in own_names
        or name.endswith(tuple(f".{domain}" for domain in _PRIVATE_DOMAINS))
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def _is_foreign(headers: Mapping[str, str], host: str) -> bool:
    """Whether a page of another origin asks. Following a link that such a page holds is no question of its."""
    origin = headers.get("HTTP_ORIGIN")
    if origin is not None and not _is_same(origin, host):
        return True
    return headers.get("HTTP_SEC_FETCH_SITE") == "cross-site" and headers.get("HTTP_SEC_FETCH_MODE") != "navigate"


def _is_same(origin: str, host: str) -> bool:
    """Whether an origin is this host; its scheme is left open, for a proxy may speak HTTPS in front of ODS."""
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return False
    default = _DEFAULT_PORTS[match["scheme"].lower()]
    return _with_port(match["authority"], default) == _with_port(host, default)


def _with_port(authority: str, default: str) -> str:
    match = _AUTHORITY.fullmatch(authority)
    return "" if match is None else f"{match['host'].lower()}:{match['port'] or default}"
