"""The whole program and a value that crosses a limit: one event, one line, one note, whatever else is sent."""

from pathlib import Path

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import StartOds, http
from harness.pod_client import PodClient
from harness.sizes import sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(60, long=120), method="signal")

POD = "127.0.2.9"
SENSORS = """
[accel_x]
label = "Acceleration, forward"
unit = "m/s²"
warning = {low = -12, high = 12}
danger = {low = -20, high = 20}

["nav/imu:1.x"]
danger = {high = 3}
"""


@pytest.fixture
def sensors(tmp_path: Path) -> Path:
    file = tmp_path / "my sensors.toml"
    file.write_text(SENSORS, encoding="utf-8")
    return file


def limit_events(influx: InfluxServer, database: str) -> list[tuple[int, str, str, str]]:
    return [event for event in influx.events(database) if event[2].startswith("limit_")]


def test_a_spike_in_a_flood_is_an_event_at_its_time_a_line_and_a_figure_once(
    start_ods: StartOds, influx: InfluxServer, sensors: Path
) -> None:
    ods = start_ods(influx, "--sensors", str(sensors))
    with PodClient(ods.port, address=POD).read_replies() as pod:
        for part in (b"1", b"25", b"2", b"-13"):
            pod.send(b"POD2accel_x 0.5\nPOD2other 99\n" * 500 + b"POD2accel_x %s\n" % part)
        pod.exchange(b"POD2nav/imu:1.x 2\n")
        told = wait_until(
            lambda: (events := limit_events(influx, ods.database)) and len(events) >= 3 and events,
            timeout_seconds=15,
            what="three events",
        )
        assert [(name, event, detail) for _, name, event, detail in told] == [
            (POD, "limit_crossed", "accel_x 25 above danger 20 m/s²"),
            (POD, "limit_cleared", "accel_x 0.5 inside its limits again; it was above danger 20 m/s²"),
            (POD, "limit_crossed", "accel_x -13 below warning -12 m/s²"),
        ]
        times = {value: time_ns for time_ns, value in influx.points(ods.database)["accel_x", POD]}
        assert [told[0][0], told[2][0]] == [times[25.0], times[-13.0]]
        (state,) = ods.pod_status(POD)["beyond"]["names"]
        assert (state["name"], state["severity"], state["side"], state["limit"]) == ("accel_x", "warning", "low", -12)
        (note,) = [note for note in ods.status()["sentence"]["notes"] if "limit" in note]
        assert note == f"Beyond a warning limit: {POD} accel_x (below -12 m/s²)."
        assert b'ods_names_beyond_limits{pod="127.0.2.9",severity="warning"} 1.0' in http(f"{ods.url}/metrics")[1]
        pod.exchange(b"POD2accel_x 0\n")
        pod.exchange(b"POD2nav/imu:1.x 3.5\n")
        ods.wait_for_line(r"ERROR.*limit: pod 127\.0\.2\.9: nav/imu:1\.x 3\.5 above danger 3$")
    assert len(ods.lines_with(r"ERROR.*limit:.*accel_x")) == 1
    assert len(ods.lines_with(r"WARNING.*limit:")) == 1
    assert ods.wait_until_settled()["totals"]["dropped"] == 0


def test_a_crossing_while_influxdb_is_away_is_drained_with_the_rest(
    start_ods: StartOds, own_influx: InfluxServer, sensors: Path
) -> None:
    ods = start_ods(own_influx, "--sensors", str(sensors))
    own_influx.kill()
    with PodClient(ods.port, address=POD).read_replies() as pod:
        pod.exchange(b"POD2accel_x 0\n")
        pod.exchange(b"POD2accel_x 21\n")
        ods.wait_for_status(lambda status: status["totals"]["pending"] == 2, what="both are pending")
        own_influx.start()
        ods.wait_for_totals(stored=2)
        (event,) = wait_until(
            lambda: limit_events(own_influx, ods.database), timeout_seconds=15, what="the event is drained"
        )
        times = {value: time_ns for time_ns, value in own_influx.points(ods.database)["accel_x", POD]}
        assert event == (times[21.0], POD, "limit_crossed", "accel_x 21 above danger 20 m/s²")


def test_without_a_sensor_file_all_works_as_ever(start_ods: StartOds, influx: InfluxServer) -> None:
    ods = start_ods(influx, "--sensors", "")
    with PodClient(ods.port, address=POD).read_replies() as pod:
        assert pod.exchange(b"POD2accel_x 1e9\n") == b"OK: (accel_x,1000000000.0)"
        assert ods.pod_status(POD)["beyond"] == {"warning": 0, "danger": 0, "names": []}
    ods.wait_until_settled()
    assert not ods.lines_with("limit:")
    assert http(f"{ods.url}/api/sensors")[1] == b"{}\n"
