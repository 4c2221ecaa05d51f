"""What systemd does for a service, for tests: it hears what the service says of itself, and holds its files."""

import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from harness.wait import wait_until

#: The first file descriptor that a service is handed, as sd_listen_fds(3) says.
FIRST_SOCKET = 3
#: What becomes the service: only then is it known by which process id it goes.
_BECOME = """
import fcntl, os, sys
numbers, names, command = sys.argv[1].split(":"), sys.argv[2], sys.argv[3:]
aside = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 500) for number in numbers]
for number in numbers:
    os.close(int(number))
for place, number in enumerate(aside, {first}):
    os.dup2(number, place)
    os.close(number)
os.environ |= dict(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(aside)), LISTEN_FDNAMES=names)
os.execv(command[0], command)
"""
#: As many files as one message may bring.
MOST_FILES = 4


class NotifySocket:
    """A real datagram socket that a service tells how it is. Use it as a context manager.

    What it is given to hold (`FDSTORE=1`) it holds, until it is told otherwise, and hands to the next life: `launcher`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._arrived = threading.Condition()
        self._messages: list[dict[str, str]] = []
        #: The files that it holds for the service, by name.
        self.stored: dict[str, int] = {}
        self._listener = threading.Thread(target=self._listen, name="notify socket", daemon=True)

    def __enter__(self) -> "NotifySocket":
        self._socket.bind(str(self._path))
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ender:
            ender.sendto(b"", str(self._path))
        self._listener.join(timeout=5)
        self._socket.close()
        for file in self.stored.values():
            os.close(file)

    def environment(self, *, watchdog_seconds: float | None = None) -> dict[str, str]:
        """What the service is to be started with."""
        given = {"NOTIFY_SOCKET": str(self._path)}
        return given if watchdog_seconds is None else given | {"WATCHDOG_USEC": str(round(watchdog_seconds * 1e6))}

    def count(self, word: str) -> int:
        """How many messages have held this word so far, `WATCHDOG` or `READY`."""
        return sum(word in message for message in self._messages)

    def last(self, word: str) -> str | None:
        """What was said last under this word."""
        return next((message[word] for message in reversed(self._messages) if word in message), None)

    def wait_for(self, word: str, matches: Callable[[str], bool] = bool, *, timeout_seconds: float = 20) -> str:
        """Return what is said last under this word, once it matches."""
        return wait_until(
            lambda: (said := self.last(word)) is not None and matches(said) and said,
            timeout_seconds=timeout_seconds,
            what=f"{word}= with what is waited for",
            state=lambda: self._messages[-10:],
        )

    def wait_for_more(self, word: str, count: int = 1, *, timeout_seconds: float = 20) -> None:
        """Return when so many more messages have held this word."""
        enough = self.count(word) + count
        wait_until(
            lambda: self.count(word) >= enough,
            timeout_seconds=timeout_seconds,
            what=f"{enough} times {word}=",
            state=lambda: self._messages[-10:],
        )

    def is_silent_for(self, seconds: float) -> bool:
        """Whether nothing is said for so long."""
        before = len(self._messages)
        with self._arrived:
            return not self._arrived.wait_for(lambda: len(self._messages) > before, seconds)

    def launcher(self, held: "HeldSocket") -> tuple[list[str], list[int]]:
        """The command that becomes the service whose command follows it, and the files to be passed on to it."""
        with self._arrived:
            files = {held.name: held.file_descriptor} | self.stored
        return _launcher(files), list(files.values())

    def _listen(self) -> None:
        while (received := socket.recv_fds(self._socket, 65536, MOST_FILES)) and received[0]:
            said = dict(line.split("=", 1) for line in received[0].decode().splitlines())
            with self._arrived:
                self._store(said, received[1])
                self._messages.append(said)
                self._arrived.notify_all()

    def _store(self, said: dict[str, str], files: list[int]) -> None:
        if "FDSTORE" in said:
            assert said["FDPOLL"] == "0", "systemd would let go of a connection that was reset"
            assert said["FDNAME"] not in self.stored
            (self.stored[said["FDNAME"]],) = files
        elif "FDSTOREREMOVE" in said:
            os.close(self.stored.pop(said["FDNAME"]))


class HeldSocket:
    """A TCP socket that listens as long as the test, and is handed to one life of a service after the other."""

    def __init__(self, port: int, *, name: str = "pods") -> None:
        self.name = name
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._socket.listen(64)

    def __enter__(self) -> "HeldSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def file_descriptor(self) -> int:
        """To be passed on to the process."""
        return self._socket.fileno()

    @property
    def launcher(self) -> list[str]:
        """The command that becomes the service whose command follows it."""
        return _launcher({self.name: self.file_descriptor})


def _launcher(files: dict[str, int]) -> list[str]:
    numbers = ":".join(str(number) for number in files.values())
    return [sys.executable, "-c", _BECOME.format(first=FIRST_SOCKET), numbers, ":".join(files)]
