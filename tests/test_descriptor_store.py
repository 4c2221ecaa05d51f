"""systemd's store of files: what it is told, and what is made of what it hands over."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ods import tape_owner
from ods.descriptor_store import DescriptorStore
from ods.tape import Tape

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the keeper is for Linux")


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(str(tmp_path / "notify"))
        yield ours


@pytest.fixture
def make(systemd: socket.socket) -> Callable[..., DescriptorStore]:
    return lambda **more: DescriptorStore(systemd.getsockname(), **more)


def told(systemd: socket.socket) -> list[tuple[dict[str, str], int]]:
    """What systemd was told, with how many files."""
    systemd.setblocking(False)
    found = []
    try:
        while True:
            data, files, _, _ = socket.recv_fds(systemd, 4096, 4)
            for file in files:
                os.close(file)
            found.append((dict(line.split("=", 1) for line in data.decode().splitlines()), len(files)))
    except BlockingIOError:
        return found


def inode(file: int) -> int | None:
    """What an open file is, None of one that is closed: its number may be another's by then."""
    try:
        return os.fstat(file).st_ino
    except OSError:
        return None


def stuff(systemd: socket.socket) -> None:
    """Send until systemd takes no more: from ever new sockets, for each has a bound of its own."""
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            try:
                other.sendto(b"X=1", systemd.getsockname())
            except BlockingIOError:
                return


def test_a_file_is_given_by_its_name_and_taken_back(
    systemd: socket.socket, make: Callable[..., DescriptorStore]
) -> None:
    store = make()
    store.put("c", 3, systemd.fileno())
    store.put("c", 3, systemd.fileno())
    store.remove("c", 3)
    store.remove("c", 3)
    assert told(systemd) == [
        ({"FDSTORE": "1", "FDPOLL": "0", "FDNAME": "c3"}, 1),
        ({"FDSTOREREMOVE": "1", "FDNAME": "c3"}, 0),
    ]
    assert store.names == ()


def test_what_a_busy_systemd_does_not_take_is_told_later_and_in_order(
    systemd: socket.socket, make: Callable[..., DescriptorStore]
) -> None:
    """Of a connection that has ended by then it hears nothing: its file is closed."""
    store = make(names=["c1"])
    stuff(systemd)
    for number in (2, 3):
        store.put("c", number, systemd.fileno())
    store.remove("c", 1)
    store.remove("c", 2)
    assert store.has_unsaid
    told(systemd)
    store.flush()
    assert not store.has_unsaid
    assert [message["FDNAME"] for message, _ in told(systemd)] == ["c3", "c1"]


def test_no_more_is_given_than_systemd_holds(
    systemd: socket.socket, make: Callable[..., DescriptorStore], caplog: pytest.LogCaptureFixture
) -> None:
    store = make(most=2)
    for number in range(4):
        store.put("c", number, systemd.fileno())
    assert len(told(systemd)) == 2
    assert len(caplog.records) == 1
    store.remove("c", 3)
    store.remove("c", 0)
    store.put("c", 4, systemd.fileno())
    assert [message["FDNAME"] for message, _ in told(systemd)] == ["c0", "c4"]


@pytest.mark.parametrize("most", [0, 100])
def test_nothing_is_told_where_nobody_holds_files(most: int) -> None:
    store = DescriptorStore("/nowhere" if not most else None, most=most)
    store.put("c", 1, 0)
    assert not store.is_there and not store.has_unsaid and not store.names


def test_nobody_listens_any_more(tmp_path: Path) -> None:
    store = DescriptorStore(str(tmp_path / "gone"))
    store.put("c", 1, 0)
    assert not store.has_unsaid


@pytest.fixture
def pod() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as theirs:
        ours, _ = server.accept()
        with ours:
            yield ours, theirs


@pytest.mark.parametrize("is_entered", [True, False])
@pytest.mark.parametrize("end", ["stands", "reset"])
def test_a_connection_is_taken_up_with_what_the_keeper_knew(
    pod: tuple[socket.socket, socket.socket], make: Callable[..., DescriptorStore], end: str, is_entered: bool
) -> None:
    """Where it was reset meanwhile, its tape tells whose it was."""
    ours, theirs = pod
    file, tape = os.dup(ours.fileno()), Tape.make()
    tape_owner.write(tape, "127.0.0.1", is_entered=is_entered)
    if end == "reset":
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        theirs.close()
    (found,) = make().take_up([("t12", tape), ("c12", file)])
    assert (found.number, found.socket, found.tape, found.is_new) == (12, file, tape, not is_entered)
    assert found.address[0] == "127.0.0.1"
    os.close(file)
    os.close(tape)


def test_what_is_of_no_use_is_let_go_of(systemd: socket.socket, make: Callable[..., DescriptorStore]) -> None:
    """A tape without its connection, a connection of which nobody knows whose it is."""
    files = [Tape.make(), socket.socket().detach(), Tape.make()]
    before = [os.fstat(file).st_ino for file in files]
    store = make()
    assert store.take_up([("t1", files[0]), ("c2", files[1]), ("t2", files[2])]) == []
    assert not [file for file, number in zip(files, before, strict=True) if inode(file) == number]
    assert sorted(message["FDNAME"] for message, _ in told(systemd)) == ["c2", "t1", "t2"]
    assert store.names == ()


@pytest.mark.parametrize("address", ["10.0.0.20", "::1", "fe80::1%eth0"])
def test_a_tape_tells_whose_it_is(address: str) -> None:
    file = Tape.make()
    assert tape_owner.read(file) == (None, False)
    tape_owner.write(file, address, is_entered=False)
    assert tape_owner.read(file) == (address.partition("%")[0], False)
    tape_owner.write(file, address, is_entered=True)
    assert tape_owner.read(file) == (address.partition("%")[0], True)
    tape = Tape(file)
    assert (tape.read_to, tape.noted) == (0, 0), "nothing of the tape itself is touched"
    tape.close()
    os.close(file)
