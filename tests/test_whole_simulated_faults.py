"""The whole program, every fault rehearsed: what the simulation says it sent is what ODS counts, pod by pod."""

import csv
import gzip
import os
import re
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds, run_command
from harness.sizes import sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(90, long=300), method="signal")

LINE = re.compile(r"([\d.]+)(?: \(([a-z-]+)\))?: sent (\d+) records .*?(?:, (\d+) invalid, (\d+) torn)?, (?:ack|repl)")
FAULTS = ["unplug", "reconnect-storm", "never-read", "burst", "bad-lines", "limit"]


def test_a_simulation_with_every_fault_adds_up_and_no_other_pod_suffers(
    influx: InfluxServer, start_ods: StartOds
) -> None:
    ods = start_ods(influx)
    done = run_command(
        *("simulate", "--port", str(ods.port), "--fault", "all", "--fault-every", "3"),
        *("--seconds", str(sized(4, long=60)), "--rate", "200"),
        home=ods.folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = {found[1]: found for found in map(LINE.match, done.stdout.splitlines()) if found}
    assert [found[2] for found in told.values()] == [None, *FAULTS]
    ods.wait_until_settled()
    for pod, found in told.items():
        sent, invalid, torn = (int(count or 0) for count in found.groups()[2:])
        status = ods.pod_status(pod)
        assert {key: status[key] for key in ("received", "stored", "invalid", "torn")} == {
            "received": sent,
            "stored": sent,
            "invalid": invalid,
            "torn": torn,
        }, found[0]
        assert bool(status["replies_dropped"]) == (found[2] == "never-read")
    bad = told["127.0.1.6"]
    assert int(bad[4]) > 20 and int(bad[5]) >= 1, "there was something to tell"


def kinds_recorded(ods: OdsProcess, pod: str) -> Counter[str]:
    """What the recordings of a pod have besides its data points, by kind."""
    kinds: Counter[str] = Counter()
    for path in (ods.directory / "recordings" / pod).glob("*.log.csv*"):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        kinds.update(row[1] for row in list(csv.reader(data.decode().splitlines()))[1:])
    return kinds


@pytest.mark.skipif(sys.platform != "linux", reason="the keeper needs Linux")
def test_it_adds_up_also_where_the_worker_is_killed_in_the_middle(influx: InfluxServer, start_ods: StartOds) -> None:
    """Each record is stored once, each bad line recorded once, each reply sent once and in its turn."""
    ods = start_ods(influx, has_keeper=True)
    simulation = ["simulate", "--port", str(ods.port), "--fault", "all", "--fault-every", "2", "--rate", "200"]
    with ThreadPoolExecutor(1) as pool:
        played = pool.submit(run_command, *simulation, "--seconds", str(sized(5, long=60)), home=ods.folder)
        for line in (r"pod 127\.0\.1\.6 connected", r"connections were taken over"):
            ods.wait_for_line(line)
            worker = ods.worker_id
            assert worker is not None
            os.kill(worker, signal.SIGKILL)
    done = played.result()
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until(ods.answers, timeout_seconds=30, what="the worker after the last")
    ods.wait_until_settled()
    points, messages = influx.points(ods.database), influx.messages(ods.database)
    for found in filter(None, map(LINE.match, done.stdout.splitlines())):
        pod, (sent, invalid, torn) = found[1], (int(count or 0) for count in found.groups()[2:])
        stored = sum(len(rows) for (_, of_pod), rows in points.items() if of_pod == pod)
        said = len(messages.get(pod, []))
        assert (stored + said, kinds_recorded(ods, pod)) == (
            sent,
            Counter({kind: count for kind, count in (("log", said), ("invalid", invalid), ("torn", torn)) if count}),
        ), found[0]
