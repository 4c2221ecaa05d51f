"""An InfluxDB that answers each write after 600 ms is no outage: nothing flaps, nothing is sent again without need."""

import time

from faults.behaviours import Delay
from faults.bench import Bench
from faults.load import Kind
from faults.table import Row
from faults.trial import trial, wait_for_write

NAME = "slow, 600 ms"
ANSWER_SECONDS = 0.6
#: Three pods, 2000 lines a second together.
PODS = tuple(Kind(f"127.0.2.{number}", burst_lines=20, bursts_per_second=100 / 3) for number in (1, 2, 3))
RECOVER_SECONDS = 60.0


def run_slow(bench: Bench, *, seconds: float) -> Row:
    """Run it, return its row."""
    row = Row(f"{NAME}, {seconds:g} s", rounds=1)
    with trial(bench, row, PODS) as tried:
        wait_for_write(bench, 0.0, timeout_seconds=RECOVER_SECONDS)
        bench.proxy.behave(Delay(ANSWER_SECONDS))
        time.sleep(seconds)
        tried.load.stop_sending()
        tried.check(tried.load.wait_for_replies)
        latencies = sorted(tried.load.latencies_seconds)
        within = latencies[min(len(latencies) - 1, int(0.999 * len(latencies)))]
        row.remarks.append(f"99.9 % of replies within {within:.3f} s")
    row.remarks.append(f"{bench.proxy.points_written - row.records} points sent again")
    outages = len(tried.ods.lines_with("unavailable"))
    row.remarks.append(f"{outages} outages")
    if outages:
        row.failures.append("a slow InfluxDB was taken for one that is away")
    return row
