"""The whole program, with InfluxDB at hand: what pods send is what InfluxDB holds."""

import threading
import time

import pytest
from harness.influx_server import InfluxServer
from harness.loopback import http
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.sizes import Measured, sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(60, long=600), method="signal")

ADDRESSES = ("127.0.2.1", "127.0.2.2", "127.0.2.3", "127.0.2.4")


def test_four_pods_at_once_are_stored_exact_each_under_its_own_name(ods: OdsProcess, influx: InfluxServer) -> None:
    """Values of the same name do not mix, and times are strictly increasing per pod."""
    oracle = Oracle()
    lines = {address: oracle.next_lines(address, sized(10_000, long=100_000)) for address in ADDRESSES}

    def play(address: str) -> None:
        with PodClient(ods.port, address=address).read_replies() as pod:
            pod.send_lines(lines[address])
            oracle.acknowledge(address, pod.wait_for_replies(len(lines[address])))

    pods = [threading.Thread(target=play, args=(address,), name=address) for address in ADDRESSES]
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.join()

    assert oracle.acknowledged_count() == oracle.sent_count()
    status = ods.wait_until_settled()
    assert {pod["name"]: pod["stored"] for pod in status["pods"]} == {
        address: len(lines[address]) for address in ADDRESSES
    }
    points = influx.points(ods.database)
    assert {pod for _, pod in points} == set(ADDRESSES)
    oracle.check(points)


def test_a_flood_is_stored_point_for_point(ods: OdsProcess, influx: InfluxServer, measured: Measured) -> None:
    """As fast as one connection goes, no point is lost, doubled or overwritten by one of the same time."""
    oracle = Oracle()
    lines = oracle.next_lines("127.0.2.1", sized(200_000, long=1_000_000))
    with PodClient(ods.port).read_replies() as pod:
        began = time.monotonic()
        pod.send_lines(lines)
        replies = pod.wait_for_replies(len(lines), timeout_seconds=sized(45, long=400))
        seconds = time.monotonic() - began
        measured(f"{len(lines) / seconds:,.0f} points a second, longest send {pod.longest_send_seconds * 1000:.0f} ms")
        oracle.acknowledge("127.0.2.1", replies)
    assert ods.wait_until_settled()["totals"]["stored"] == len(lines)
    oracle.check(influx.points(ods.database))


def test_a_pod_that_waits_for_each_reply_is_answered_line_by_line(
    ods: OdsProcess, influx: InfluxServer, measured: Measured
) -> None:
    """A record that finds nothing under way goes to InfluxDB at once."""
    oracle = Oracle()
    lines = oracle.next_lines("127.0.2.1", 300)
    with PodClient(ods.port).read_replies() as pod:
        began = time.monotonic()
        replies = [pod.exchange(line) for line in lines]
        measured(f"{len(lines) / (time.monotonic() - began):,.0f} lines a second")
    oracle.acknowledge("127.0.2.1", replies)
    ods.wait_for_totals(stored=len(lines), in_flight=0)
    oracle.check(influx.points(ods.database))


def test_points_carry_the_time_of_their_reception(ods: OdsProcess, influx: InfluxServer) -> None:
    oracle = Oracle()
    before_ns = time.time_ns()
    with PodClient(ods.port).read_replies() as pod:
        for line in oracle.next_lines("127.0.2.1", 20):
            pod.exchange(line)
    after_ns = time.time_ns()
    ods.wait_for_totals(stored=20)
    times = [time_ns for rows in influx.points(ods.database).values() for time_ns, _ in rows]
    slack_ns = 500_000_000  # ODS's clock is carried on by the monotonic one, and may differ from an adjusted wall clock
    assert before_ns - slack_ns <= min(times) <= max(times) <= after_ns + slack_ns


def test_log_messages_are_stored_with_their_level(ods: OdsProcess, influx: InfluxServer) -> None:
    """The level is a tag, in lower case, and no part of the message."""
    with PodClient(ods.port).read_replies() as pod:
        for level in ("[DEBUG] ", "[INFO]  ", "[NOTE]  ", "[WARN]  ", "[ERROR] ", "[FATAL] ", ""):
            assert pod.exchange(b"POD1%stext of it\n" % level.encode()) == b"OK: LOGGED"
    ods.wait_for_totals(stored=7)
    messages = influx.messages(ods.database)["127.0.2.1"]
    assert [(level, text) for _, level, text in messages] == [
        (level, "text of it") for level in ("debug", "info", "note", "warn", "error", "fatal", "")
    ]
    times = [time_ns for time_ns, _, _ in messages]
    assert times == sorted(set(times))


def test_a_database_that_is_missing_is_created(ods: OdsProcess, influx: InfluxServer) -> None:
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD2accel_x 1.5\n")
    ods.wait_for_totals(stored=1, pending=0)
    assert ods.database in influx.databases()
    assert [value for _, value in influx.points(ods.database)["accel_x", "127.0.2.1"]] == [1.5]


def test_a_database_dropped_while_ods_runs_is_created_again(ods: OdsProcess, influx: InfluxServer) -> None:
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD2accel_x 1.5\n")
        ods.wait_for_totals(stored=1, pending=0)
        influx.query(f'DROP DATABASE "{ods.database}"')
        assert pod.exchange(b"POD2accel_x 2.5\n") == b"OK: (accel_x,2.5)"
        ods.wait_for_totals(stored=2, pending=0)
    assert [value for _, value in influx.points(ods.database)["accel_x", "127.0.2.1"]] == [2.5]


def test_two_connections_from_one_address_are_one_pod(ods: OdsProcess, influx: InfluxServer) -> None:
    """Times are strictly increasing per pod, over all its connections: none overwrites the other's points."""
    with PodClient(ods.port).read_replies() as one, PodClient(ods.port).read_replies() as other:
        for pod, value in ((one, b"1"), (other, b"2")):
            pod.send_lines([b"POD2accel_x %s\n" % value] * 5000)
        one.wait_for_replies(5000)
        other.wait_for_replies(5000)
    status = ods.wait_until_settled()
    assert [(pod["name"], pod["received"]) for pod in status["pods"]] == [("127.0.2.1", 10_000)]
    rows = influx.points(ods.database)["accel_x", "127.0.2.1"]
    assert sorted(value for _, value in rows) == [1] * 5000 + [2] * 5000


def test_pods_are_called_by_the_names_given_to_them(start_ods: StartOds, influx: InfluxServer) -> None:
    ods = start_ods(influx, "--pod", "127.0.2.7=alpha", "--pod", "127.0.2.8=beta")
    unseen = ods.pod_status("beta")
    assert (unseen["connected"], unseen["received"]) == (False, 0)
    with PodClient(ods.port, address="127.0.2.7").read_replies() as pod:
        pod.exchange(b"POD2accel_x 1\n")
        ods.wait_for_totals(stored=1)
        seen = ods.pod_status("alpha")
        assert (seen["connected"], seen["address"], seen["received"]) == (True, "127.0.2.7", 1)
    assert list(influx.points(ods.database)) == [("accel_x", "alpha")]
    assert ods.pod_status("beta")["received"] == 0


def test_the_coming_and_going_of_a_pod_are_events(ods: OdsProcess, influx: InfluxServer) -> None:
    """They are stored as points of the pod, and are not counted in the ledger, which counts what pods sent."""
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD2accel_x 1\n")
        pod.finish()
    ods.wait_for_status(lambda status: not status["pods"][0]["connected"], what="the pod to be gone")
    assert ods.totals()["received"] == 1
    wait_until(
        lambda: (
            [event for _, pod, event, _ in influx.events(ods.database) if pod == "127.0.2.1"]
            == ["connected", "disconnected"]
        ),
        timeout_seconds=10,
        what="two events of the pod",
        state=lambda: influx.events(ods.database),
    )


def test_the_status_page_has_the_shape_of_the_contract(ods: OdsProcess) -> None:
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD2accel_x 1\n")
        status = ods.wait_for_totals(stored=1)
    counters = {"received", "stored", "pending", "in_flight", "quarantined", "dropped", "invalid", "torn"}
    assert status.keys() >= {"version", "uptime_seconds", "state", "influx", "buffer", "totals", "pods"}
    assert status["influx"].keys() >= {"url", "database", "available", "last_error", "outage_seconds"}
    assert status["buffer"].keys() >= {
        *("points", "bytes", "oldest_seconds"),
        *("drain_points_per_second", "eta_seconds"),
    }
    assert status["totals"].keys() >= counters
    (pod_status,) = status["pods"]
    assert pod_status.keys() >= counters | {"name", "address", "connected", "last_seen_seconds", "points_per_second"}
    assert (status["state"], status["influx"]["available"], status["influx"]["database"]) == (
        "live",
        True,
        ods.database,
    )
    absent = (status["influx"]["last_error"], status["influx"]["outage_seconds"], status["buffer"]["oldest_seconds"])
    assert absent == (None, None, None), "what does not apply is null"


def test_healthz_is_200_while_points_can_be_kept(ods: OdsProcess) -> None:
    assert ods.healthz() == 200


def test_the_status_server_is_read_only(ods: OdsProcess) -> None:
    code, _ = http(f"{ods.url}/api/status", body=b"{}")
    assert 400 <= code < 600
    assert ods.healthz() == 200
