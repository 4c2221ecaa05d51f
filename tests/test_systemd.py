"""What systemd gives and is told, by real sockets: a datagram socket that hears, a TCP socket that is handed over."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ods.systemd import Notifier, Systemd, take

ROOT = Path(__file__).parents[1]
MINE = str(os.getpid())

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")


class Manager:
    """Hears what it is told; as deaf as its queue is full."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", pytest.param("abstract", marks=linux_only)])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@ods-test-{os.getpid()}")
    yield made
    made.close()


@pytest.fixture
def notifier(manager: Manager) -> Notifier:
    return Notifier(Systemd(notify_address=manager.address, watchdog_seconds=30.0))


def test_what_was_taken_is_in_the_environment_no_more() -> None:
    """As sd_notify(3) and sd_listen_fds(3) ask: what ODS starts must not take it for its own."""
    environment = {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": MINE,
        "LISTEN_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "pods",
        "LISTEN_PIDFDID": "7",
        "HOME": "/",
    }
    given = take(environment)
    assert environment == {"HOME": "/"}
    assert given == Systemd(notify_address="/run/notify", watchdog_seconds=30.0, pods_socket=None)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "", "WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "-1", "LISTEN_PID": MINE},
    ],
    ids=str,
)
def test_what_is_for_nobody_or_for_another_process_is_not_taken(environment: dict[str, str]) -> None:
    assert take(environment) == Systemd()


def test_systemd_hears_that_pods_can_connect(manager: Manager, notifier: Notifier) -> None:
    notifier.ready()
    assert manager.heard() == ["READY=1"]


def test_the_status_is_told_when_it_changes(manager: Manager) -> None:
    """And never as more than one line, whatever it holds."""
    notifier = Notifier(Systemd(notify_address=manager.address))
    for second, sentence in enumerate(["Live.", "Live.", "Buffering\nREADY=1", "Live."]):
        notifier.tick(float(second), sentence=sentence, is_well=True)
    assert manager.heard() == ["STATUS=Live.", "STATUS=Buffering READY=1", "STATUS=Live."]


def test_the_watchdog_is_fed_three_times_in_its_time(manager: Manager, notifier: Notifier) -> None:
    for second in range(61):
        notifier.tick(100.0 + second, sentence="", is_well=True)
    assert manager.heard() == ["WATCHDOG=1"] * 7


def test_the_watchdog_is_not_fed_while_a_restart_would_heal(manager: Manager, notifier: Notifier) -> None:
    for second in range(60):
        notifier.tick(100.0 + second, sentence="", is_well=False)
    assert manager.heard() == []
    notifier.tick(160.0, sentence="", is_well=True)
    assert manager.heard() == ["WATCHDOG=1"]


def test_without_a_watchdog_it_is_not_fed(manager: Manager) -> None:
    notifier = Notifier(Systemd(notify_address=manager.address))
    notifier.tick(100.0, sentence="Live.", is_well=True)
    assert manager.heard() == ["STATUS=Live."]


def test_that_ods_stops_is_the_last_status(manager: Manager, notifier: Notifier) -> None:
    notifier.stopping()
    notifier.tick(100.0, sentence="Live.", is_well=True)
    stopping, fed = manager.heard()
    assert stopping.splitlines()[0] == "STOPPING=1"
    assert "STATUS=Stopping" in stopping and fed == "WATCHDOG=1"


@linux_only
def test_a_systemd_that_is_busy_is_not_waited_for_and_told_later(manager: Manager, notifier: Notifier) -> None:
    """Its queue holds a few messages; what does not fit is said with the next, the latest of each kind."""
    full = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        address = "\0" + manager.address[1:] if manager.address.startswith("@") else manager.address
        while True:
            try:
                other.sendto(b"X=1", address)
            except BlockingIOError:
                break
            full += 1
    notifier.ready()
    notifier.tick(100.0, sentence="Live.", is_well=True)
    notifier.tick(101.0, sentence="Buffering.", is_well=True)
    assert manager.heard() == ["X=1"] * full
    notifier.tick(102.0, sentence="Buffering.", is_well=True)
    (told,) = manager.heard()
    assert sorted(told.splitlines()) == ["READY=1", "STATUS=Buffering.", "WATCHDOG=1"]


def test_where_nobody_listens_nothing_is_said(tmp_path: Path) -> None:
    """A socket that is gone, or none at all, is no reason to fail."""
    for given in (Systemd(), Systemd(notify_address=str(tmp_path / "gone"), watchdog_seconds=3.0)):
        notifier = Notifier(given)
        notifier.ready()
        notifier.tick(100.0, sentence="Live.", is_well=True)
        notifier.stopping()
        assert notifier.is_heard == (given.notify_address is not None)


#: Hands file descriptors over as systemd does, from 3 on, then says which one was taken for the pods and what is open.
HANDED_OVER = """
import logging, os, socket, sys
kinds, names = sys.argv[1].split(","), sys.argv[2]
made = []
for kind in kinds:
    sock = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET6 if kind == "tcp6" else socket.AF_INET,
                         socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    if kind in ("tcp", "tcp6"):
        sock.bind(("::1" if kind == "tcp6" else "127.0.0.1", 0))
        sock.listen()
    made.append(os.dup2(sock.detach(), 100 + len(made)))
for index, number in enumerate(made):
    os.dup2(number, 3 + index)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(made)), "LISTEN_FDNAMES": names}
from ods.systemd import take
logging.basicConfig(format="%(message)s", stream=sys.stdout)
given = take(os.environ)
def is_open(number):
    try:
        return not os.get_inheritable(number)
    except OSError:
        return False
print(given.pods_socket, [3 + index for index in range(len(made)) if is_open(3 + index)])
"""


@pytest.mark.parametrize(
    ("kinds", "names", "taken"),
    [
        ("tcp", "pods", 3),
        ("tcp6", "pods", 3),
        ("tcp", "", 3),
        ("tcp", "ods.socket", 3),
        ("tcp,tcp", "other:pods", 4),
        ("unix,tcp", "pods:ods.socket", 4),
        ("tcp,tcp", "pods:pods", 3),
        ("tcp,tcp", "a:b", None),
        ("udp", "pods", None),
        ("unlistening", "pods", None),
    ],
)
def test_the_socket_for_pods_is_found_by_its_name_or_because_it_is_the_only_one(
    kinds: str, names: str, taken: int | None
) -> None:
    """What ODS does not serve is closed and said; what it keeps is inherited by nothing that it starts."""
    ended = subprocess.run(
        [sys.executable, "-c", HANDED_OVER, kinds, names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    *said, found = ended.stdout.splitlines()
    assert found == f"{taken} {[] if taken is None else [taken]}"
    assert len(said) == len(kinds.split(",")) - (taken is not None)


def test_fewer_sockets_than_were_told_of_are_no_reason_to_fail() -> None:
    program = """
import os
from ods.systemd import take
os.closerange(3, 100)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "pods:pods"}
print(take(os.environ).pods_socket)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.stdout == "None\n", ended.stderr
