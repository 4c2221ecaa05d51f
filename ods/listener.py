"""Serves every pod, at once and always: one greenlet a pod, no limit at which a pod would hang at its boot.

Pods are accepted here, or by the keeper, which hands them over. Only this module and `ods.connection` own sockets of
pods.
"""

import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gevent
import psutil
from gevent import socket as gsocket
from gevent.server import StreamServer

from ods.connection import HANDED_OVER, Connection, HandedOver, PodsStay, Receiver
from ods.keeper_link import Arrival, Go, KeeperLink
from ods.poller import Poller
from ods.settings import ListenerSettings
from ods.sockets import listening
from ods.supervisor import Supervisor
from ods.tape import Tape
from ods.turns import Turns

log = logging.getLogger(__name__)

#: How often it is looked whether all of an ended connection is settled. Seconds.
SETTLE_POLL_SECONDS = 0.05


class Visitor(Protocol):
    """What the listener reports to: who came, who left, who was turned away."""

    def enter(self, address: str, connection: Connection, *, is_new: bool = True) -> Receiver: ...

    def leave(self, address: str, how: str) -> None: ...

    def refused(self, address: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Entered:
    """A connection that is to be served, with what takes its bytes; None where it is refused."""

    arrival: Arrival
    address: str
    connection: Connection
    receiver: Receiver | None


class Listener:
    """The server that pods connect to.

    `inherited` is the file descriptor of a socket that listens already (see `ods.sockets`). Where there is a keeper it
    has that socket, at the address that came with the go, and pods come by the link to it.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        visitor: Visitor,
        supervisor: Supervisor,
        *,
        inherited: int | None = None,
        link: KeeperLink | None = None,
        go: Go | None = None,
    ) -> None:
        self._settings = settings
        self._visitor = visitor
        self._inherited = inherited
        self._link = link
        self._go = go
        self._poller = Poller(supervisor)
        self._turns = Turns()
        self._server: StreamServer | None = None
        self._greenlets: set[gevent.Greenlet] = set()
        self._taken_over: list[_Entered] = []
        self._taking: gevent.Greenlet | None = None

    @property
    def host(self) -> str:
        """The address it listens on; that of an inherited socket, whatever the settings say."""
        assert self._server is not None
        return self._settings.host if self._inherited is None and self._go is None else str(self._server.address[0])

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
        if self._go is not None:
            self._server = StreamServer(self._go.address, self._serve, spawn=self._spawn)
            return
        server = listening(self._settings, inherited=self._inherited)
        self._server = StreamServer(gsocket.socket(fileno=server.detach()), self._serve, spawn=self._spawn)
        self._server.init_socket()

    def take_over(self) -> None:
        """Have those connections entered that a worker before has left; none of them is read before `start`."""
        if self._link is not None:
            self._taken_over = [self._enter(arrival) for arrival in self._link.old_arrivals()]

    def start(self) -> None:
        """Accept pods."""
        if self._server is None:
            self.bind()
        assert self._server is not None
        if self._link is None:
            self._server.start()
            return
        for entered in self._taken_over:
            self._server.do_handle(entered.arrival.socket, (entered.arrival.address,), entered.arrival, entered)
        self._taken_over.clear()
        self._taking = gevent.spawn(self._take)

    def stop(self) -> None:
        """Stop accepting, take in what the pods have sent so far, and end their connections.

        Where they are handed over, what was not read yet is left to the successor, and the connections stand.
        """
        if self._taking is not None:
            self._taking.kill()
        if self._server is not None:
            self._server.close()
        gevent.sleep(0)  # those accepted in this turn of the hub begin to be served
        with contextlib.suppress(gevent.Timeout):
            gevent.killall(list(self._greenlets), self._end, block=True, timeout=2.0)
        self._poller.stop()

    @property
    def _end(self) -> type[BaseException]:
        """What this process's end is for a connection."""
        if self._link is None or (self._link.is_ending and not self._link.pods_stay):
            end: type[BaseException] = gevent.GreenletExit
            return end
        return PodsStay if self._link.is_ending else HandedOver

    def _take(self) -> None:
        """Serve what the keeper accepts."""
        assert self._link is not None and self._server is not None
        while True:
            for arrival in self._link.next_arrivals():
                self._server.do_handle(arrival.socket, (arrival.address,), arrival)

    def _spawn(self, serve: Callable[..., None], *arguments: Any) -> None:
        greenlet = gevent.Greenlet.spawn(serve, *arguments)
        self._greenlets.add(greenlet)
        greenlet.link(self._greenlets.discard)

    def _serve(
        self, sock: Any, peer: Sequence[Any], arrival: Arrival | None = None, entered: _Entered | None = None
    ) -> None:
        if arrival is None:
            arrival = Arrival(0, sock, str(peer[0]), None, is_new=True)
        entered = entered or self._enter(arrival)
        how = ""
        try:
            if entered.receiver is not None:
                how = self._attend(entered.address, entered.connection, entered.receiver)
        finally:
            entered.connection.close()
        if self._link is not None and how != HANDED_OVER:
            self._tell_closed(self._link, entered)

    def _enter(self, arrival: Arrival) -> _Entered:
        address = _plain(arrival.address)
        connection = Connection(arrival.socket, self._poller, self._turns, _tape(arrival.tape))
        if self._is_allowed(address):
            receiver = self._visitor.enter(address, connection, is_new=arrival.is_new)
            if arrival.is_new and self._link is not None:
                self._link.entered(arrival.number)
            return _Entered(arrival, address, connection, receiver)
        self._visitor.refused(address)
        return _Entered(arrival, address, connection, None)

    def _attend(self, address: str, connection: Connection, receiver: Receiver) -> str:
        how = "given up by ODS"
        try:
            how = connection.serve(receiver)
        finally:
            if how != HANDED_OVER:
                self._visitor.leave(address, how)
        return how

    def _tell_closed(self, link: KeeperLink, entered: _Entered) -> None:
        """Have the keeper let go of a connection that has ended, once no successor would have to see to it."""
        while entered.receiver is not None and not entered.receiver.is_settled and not link.is_ending:
            gevent.sleep(SETTLE_POLL_SECONDS)
        if entered.connection.tape is not None and not link.is_ending:
            entered.connection.tape.close()
        link.closed(entered.arrival.number)

    def _is_allowed(self, address: str) -> bool:
        allow = self._settings.allow
        return not allow or any(ipaddress.ip_address(address) in network for network in allow)


def _tape(fd: int | None) -> Tape | None:
    if fd is None:
        return None
    try:
        return Tape(fd)
    except OSError as error:
        log.warning("connections have no tapes here: %s", error)
        return None
    finally:
        os.close(fd)


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
