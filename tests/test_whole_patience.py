"""The whole program never makes a pod wait, whatever the pod reads and whatever InfluxDB does.

The pods of these tests time out after a second, as real ones do: the socket's own timeout holds the contract's bound.
"""

import threading

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import StartOds
from harness.oracle import LONG_NAMES, Oracle
from harness.pod_client import SEND_TIMEOUT_SECONDS, PodClient
from harness.sizes import IS_LONG, Measured, sized

pytestmark = pytest.mark.timeout(sized(90, long=900), method="signal")

POD = "127.0.2.1"
#: The bound for replies, and the part of them that it holds for.
REPLY_SECONDS, REPLY_PART = 0.5, 0.999

INFLUX_STATES = ("up", "killed", "frozen")


def bring_influx(influx: InfluxServer, state: str) -> None:
    """Take InfluxDB to one of `INFLUX_STATES`."""
    {"up": lambda: None, "killed": influx.kill, "frozen": influx.pause}[state]()


def bring_influx_back(influx: InfluxServer, state: str) -> None:
    """Undo `bring_influx`."""
    {"up": lambda: None, "killed": influx.start, "frozen": influx.resume}[state]()


@pytest.mark.parametrize("state", INFLUX_STATES)
def test_a_pod_that_never_reads_its_replies_is_never_made_to_wait(
    start_ods: StartOds, own_influx: InfluxServer, measured: Measured, state: str
) -> None:
    """No send of it waits as long as a second, and every point is there."""
    ods, oracle = start_ods(own_influx), Oracle(LONG_NAMES)
    lines = oracle.next_lines(POD, sized(100_000, long=1_000_000))
    bring_influx(own_influx, state)
    with PodClient(ods.port, receive_buffer_bytes=4096) as pod:
        pod.send_lines(lines)
        measured(f"longest send {pod.longest_send_seconds * 1000:.0f} ms")
        assert pod.longest_send_seconds < SEND_TIMEOUT_SECONDS
        ods.wait_for_totals(received=len(lines), dropped=0, in_flight=0, timeout_seconds=sized(30, long=300))
        counts = ods.pod_status(POD)
        assert counts["connected"], "the connection of a pod that does not read stays open"
        assert counts["replies_dropped"] > 0, "the replies were too few to fill the buffers: this test shows nothing"
    bring_influx_back(own_influx, state)
    ods.wait_until_settled(timeout_seconds=sized(60, long=300))
    oracle.check(own_influx.points(ods.database))


@pytest.mark.parametrize("state", INFLUX_STATES)
def test_a_pod_that_reads_its_replies_is_answered_soon(
    start_ods: StartOds, own_influx: InfluxServer, measured: Measured, state: str
) -> None:
    """At 10 000 lines a second, also at the moment at which InfluxDB stops answering and when it is back."""
    ods, oracle = start_ods(own_influx), Oracle()
    lines = oracle.next_lines(POD, sized(30_000, long=300_000))
    with PodClient(ods.port).read_replies() as pod:
        run = threading.Thread(
            target=pod.send_at_rate, args=(lines,), kwargs={"lines_per_second": 10_000, "burst_lines": 20}
        )
        run.start()
        pod.wait_for_replies(len(lines) // 3, timeout_seconds=60)
        bring_influx(own_influx, state)
        run.join()
        oracle.acknowledge(POD, pod.wait_for_replies(len(lines), timeout_seconds=60))
        latencies = sorted(pod.reply_latencies_seconds())
    figures = {part: latencies[int(part * (len(latencies) - 1))] for part in (0.5, REPLY_PART, 1.0)}
    measured("replies within " + ", ".join(f"{value * 1000:.0f} ms ({part:.1%})" for part, value in figures.items()))
    assert figures[REPLY_PART] < REPLY_SECONDS or not IS_LONG
    bring_influx_back(own_influx, state)
    ods.wait_until_settled()
    oracle.check(own_influx.points(ods.database))


def test_what_a_pod_sent_before_it_went_away_is_still_read(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """A reset connection ends replying to it, never reading from it: the last words are still in the socket."""
    ods, oracle = start_ods(own_influx), Oracle(LONG_NAMES)
    with PodClient(ods.port, receive_buffer_bytes=4096) as pod:
        pod.send_lines(oracle.next_lines(POD, 100_000))
        status = ods.wait_for_totals(stored=100_000)
        assert status["pods"][0]["replies_dropped"] > 0, "no reply waits to be sent: this test shows nothing"
        ods.pause()
        pod.send_lines(oracle.next_lines(POD, 300))  # as much as the kernel takes in
        pod.wait_until_delivered()
        pod.close()  # with replies unread: the kernel resets the connection
        ods.resume()
    ods.wait_for_totals(received=100_300, stored=100_300, torn=0, timeout_seconds=10)
    oracle.check(own_influx.points(ods.database))


def test_a_pod_is_accepted_while_another_floods(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """One greenlet per pod, and no pod's flood keeps another from being accepted and answered."""
    ods, oracle = start_ods(own_influx), Oracle()
    flood = oracle.next_lines("127.0.2.9", 100_000)
    with PodClient(ods.port, address="127.0.2.9") as flooding:
        run = threading.Thread(target=flooding.send_lines, args=(flood,))
        run.start()
        for _ in range(20):
            with PodClient(ods.port).read_replies() as pod:
                first = oracle.sent_count(POD)
                oracle.acknowledge(POD, [pod.exchange(line) for line in oracle.next_lines(POD, 3)], first=first)
        run.join()
        ods.wait_for_totals(stored=oracle.sent_count(), in_flight=0)
    oracle.check(own_influx.points(ods.database))
