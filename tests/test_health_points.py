"""What ODS tells of its own health, and when: while something happens often, while nothing does hardly ever."""

from copy import deepcopy
from typing import Any

import pytest

from ods.chunk import Chunk
from ods.clock import Clock
from ods.health_points import LOOK_SECONDS, UNCHANGED_SECONDS, HealthPoints
from ods.line_protocol import is_event, is_own, name_of, pod_of, time_of, value_of
from ods.pods import Pods

NOW_NS = 1_790_000_000_000_000_000
COUNTS = ("received", "stored", "pending", "in_flight", "quarantined", "dropped", "invalid", "torn")


def pod_state(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "connected": True,
        "points_per_second": 0.0,
        "replies_dropped": 0,
        "log": [],
        **dict.fromkeys(COUNTS, 0),
    }


def quiet() -> dict[str, Any]:
    """The snapshot of an ODS with two pods that send nothing."""
    return {
        "totals": dict.fromkeys(COUNTS, 0),
        "influx": {"available": True, "known": True},
        "buffer": {"bytes": 4096, "oldest_seconds": None, "drain_points_per_second": None},
        "clock": {"offset_seconds": 0.25},
        "disk": {"free_bytes": 10**10},
        "recordings": {"bytes": None},
        "pods": [pod_state("a b"), pod_state("c")],
    }


class Watch:
    """Health points of a snapshot in the test's hands, looked at each second."""

    def __init__(self) -> None:
        self.snapshot = quiet()
        self.snapshots_taken = 0
        self.seconds = 0.0
        self.chunks: list[Chunk] = []
        pods = Pods({}, max_names=10)
        self.ods = pods.ods()
        self._points = HealthPoints(
            clock=Clock(wall_ns=lambda: NOW_NS, monotonic_ns=lambda: NOW_NS),
            ods=self.ods,
            pods=pods,
            snapshot=self._take,
            forward=self.chunks.append,
        )

    def _take(self) -> dict[str, Any]:
        self.snapshots_taken += 1
        return deepcopy(self.snapshot)

    def pass_seconds(self, seconds: float) -> list[str]:
        """Returns the lines that were written meanwhile."""
        end, first = self.seconds + seconds, len(self.chunks)
        while self.seconds < end:
            self.seconds += 1.0
            self._points.look(self.seconds)
        return b"".join(chunk.lines for chunk in self.chunks[first:]).decode().splitlines()

    def receive(self, pod: int, count: int) -> None:
        """A pod sends points, and all are stored."""
        for counts in (self.snapshot["totals"], self.snapshot["pods"][pod]):
            counts["received"] += count
            counts["stored"] += count


@pytest.fixture
def watch() -> Watch:
    return Watch()


def fields(line: str) -> dict[str, float]:
    return {name: float(value) for name, value in (field.split("=") for field in value_of(line).split(","))}


def test_the_whole_and_each_pod_are_told_in_floats(watch: Watch) -> None:
    watch.receive(0, 7)
    watch.snapshot["pods"][1] |= {"points_per_second": 12.5, "replies_dropped": 3}
    whole, first, second = watch.pass_seconds(LOOK_SECONDS)
    assert [pod_of(line) for line in (whole, first, second)] == ["ods", "a b", "c"]
    assert all(name_of(line) == "ods_health" and is_own(line) and is_event(line) for line in (whole, first, second))
    assert fields(whole) == {
        **dict.fromkeys(COUNTS, 0.0),
        "received": 7.0,
        "stored": 7.0,
        "points_per_second": 12.5,
        "pods_connected": 2.0,
        "available": 1.0,
        "buffer_bytes": 4096.0,
        "buffer_oldest_seconds": 0.0,
        "drain_points_per_second": 0.0,
        "clock_offset_seconds": 0.25,
        "disk_free_bytes": 1e10,
    }, "what is not known (the size of the recordings) is left out"
    assert fields(second) == {
        **dict.fromkeys(("received", "stored", "dropped", "invalid", "torn"), 0.0),
        "connected": 1.0,
        "points_per_second": 12.5,
        "replies_dropped": 3.0,
    }


def test_they_are_no_points_of_the_ledger_and_no_rows_of_the_recordings(watch: Watch) -> None:
    watch.pass_seconds(LOOK_SECONDS)
    (chunk,) = watch.chunks
    assert (chunk.points, chunk.data_rows, chunk.log_rows, chunk.replies) == (0, b"", b"", [])
    times = [time_of(line) for line in chunk.lines.decode().splitlines()]
    assert (chunk.first_ns, chunk.last_ns) == (min(times), max(times))


def test_a_time_is_never_used_twice(watch: Watch) -> None:
    """InfluxDB would overwrite the point before, and an event or a data point of the same name shares the sequence."""
    watch.pass_seconds(2 * UNCHANGED_SECONDS)
    times = [time_of(line) for chunk in watch.chunks for line in chunk.lines.decode().splitlines() if "pod=ods" in line]
    assert len(times) > 1
    assert times == sorted(set(times))


def test_what_changes_is_told_every_few_seconds_and_only_of_pods_that_changed(watch: Watch) -> None:
    watch.pass_seconds(LOOK_SECONDS)
    for count in (1, 2, 3):
        watch.receive(1, 1)
        lines = watch.pass_seconds(LOOK_SECONDS)
        assert [(pod_of(line), fields(line)["received"]) for line in lines] == [("ods", count), ("c", count)]


def test_the_last_word_after_a_stream_is_a_rate_of_nothing(watch: Watch) -> None:
    watch.snapshot["pods"][0]["points_per_second"] = 80.0
    watch.pass_seconds(LOOK_SECONDS)
    watch.snapshot["pods"][0]["points_per_second"] = 0.0
    whole, pod = watch.pass_seconds(2 * LOOK_SECONDS)
    assert (fields(whole)["points_per_second"], fields(pod)["points_per_second"]) == (0.0, 0.0)


def test_a_quiet_ods_tells_everything_once_a_minute(watch: Watch) -> None:
    watch.pass_seconds(LOOK_SECONDS)
    lines = watch.pass_seconds(10 * UNCHANGED_SECONDS)
    assert len(lines) == 10 * 3
    assert watch.snapshots_taken <= 1 + 10 * UNCHANGED_SECONDS / LOOK_SECONDS


@pytest.mark.parametrize("influx", [{"available": False, "known": True}, {"available": True, "known": False}])
def test_a_quiet_ods_tells_nothing_while_influxdb_is_away(watch: Watch, influx: dict[str, bool]) -> None:
    """Each point would go to the buffer; that nothing is known yet says nothing of InfluxDB's being there."""
    watch.snapshot["influx"] |= influx
    assert watch.pass_seconds(60 * UNCHANGED_SECONDS) == []


def test_what_an_outage_does_to_the_points_that_come_is_told(watch: Watch) -> None:
    """They wait in the buffer with the points themselves: afterwards the outage can be seen."""
    watch.pass_seconds(LOOK_SECONDS)
    watch.snapshot["influx"]["available"] = False
    (begun,) = watch.pass_seconds(LOOK_SECONDS)
    assert fields(begun)["available"] == 0.0
    watch.snapshot["totals"] |= {"received": 5, "pending": 5}
    watch.snapshot["buffer"] |= {"bytes": 8192, "oldest_seconds": 2.5}
    (buffering,) = watch.pass_seconds(LOOK_SECONDS)
    assert (fields(buffering)["pending"], fields(buffering)["buffer_oldest_seconds"]) == (5.0, 2.5)


def test_what_the_points_themselves_change_is_no_news(watch: Watch) -> None:
    """One that was buffered makes the buffer larger and older, and must not bring about the next."""
    watch.snapshot["influx"]["available"] = False
    watch.pass_seconds(LOOK_SECONDS)
    for seconds in range(20):
        watch.snapshot["buffer"] |= {"bytes": 4096 * seconds, "oldest_seconds": float(seconds)}
        watch.snapshot["disk"]["free_bytes"] -= 4096
        watch.snapshot["clock"]["offset_seconds"] += 0.001
        assert watch.pass_seconds(LOOK_SECONDS) == []
