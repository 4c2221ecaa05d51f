"""What ODS knows of itself, as one plain structure.

It is the one source of `/api/status`, `/healthz`, `/metrics`, the live page, `ods status` and the health points in
InfluxDB, so that all of them tell the same figures.
"""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ods import __version__
from ods.admission import Admission
from ods.availability import Availability, Outage
from ods.buffer import Buffer
from ods.clock import Clock
from ods.disk import POINT_BYTES, Disk
from ods.drain import Drain
from ods.keeper_link import Restarts
from ods.latency import Latency
from ods.latest import LatestValues
from ods.ledger import Counts, Ledger
from ods.limit_watch import LimitWatch
from ods.listener import Listener
from ods.pods import Pod, Pods
from ods.progress import Progress
from ods.recorder import Recorder
from ods.refusals import Refusals
from ods.sentence import sentence, text
from ods.settings import Settings
from ods.store import StoreManager

#: The rate of a pod is taken over this time. Seconds.
RATE_SECONDS = 5
#: So many outages, and so many addresses that were turned away, are told of.
LISTED = 20
#: So many of its last log messages are told with each pod.
LAST_WORDS = 3
#: The addresses of this machine are looked up again after this time. Seconds.
ADDRESSES_SECONDS = 5.0
#: The rate for which that is told while nothing comes in. Points a second.
TOLD_RATE = 1000.0


class Status:
    """Reads everyone, changes nobody. Belongs to the hub; never touches the disk."""

    def __init__(
        self,
        *,
        admission: Admission,
        settings: Settings,
        availability: Availability,
        buffer: Buffer,
        clock: Clock,
        disk: Disk,
        drain: Drain,
        latest: LatestValues,
        ledger: Ledger,
        limits: LimitWatch,
        listener: Listener,
        pods: Pods,
        progress: Progress,
        recorder: Recorder,
        refusals: Refusals,
        replying: Latency,
        restarts: Restarts,
        store: StoreManager,
    ) -> None:
        self._admission = admission
        self._settings = settings
        self._availability = availability
        self._buffer = buffer
        self._clock = clock
        self._disk = disk
        self._drain = drain
        self._latest = latest
        self._ledger = ledger
        self._limits = limits
        self._listener = listener
        self._pods = pods
        self._progress = progress
        self._recorder = recorder
        self._refusals = refusals
        self._replying = replying
        self.restarts = restarts
        self._store = store
        self._began = time.monotonic()
        self._began_ns = clock.now_ns()
        self._received: deque[tuple[float, dict[str, int], int]] = deque(maxlen=RATE_SECONDS + 1)
        self._addresses: list[str] = []
        self._addresses_at = float("-inf")
        #: The largest backlog of this run, as far as it was looked at. Points.
        self.largest_backlog = 0

    def tick(self) -> None:
        """Take a sample of what was received, for the rates; to be called once a second."""
        counts = {name: counts.received for name, counts in self._ledger.pods.items()}
        self._received.append((time.monotonic(), counts, self._ledger.lost))
        self.look_at_backlog()

    def look_at_backlog(self) -> None:
        """See whether the backlog is the largest of the run."""
        self.largest_backlog = max(self.largest_backlog, self._ledger.totals().pending)

    @property
    def uptime_seconds(self) -> float:
        """How long this run has lasted."""
        return time.monotonic() - self._began

    @property
    def latencies(self) -> Mapping[str, Latency]:
        """How long it took to store, by the store, and to reply."""
        stores = {f"store_{name}": latency for name, latency in self._store.latency.items()}
        return {**stores, "reply": self._replying}

    def is_healthy(self) -> bool:
        """Whether points can be kept."""
        return not (self._store.is_dropping or self._admission.is_refusing)

    def sentence(self) -> str:
        """The snapshot's sentence alone; with a thousand pods it takes a small part of the time."""
        told = {
            "time_ns": self._clock.now_ns(),
            "state": self._state(),
            "influx": self._influx_state(time.monotonic()),
            "buffer": self._buffer_state(self._ledger.totals().pending),
        }
        return text(told, lost=self._ledger.lost, is_losing=self._is_losing())

    def snapshot(self) -> dict[str, Any]:
        """Everything, as of now."""
        now = time.monotonic()
        self.look_at_backlog()
        totals = self._ledger.totals()
        pods = sorted(self._pods.by_name.values(), key=lambda pod: pod.name)
        told = {
            "version": __version__,
            "time_ns": self._clock.now_ns(),
            "started_ns": self._began_ns,
            "uptime_seconds": round(self.uptime_seconds, 3),
            "healthy": self.is_healthy(),
            "state": self._state(),
            "influx": self._influx_state(now),
            "buffer": self._buffer_state(totals.pending),
            "totals": totals.as_dict(),
            "largest_backlog": self.largest_backlog,
            "outages": self._outages(now),
            "clock": {
                "offset_seconds": round(self._clock.offset_seconds, 6),
                "steps_forward": self._clock.steps_forward,
                "steps_back": self._clock.steps_back,
            },
            "restarts": {
                "count": self.restarts.total,
                "latest": [{"time_ns": time_ns, "cause": cause} for time_ns, cause in reversed(self.restarts.latest)],
            },
            "standing_still": self._progress.standing_still,
            "recordings": {
                "recording": not self._recorder.is_paused,
                "unrecorded": self._recorder.unrecorded,
                "bytes": self._recorder.size_bytes,
            },
            "disk": self._disk_state(now, totals.received),
            "listening": {
                "addresses": self._listening_addresses(now),
                "port": self._listener.port,
                "allow": self._listener.allowed,
            },
            "refused": [asdict(refusal) for refusal in self._refusals.latest(LISTED)],
            "refused_total": self._refusals.total,
            "pods": [self._pod_state(pod, now) for pod in pods],
        }
        return {**told, "sentence": sentence(told, lost=self._ledger.lost, is_losing=self._is_losing())}

    def _state(self) -> str:
        if not self._availability.is_available:
            return "buffering"
        return "draining" if self._drain.progress.is_under_way else "live"

    def _is_losing(self) -> bool:
        """Whether points are being lost, or were a few seconds ago: a loss must not be missed for its shortness."""
        return not self.is_healthy() or (bool(self._received) and self._ledger.lost > self._received[0][2])

    def _influx_state(self, now: float) -> dict[str, Any]:
        outage, settings = self._availability.outage, self._settings.influx
        return {
            "url": settings.url,
            "database": settings.database,
            "known": self._availability.is_known,
            "available": self._availability.is_available,
            "last_error": self._availability.last_error,
            "outage_seconds": None if outage is None else round(outage.seconds(now), 3),
            "outage_began_ns": None if outage is None else outage.began_ns,
        }

    def _buffer_state(self, pending: int) -> dict[str, Any]:
        oldest_ns, progress = self._buffer.oldest_ns, self._drain.progress
        rate, drained = progress.points_per_second(time.monotonic()), progress.points
        return {
            "points": pending,
            "bytes": self._buffer.used_bytes,
            "limit_bytes": self._settings.buffer_limit_bytes,
            "usable": not self._store.is_buffer_in_trouble,
            "oldest_seconds": None if oldest_ns is None or not pending else self._seconds_since(oldest_ns),
            "drain_points_per_second": None if rate is None else round(rate, 1),
            "eta_seconds": None if not rate else round(pending / rate, 1),
            "drained_points": drained,
            "drain_total_points": None if drained is None else drained + pending,
        }

    def _seconds_since(self, time_ns: int) -> float:
        return round((self._clock.now_ns() - time_ns) / 1e9, 3)

    def _outages(self, now: float) -> dict[str, Any]:
        latest = list(self._availability.outages)[: -LISTED - 1 : -1]
        return {
            "count": self._availability.outages_begun,
            "seconds": round(self._availability.outage_seconds(now), 3),
            "latest": [_outage(outage, now) for outage in latest],
        }

    def _disk_state(self, now: float, received: int) -> dict[str, Any]:
        rate = self._rate_of_all(now, received) or TOLD_RATE
        return {"free_bytes": self._disk.free_bytes, "hours_left": self.hours_left(rate)}

    def hours_left(self, points_per_second: float) -> float | None:
        """How long an outage that began now could last at this rate until points are dropped; None where unknown."""
        if self._disk.free_bytes is None:
            return None
        room_bytes = min(self._disk.free_bytes, self._settings.buffer_limit_bytes - self._buffer.used_bytes)
        return round(max(0, room_bytes) / POINT_BYTES / points_per_second / 3600, 2)

    def _listening_addresses(self, now: float) -> list[str]:
        """The network comes and goes; asking for it a hundred times a second would tell nothing more."""
        if now - self._addresses_at >= ADDRESSES_SECONDS:
            self._addresses, self._addresses_at = self._listener.addresses, now
        return self._addresses

    def _pod_state(self, pod: Pod, now: float) -> dict[str, Any]:
        return {
            "name": pod.name,
            "address": pod.address,
            "expected": pod.is_expected,
            "connected": pod.connections > 0,
            "connections": pod.connections,
            "connects": pod.connects,
            "connected_ns": pod.connected_ns,
            "left_ns": pod.left_ns,
            "left_how": pod.left_how,
            "last_seen_seconds": None if pod.last_seen is None else round(now - pod.last_seen, 3),
            "points_per_second": self._rate(pod.name, now),
            "replies_dropped": pod.replies_dropped,
            "names": len(pod.names),
            **self._ledger.pods.get(pod.name, Counts()).as_dict(),
            "beyond": self._limits.beyond(pod),
            "log": self._latest.last_words(pod.name, LAST_WORDS),
        }

    def _rate(self, pod: str, now: float) -> float:
        if not self._received:
            return 0.0
        then, counts, _ = self._received[0]
        received = self._ledger.pods[pod].received if pod in self._ledger.pods else 0
        return round((received - counts.get(pod, 0)) / max(now - then, 0.001), 1)

    def _rate_of_all(self, now: float, received: int) -> float:
        if not self._received:
            return 0.0
        then, counts, _ = self._received[0]
        return max(0.0, (received - sum(counts.values())) / max(now - then, 0.001))


def _outage(outage: Outage, now: float) -> dict[str, Any]:
    return {
        "began_ns": outage.began_ns,
        "ended_ns": None if outage.ended is None else outage.time_ns(outage.ended),
        "seconds": round(outage.seconds(now), 3),
        "reason": outage.reason,
        "drained_ns": None if outage.drained is None else outage.time_ns(outage.drained),
    }
