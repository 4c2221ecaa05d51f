"""Accepts every pod, at once and always: one greenlet a pod, no limit at which a pod would hang at its boot.

Only this module and `ods.connection` own sockets of pods.
"""

import contextlib
import ipaddress
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gevent
import psutil
from gevent import socket as gsocket
from gevent.server import StreamServer

from ods.connection import Connection, Receiver
from ods.errors import SettingsError
from ods.settings import ListenerSettings
from ods.turns import Turns

log = logging.getLogger(__name__)

#: How many connections may wait to be accepted.
ACCEPT_QUEUE = 1024
#: What the kernel takes in for a connection before its pod has to wait (Linux doubles it, for its own use). Bytes.
#: When it is full, the pod may send again only after nearly all of it was read (the kernel joins what waits to one
#: piece, and frees a piece as a whole), so a large one makes the sends of pods that flood long. A small one makes a pod
#: slow on a network of long delays: this still takes 200 KB/s over 200 ms.
RECEIVE_BUFFER_BYTES = 32 * 1024
#: The largest segment that a pod is told to send: that of Ethernet. On loopback it would be 64 KiB, for which the pod's
#: own kernel takes in 4 MiB, and when they are full lets no send go on before a third of them has been read. Bytes.
SEGMENT_BYTES = 1460


class Visitor(Protocol):
    """What the listener reports to: who came, who left, who was turned away."""

    def enter(self, address: str, connection: Connection) -> Receiver: ...

    def leave(self, address: str, how: str) -> None: ...

    def refused(self, address: str) -> None: ...


class Listener:
    """The server that pods connect to.

    `inherited` is the file descriptor of a socket that listens already and stays when ODS ends: pods that connect
    meanwhile are accepted at the next start. It is listened on whatever the settings say.
    """

    def __init__(self, settings: ListenerSettings, visitor: Visitor, *, inherited: int | None = None) -> None:
        self._settings = settings
        self._visitor = visitor
        self._inherited = inherited
        self._turns = Turns()
        self._server: StreamServer | None = None
        self._greenlets: set[gevent.Greenlet] = set()

    @property
    def host(self) -> str:
        """The address it listens on; that of an inherited socket, whatever the settings say."""
        if self._inherited is None:
            return self._settings.host
        assert self._server is not None
        return str(self._server.address[0])

    @property
    def port(self) -> int:
        """The port it listens on; differs from the option where that is 0."""
        assert self._server is not None
        port: int = self._server.server_port
        return port

    @property
    def addresses(self) -> list[str]:
        """The addresses that a pod can connect to now, loopback last."""
        return own_addresses(self.host)

    @property
    def allowed(self) -> list[str]:
        """The networks that pods may connect from; empty where all may."""
        return [str(network) for network in self._settings.allow]

    def bind(self) -> None:
        """Take the port, without accepting yet. Raises SettingsError."""
        host, port = self._settings.host, self._settings.port
        if self._inherited is None:
            self._server = StreamServer((host, port), self._serve, spawn=self._spawn, backlog=ACCEPT_QUEUE)
        else:
            self._server = StreamServer(gsocket.socket(fileno=self._inherited), self._serve, spawn=self._spawn)
        try:
            self._server.init_socket()
            _tune(self._server.socket)
        except OSError as error:
            raise SettingsError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
        if self._inherited is not None and (port not in (0, self.port) or host not in ("0.0.0.0", self.host)):
            log.warning("the socket that ODS was handed is used: %s port %d; not --host, --port", self.host, self.port)

    def start(self) -> None:
        """Accept pods."""
        if self._server is None:
            self.bind()
        assert self._server is not None
        self._server.start()

    def stop(self) -> None:
        """Stop accepting, take in what the pods have sent so far, and end their connections."""
        if self._server is not None:
            self._server.close()
        gevent.sleep(0)  # those accepted in this turn of the hub begin to be served
        with contextlib.suppress(gevent.Timeout):
            gevent.killall(list(self._greenlets), block=True, timeout=2.0)

    def _spawn(self, serve: Callable[..., None], *arguments: Any) -> None:
        greenlet = gevent.Greenlet.spawn(serve, *arguments)
        self._greenlets.add(greenlet)
        greenlet.link(self._greenlets.discard)

    def _serve(self, sock: Any, peer: Sequence[Any]) -> None:
        address = _plain(str(peer[0]))
        connection = Connection(sock, self._turns)
        try:
            if self._is_allowed(address):
                self._attend(address, connection)
            else:
                self._visitor.refused(address)
        finally:
            connection.close()

    def _attend(self, address: str, connection: Connection) -> None:
        receiver = self._visitor.enter(address, connection)
        how = "given up by ODS"
        try:
            how = connection.serve(receiver)
        finally:
            self._visitor.leave(address, how)

    def _is_allowed(self, address: str) -> bool:
        allow = self._settings.allow
        return not allow or any(ipaddress.ip_address(address) in network for network in allow)


def _tune(server: socket.socket) -> None:
    """Set what every connection has from its begin."""
    options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)]
    if sys.platform == "linux":  # elsewhere it can be set on connections only, where it is too late
        options.append((socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES))
    for option in options:
        try:
            server.setsockopt(*option)
        except OSError as error:  # a socket that was handed over may be of a kind that lacks it
            log.debug("option %d of the socket that pods connect to: %s", option[1], error)


def own_addresses(host: str) -> list[str]:
    """The addresses that a pod can connect to when ODS listens on `host`, loopback last."""
    if host not in ("0.0.0.0", "::", ""):
        return [host]
    families = (socket.AF_INET, socket.AF_INET6) if host == "::" else (socket.AF_INET,)
    found = [_plain(nic.address) for nics in psutil.net_if_addrs().values() for nic in nics if nic.family in families]
    return sorted(found, key=lambda address: ipaddress.ip_address(address).is_loopback)


def _plain(address: str) -> str:
    """An IPv4 address as such where an IPv6 socket saw it, and no zone."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
