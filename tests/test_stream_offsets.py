"""How far a connection was read and written, as the kernel tells it, whatever became of its peer."""

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest
from harness.wait import wait_until

from ods.stream_offsets import consumed, written

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Our end of a connection that was accepted, and the pod's."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as pod:
        ours, _ = server.accept()
        with ours:
            yield ours, pod


def send(pair: Pair, data: bytes) -> None:
    ours, pod = pair
    pod.sendall(data)
    wait_until(
        lambda: len(ours.recv(1 << 20, socket.MSG_PEEK)) == len(data),
        timeout_seconds=10,
        what="what was sent has arrived",
    )


def state(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def wait_for_state(sock: socket.socket, wanted: int) -> None:
    wait_until(lambda: state(sock) == wanted, timeout_seconds=10, what=f"the connection is in state {wanted}")


def test_what_waits_is_not_consumed(pair: Pair) -> None:
    assert consumed(pair[0], 0) == 0
    send(pair, b"x" * 100)
    assert consumed(pair[0], 0) == 0
    pair[0].recv(30)
    assert consumed(pair[0], 30) == 30
    pair[0].recv(100)
    assert consumed(pair[0], 30) == 100


def test_the_end_of_the_stream_is_no_byte_of_it(pair: Pair) -> None:
    ours, pod = pair
    send(pair, b"x" * 100)
    pod.shutdown(socket.SHUT_WR)
    wait_for_state(ours, 8)
    assert consumed(ours, 0) == 0
    ours.recv(30)
    assert consumed(ours, 30) == 30
    ours.recv(100)
    assert consumed(ours, 30) == 100
    assert ours.recv(1) == b""
    assert consumed(ours, 100) == 100


@pytest.mark.parametrize("is_ended_first", [False, True], ids=["reset", "ended, then reset"])
@pytest.mark.parametrize("is_noted", [False, True], ids=["killed in its read", "noted"])
@pytest.mark.parametrize("read", [1, 2, 30, 100])
def test_a_reset_takes_nothing_away(pair: Pair, read: int, *, is_ended_first: bool, is_noted: bool) -> None:
    ours, pod = pair
    send(pair, b"x" * 100)
    if is_ended_first:
        pod.shutdown(socket.SHUT_WR)
        wait_for_state(ours, 8)
    pod.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pod.close()
    wait_for_state(ours, 7)
    ours.recv(read)
    assert consumed(ours, read if is_noted else 0) == read
    assert consumed(ours, read) == read  # also when the error was taken
    with contextlib.suppress(ConnectionResetError):
        ours.recv(100)
    assert consumed(ours, 100) == 100


def test_what_the_peer_has_not_read_was_written(pair: Pair) -> None:
    ours, pod = pair
    assert written(ours) == 0
    ours.setblocking(False)
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            sent += ours.send(b"y" * 10_000)
    assert written(ours) == sent
    pod.recv(5000)
    assert written(ours) == sent
