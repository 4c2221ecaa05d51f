"""The whole program's recordings: every value as the pod sent it, whatever InfluxDB does."""

import csv
import gzip
import re
from pathlib import Path

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.sizes import sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(60, long=120), method="signal")

POD = "127.0.2.1"

Rows = list[list[str]]


def segments(ods: OdsProcess, folder: str, kind: str) -> list[Path]:
    """Return the segments of one pod and kind (data or log), open and closed, in the order of their names."""
    return sorted((ods.directory / "recordings" / folder).glob(f"*.{kind}.csv*"))


def rows_of(ods: OdsProcess, folder: str, kind: str) -> Rows:
    """Return the rows of one pod's recording, without the headers, which are checked."""
    rows: Rows = []
    for path in segments(ods, folder, kind):
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", newline="", encoding="utf-8") as file:
            header, *body = csv.reader(file)
        assert header == (["time_ns", "name", "value"] if kind == "data" else ["time_ns", "kind", "text"]), path
        rows += body
    return rows


def wait_for_rows(ods: OdsProcess, folder: str, kind: str, count: int) -> Rows:
    """Return the rows of one pod's recording once there are `count`."""
    return wait_until(
        lambda: rows if len(rows := rows_of(ods, folder, kind)) >= count else [],
        timeout_seconds=10,
        what=f"{count} rows of {kind}",
        state=ods.log_tail,
    )


@pytest.mark.parametrize("is_influx_up", [True, False], ids=["beside-influx", "in-an-outage"])
def test_every_value_is_recorded_as_it_was_sent(
    start_ods: StartOds, own_influx: InfluxServer, is_influx_up: bool
) -> None:
    """With the time that its point has in InfluxDB, to the nanosecond."""
    if not is_influx_up:
        own_influx.kill()
    ods, oracle = start_ods(own_influx), Oracle()
    lines = oracle.next_lines(POD, 5000)
    with PodClient(ods.port).read_replies() as pod:
        pod.send_lines(lines)
        pod.wait_for_replies(len(lines))
        rows = wait_for_rows(ods, POD, "data", len(lines))
        assert [path.name[-len(".data.csv.open") :] for path in segments(ods, POD, "data")] == [".data.csv.open"]
    assert [f"POD2{name} {value}\n".encode() for _, name, value in rows] == lines
    if not is_influx_up:
        own_influx.start()
    ods.wait_until_settled()
    points = own_influx.points(ods.database)
    stored = sorted((time_ns, name, value) for (name, _), pairs in points.items() for time_ns, value in pairs)
    assert stored == [(int(time_ns), name, float(value)) for time_ns, name, value in rows]


def test_segments_are_closed_and_zipped_at_the_end(ods: OdsProcess) -> None:
    """They are called by the UTC time of their begin, and sort by it."""
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD2accel_x 1.50\n")
        pod.exchange(b"POD1[NOTE]  hello\n")
    ods.stop()
    for kind in ("data", "log"):
        (segment,) = segments(ods, POD, kind)
        assert re.fullmatch(rf"[0-9a-z_.-]*20\d\d[0-9a-z_.-]*\.{kind}\.csv\.gz", segment.name.lower())
    assert [row[1:] for row in rows_of(ods, POD, "data")] == [["accel_x", "1.50"]]


def test_messages_invalid_lines_and_torn_lines_are_recorded(ods: OdsProcess) -> None:
    with PodClient(ods.port).read_replies() as pod:
        for line in (b'POD1[NOTE]  say "hi", pod\n', b"rubbish\n", b"POD2accel_x nan\n"):
            pod.exchange(line)
        pod.send(b"POD2accel_x 12")
        pod.finish()
    ods.wait_for_totals(received=1, invalid=2, torn=1)
    ods.stop()
    rows = rows_of(ods, POD, "log")
    assert [kind for _, kind, _ in rows] == ["log", "invalid", "invalid", "torn"]
    assert rows[0][2].endswith('say "hi", pod')
    assert (rows[1][2], rows[3][2]) == ("rubbish", "POD2accel_x 12")
    assert "nan" in rows[2][2]


def test_a_restart_begins_new_segments_and_keeps_the_old(ods: OdsProcess) -> None:
    for number in range(3):
        with PodClient(ods.port).read_replies() as pod:
            pod.exchange(b"POD2accel_x %d\n" % number)
        ods.restart()
    ods.stop()
    assert [value for *_, value in rows_of(ods, POD, "data")] == ["0", "1", "2"]


def test_a_pod_is_recorded_under_a_name_that_every_card_takes(start_ods: StartOds, influx: InfluxServer) -> None:
    """Anything but lower-case letters, digits and `-_.` in a pod's name is percent-encoded."""
    ods = start_ods(influx, "--pod", "127.0.2.1=Pod-A_1")
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD2accel_x 1\n")
    ods.wait_for_totals(stored=1)
    assert [row[1:] for row in wait_for_rows(ods, "%50od-%41_1", "data", 1)] == [["accel_x", "1"]]


def test_a_recording_holds_what_a_kill_9_left_in_flight(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """A record is appended before its batch is stored: what was answered OK is in the recording."""
    own_influx.pause()
    ods, oracle = start_ods(own_influx), Oracle()
    lines = oracle.next_lines(POD, 20_000)
    with PodClient(ods.port).read_replies() as pod:
        pod.send_lines(lines)
        pod.wait_for_replies(5000)
        ods.kill()
        assert pod.has_ended.wait(10)
        answered = len(pod.replies)
    recorded = [f"POD2{name} {value}\n".encode() for _, name, value in _whole_rows(ods)]
    assert recorded[:answered] == lines[:answered]
    own_influx.resume()
    ods.start()
    ods.wait_until_settled()


def _whole_rows(ods: OdsProcess) -> Rows:
    (segment,) = segments(ods, POD, "data")
    whole, _, _ = segment.read_text().rpartition("\n")
    return list(csv.reader(whole.splitlines()))[1:]
