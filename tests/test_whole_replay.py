"""`ods replay`: recordings back into InfluxDB, equal to the nanosecond, and to a server as if the pods were there."""

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import REPOSITORY, OdsProcess, StartOds, environment, run_command
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.sizes import sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(120, long=900), method="signal")

PODS = ("127.0.2.1", "127.0.2.2", "127.0.2.3")
MESSAGES = ("[NOTE]  punching boot_sem", '[ERROR] "hot", a=b \\ ü', "no level")
#: Data points of a pod in recordings that are written by a test.
RECORDED = sized(60_000, long=600_000)
#: A counter of a summary.
_COUNT = re.compile(r"^ +([\d,]+)  (.*)$", re.MULTILINE)


def to(influx: InfluxServer, database: str, ods: OdsProcess) -> list[str]:
    """The options by which a command finds these recordings and this InfluxDB."""
    return [
        *("--directory", str(ods.directory), "--influx-name", database),
        *("--influx-host", "127.0.0.1", "--influx-port", str(influx.port)),
    ]


def replay(ods: OdsProcess, *arguments: str, status: int = 0) -> dict[str, int]:
    """Replay; returns the counters of the summary, by how they begin."""
    done = run_command("replay", *arguments, home=ods.folder)
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return counters(done.stdout)


def counters(summary: str) -> dict[str, int]:
    return {words: int(number.replace(",", "")) for number, words in _COUNT.findall(summary)}


def of(found: dict[str, int], begin: str) -> int:
    (count,) = [count for words, count in found.items() if words.startswith(begin)]
    return count


def check_sum(found: dict[str, int]) -> None:
    """All rows have a fate."""
    fates = [count for words, count in found.items() if not words.startswith(("rows read", "rows not readable"))]
    assert of(found, "rows read") == sum(fates), found


def content(influx: InfluxServer, database: str) -> Any:
    """All that recordings hold of a database: data points, log messages, marks."""
    marks = [event for event in influx.events(database) if event[2] == "mark"]
    return influx.points(database), influx.messages(database), marks


def play(ods: OdsProcess, oracle: Oracle, count: int) -> None:
    """Let each pod send data points, log messages, bad lines and a torn one, and have all but that answered."""
    with contextlib.ExitStack() as connected:
        for address in PODS:
            pod = connected.enter_context(PodClient(ods.port, address=address).read_replies())
            lines = oracle.next_lines(address, count)
            others = [*(f"POD1{text}\n".encode() for text in MESSAGES), b"POD2accel_x nan\n", b"hello\n"]
            pod.send_lines([*lines[: count // 2], *others, *lines[count // 2 :]])
            pod.wait_for_replies(count + len(others))
            pod.send(b"POD2accel_x 12")
            pod.finish()


@pytest.fixture
def run(start_ods: StartOds, influx: InfluxServer) -> tuple[OdsProcess, Oracle]:
    """A run that was recorded and stored, and is over."""
    ods, oracle = start_ods(influx), Oracle()
    play(ods, oracle, sized(2000, long=50_000))
    ods.wait_until_settled()
    ods.stop()
    return ods, oracle


def test_a_run_with_three_outages_is_rebuilt_from_its_recordings_after_the_database_is_lost(
    start_ods: StartOds, own_influx: InfluxServer
) -> None:
    """Every series is equal, point by point and to the nanosecond, to what the pods sent; also a second time."""
    ods, oracle = start_ods(own_influx), Oracle()
    count = sized(1000, long=100_000)
    play(ods, oracle, count)
    ods.command("mark", "pressure test 3")
    own_influx.kill()
    play(ods, oracle, count)
    own_influx.start()
    play(ods, oracle, count)
    own_influx.pause()
    play(ods, oracle, count)
    own_influx.resume()
    ods.wait_until_settled()
    own_influx.kill()
    play(ods, oracle, count)
    ods.kill()
    ods.start()
    play(ods, oracle, count)
    own_influx.start()
    ods.wait_until_settled()
    before = content(own_influx, ods.database)
    oracle.check(before[0])
    assert [len(messages) for messages in before[1].values()] == [6 * len(MESSAGES)] * len(PODS)
    assert len(before[2]) == 1

    own_influx.query(f'DROP DATABASE "{ods.database}"')
    for _ in range(2):
        found = replay(ods, *to(own_influx, ods.database, ods))
        check_sum(found)
        assert of(found, "stored") == len(PODS) * 6 * (count + len(MESSAGES)) + 1
        assert (of(found, "refused"), of(found, "not selected")) == (0, 0)
        assert (of(found, "invalid"), of(found, "torn")) == (2 * 6 * len(PODS), 6 * len(PODS))
        assert content(own_influx, ods.database) == before


def test_a_part_is_replayed_into_another_database(run: tuple[OdsProcess, Oracle], influx: InfluxServer) -> None:
    ods, _ = run
    whole = content(influx, ods.database)[0]
    times = sorted(time_ns for (_, pod), rows in whole.items() if pod == PODS[0] for time_ns, _ in rows)
    begin, end = times[len(times) // 4], times[len(times) // 2]
    chosen = ("--pod", PODS[0], "--name", "accel_*", "--from", str(begin), "--to", str(end))
    check_sum(replay(ods, *to(influx, "part", ods), *chosen))
    expected = {
        (name, pod): [row for row in rows if begin <= row[0] < end]
        for (name, pod), rows in whole.items()
        if pod == PODS[0] and name.startswith("accel_")
    }
    assert content(influx, "part") == ({series: rows for series, rows in expected.items() if rows}, {}, [])


def test_files_and_folders_are_replayed_wherever_they_are(
    run: tuple[OdsProcess, Oracle], influx: InfluxServer, tmp_path: Path
) -> None:
    """As from the card of another machine, which has no data directory; what is damaged is told of and left."""
    ods, _ = run
    (ods.directory / "recordings").rename(tmp_path / "card")
    folder = tmp_path / "card" / PODS[1]
    (segment,) = folder.glob("*.data.csv.gz")
    segment.write_bytes(segment.read_bytes()[:-9])
    done = run_command(
        "replay", str(folder), *to(influx, "card", ods)[2:], "--state", str(tmp_path / "note"), home=tmp_path / "home"
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and f"{segment} cannot be read to its end" in done.stderr
    assert "besides 1 damaged files" in done.stdout
    assert set(content(influx, "card")[1]) == {PODS[1]}
    assert not (tmp_path / "note").exists() and not (tmp_path / "home").exists()


def test_times_are_shifted_where_that_is_asked_for(run: tuple[OdsProcess, Oracle], influx: InfluxServer) -> None:
    ods, _ = run
    replay(ods, *to(influx, "shifted", ods), "--redate", "2026-01-01")
    begin_ns = 1_767_225_600_000_000_000
    points, messages, _ = content(influx, ods.database)
    shifted, shifted_messages, _ = content(influx, "shifted")
    by = begin_ns - min(rows[0][0] for rows in points.values())
    assert shifted == {series: [(time_ns + by, value) for time_ns, value in rows] for series, rows in points.items()}
    assert shifted_messages == {
        pod: [(time_ns + by, *rest) for time_ns, *rest in rows] for pod, rows in messages.items()
    }


def test_lines_that_influx_refuses_are_counted_and_the_others_stored(
    run: tuple[OdsProcess, Oracle], influx: InfluxServer
) -> None:
    """A field of another type is there already."""
    ods, _ = run
    points = content(influx, ods.database)[0]
    influx.create_database("typed")
    influx.write("typed", f'accel_x,pod=other value="text" {points["accel_x", PODS[0]][0][0]}')
    found = replay(ods, *to(influx, "typed", ods), status=1)
    check_sum(found)
    assert of(found, "refused") == sum(len(rows) for (name, _), rows in points.items() if name == "accel_x")
    others = {series: rows for series, rows in points.items() if series[0] != "accel_x"}
    stored = content(influx, "typed")[0]
    assert {series: rows for series, rows in stored.items() if series[0] != "accel_x"} == others


@contextlib.contextmanager
def replaying(ods: OdsProcess, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A replay under way."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ods", "replay", *arguments],
        cwd=REPOSITORY,
        env=environment(ods.folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def record(ods: OdsProcess, count: int, pods: Sequence[str] = PODS) -> None:
    """Write recordings as ODS leaves them: a data point each microsecond."""
    begin_ns = 1_790_000_000_000_000_000
    rows = "".join(f"{begin_ns + number * 1000},name_{number % 40},{number}.5\n" for number in range(count))
    for address in pods:
        folder = ods.directory / "recordings" / address
        folder.mkdir(parents=True)
        (folder / "20260921-141320.000000000.data.csv").write_text("time_ns,name,value\n" + rows)


def stored_count(influx: InfluxServer, database: str) -> int:
    return sum(len(rows) for rows in influx.points(database).values())


@pytest.fixture
def recorded(tmp_path: Path) -> OdsProcess:
    """Recordings of an ODS that was never started."""
    ods = OdsProcess(tmp_path / "recorded", influx_port=0, database="ods")
    record(ods, RECORDED)
    return ods


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_was_interrupted_goes_on_where_it_was(
    recorded: OdsProcess, own_influx: InfluxServer, number: signal.Signals
) -> None:
    """InfluxDB freezes in its middle, so that it cannot end before."""
    arguments = to(own_influx, "resumed", recorded)

    def noted() -> list[Path]:
        return list(recorded.directory.glob("replay-*.json"))

    with replaying(recorded, *arguments) as process:
        wait_until(noted, timeout_seconds=30, what="a note of how far it is")
        own_influx.pause()
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
        own_influx.resume()
    assert process.returncode == (130 if number == signal.SIGINT else -9)
    assert "Traceback" not in errors
    if number == signal.SIGINT:
        check_sum(counters(output))
        assert "stopped" in output and "--resume goes on" in output
    (path,) = noted()
    assert json.loads(path.read_text())["position"][3]
    found = replay(recorded, *arguments, "--resume")
    check_sum(found)
    assert of(found, "stored") < 3 * RECORDED, "it does not begin anew"
    assert stored_count(own_influx, "resumed") == 3 * RECORDED
    assert not noted(), "nothing is left to go on with"


def test_it_waits_for_an_influx_that_is_away_and_says_so(recorded: OdsProcess, own_influx: InfluxServer) -> None:
    own_influx.kill()
    with replaying(recorded, *to(own_influx, "late", recorded)) as process:
        assert process.stderr is not None
        assert "InfluxDB takes nothing: connection refused; trying again" in process.stderr.readline()
        own_influx.start()
        assert "answers again" in process.stderr.readline()
        process.wait(60)
    assert stored_count(own_influx, "late") == 3 * RECORDED


def test_a_wrong_password_ends_it_at_once(recorded: OdsProcess, locked_influx: InfluxServer) -> None:
    done = run_command("replay", *to(locked_influx, "locked", recorded), home=recorded.folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert "--influx-pass" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--pod", "nobody"], 1, "hold nothing of what is selected"),
        (["--from", "yesterday"], 2, "--from: 'yesterday' is no time"),
        (["--from", "mark:start"], 2, "no mark 'start' in the recordings"),
        (["--speed", "2"], 2, "--speed goes with --server"),
        (["--server", "127.0.0.1:7778", "--resume"], 2, "--resume does not go with --server"),
        (["--server", "127.0.0.1"], 2, "is not HOST:PORT"),
        (["--server", "127.0.0.1:1", "--speed", "max"], 1, "connection refused"),
        (["--server", "no.such.host.invalid:1"], 3, "cannot find 'no.such.host.invalid'"),
        (["nothing/there"], 2, "nothing/there: no such file or folder"),
        (["--influx-name", ""], 2, "--influx-name"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, arguments: list[str], status: int, told: str) -> None:
    ods = OdsProcess(tmp_path / "ods", influx_port=0, database="ods")
    record(ods, 10, PODS[:1])
    done = run_command("replay", "--directory", str(ods.directory), *arguments, home=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert told in done.stderr


# -- As if the pods were there


def test_a_run_is_played_to_a_server_as_the_pods_did(
    run: tuple[OdsProcess, Oracle], start_ods: StartOds, influx: InfluxServer
) -> None:
    """Each pod from its own address; what the second ODS stores is what the first did, but for the times."""
    ods, oracle = run
    second = start_ods(influx)
    found = replay(ods, "--directory", str(ods.directory), "--server", f"127.0.0.1:{second.port}", "--speed", "max")
    second.wait_until_settled()
    oracle.check(influx.points(second.database))
    for pod in PODS:
        first, again = (influx.messages(name)[pod] for name in (ods.database, second.database))
        assert [message[1:] for message in again] == [message[1:] for message in first]
    assert of(found, "lines sent") == of(found, "rows read") - len(PODS), "a torn line cannot be sent"
    answers = {word: of(found, word) for word in ("answered OK", "answered ERROR: bad", "answered FAIL")}
    assert answers["answered ERROR: bad"] == answers["answered FAIL"] == len(PODS)
    assert sum(answers.values()) == of(found, "lines sent")
    assert (of(found, "torn lines"), of(found, "not answered")) == (len(PODS), 0)
    assert second.status()["totals"]["invalid"] == 2 * len(PODS)


#: So slow that the last line would take a minute or more.
SLOW = ("--speed", "0.001")


def test_the_pace_of_the_recording_is_kept(recorded: OdsProcess, start_ods: StartOds, influx: InfluxServer) -> None:
    """A thousandth as fast: the first lines come at once, the last after a minute; Ctrl-C ends it in order."""
    ods = start_ods(influx)
    with replaying(
        recorded, "--directory", str(recorded.directory), "--server", f"127.0.0.1:{ods.port}", *SLOW
    ) as process:
        ods.wait_for_status(lambda status: status["totals"]["received"] > 30, what="the first lines")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "")
    found = counters(output)
    assert of(found, "not answered") == 0
    assert of(found, "lines sent") == of(found, "answered OK") == ods.totals()["received"]
    assert of(found, "read and not sent") > 0


def test_it_goes_on_in_a_loop_until_it_is_stopped(start_ods: StartOds, influx: InfluxServer, tmp_path: Path) -> None:
    recorded = OdsProcess(tmp_path / "recorded", influx_port=0, database="ods")
    record(recorded, 100, PODS[:2])
    ods = start_ods(influx)
    server = ("--server", f"127.0.0.1:{ods.port}", "--speed", "max", "--loop")
    with replaying(recorded, "--directory", str(recorded.directory), *server) as process:
        ods.wait_for_status(lambda status: status["totals"]["received"] > 1000, what="some passes")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert of(counters(output), "answered OK") == of(counters(output), "lines sent") >= 1000


def test_a_server_that_goes_away_ends_its_pods_with_a_summary(
    recorded: OdsProcess, start_ods: StartOds, influx: InfluxServer
) -> None:
    ods = start_ods(influx)
    with replaying(
        recorded, "--directory", str(recorded.directory), "--server", f"127.0.0.1:{ods.port}", *SLOW
    ) as process:
        ods.wait_for_status(lambda status: status["totals"]["received"] > 30, what="the first lines")
        ods.kill()
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.count("ods replay: pod 127.0.2.") == 3
    assert of(counters(output), "lines sent") > 30


def test_nobody_reads_the_summary(recorded: OdsProcess, influx: InfluxServer) -> None:
    command = [sys.executable, "-m", "ods", "replay", *to(influx, "piped", recorded)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(recorded.folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
