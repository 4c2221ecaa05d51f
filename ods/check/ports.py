"""Whether the ports can be listened on; where not, who has them.

They are bound, and not listened on: a pod that boots just then is refused as before, never accepted and dropped.
"""

import errno
import socket

import psutil

from ods.check.finding import Finding, failed, ok
from ods.check.running import Running, is_process

#: systemd, which holds the port by ods.socket.
_SERVICE_MANAGER = 1
#: Hosts that mean each address of this machine.
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})


def look(what: str, host: str, port: int, running: Running, *, option: str) -> Finding:
    """One port of ODS's: `option` and its host are what it is chosen by."""
    where = f"{host} port {port}"
    try:
        _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _taken(what, where, port, running, option)
        return failed(what, f"{where}: {error.strerror or error}", _advice(error, option))
    return ok(what, f"{where} is free")


def look_at_second(
    what: str, host: str, port: int, running: Running, *, option: str, first: tuple[str, int]
) -> Finding:
    """The same, of a port that may be the one that pods connect to: each is free, and both together are not."""
    is_same_host = host == first[0] or not _EVERYWHERE.isdisjoint((host, first[0]))
    if port == first[1] and is_same_host:
        return failed(what, f"{host} port {port} is the one that pods connect to", f"choose another port ({option})")
    return look(what, host, port, running, option=option)


def _bind(host: str, port: int) -> None:
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)


def _taken(what: str, where: str, port: int, running: Running, option: str) -> Finding:
    owner = _owner(port)
    if running.status is not None and (running.port == port or is_process(running.holder, owner)):
        return ok(what, f"{where} is held by the ODS that runs (process {running.holder})")
    if owner == _SERVICE_MANAGER:
        return ok(what, f"{where} is held by systemd, which hands it to ODS (ods.socket)")
    return failed(what, f"{where} is taken by {_told(owner)}", f"stop that one, or choose another port ({option})")


def _owner(port: int) -> int | None:
    """The process that listens there, as far as this user may know."""
    try:
        listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    except (psutil.Error, OSError):
        return None
    return next((one.pid for one in listening if one.laddr[1:2] == (port,) and one.pid is not None), None)


def _told(owner: int | None) -> str:
    if owner is None:
        return "another program (`ss -ltnp` as root tells which)"
    try:
        return f"process {owner} ({psutil.Process(owner).name()})"
    except psutil.Error:
        return f"process {owner}"


def _advice(error: OSError, option: str) -> str:
    if error.errno == errno.EACCES:
        return f"ports below 1024 are for root: choose another ({option})"
    address = option.replace("port", "host")
    return f"name an address of this machine ({address})"
