"""What a viewer of the status page is sent as things happen: server-sent events.

One greenlet makes what all viewers are sent, once for all of them; it is there only while somebody looks, and takes no
more than `SHARE` of the hub's time: where making and sending are dear, it goes slower. Each viewer's connection has its
own greenlet, which sends. What is made while it still sends is not queued: the viewer gets what is made after that.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import gevent
from gevent.event import Event

from ods.http_connection import HttpConnection
from ods.pace import Pace

#: The most viewers at a time.
VIEWERS = 64
#: How often viewers are told. Seconds.
STEP_SECONDS = 0.5
#: The most that it may take of the hub's time.
SHARE = 0.02
#: A status of this age is good enough for one more viewer. Seconds.
FRESH_SECONDS = 0.05
#: After how long without anything else a viewer is told that ODS is alive: a page that hears nothing must tell its
#: operator that it has lost contact. Seconds.
ALIVE_SECONDS = 1.0
#: How soon a browser tries again when the connection has ended. Milliseconds.
RETRY_MS = 1000
#: For how long it may be worked at a stretch; then everything else in the hub has its turn. Seconds.
STRETCH_SECONDS = 0.002


class Latest(Protocol):
    """The latest values of the pods (`ods.latest`)."""

    def frame(self, pod: str, *, since: int, match: str) -> dict[str, Any]: ...

    def history_by_parts(
        self, pod: str, *, match: str
    ) -> tuple[dict[str, Any], Iterator[tuple[str, list[float | None]]]]: ...


class Feed:
    """Tells viewers how things are. `status_json` gives the status as of now; belongs to the hub."""

    def __init__(self, *, status_json: Callable[[], bytes], latest: Latest) -> None:
        self._status_json = status_json
        self._latest = latest
        self._viewers: set[_Viewer] = set()
        self._pace = Pace(share=SHARE)
        self._teller: gevent.Greenlet | None = None
        #: What viewers were told of the status last; empty where none was yet.
        self._status = b""
        self._status_at = float("-inf")

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more viewer."""
        return len(self._viewers) >= VIEWERS

    @property
    def is_idle(self) -> bool:
        """Whether nobody looks, and nothing is done."""
        return not self._viewers and self._teller is None

    def events(self, connection: HttpConnection, *, pod: str | None, match: str, pace: Pace) -> Iterator[bytes]:
        """What to send to a viewer, until it leaves; with the values of a pod whose names hold `match`.

        Its history is made at `pace`, that of requests.
        """
        viewer = _Viewer(connection, pod=pod, match=match)
        self._viewers.add(viewer)
        connection.watch_end(viewer.leave)
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            if pod is not None:
                yield b"event: history\ndata: "
                yield from history_pieces(self._latest, pod, match, pace)
                yield b"\n\n"
            self._begin(viewer)
            while (told := viewer.wait()) is not None:
                yield told
        finally:
            connection.unwatch_end()
            self._viewers.discard(viewer)

    def stop(self) -> None:
        """Let all viewers go."""
        for viewer in self._viewers:
            viewer.leave()
        if self._teller is not None:
            self._teller.kill(block=False)

    def _begin(self, viewer: "_Viewer") -> None:
        """Tell a viewer at once how it stands; where that is dear just now, what the others were told last."""
        if self._teller is None:
            self._teller = gevent.Greenlet.spawn(self._tell)
        elif self._status:
            began = time.perf_counter()
            if began - self._status_at > FRESH_SECONDS and not self._pace.seconds_to_wait():
                self._make_status()
                self._pace.spent(time.perf_counter() - began)
            viewer.tell(self._status)

    def _make_status(self) -> None:
        self._status, self._status_at = _event("status", self._status_json()), time.perf_counter()

    def _tell(self) -> None:
        try:
            self._pace.wait()  # where viewers come and go, each is one that begins it
            while self._viewers:
                began = time.perf_counter()
                rested = self._tell_all()
                sending = sum(viewer.connection.take_hub_seconds() for viewer in self._viewers)
                self._pace.spent(time.perf_counter() - began - rested + sending)
                gevent.sleep(max(STEP_SECONDS, self._pace.seconds_to_wait()))
        finally:
            self._teller, self._status = None, b""
            for viewer in self._viewers:  # where this has failed; they come back
                viewer.leave()

    def _tell_all(self) -> float:
        """Tell each viewer that has sent what it was told before; returns for how long others had their turn."""
        self._make_status()
        made: dict[tuple[str, int, str], tuple[int, bytes]] = {}
        stretch = _Stretch()
        for viewer in list(self._viewers):
            if viewer.is_busy:
                continue
            told = self._status
            if viewer.pod is not None:
                key = viewer.pod, viewer.since, viewer.match
                if key not in made:
                    made[key] = self._values(*key)
                viewer.since, values = made[key]
                told += values
            viewer.tell(told)
            stretch.rest_if_long()
        return stretch.rested_seconds

    def _values(self, pod: str, since: int, match: str) -> tuple[int, bytes]:
        frame = self._latest.frame(pod, since=since, match=match)
        return frame["tick"], _event("values", json.dumps(frame).encode())


class _Viewer:
    """One viewer: what it looks at, how far it was told, and what it is to be sent next."""

    def __init__(self, connection: HttpConnection, *, pod: str | None, match: str) -> None:
        self.connection = connection
        self.pod = pod
        self.match = match
        self.since = 0
        self._is_waiting = False
        self._has_left = False
        self._told: bytes | None = None
        self._woken = Event()

    @property
    def is_busy(self) -> bool:
        """Whether it has not been sent what it was told before."""
        return not self._is_waiting or self._told is not None

    def tell(self, told: bytes) -> None:
        """Give it what it is to be sent."""
        self._told = told
        self._woken.set()

    def leave(self) -> None:
        """Let it go, whatever it is being sent."""
        self._has_left = True
        self.connection.unwatch_end()
        self.connection.end()
        self._woken.set()

    def wait(self) -> bytes | None:
        """What to send; None when it is gone."""
        self._is_waiting = True
        self._woken.wait(ALIVE_SECONDS)
        self._is_waiting = False
        self._woken.clear()
        told, self._told = self._told, None
        if self._has_left:
            return None
        return told or _event("alive", b"{}")


class _Stretch:
    """Lets others have their turn in work that may take long."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.rested_seconds = 0.0

    def rest_if_long(self) -> None:
        """Rest, where it was worked for long."""
        now = time.perf_counter()
        if now - self._began > STRETCH_SECONDS:
            gevent.sleep(0)
            self._began = time.perf_counter()
            self.rested_seconds += self._began - now


def history_pieces(latest: Latest, pod: str, match: str, pace: Pace) -> Iterator[bytes]:
    """The history of a pod's values as JSON, in pieces: all of it at once would hold up the hub."""
    began = time.perf_counter()
    history, series = latest.history_by_parts(pod, match=match)
    piece, between = json.dumps(history).removesuffix("}") + ', "series": {', ""
    for name, samples in series:
        piece += f"{between}{json.dumps(name)}: {json.dumps(samples)}"
        between = ", "
        took = time.perf_counter() - began
        if took > STRETCH_SECONDS:
            pace.spent(took)
            yield piece.encode()
            pace.wait()
            gevent.sleep(0)
            piece, began = "", time.perf_counter()
    yield (piece + "}}").encode()


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data.strip())
