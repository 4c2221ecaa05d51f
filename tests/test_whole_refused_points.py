"""The whole program where points cannot be stored: quarantined or dropped, counted exactly, and no neighbour harmed."""

import secrets
import time

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds
from harness.pod_client import PodClient
from harness.sizes import sized

pytestmark = pytest.mark.timeout(sized(90, long=300), method="signal")


def make_conflict(influx: InfluxServer, database: str, measurement: str) -> None:
    """Let `measurement` have a string field `value`, so that InfluxDB refuses every number for it this week."""
    influx.create_database(database)
    influx.write(database, f'{measurement},pod=other value="text" {time.time_ns()}')


def test_a_conflict_of_types_quarantines_just_those_points(ods: OdsProcess, influx: InfluxServer) -> None:
    """Its neighbours, in the same batches, are stored; the pod is answered OK to all."""
    make_conflict(influx, ods.database, "accel_x")
    count = 500
    with PodClient(ods.port).read_replies() as pod, PodClient(ods.port, address="127.0.2.2").read_replies() as other:
        for number in range(count):
            pod.send(b"POD2accel_x %d\nPOD2accel_y %d\nPOD1[NOTE]  number %d\n" % ((number,) * 3))
            other.send(b"POD2accel_z %d\n" % number)
        replies = pod.wait_for_replies(3 * count)
        other.wait_for_replies(count)
    assert all(reply.startswith(b"OK: ") for reply in replies)
    status = ods.wait_for_totals(received=4 * count, quarantined=count, stored=3 * count, pending=0, dropped=0)
    assert {pod["name"]: (pod["quarantined"], pod["stored"]) for pod in status["pods"]} == {
        "127.0.2.1": (count, 2 * count),
        "127.0.2.2": (0, count),
    }
    points = influx.points(ods.database)
    assert [value for _, value in points["accel_y", "127.0.2.1"]] == list(range(count))
    assert [value for _, value in points["accel_z", "127.0.2.2"]] == list(range(count))
    assert ("accel_x", "127.0.2.1") not in points
    assert len(influx.messages(ods.database)["127.0.2.1"]) == count


def test_quarantined_points_do_not_block_the_drain_and_are_still_counted_after_a_restart(
    start_ods: StartOds, own_influx: InfluxServer
) -> None:
    ods = start_ods(own_influx)
    make_conflict(own_influx, ods.database, "accel_x")
    own_influx.kill()
    with PodClient(ods.port).read_replies() as pod:
        for number in range(300):
            pod.send(b"POD2accel_y %d\nPOD2accel_x %d\n" % (number, number))
        pod.wait_for_replies(600)
    own_influx.start()
    ods.wait_for_totals(received=600, quarantined=300, stored=300, pending=0)
    ods.restart()
    ods.wait_for_totals(received=300, quarantined=300, stored=0, pending=0)
    assert [value for _, value in own_influx.points(ods.database)["accel_y", "127.0.2.1"]] == list(range(300))


def test_points_beyond_the_buffer_limit_are_refused_and_counted(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """New points are dropped, never those that were acknowledged; /healthz says so until points can be kept again."""
    own_influx.kill()
    ods = start_ods(own_influx, "--buffer-limit", "1MiB")
    sent: list[str] = []
    with PodClient(ods.port).read_replies() as pod:
        while b"ERROR: Not Stored" not in pod.replies:
            assert len(sent) < 50_000, f"25 MB of random text fit into 1 MiB\n{ods.log_tail()}"
            texts = [f"{len(sent) + number} {secrets.token_hex(240)}" for number in range(100)]
            sent += texts
            pod.send("".join(f"POD1[NOTE]  {text}\n" for text in texts).encode())
            pod.wait_for_replies(len(sent))
        replies = list(pod.replies)
        kept = [text for text, reply in zip(sent, replies, strict=True) if reply == b"OK: LOGGED"]
        dropped = replies.count(b"ERROR: Not Stored")
        assert len(kept) + dropped == len(sent)
        assert ods.healthz() == 503
        ods.wait_for_totals(received=len(sent), pending=len(kept), dropped=dropped, stored=0, in_flight=0)
        assert ods.buffer_bytes() < 4 * 2**20
        own_influx.start()
        ods.wait_for_totals(stored=len(kept), dropped=dropped, pending=0)
        assert pod.exchange(b"POD2accel_x 1\n") == b"OK: (accel_x,1.0)"
    ods.wait_for_status(lambda _: ods.healthz() == 200, what="a healthy ODS")
    assert sorted(text for _, _, text in own_influx.messages(ods.database)["127.0.2.1"]) == sorted(kept)
