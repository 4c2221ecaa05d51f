"""The listener, on real TCP: what the kernel keeps for a connection is bounded."""

import ipaddress
import socket
import sys
from collections.abc import Callable, Iterator

import pytest
from components.hub import fail_when_hung, wait_in_hub
from gevent import socket as gsocket

from ods.connection import Connection
from ods.listener import RECEIVE_BUFFER_BYTES, SEGMENT_BYTES, Listener
from ods.settings import ListenerSettings

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)

ANYBODY: tuple[ipaddress.IPv4Network, ...] = ()


class Receiver:
    """Takes what was read, and forgets it; the interface is that of `ods.intake.Intake`."""

    is_settled = True
    is_to_pause = False

    def pause(self, wait_for_turn: Callable[[], None]) -> None:
        """Never called: nothing much is sent."""

    def receive(self, data: bytes) -> bytes:
        return b""

    def finish(self) -> None:
        """Nothing is kept."""


class Visitor:
    """Notes who came, and what the kernel keeps for it; the interface is that of `ods.reception.Reception`."""

    def __init__(self) -> None:
        self.receive_buffers_bytes: list[int] = []
        self.left: list[str] = []

    def enter(self, address: str, connection: Connection) -> Receiver:
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
    listener = Listener(ListenerSettings(host="127.0.0.1", port=0, allow=ANYBODY), visitor)
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
