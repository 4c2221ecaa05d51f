"""The whole program and its quarantine, as an operator works on it: with the command, beside a running ODS and without.

A measurement whose field is a string elsewhere makes InfluxDB refuse every number for it; once it is dropped from
InfluxDB, the cause is mended.
"""

import csv
import itertools
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import REPOSITORY, OdsProcess, StartOds, environment, run_command
from harness.pod_client import SEND_TIMEOUT_SECONDS, PodClient
from harness.sizes import IS_LONG, Measured, sized

pytestmark = pytest.mark.timeout(sized(120, long=600), method="signal")

POD, OTHER = "127.0.2.1", "127.0.2.2"
DONE, NOTHING, WRONG_USAGE, FAILED = 0, 1, 2, 3
MIB = 2**20
#: The bound for replies, and the part of them that it holds for.
REPLY_SECONDS, REPLY_PART = 0.5, 0.999


def break_measurement(influx: InfluxServer, database: str, measurement: str) -> None:
    """Let InfluxDB refuse every number for it."""
    influx.create_database(database)
    influx.write(database, f'{measurement},pod=nobody value="text" {time.time_ns()}')


def mend_measurement(influx: InfluxServer, database: str, measurement: str) -> None:
    influx.query(f'DROP MEASUREMENT "{measurement}"', database=database)


def quarantine(ods: OdsProcess, *arguments: str, status: int = DONE) -> str:
    """Run `ods quarantine`; return what it prints. What is not done as asked it says in one line."""
    command, *rest = arguments
    done = run_command("quarantine", command, "--directory", str(ods.directory), *rest, home=ods.folder)
    assert done.returncode == status, f"{arguments}: {done.returncode} {done.stdout} {done.stderr}\n{ods.log_tail()}"
    assert len(done.stderr.splitlines()) == (0 if status == DONE else 1), done.stderr
    return done.stdout


def groups(ods: OdsProcess, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in quarantine(ods, "list", "--json", *arguments).splitlines()]


def exported(ods: OdsProcess, *arguments: str) -> list[tuple[str, int]]:
    """Series and time of each line in the quarantine, as line protocol has them, by time."""
    lines = quarantine(ods, "export", "--format", "lines", *arguments).splitlines()
    return sorted(((line.split(" ")[0], int(line.split(" ")[-1])) for line in lines), key=lambda line: line[1])


def send_refused(ods: OdsProcess, influx: InfluxServer, count: int, address: str = POD) -> None:
    """Let a pod send so many points of `accel_x`, which are refused, and of `accel_y`; wait until each has its fate."""
    before = ods.totals()
    with PodClient(ods.port, address=address).read_replies() as pod:
        for number in range(count):
            pod.send(b"POD2accel_x %d\nPOD2accel_y %d\n" % (number, number))
        assert all(reply.startswith(b"OK: ") for reply in pod.wait_for_replies(2 * count))
    ods.wait_for_totals(
        stored=before["stored"] + count, quarantined=before["quarantined"] + count, pending=0, in_flight=0
    )


class Watch:
    """Looks at the ledger all the time: it adds up at every moment."""

    def __init__(self, ods: OdsProcess) -> None:
        self._ods = ods
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.looks = 0
        self.trouble: BaseException | None = None

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        assert self.looks
        if self.trouble is not None:
            raise self.trouble

    def _look(self) -> None:
        try:
            while not self._ended.is_set():
                totals = self._ods.totals()  # raises where it does not add up
                assert min(totals.values()) >= 0, totals
                self.looks += 1
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.trouble = error


def test_after_its_cause_is_mended_a_retry_stores_what_was_quarantined_with_its_old_times(
    ods: OdsProcess, influx: InfluxServer, tmp_path: Path
) -> None:
    count = 300
    break_measurement(influx, ods.database, "accel_x")
    send_refused(ods, influx, count)
    (group,) = groups(ods)
    assert (group["pod"], group["name"], group["lines"], group["points"]) == (POD, "accel_x", count, count)
    assert "field type conflict" in group["reason"]
    assert all(text in quarantine(ods, "list") for text in ("field type conflict", POD, "accel_x", f"{count} lines"))
    assert len(quarantine(ods, "list", "--all", "--name", "accel_x").splitlines()) == 1 + count

    lines = exported(ods)
    assert {series for series, _ in lines} == {f"accel_x,pod={POD}"}
    assert not quarantine(ods, "export", "--output", str(tmp_path / "out.csv"))
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["time_ns"]))
    assert [(row["name"], row["pod"], float(row["value"])) for row in rows] == [
        ("accel_x", POD, float(number)) for number in range(count)
    ]
    assert [int(row["time_ns"]) for row in rows] == [time_ns for _, time_ns in lines]

    with Watch(ods):
        quarantine(ods, "retry")  # the cause is still there
        ods.wait_for_totals(quarantined=count, stored=count, pending=0, received=2 * count)
        assert exported(ods) == lines
        mend_measurement(influx, ods.database, "accel_x")
        assert f"{count} lines" in quarantine(ods, "retry", "--reason", "field type conflict")
        ods.wait_for_totals(quarantined=0, stored=2 * count, pending=0, received=2 * count)
    points = influx.points(ods.database)["accel_x", POD]
    assert points == [(time_ns, float(number)) for number, (_, time_ns) in enumerate(lines)]
    assert quarantine(ods, "list", status=NOTHING) == ""
    quarantine(ods, "retry", status=NOTHING)


def test_what_is_dropped_is_gone_and_counted_and_nothing_else_is(ods: OdsProcess, influx: InfluxServer) -> None:
    """Without a terminal it must be said that it is meant."""
    break_measurement(influx, ods.database, "accel_x")
    send_refused(ods, influx, 50)
    send_refused(ods, influx, 30, address=OTHER)
    quarantine(ods, "drop", status=WRONG_USAGE)
    quarantine(ods, "drop", "--yes", "--name", "accel_y", status=NOTHING)
    with Watch(ods):
        assert "30 lines (30 points)" in quarantine(ods, "drop", "--yes", "--pod", OTHER)
    ods.wait_for_totals(quarantined=50, dropped=30, stored=80, received=160)
    first = json.loads(quarantine(ods, "list", "--all", "--json").splitlines()[0])
    assert "1 lines (1 points)" in quarantine(ods, "drop", "--yes", "--id", str(first["id"]))
    assert ods.pod_status(POD)["dropped"] == 1
    assert ods.healthz() == 200
    ods.restart()
    ods.wait_for_totals(quarantined=49, dropped=0, received=49)


@pytest.mark.parametrize(("answer", "status"), [("n\n", NOTHING), ("\n", NOTHING), ("y\n", DONE)])
def test_a_drop_on_a_terminal_asks(ods: OdsProcess, influx: InfluxServer, answer: str, status: int) -> None:
    break_measurement(influx, ods.database, "accel_x")
    send_refused(ods, influx, 10)
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode())
        done = subprocess.run(
            [sys.executable, "-m", "ods", "quarantine", "drop", "--directory", str(ods.directory)],
            cwd=REPOSITORY,
            env=environment(ods.folder),
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, "Delete 10 lines (10 points) for good?" in done.stderr) == (status, True)
    ods.wait_for_totals(quarantined=0 if status == DONE else 10)


def test_without_an_ods_the_command_works_on_the_buffer_itself(start_ods: StartOds, own_influx: InfluxServer) -> None:
    """What is retried then is sent at the next start."""
    ods = start_ods(own_influx)
    break_measurement(own_influx, ods.database, "accel_x")
    send_refused(ods, own_influx, 40)
    send_refused(ods, own_influx, 20, address=OTHER)
    ods.stop()
    lines = exported(ods, "--pod", POD)
    assert [group["lines"] for group in groups(ods)] == [40, 20]
    assert "20 lines" in quarantine(ods, "drop", "--yes", "--pod", OTHER)
    mend_measurement(own_influx, ods.database, "accel_x")
    assert "when ODS starts" in quarantine(ods, "retry")
    quarantine(ods, "list", status=NOTHING)
    ods.start()
    ods.wait_for_totals(received=40, stored=40, quarantined=0, pending=0)
    assert [time_ns for time_ns, _ in own_influx.points(ods.database)["accel_x", POD]] == [at for _, at in lines]
    ods.stop()
    quarantine(ods, "list", status=NOTHING)


def test_an_ods_may_stop_and_start_while_a_command_is_read_slowly(ods: OdsProcess, influx: InfluxServer) -> None:
    """What is listed comes from the one that is there: nobody holds the lock for long, and no line is missing."""
    break_measurement(influx, ods.database, "accel_x")
    count = 5000
    send_refused(ods, influx, count)
    with subprocess.Popen(
        [sys.executable, "-m", "ods", "quarantine", "list", "--all", "--json", "--directory", str(ods.directory)],
        cwd=REPOSITORY,
        env=environment(ods.folder),
        stdout=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        read = list(itertools.islice(command.stdout, 10))
        ods.stop()
        read += itertools.islice(command.stdout, 2500)
        ods.start()
        read += command.stdout
    assert command.returncode == DONE
    assert sorted(float(json.loads(line)["value"]) for line in read) == list(range(count))
    ods.wait_for_totals(quarantined=count)


def test_what_a_command_cannot_do_it_says_in_one_line(
    start_ods: StartOds, influx: InfluxServer, tmp_path: Path
) -> None:
    ods = start_ods(influx)
    ods.stop()
    for arguments in (["list"], ["retry"], ["export"], ["drop", "--yes"]):
        quarantine(ods, *arguments, status=NOTHING)
    ods.directory = tmp_path / "nothing"
    for arguments in (["list"], ["retry"], ["export"], ["drop", "--yes"]):
        quarantine(ods, *arguments, status=FAILED)
    assert not ods.directory.exists()
    ods.directory = ods.folder / "data"
    quarantine(ods, "export", "--output", str(tmp_path / "nothing" / "out.csv"), status=FAILED)


def test_a_pipe_that_is_closed_early_is_no_error(ods: OdsProcess, influx: InfluxServer) -> None:
    break_measurement(influx, ods.database, "accel_x")
    send_refused(ods, influx, 3000)
    for command in ("list --all", "export", "export --format lines"):
        line = f"'{sys.executable}' -m ods quarantine {command} --directory '{ods.directory}' | head -n 1"
        done = subprocess.run(
            line, shell=True, cwd=REPOSITORY, env=environment(ods.folder), capture_output=True, text=True, timeout=60
        )
        assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


@pytest.fixture
def crowded(start_ods: StartOds, own_influx: InfluxServer) -> Iterator[tuple[OdsProcess, int]]:
    """An ODS with many lines in its quarantine."""
    ods, count = start_ods(own_influx), sized(20_000, long=100_000)
    break_measurement(own_influx, ods.database, "accel_x")
    with PodClient(ods.port, address=OTHER).read_replies() as pod:
        pod.send_lines([b"POD2accel_x %d\n" % number for number in range(count)])
        pod.wait_for_replies(count, timeout_seconds=120)
    ods.wait_for_totals(quarantined=count, pending=0, timeout_seconds=120)
    yield ods, count


def test_a_large_quarantine_takes_little_memory_and_holds_up_no_pod(
    crowded: tuple[OdsProcess, int], own_influx: InfluxServer, measured: Measured
) -> None:
    """Listed, exported and retried while a pod waits for each of its replies."""
    ods, count = crowded
    ended, memory = threading.Event(), [ods.memory_bytes()]
    with PodClient(ods.port).read_replies() as pod, Watch(ods):

        def send() -> None:
            for number in itertools.count():
                if ended.is_set():
                    return
                pod.exchange(b"POD2accel_y %d\n" % number)
                memory.append(ods.memory_bytes())

        sender = threading.Thread(target=send)
        sender.start()
        for name, arguments in {
            "list": ["list"],
            "list --all": ["list", "--all"],
            "export": ["export"],
            "retry": ["retry"],
        }.items():
            if name == "retry":
                mend_measurement(own_influx, ods.database, "accel_x")
            began = time.monotonic()
            printed = quarantine(ods, *arguments)
            measured(f"{name} of {count} lines {time.monotonic() - began:.1f} s")
            assert str(count) in printed if name in ("list", "retry") else len(printed.splitlines()) == 1 + count
        ods.wait_for_totals(quarantined=0, pending=0, timeout_seconds=60)
        ended.set()
        sender.join()
        latencies = sorted(pod.reply_latencies_seconds())
    grown = max(memory) - memory[0]
    figures = {part: latencies[int(part * (len(latencies) - 1))] for part in (0.5, REPLY_PART, 1.0)}
    measured("replies within " + ", ".join(f"{value * 1000:.0f} ms ({part:.1%})" for part, value in figures.items()))
    measured(f"memory {memory[0] / MIB:.0f} MiB, {grown / MIB:.1f} MiB more at most")
    assert grown < 32 * MIB
    assert figures[REPLY_PART] < REPLY_SECONDS or not IS_LONG
    assert pod.longest_send_seconds < SEND_TIMEOUT_SECONDS
    assert len(own_influx.points(ods.database)["accel_x", OTHER]) == count
    ods.wait_for_totals(stored=count + len(latencies), received=count + len(latencies))
