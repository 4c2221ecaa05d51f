"""The listener, on real TCP: what the kernel keeps for a connection is bounded."""

import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from components.hub import fail_when_hung, wait_in_hub
from gevent import socket as gsocket

from ods.connection import Connection
from ods.listener import Listener
from ods.settings import ListenerSettings
from ods.sockets import RECEIVE_BUFFER_BYTES, SEGMENT_BYTES
from ods.supervisor import Supervisor

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)

ANYBODY: tuple[ipaddress.IPv4Network, ...] = ()


class Receiver:
    """Takes what was read, and forgets it; the interface is that of `ods.intake.Intake`."""

    is_settled = True
    is_to_pause = False
    most_bytes = 16 * 1024

    def pause(self, wait_for_turn: Callable[[], None]) -> None:
        """Never called: nothing much is sent."""

    def receive(self, data: bytes) -> bytes:
        return b""

    def flush(self) -> None:
        """Nothing waits."""

    def finish(self) -> None:
        """Nothing is kept."""


class Visitor:
    """Notes who came, and what the kernel keeps for it; the interface is that of `ods.reception.Reception`."""

    def __init__(self) -> None:
        self.receive_buffers_bytes: list[int] = []
        self.left: list[str] = []

    def enter(self, address: str, connection: Connection, *, is_new: bool = True) -> Receiver:
        size_bytes = connection._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.receive_buffers_bytes.append(size_bytes)
        return Receiver()

    def leave(self, address: str, how: str) -> None:
        self.left.append(address)

    def refused(self, address: str) -> None:
        raise AssertionError(f"{address} was refused")


@pytest.fixture
def visitor() -> Visitor:
    return Visitor()


@pytest.fixture
def listener(visitor: Visitor) -> Iterator[Listener]:
    listener = Listener(ListenerSettings(host="127.0.0.1", port=0, allow=ANYBODY), visitor, Supervisor())
    listener.start()
    yield listener
    listener.stop()


def test_what_the_kernel_takes_in_for_a_pod_is_bounded(listener: Listener, visitor: Visitor) -> None:
    """Megabytes of it would make a pod wait until a large part has been read: see `RECEIVE_BUFFER_BYTES`."""
    with gsocket.create_connection(("127.0.0.1", listener.port)):
        wait_in_hub(lambda: visitor.receive_buffers_bytes, "the pod")
    doubled = 2 if sys.platform == "linux" else 1  # as socket(7) says
    assert visitor.receive_buffers_bytes == [doubled * RECEIVE_BUFFER_BYTES]
    wait_in_hub(lambda: visitor.left == ["127.0.0.1"], "the end of the pod")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the segments of loopback stay large")
def test_a_pod_on_loopback_sends_segments_as_on_a_network(listener: Listener, visitor: Visitor) -> None:
    """With those of loopback its own kernel takes in megabytes before it waits: see `SEGMENT_BYTES`."""
    with gsocket.create_connection(("127.0.0.1", listener.port)) as pod:
        wait_in_hub(lambda: visitor.receive_buffers_bytes, "the pod")
        assert 0 < pod.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= SEGMENT_BYTES
    wait_in_hub(lambda: visitor.left == ["127.0.0.1"], "the end of the pod")


@pytest.fixture
def held() -> Iterator[socket.socket]:
    """A socket that listens, and that ODS is handed; whoever holds it keeps it when ODS ends."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held


def inheriting(held: socket.socket, visitor: Visitor, *, host: str = "0.0.0.0", port: int = 0) -> Listener:
    settings = ListenerSettings(host=host, port=port, allow=ANYBODY)
    return Listener(settings, visitor, Supervisor(), inherited=os.dup(held.fileno()))


def test_pods_are_accepted_at_a_socket_that_was_inherited(held: socket.socket, visitor: Visitor) -> None:
    """It is where pods are told to connect, and what comes in there is bounded as ever."""
    listener = inheriting(held, visitor)
    listener.start()
    try:
        assert (listener.addresses, listener.port) == (["127.0.0.1"], held.getsockname()[1])
        with gsocket.create_connection(held.getsockname()) as pod:
            wait_in_hub(lambda: visitor.receive_buffers_bytes, "the pod")
            if sys.platform == "linux":
                assert visitor.receive_buffers_bytes == [2 * RECEIVE_BUFFER_BYTES]
                assert pod.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= SEGMENT_BYTES
    finally:
        listener.stop()


def test_a_pod_that_connects_between_two_lives_is_accepted_by_the_next(held: socket.socket, visitor: Visitor) -> None:
    """The stop leaves what waits in the backlog to the next start."""
    first = inheriting(held, visitor)
    first.start()
    first.stop()
    with gsocket.create_connection(held.getsockname()):
        assert not visitor.receive_buffers_bytes
        second = inheriting(held, visitor)
        second.start()
        wait_in_hub(lambda: visitor.receive_buffers_bytes, "the pod")
        second.stop()


@pytest.mark.parametrize("differing", [{}, {"port": 1}, {"host": "127.0.0.2"}], ids=str)
def test_a_socket_that_differs_from_the_options_is_said(
    held: socket.socket, visitor: Visitor, caplog: pytest.LogCaptureFixture, differing: dict[str, Any]
) -> None:
    """In one line: who gave the option finds out why it does not count."""
    listener = inheriting(held, visitor, **differing)
    listener.bind()
    listener.stop()
    said = [message for message in caplog.messages if f"port {held.getsockname()[1]}" in message]
    assert len(said) == len(caplog.messages) == len(differing)
