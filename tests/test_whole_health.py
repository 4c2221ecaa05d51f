"""ODS's own figures in the whole program: an idle ODS spares the disk, and a backlog of nothing else is no backlog."""

from pathlib import Path

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds
from harness.pod_client import PodClient
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(120, method="signal")

#: ODS looks at its figures every 5 seconds; this long nothing may happen. Seconds, by the clock of ODS.
QUIET_SECONDS = 12.0
MEGABYTE = 1_000_000


def health(influx: InfluxServer, ods: OdsProcess, figure: str) -> list[float]:
    """What the whole told of one figure, in the order of time."""
    found = influx.query(f"SELECT {figure} FROM ods_health WHERE pod = 'ods'", database=ods.database)
    return [value for series in found for _, value in series["values"]]


def writings(directory: Path) -> dict[str, tuple[int, int]]:
    """The size of each of the buffer's files, and when it was last written to."""
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in directory.glob("buffer.db*")}


def pass_seconds(ods: OdsProcess, seconds: float) -> None:
    end = ods.status()["uptime_seconds"] + seconds
    ods.wait_for_status(lambda status: status["uptime_seconds"] > end, what=f"{seconds} s of quiet")


def test_an_idle_ods_tells_of_itself_and_leaves_the_disk_alone(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """First beside InfluxDB, then without it: what was told of its going waits, and nothing is added to that."""
    ods = start_ods(own_influx)
    wait_until(lambda: health(own_influx, ods, "available"), timeout_seconds=30, what="the first figures")
    own_influx.kill()
    with PodClient(ods.port).read_replies():
        ods.wait_for_status(lambda status: status["state"] == "buffering", what="the outage")
        pass_seconds(ods, QUIET_SECONDS)  # what had changed is told
        before = writings(ods.directory)
        pass_seconds(ods, QUIET_SECONDS)
        assert writings(ods.directory) == before
    assert ods.totals()["pending"] == ods.totals()["received"] == 0
    own_influx.start()
    ods.wait_for_status(lambda status: status["state"] == "live", what="the end of the drain")
    wait_until(lambda: 0.0 in health(own_influx, ods, "available"), timeout_seconds=30, what="the outage in InfluxDB")
    assert max(health(own_influx, ods, "pods_connected")) == 1
    wait_until(lambda: ods.buffer_bytes() < MEGABYTE, timeout_seconds=10, what="an empty buffer")
    assert ods.status()["state"] == "live"
    assert ods.totals()["quarantined"] == ods.totals()["dropped"] == 0
