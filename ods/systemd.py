"""What ODS tells the service manager that started it, and what it is handed by it.

The ends of it are those of systemd's manual: sd_notify(3) (ready, a status line, stopping), sd_watchdog_enabled(3) (a
sign of life), sd_listen_fds(3) (sockets that outlive the process). Where nobody asked for them, nothing is said.
Promises never to wait for systemd: what cannot be said now is said with the next message.
"""

import logging
import os
import re
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

#: The first file descriptor that is handed over; the others follow it.
FIRST_SOCKET = 3
#: The name that `conf/systemd/ods.socket` gives to the socket that pods connect to.
PODS = "pods"
#: What the files in its store are called (`ods.descriptor_store`).
_STORED = re.compile(r"[ct]\d{1,15}", re.ASCII)
#: The watchdog is fed this often in each of its times.
FEEDS = 3

_VARIABLES = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    *("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Systemd:
    """What this process was given. `notify_address` is None where nobody listens."""

    notify_address: str | None = None
    watchdog_seconds: float | None = None
    #: The file descriptor of the socket that pods connect to, which systemd holds; None where ODS is to make one.
    pods_socket: int | None = None
    #: What systemd has held for an ODS that is gone (`ods.descriptor_store`): names and file descriptors.
    stored: tuple[tuple[str, int], ...] = ()
    #: How many files it holds at most; None where it does not tell.
    most_stored: int | None = None


def for_worker(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that does the work, where this one holds the sockets: it says how ODS is.

    systemd takes it from any process of the service (`NotifyAccess=all`).
    """
    kept = ("NOTIFY_SOCKET", "WATCHDOG_USEC")
    return {name: value for name, value in environment.items() if name in kept or name not in _VARIABLES}


def take(environment: MutableMapping[str, str]) -> Systemd:
    """What the environment holds for this process; the variables are removed from it, as they concern no other."""
    given = {name: environment.pop(name) for name in _VARIABLES if name in environment}
    sockets = _sockets(given)
    stored = tuple(each for each in sockets if _STORED.fullmatch(each[0]) and not _listens_on_tcp(each[1]))
    return Systemd(
        stored=stored,
        most_stored=_number(environment.get("FDSTORE")),
        notify_address=given.get("NOTIFY_SOCKET") or None,
        watchdog_seconds=_watchdog_seconds(given),
        pods_socket=_pods_socket([each for each in sockets if each not in stored]),
    )


def _watchdog_seconds(given: Mapping[str, str]) -> float | None:
    microseconds = _number(given.get("WATCHDOG_USEC"))
    is_ours = _number(given.get("WATCHDOG_PID", str(os.getpid()))) == os.getpid()
    return microseconds / 1e6 if microseconds and is_ours else None


def _sockets(given: Mapping[str, str]) -> list[tuple[str, int]]:
    """The file descriptors that were handed over, each with its name."""
    if _number(given.get("LISTEN_PID")) != os.getpid():
        return []
    names = given.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for index in range(_number(given.get("LISTEN_FDS")) or 0):
        try:
            os.set_inheritable(FIRST_SOCKET + index, False)
        except OSError as error:
            log.warning("systemd: handed over fewer sockets than it told of: %s", error)
            break
        found.append((names[index] if index < len(names) else "", FIRST_SOCKET + index))
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None


def _pods_socket(sockets: Sequence[tuple[str, int]]) -> int | None:
    """Of the TCP sockets that listen the one named `pods`, else the only one. What is left over is closed."""
    listening = [(name, number) for name, number in sockets if _listens_on_tcp(number)]
    fitting = [number for name, number in listening if name == PODS or len(listening) == 1]
    for name, number in sockets:
        if number not in fitting[:1]:
            log.warning("systemd: handed over a socket %r (%d) that ODS does not serve", name, number)
            os.close(number)
    return fitting[0] if fitting else None


def _listens_on_tcp(number: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(number)) as handed:
            is_tcp = handed.family in (socket.AF_INET, socket.AF_INET6) and handed.type == socket.SOCK_STREAM
            return is_tcp and bool(handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


class Notifier:
    """Tells systemd how ODS is. Belongs to the hub."""

    def __init__(self, given: Systemd) -> None:
        self._address = given.notify_address
        self._feed_seconds = None if given.watchdog_seconds is None else given.watchdog_seconds / FEEDS
        self._fed_at = float("-inf")
        self._status = ""
        self._is_stopping = False
        self._unsaid: dict[str, str] = {}

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return self._address is not None

    def ready(self) -> None:
        """Say that pods can connect."""
        self._say(READY="1")

    def stopping(self) -> None:
        """Say that nothing more is accepted, and what was read is being stored."""
        self._is_stopping = True
        self._say(STOPPING="1", STATUS="Stopping: what was read is being stored.")

    def tick(self, now: float, *, sentence: str, is_well: bool) -> None:
        """To be called each second (monotonic clock): what `systemctl status` shows, and a sign of life, when due.

        No sign of life is given unless `is_well`: where there is none for the watchdog's time, ODS is started anew.
        """
        words = {}
        if sentence != self._status and not self._is_stopping:
            self._status = sentence
            words["STATUS"] = " ".join(sentence.split())
        if is_well and self._feed_seconds is not None and now - self._fed_at >= self._feed_seconds:
            self._fed_at = now
            words["WATCHDOG"] = "1"
        self._say(**words)

    def _say(self, **words: str) -> None:
        self._unsaid |= words
        if self._address is None or not self._unsaid:
            return
        message = "\n".join(f"{name}={word}" for name, word in self._unsaid.items())
        try:
            _send(self._address, message.encode())
        except OSError as error:  # a BlockingIOError where systemd is busy
            log.debug("systemd: not told of %s: %s", ", ".join(self._unsaid), error)
        else:
            self._unsaid = {}


def _send(address: str, message: bytes) -> None:
    """One datagram, at once or not at all. Raises OSError."""
    if address.startswith("@"):
        address = "\0" + address[1:]  # a name that is in no file system
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
        teller.setblocking(False)
        teller.sendto(message, address)
