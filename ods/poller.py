"""Reads from the pods whose sockets can be read from, a few milliseconds in each round of the hub.

gevent's hub serves all sockets that are readable before it looks at any of them again. With a thousand pods such a
round takes tens of milliseconds, and a batch needs several of them: to be written down, sent, confirmed and answered.
So all pods' sockets are one to the hub: an epoll of their own, of which some are taken in each round. Who was taken
stands behind all others that the kernel knows to be readable, so that everybody's turn comes.

That is cheaper too, for no greenlet is switched to for each read: there is one that reads, and it must never wait. A
pod that sends much is left to its own (`ods.connection`).

Where there is no epoll (macOS) the hub watches each socket, and a round is as long as it is.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent import monkey
from gevent.hub import Waiter

from ods.supervisor import Supervisor

#: For how long is read in a round. Seconds.
ROUND_SECONDS = 0.005
#: So many are taken at once: about as many as can be read from in that time.
MOST_TAKEN = 64

#: libev's and epoll's event of a readable file descriptor.
_READABLE = 1


class Readable(Protocol):
    """Knows which file descriptors can be read from. Wakes whom it was told to as long as there are any."""

    def register(self, fd: int) -> None: ...

    def unregister(self, fd: int) -> None: ...

    def take(self) -> list[int]:
        """Some of them."""
        ...

    def close(self) -> None: ...


class Poller:
    """The sockets of all pods that send little; belongs to the hub."""

    def __init__(self, supervisor: Supervisor, *, has_epoll: bool | None = None) -> None:
        """`has_epoll`: whether to use an epoll; None where it is to be used if there is one."""
        self._supervisor = supervisor
        self._readers: dict[int, Callable[[], None]] = {}
        self._wakes: Waiter[None] = Waiter()
        #: Those that were taken and not read from yet.
        self._taken: deque[int] = deque()
        epoll = _epoll() if has_epoll in (None, True) else None
        wake = self._wakes.switch
        self._readable: Readable = _Watchers(wake) if epoll is None else _Epoll(epoll, wake)
        self._greenlet: gevent.Greenlet | None = None

    def add(self, fd: int, read: Callable[[], None]) -> None:
        """Have `read` called whenever this can be read from. Raises OSError where the system has no room for it.

        It must not wait; where it fails, so does the service.
        """
        if self._greenlet is None:
            self._greenlet = self._supervisor.spawn("reading", self._run)
        self._readable.register(fd)
        self._readers[fd] = read

    def remove(self, fd: int) -> None:
        """Call it no more. To be called before the file descriptor is closed, and as often as one likes."""
        if self._readers.pop(fd, None) is not None:
            self._readable.unregister(fd)

    def stop(self) -> None:
        """Forget all of them."""
        if self._greenlet is not None:
            self._greenlet.kill(block=False)
        self._readers.clear()
        self._readable.close()

    def _run(self) -> None:
        taken, readers, wakes = self._taken, self._readers, self._wakes
        while True:
            wakes.get()
            wakes.clear()
            if not taken:
                taken.extend(self._readable.take())
            deadline = time.monotonic() + ROUND_SECONDS
            while taken:
                read = readers.get(taken.popleft())
                if read is not None:
                    read()
                    if time.monotonic() >= deadline:
                        break


class _Epoll:
    """The kernel knows."""

    def __init__(self, epoll: Any, wake: Callable[[None], None]) -> None:
        self.register = lambda fd: epoll.register(fd, _READABLE)
        self.unregister = epoll.unregister
        self._epoll = epoll
        self._watcher = gevent.get_hub().loop.io(epoll.fileno(), _READABLE)
        self._watcher.start(wake, None)

    def take(self) -> list[int]:
        """Those that have been readable longest come first."""
        return [fd for fd, _ in self._epoll.poll(0, MOST_TAKEN)]

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        self._epoll.close()


class _Watchers:
    """The hub knows, and tells of each by itself."""

    def __init__(self, wake: Callable[[None], None]) -> None:
        self._wake = wake
        self._watchers: dict[int, Any] = {}
        self._told: dict[int, None] = {}

    def register(self, fd: int) -> None:
        watcher = self._watchers[fd] = gevent.get_hub().loop.io(fd, _READABLE)
        watcher.start(self._tell, fd)

    def unregister(self, fd: int) -> None:
        watcher = self._watchers.pop(fd)
        watcher.stop()
        watcher.close()

    def take(self) -> list[int]:
        told, self._told = self._told, {}
        return list(told)

    def close(self) -> None:
        for fd in list(self._watchers):
            self.unregister(fd)

    def _tell(self, fd: int) -> None:
        self._told[fd] = None
        self._wake(None)


def _epoll() -> Any:
    """A new one, beside gevent, which takes it out of `select`; None where the system has none."""
    with contextlib.suppress(AttributeError):
        return monkey.get_original("select", "epoll")()
    return None
