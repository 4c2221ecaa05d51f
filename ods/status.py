"""What ODS knows of itself, as one plain structure: the source of `/api/status`, `/healthz` and `ods status`."""

import time
from collections import deque
from dataclasses import asdict
from typing import Any

from ods import __version__
from ods.admission import Admission
from ods.availability import Availability
from ods.buffer import Buffer
from ods.clock import Clock
from ods.drain import Drain
from ods.ledger import Counts, Ledger
from ods.pods import Pod, Pods
from ods.progress import Progress
from ods.recorder import Recorder
from ods.settings import InfluxSettings
from ods.store import StoreManager

#: The rate of a pod is taken over this time. Seconds.
RATE_SECONDS = 5


class Status:
    """Reads everyone, changes nobody. Belongs to the hub; never touches the disk."""

    def __init__(
        self,
        *,
        admission: Admission,
        influx: InfluxSettings,
        availability: Availability,
        buffer: Buffer,
        clock: Clock,
        drain: Drain,
        ledger: Ledger,
        pods: Pods,
        progress: Progress,
        recorder: Recorder,
        store: StoreManager,
    ) -> None:
        self._admission = admission
        self._influx = influx
        self._availability = availability
        self._buffer = buffer
        self._clock = clock
        self._drain = drain
        self._ledger = ledger
        self._pods = pods
        self._progress = progress
        self._recorder = recorder
        self._store = store
        self._began = time.monotonic()
        self._received: deque[tuple[float, dict[str, int]]] = deque(maxlen=RATE_SECONDS + 1)

    def tick(self) -> None:
        """Take a sample of what was received, for the rates; to be called once a second."""
        counts = {name: counts.received for name, counts in self._ledger.pods.items()}
        self._received.append((time.monotonic(), counts))

    def is_healthy(self) -> bool:
        """Whether points can be kept."""
        return not (self._store.is_dropping or self._admission.is_refusing)

    def snapshot(self) -> dict[str, Any]:
        """Everything, as of now."""
        now = time.monotonic()
        totals = self._ledger.totals()
        return {
            "version": __version__,
            "uptime_seconds": round(now - self._began, 3),
            "state": self._state(),
            "influx": self._influx_state(now),
            "buffer": self._buffer_state(totals.pending),
            "totals": asdict(totals),
            "clock": {
                "offset_seconds": round(self._clock.offset_seconds, 6),
                "steps_forward": self._clock.steps_forward,
                "steps_back": self._clock.steps_back,
            },
            "standing_still": self._progress.standing_still,
            "recordings": {"recording": not self._recorder.is_paused, "unrecorded": self._recorder.unrecorded},
            "pods": [
                self._pod_state(pod, now) for pod in sorted(self._pods.by_name.values(), key=lambda pod: pod.name)
            ],
        }

    def _state(self) -> str:
        if not self._availability.is_available:
            return "buffering"
        return "draining" if self._drain.progress.is_under_way else "live"

    def _influx_state(self, now: float) -> dict[str, Any]:
        outage = self._availability.outage
        return {
            "url": self._influx.url,
            "database": self._influx.database,
            "available": self._availability.is_available,
            "last_error": self._availability.last_error,
            "outage_seconds": None if outage is None else round(outage.seconds(now), 3),
        }

    def _buffer_state(self, pending: int) -> dict[str, Any]:
        oldest_ns, rate = self._buffer.oldest_ns, self._drain.progress.points_per_second(time.monotonic())
        return {
            "points": pending,
            "bytes": self._buffer.used_bytes,
            "oldest_seconds": None if oldest_ns is None else round((self._clock.now_ns() - oldest_ns) / 1e9, 3),
            "drain_points_per_second": None if rate is None else round(rate, 1),
            "eta_seconds": None if not rate else round(pending / rate, 1),
        }

    def _pod_state(self, pod: Pod, now: float) -> dict[str, Any]:
        return {
            "name": pod.name,
            "address": pod.address,
            "connected": pod.connections > 0,
            "last_seen_seconds": None if pod.last_seen is None else round(now - pod.last_seen, 3),
            "points_per_second": self._rate(pod.name, now),
            "replies_dropped": pod.replies_dropped,
            **asdict(self._ledger.pods.get(pod.name, Counts())),
        }

    def _rate(self, pod: str, now: float) -> float:
        if not self._received:
            return 0.0
        then, counts = self._received[0]
        received = self._ledger.pods[pod].received if pod in self._ledger.pods else 0
        return round((received - counts.get(pod, 0)) / max(now - then, 0.001), 1)
