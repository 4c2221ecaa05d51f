"""The worker's end of the channel to its keeper: it is given its go and pods' connections there, and tells how it is.

All of it happens in the hub, so that a hub that stands still does not beat.
"""

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
from gevent import socket as gsocket
from gevent.event import AsyncResult, Event

from ods.channel import Channel, ChannelClosed, Message

log = logging.getLogger(__name__)

#: How often the keeper is told that the hub turns. Seconds.
BEAT_SECONDS = 0.25
#: A keeper that has not answered a beat for so long may stand still. Seconds.
ANSWER_SECONDS = 0.75


@dataclass(frozen=True, slots=True)
class Arrival:
    """A pod's connection as it comes from the keeper; `is_new` is false where a worker before had it."""

    number: int
    socket: Any
    address: str
    tape: int | None
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """How often the worker was started anew, and why: the latest, of which `untold` are to be told of."""

    total: int = 0
    latest: tuple[tuple[int, str], ...] = ()
    untold: int = 0
    #: Whether this worker is of a version that has yet to prove itself.
    is_on_trial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """What a worker is given when it may begin."""

    address: tuple[str, int]
    directory: Path
    lock: int | None
    is_first: bool
    restarts: Restarts = field(default_factory=Restarts)


class KeeperLink:
    """Speaks with the keeper."""

    def __init__(self, channel: int) -> None:
        self._channel = Channel(socket.socket(fileno=channel))
        self._heard = Event()
        self._go: AsyncResult = AsyncResult()
        self._arrivals: deque[Arrival] = deque()
        self._has_all = False
        self._on_end: Callable[[], None] | None = None
        self._asked: list[AsyncResult] = []
        self._listening: gevent.Greenlet | None = None
        self.is_handing_over = False
        self.is_ending = False
        self.is_on_trial = False
        #: Whether this is an end that the pods need not notice: the next start is handed their connections.
        self.pods_stay = False
        self._answered_at = float("inf")

    def start(self) -> None:
        """Begin to beat and to listen."""
        self._listening = gevent.spawn(self._listen)
        gevent.spawn(self._beat)

    def wait_for_go(self) -> Go | None:
        """The go; None where this worker is not needed any more. From then on the log is the keeper's."""
        go: Go | None = self._go.get()
        return go

    def begin(self, on_end: Callable[[], None]) -> None:
        """Have `on_end` called when this worker is to end; at once where it was told so already."""
        self._on_end = on_end
        if self.is_handing_over or self.is_ending:
            on_end()

    def serving(self) -> None:
        """Say that this worker has started."""
        self._channel.send({"say": "serving"})

    def old_arrivals(self) -> list[Arrival]:
        """The connections that stood already. Waits for the keeper to have said all of them."""
        while not self._has_all and not self.is_ending:
            self._heard.wait()
            self._heard.clear()
        found = list(self._arrivals)
        self._arrivals.clear()
        return found

    def next_arrivals(self) -> list[Arrival]:
        """Those that have come since. Waits until there are some."""
        while not self._arrivals:
            self._heard.wait()
            self._heard.clear()
        found = list(self._arrivals)
        self._arrivals.clear()
        return found

    @property
    def is_answered(self) -> bool:
        """Whether the keeper answers the beats: one that stands still accepts no pod, and starts no worker."""
        return time.monotonic() - self._answered_at < ANSWER_SECONDS

    def entered(self, number: int) -> None:
        """Say that a new connection is known, and its begin told of."""
        self._channel.send({"say": "entered", "id": number})

    def closed(self, number: int) -> None:
        """Say that a connection has ended, and that nothing of it is in flight."""
        self._channel.send({"say": "closed", "id": number})

    def ask_for_restart(self) -> str | None:
        """Ask for another worker in the place of this one; None when it is about to take over, else why it does not."""
        asked = AsyncResult()
        self._asked.append(asked)
        self._channel.send({"say": "restart"})
        reason: str | None = asked.get()
        return reason

    def hand_over(self) -> None:
        """Settle what was read and end, without the pods noticing; the keeper has another worker take over."""
        self.is_handing_over = True
        self._answer(None)
        self._end()

    def _beat(self) -> None:
        while True:
            gevent.sleep(BEAT_SECONDS)
            if self._channel.has_unsent:  # by the next one it will be heard that the hub turns
                self._channel.flush()
            else:
                self._channel.send({"say": "beat"})

    def _listen(self) -> None:
        try:
            while True:
                gsocket.wait_read(self._channel.fileno())
                while (received := self._channel.receive()) is not None:
                    self._heed(*received)
        except ChannelClosed:
            if not self.is_handing_over:
                log.warning("the keeper is gone; ODS ends")
        self._go.set(None) if not self._go.ready() else None
        self.is_ending = True
        self._end()

    def _heed(self, message: Message, files: list[int]) -> None:
        done = message.get("do")
        if done == "go" and files:
            self.pods_stay = message.get("pods_stay") is True
            os.dup2(files[0], 2)
            os.close(files[0])
            go = _go(message, files[1] if len(files) > 1 else None)
            self.is_on_trial = go.restarts.is_on_trial
            self._go.set(go)
        elif done == "connection" and files:
            self._arrivals.append(_arrival(message, files))
        elif done == "all":
            self._has_all = True
        elif done == "accepted":
            self.is_on_trial = False
        elif done == "refused":
            self._answer(str(message.get("reason")))
        elif done == "hand over":
            self.hand_over()
        elif done == "beat":
            self._answered_at = time.monotonic()
        elif done == "stop":
            self.pods_stay = message.get("pods_stay") is True
            self.is_ending = True
            self._end()
        self._heard.set()

    def _answer(self, reason: str | None) -> None:
        asked, self._asked = self._asked, []
        for waiting in asked:
            waiting.set(reason)

    def _end(self) -> None:
        self._heard.set()
        if self._on_end is not None:
            self._on_end()


def _go(message: Message, lock: int | None) -> Go:
    restarts = message.get("restarts", {})
    latest = tuple((each["time_ns"], each["cause"]) for each in restarts.get("latest", ()))
    told = Restarts(
        total=restarts.get("total", 0),
        latest=latest,
        untold=restarts.get("untold", 0),
        is_on_trial=restarts.get("is_on_trial", False),
    )
    return Go(
        address=tuple(message["address"]),
        directory=Path(message["directory"]),
        lock=lock,
        is_first=message["is_first"],
        restarts=told,
    )


def _arrival(message: Message, files: list[int]) -> Arrival:
    return Arrival(
        number=message["id"],
        socket=gsocket.socket(fileno=files[0]),
        address=message["address"][0],
        tape=files[1] if len(files) > 1 else None,
        is_new=message["is_new"],
    )
