"""ODS's own health as points, so that Grafana shows it beside the telemetry: the measurement `ods_health`.

They travel as ODS's events do: best effort, not in the ledger, not in the recordings. What they tell of an outage waits
in the buffer with the telemetry and is backfilled with it. Promises that an ODS with nothing to do writes a point a
minute while InfluxDB is there and none while it is away: no disk works, and no buffer grows, for figures that stand
still.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from ods.chunk import Chunk
from ods.clock import Clock
from ods.line_protocol import health_line
from ods.pods import Pod, Pods

#: How often the figures are looked at, and written where they have changed. Seconds.
LOOK_SECONDS = 5.0
#: How often they are written though they have not. Seconds.
UNCHANGED_SECONDS = 60.0

#: What is told of each pod besides whether it is connected, by its name in the snapshot.
POD_FIGURES = ("received", "stored", "dropped", "invalid", "torn", "points_per_second", "replies_dropped")

#: What `ods.status` gives.
Snapshot = Mapping[str, Any]


class HealthPoints:
    """Turns snapshots into points and passes them on to the store. Belongs to the hub."""

    def __init__(
        self,
        *,
        clock: Clock,
        ods: Pod,
        pods: Pods,
        snapshot: Callable[[], Snapshot],
        forward: Callable[[Chunk], None],
    ) -> None:
        self._clock = clock
        self._ods = ods
        self._pods = pods
        self._snapshot = snapshot
        self._forward = forward
        self._looked_at = float("-inf")
        #: When the figures of all pods were written last.
        self._written_at = float("-inf")
        self._seen: Hashable = None
        self._written: dict[str, Mapping[str, float]] = {}

    def look(self, now: float) -> None:
        """Write what is due; to be called once a second or so. Monotonic clock, seconds."""
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        snapshot = self._snapshot()
        before, self._seen = self._seen, _what_changes(snapshot)
        is_all_due = now - self._written_at >= UNCHANGED_SECONDS and _is_influx_there(snapshot)
        if is_all_due or before not in (None, self._seen):
            if is_all_due:
                self._written_at = now
                self._written.clear()
            self._write(snapshot)

    def _write(self, snapshot: Snapshot) -> None:
        lines = [(self._ods, _whole(snapshot))]
        for state in snapshot["pods"]:
            figures = _of_pod(state)
            if self._written.get(state["name"]) != figures:
                self._written[state["name"]] = figures
                lines.append((self._pods.named(state["name"]), figures))
        self._forward(self._chunk(lines))

    def _chunk(self, lines: Sequence[tuple[Pod, Mapping[str, float]]]) -> Chunk:
        now_ns = self._clock.now_ns()
        timed = [(pod, figures, pod.take_times(now_ns, 1)[0]) for pod, figures in lines]
        times = [time_ns for _, _, time_ns in timed]
        return Chunk(
            pod=self._ods.name,
            points=0,
            lines="".join([health_line(figures, pod.tag, time_ns) for pod, figures, time_ns in timed]).encode(),
            first_ns=min(times),
            last_ns=max(times),
            received_at=time.monotonic(),
        )


def _what_changes(snapshot: Snapshot) -> Hashable:
    """Differs where something has happened; what these points themselves do to the buffer and the disk is not in it."""
    pods = [(pod["name"], pod["connected"], pod["points_per_second"]) for pod in snapshot["pods"]]
    return *snapshot["totals"].values(), snapshot["influx"]["available"], *pods


def _is_influx_there(snapshot: Snapshot) -> bool:
    return bool(snapshot["influx"]["known"] and snapshot["influx"]["available"])


def _whole(snapshot: Snapshot) -> dict[str, float]:
    """What is not known is left out; what does not apply is 0, so that a curve comes down when it is over."""
    buffer = snapshot["buffer"]
    figures = {
        **snapshot["totals"],
        "points_per_second": sum(pod["points_per_second"] for pod in snapshot["pods"]),
        "buffer_bytes": buffer["bytes"],
        "buffer_oldest_seconds": buffer["oldest_seconds"] or 0,
        "drain_points_per_second": buffer["drain_points_per_second"] or 0,
        "available": snapshot["influx"]["available"],
        "pods_connected": sum(pod["connected"] for pod in snapshot["pods"]),
        "disk_free_bytes": snapshot["disk"]["free_bytes"],
        "recordings_bytes": snapshot["recordings"]["bytes"],
        "clock_offset_seconds": snapshot["clock"]["offset_seconds"],
    }
    return {name: value for name, value in figures.items() if value is not None}


def _of_pod(state: Snapshot) -> dict[str, float]:
    return {"connected": state["connected"], **{name: state[name] for name in POD_FIGURES}}
