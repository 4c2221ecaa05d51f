"""The whole program: what an operator marks is in InfluxDB and the recordings, whatever becomes of either or ODS."""

import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import REPOSITORY, OdsProcess, StartOds, run_command
from harness.pod_client import PodClient
from harness.wait import wait_until

only_with_keeper = pytest.mark.skipif(sys.platform != "linux", reason="the keeper needs Linux")

TEXTS = ["pressure test 3", 'brakes: "soft", a=b \\ ü', "ü" * 256]


def marked(influx: InfluxServer, database: str) -> list[tuple[int, str]]:
    return [
        (time_ns, detail) for time_ns, pod, event, detail in influx.events(database) if (pod, event) == ("ods", "mark")
    ]


def mark(ods: OdsProcess, text: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(ods.command("mark", "--json", text))
    return told


def listed(ods: OdsProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ods.command("mark", "--list", "--json").splitlines()]


def note_settled(ods: OdsProcess, settled_ns: int) -> None:
    """Note, as ODS does each second, that all up to this time has its fate."""
    (ods.directory / "settled").write_text(f"{settled_ns}\n")


def test_a_mark_is_in_influx_and_in_the_recordings_with_one_time(influx: InfluxServer, start_ods: StartOds) -> None:
    ods = start_ods(influx)
    told = [mark(ods, text) for text in TEXTS]
    assert [(one["number"], one["text"]) for one in told] == list(enumerate(TEXTS, 1))
    assert listed(ods) == told
    assert marked(influx, ods.database) == [(one["time_ns"], one["text"]) for one in told]
    ods.stop()
    assert listed(ods) == told, "they are found without a running ODS too"
    assert "#1 " in ods.command("mark", "--list")
    ods.start()
    assert mark(ods, "later")["number"] == 4
    assert ods.totals()["received"] == 0, "a mark is no record of a pod"


def test_marks_of_an_outage_are_backfilled(own_influx: InfluxServer, start_ods: StartOds) -> None:
    ods = start_ods(own_influx)
    ods.wait_for_status(lambda status: bool(status["influx"]["available"]), what="InfluxDB is known to be there")
    own_influx.kill()
    told = [mark(ods, text) for text in TEXTS]
    assert listed(ods) == told
    own_influx.start()
    wait_until(lambda: len(marked(own_influx, ods.database)) == 3, timeout_seconds=30, what="the marks are in InfluxDB")
    assert marked(own_influx, ods.database) == [(one["time_ns"], one["text"]) for one in told]


def test_a_mark_that_only_the_recordings_have_is_stored_after_a_crash(
    influx: InfluxServer, start_ods: StartOds
) -> None:
    """At its own time, and once, however often ODS is started."""
    ods = start_ods(influx)
    told = mark(ods, "before")
    ods.kill()
    (segment,) = (ods.directory / "recordings" / "ods").glob("*.log.csv.open")
    lost_ns = told["time_ns"] + 1
    with segment.open("a") as file:
        file.write(f'{lost_ns},mark,"lost ""?"""\n')
    note_settled(ods, lost_ns - 1)
    for _ in range(2):
        ods.start()
        wait_until(lambda: len(marked(influx, ods.database)) == 2, timeout_seconds=30, what="the mark is in InfluxDB")
        assert marked(influx, ods.database) == [(told["time_ns"], "before"), (lost_ns, 'lost "?"')]
        assert [one["text"] for one in listed(ods)] == ["before", 'lost "?"']
        assert ods.totals()["received"] == 0
        ods.kill()
    assert not segment.exists(), "it was closed"


def test_without_a_running_ods_nothing_is_noted_and_one_line_says_so(tmp_path: Path) -> None:
    told = run_command("mark", "--directory", str(tmp_path), "nobody", "hears", home=tmp_path)
    assert (told.returncode, told.stdout, len(told.stderr.splitlines())) == (3, "", 1)
    assert "no ODS runs" in told.stderr


def test_where_no_store_takes_a_mark_it_is_in_the_recordings_and_the_command_says_so(
    own_influx: InfluxServer, start_ods: StartOds
) -> None:
    own_influx.kill()
    ods = start_ods(own_influx, "--buffer-limit", "200KiB")
    with PodClient(ods.port).read_replies() as pod:
        for size_bytes in (20_000, 2_000, 200):  # so that there is no room for the mark either
            while pod.exchange(b"POD1" + secrets.token_hex(size_bytes).encode() + b"\n") == b"OK: LOGGED":
                pass
    text = secrets.token_hex(256)
    told = run_command("mark", "--directory", str(ods.directory), text, home=ods.folder)
    assert (told.returncode, told.stdout) == (1, "")
    assert "neither InfluxDB nor the buffer" in told.stderr
    assert [one["text"] for one in listed(ods)] == [text]


@only_with_keeper
def test_a_mark_while_the_worker_is_gone_is_noted_by_the_next_one(influx: InfluxServer, start_ods: StartOds) -> None:
    """Who has just seen something must not be told to try again."""
    ods = start_ods(influx, has_keeper=True)
    told = [mark(ods, "before")]
    worker = ods.worker_id
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    told.append(mark(ods, "at once"))
    assert listed(ods) == told
    wait_until(lambda: len(marked(influx, ods.database)) == 2, timeout_seconds=30, what="both marks are in InfluxDB")
    assert marked(influx, ods.database) == [(one["time_ns"], one["text"]) for one in told]


def test_a_reader_that_has_enough_is_no_failure_and_a_full_disk_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "recordings" / "ods"
    folder.mkdir(parents=True)
    rows = "".join(f'{1_790_000_000_000_000_000 + number},mark,"{"x" * 500}"\n' for number in range(1000))
    (folder / "20260921-141320.000000000.log.csv.open").write_text(f"time_ns,kind,text\n{rows}")
    command = f"{sys.executable} -m ods mark --list --directory {tmp_path}"
    done = in_a_shell(f"set -o pipefail; {command} | head -1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("#1    2026-09-21T14:13:20.000000000Z  xxx")
    full = in_a_shell(f"{command} > /dev/full")
    assert (full.returncode, len(full.stderr.splitlines())) == (3, 1)


def in_a_shell(line: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["bash", "-c", line], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", [[], ["--list", "text"], ["a\nb"], ["x" * 513], ["--nonsense"]])
def test_a_wrong_command_line_ends_with_status_2_and_no_traceback(words: list[str], tmp_path: Path) -> None:
    done = run_command("mark", *words, home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "ods mark: error: " in done.stderr and "Traceback" not in done.stderr


def test_where_there_is_no_mark_a_list_says_so(tmp_path: Path) -> None:
    done = run_command("mark", "--list", "--directory", str(tmp_path), home=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
