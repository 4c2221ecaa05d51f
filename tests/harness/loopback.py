"""Loopback plumbing: free ports, HTTP past any proxy, and what the kernel still holds of a connection."""

import random
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

#: Ports are taken from below Linux's ephemeral range, so that no outgoing connection sits on the port of a server that
#: is about to be restarted.
PORTS = range(15000, 32000)

_handed_out: set[int] = set()
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """Return a TCP port that is free on every address, and that was not returned before."""
    for _ in range(1000):
        port = random.choice(PORTS)
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        _handed_out.add(port)
        return port
    raise RuntimeError("no free port")


def http(url: str, *, body: bytes | None = None, timeout_seconds: float = 30.0) -> tuple[int, bytes]:
    """GET `url`, or POST `body` to it; return the status, errors included, and the answer's body.

    Raises OSError where nothing answers.
    """
    request = urllib.request.Request(url, data=body)
    try:
        with _opener.open(request, timeout=timeout_seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def unread_bytes(*, server_port: int, client_port: int) -> int:
    """Return how many bytes of a connection its server has not read yet, from Linux's /proc/net/tcp; 0 elsewhere."""
    columns = _server_side(server_port, client_port)
    return int(columns[4].split(":")[1], 16) if columns else 0


def is_established(*, server_port: int, client_port: int) -> bool:
    """Tell whether the server has not ended a connection, from Linux's /proc/net/tcp; False elsewhere."""
    columns = _server_side(server_port, client_port)
    return columns is not None and columns[3] == "01"


def _server_side(server_port: int, client_port: int) -> list[str] | None:
    """Return the row of /proc/net/tcp that is the server's side of a connection."""
    if sys.platform != "linux":
        return None
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = row.split()
        ports = (int(columns[1].split(":")[1], 16), int(columns[2].split(":")[1], 16))
        if ports == (server_port, client_port):
            return columns
    return None
