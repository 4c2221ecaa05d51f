"""The whole program's need of processor and memory. The suite measures; the long run holds the contract's bounds."""

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.sizes import IS_LONG, Measured, sized

pytestmark = pytest.mark.timeout(sized(90, long=900), method="signal")

POD = "127.0.2.1"
MIB = 2**20


def test_a_thousand_points_a_second_one_at_a_time_take_little_of_a_core(ods: OdsProcess, measured: Measured) -> None:
    oracle = Oracle()
    seconds = sized(5, long=60)
    lines = oracle.next_lines(POD, 1000 * seconds)
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD1ready\n")
        before = ods.cpu_seconds()
        pod.send_at_rate(lines, lines_per_second=1000, burst_lines=1)
        pod.wait_for_replies(1 + len(lines))
        part = (ods.cpu_seconds() - before) / seconds
    measured(f"{part:.1%} of one core")
    assert part < 0.1 or not IS_LONG


def test_memory_is_flat_over_an_outage(start_ods: StartOds, own_influx: InfluxServer, measured: Measured) -> None:
    """What is pending is on the disk: a long outage takes no more memory than a short one."""
    own_influx.kill()
    ods, oracle = start_ods(own_influx), Oracle()
    memory: list[int] = []
    with PodClient(ods.port).read_replies() as pod:
        for _ in range(5):
            pod.send_lines(oracle.next_lines(POD, sized(40_000, long=200_000)))
            pod.wait_for_replies(oracle.sent_count(POD), timeout_seconds=sized(30, long=120))
            memory.append(ods.memory_bytes())
    measured("resident MiB " + ", ".join(f"{size / MIB:.0f}" for size in memory))
    ods.wait_for_totals(pending=oracle.sent_count(POD), in_flight=0)
    assert memory[-1] - memory[0] < 32 * MIB
    own_influx.start()
    ods.wait_until_settled(timeout_seconds=sized(30, long=300))
    measured(f"{ods.memory_bytes() / MIB:.0f} MiB after the drain")
