"""The keeper: no pod notices that the worker dies, hangs, or is replaced, and each record is stored exactly once."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.influx_server import InfluxServer
from harness.loopback import free_port
from harness.ods_process import (
    REPOSITORY,
    STOP_TIMEOUT_SECONDS,
    OdsProcess,
    StartOds,
    environment,
    memory_bytes,
    run_serve,
)
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.service_manager import NotifySocket
from harness.sizes import Measured, sized
from harness.strict_pod import Fleet
from harness.versions import Versions
from harness.wait import wait_until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the keeper is for Linux"),
    pytest.mark.timeout(sized(180, long=3000), method="signal"),
]

PODS = 10
KILLS = sized(12, long=200)
#: The points at which a worker can kill itself, each after so many times.
POINTS = {"read": 60, "recorded": 8, "committing": 3, "committed": 3, "requested": 8, "confirmed": 2}
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)
ENDED = r"worker \d+ ended: (.*); another takes over"


def causes(ods: OdsProcess) -> list[str]:
    """What the workers of this life have died of so far, as the log has it."""
    return [re.search(ENDED, line)[1] for line in ods.lines_with(ENDED)]  # type: ignore[index]


def wait_for_restart(ods: OdsProcess, before: int, *, what: str, timeout_seconds: float = 20) -> None:
    wait_until(lambda: len(causes(ods)) > before, timeout_seconds=timeout_seconds, what=what, state=ods.log_tail)


def signal_worker(ods: OdsProcess, number: signal.Signals) -> None:
    """Send the worker a signal, as soon as there is one."""
    os.kill(wait_until(lambda: ods.worker_id, timeout_seconds=20, what="a worker", state=ods.log_tail), number)


def wait_until_serving(ods: OdsProcess) -> None:
    """Return when as many workers have begun to read as there were restarts, and the first."""
    taken_over = r"connections were taken over"
    last = lambda pattern: max((at for at, line in enumerate(ods.life_log) if re.search(pattern, line)), default=-1)  # noqa: E731
    wait_until(
        lambda: not causes(ods) or last(taken_over) > last(ENDED),
        timeout_seconds=30,
        what="the worker to serve",
        state=ods.log_tail,
    )


def wait_until_answering(ods: OdsProcess, *, lives: int) -> None:
    """Return when so many workers have begun to serve, and the page is that of the last."""
    began = "OpenLoop Data Shuttle"
    wait_until(lambda: len(ods.lines_with(began)) == lives, timeout_seconds=20, what="a worker", state=ods.log_tail)
    wait_until(ods.answers, timeout_seconds=20, what="the status page", state=ods.log_tail)


def has_ended(process: int) -> bool:
    """Whether a process that is no child of ours has ended, though nobody may have looked after it yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def check_exactly_once(ods: OdsProcess, influx: InfluxServer, oracle: Oracle) -> None:
    """Raise AssertionError unless InfluxDB has each record that was sent, once, unchanged, in order."""
    wait_until(ods.answers, timeout_seconds=20, what="the status page", state=ods.log_tail)
    ods.wait_until_settled()
    wait_until(
        lambda: sum(map(len, influx.points(ods.database).values())) >= oracle.sent_count(),
        timeout_seconds=20,
        what=f"{oracle.sent_count()} points",
        state=ods.log_tail,
    )
    oracle.check(influx.points(ods.database))


class Weather:
    """What InfluxDB does in the rounds of a run: it is up in the first third, away in the second, then flaps."""

    def __init__(self, influx: InfluxServer, rounds: int) -> None:
        self._influx = influx
        self._rounds = rounds

    def turn(self, number: int) -> None:
        third = 3 * number // self._rounds
        is_up = third == 0 or (third == 2 and number % 2 == 0)
        if is_up and not self._influx.is_running:
            self._influx.start()
        elif not is_up and self._influx.is_running:
            self._influx.kill()

    def clear(self) -> None:
        if not self._influx.is_running:
            self._influx.start()


def end_worker(ods: OdsProcess, chance: random.Random, armed: Path) -> str:
    """End the worker in one way or another, and return when the keeper has noticed; tells in which way."""
    if chance.random() < 0.8:  # at times while it starts, but not each time: no pod has room for as much as that
        wait_until_serving(ods)
    before = len(causes(ods))
    point = chance.choice([None, *POINTS])
    if point is not None and chance.random() < 0.7:
        armed.write_text(f"{point}:{chance.randint(1, POINTS[point])}")
        signal_worker(ods, signal.SIGKILL)
        wait_for_restart(ods, before, what="the worker to be ended")
        try:
            wait_for_restart(ods, before + 1, what=f"the worker to end at {point!r}", timeout_seconds=3)
        except AssertionError:  # it is not reached while InfluxDB is as it is
            return f"{point} (not reached)"
        return point
    number = chance.choice(SIGNALS)
    time.sleep(chance.random() * 1.2)  # the moment is what this is about
    signal_worker(ods, number)
    wait_for_restart(ods, before, what=f"the worker to end after {number.name}")
    return number.name


def disarm(ods: OdsProcess, armed: Path) -> None:
    """Have a worker serve that reaches no fail-point: the one that does may still wait for its own."""
    armed.unlink(missing_ok=True)
    before = len(causes(ods))
    signal_worker(ods, signal.SIGKILL)
    wait_for_restart(ods, before, what="the last of the deaths")
    wait_until_serving(ods)


@pytest.mark.parametrize("seed", sized([1], long=[1, 2]))
def test_no_pod_notices_that_the_worker_dies_and_each_record_is_stored_exactly_once(
    start_ods: StartOds, own_influx: InfluxServer, tmp_path: Path, seed: int, measured: Measured
) -> None:
    """Killed, crashed, hung; anywhere and at every fail-point; with InfluxDB up, away and flapping."""
    armed = tmp_path / "failpoint"
    ods = start_ods(own_influx, has_keeper=True, extra_environment={"ODS_FAILPOINT": f"@{armed}"})
    oracle, chance, weather = Oracle(), random.Random(seed), Weather(own_influx, KILLS)
    ways: list[str] = []
    with Fleet(ods.port, oracle, pods=PODS) as fleet:
        while len(causes(ods)) < KILLS:
            weather.turn(len(causes(ods)))
            ways.append(end_worker(ods, chance, armed))
            assert not any(pod.is_in_emergency for pod in fleet.pods), f"{ways}\n{ods.log_tail(100)}"
        weather.clear()
        fleet.finish()
        disarm(ods, armed)
        check_exactly_once(ods, own_influx, oracle)
        assert ods.status()["restarts"]["count"] == len(causes(ods))
        assert all(pod.stands for pod in fleet.pods)
    counted = {way: ways.count(way) for way in sorted(set(ways))}
    measured(
        f"{len(causes(ods))} deaths ({counted}), {oracle.sent_count()} records, "
        f"longest send {fleet.longest_send_seconds:.3f} s"
    )


# -- Upgrades ---------------------------------------------------------------------------------------------------------


#: What becomes ready and then fails: it crashes at its first record, never serves, stands still, ends while it starts.
FAILING = {
    "1.1.1": """
import os as _os
Service._keep = lambda *_: _os.abort()
""",
    "1.1.2": """
Service._start = lambda _: gevent.sleep(600)
""",
    "1.1.3": """
Service._keep = lambda *_: __import__('gevent').monkey.get_original('time', 'sleep')(600)
""",
    "1.1.4": """
Service._start = lambda _: __import__('os')._exit(3)
""",
}


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    versions = Versions(tmp_path / "versions")
    versions.add("1.0.1")
    versions.add("1.0.2")
    versions.add("1.0.3", changed="\nraise RuntimeError('this version is broken')\n")
    for version, changed in FAILING.items():
        versions.add(version, changed=changed)
    versions.use("1.0.1")
    return versions


@contextmanager
def running(ods: OdsProcess) -> Iterator[OdsProcess]:
    """ODS, to be stopped in good order at the end."""
    try:
        ods.start()
        yield ods
        ods.stop()
        assert not [line for line in ods.tracebacks() if "broken" not in line], ods.log_tail(200)
    finally:
        ods.kill()
        print(ods.log_tail(100))


def restart(ods: OdsProcess) -> subprocess.CompletedProcess[str]:
    """Run `ods restart`."""
    return subprocess.run(
        [sys.executable, "-m", "ods", "restart", "--directory", str(ods.directory)],
        cwd=REPOSITORY,
        env=environment(ods.folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def version(ods: OdsProcess) -> str:
    said: str = ods.status()["version"]
    return said


@pytest.mark.parametrize("influx_state", ["up", "away"])
def test_no_pod_notices_an_upgrade_nor_the_way_back(
    own_influx: InfluxServer, tmp_path: Path, versions: Versions, influx_state: str, measured: Measured
) -> None:
    """To another version in another folder, and back; a broken one is refused with its reason, and ODS goes on."""
    oracle = Oracle()
    config = tmp_path / "ods.toml"
    config.write_text("[ods]\n")
    ods = OdsProcess(tmp_path / "ods-life", influx_port=own_influx.port, database="upgrade", has_keeper=True)
    ods.program = [sys.executable, str(versions.link / "ods_server.py")]
    ods.options = ["--config", str(config)]
    with running(ods), Fleet(ods.port, oracle, pods=PODS) as fleet:
        assert version(ods) == "1.0.1"
        if influx_state == "away":
            own_influx.kill()
        for new in ["1.0.2", "1.0.1", "1.0.2"]:
            versions.use(new)
            done = restart(ods)
            assert (done.returncode, version(ods)) == (0, new), done.stderr + ods.log_tail()
            assert new in done.stdout
        versions.use("1.0.3")
        done = restart(ods)
        assert done.returncode == 1
        assert "this version is broken" in done.stderr and len(done.stderr.splitlines()) == 1
        assert version(ods) == "1.0.2"
        assert len(ods.lines_with("error.*restart: refused.*this version is broken")) == 1
        versions.use("1.0.2")

        config.write_text('[ods]\npod = ["127.0.3.1=first"]\n')
        os.kill(ods.process_id, signal.SIGHUP)  # as systemd's reload
        wait_for_restart(ods, 3, what="the new configuration to be taken")
        wait_until_answering(ods, lives=5)
        assert "first" in [pod["name"] for pod in ods.status()["pods"]]
        config.write_text('[ods]\nmax-names = "perhaps"\n')
        done = restart(ods)
        assert done.returncode == 1 and "--max-names" in done.stderr
        config.write_text("[ods]\nmax-names = 20000\npod = []\n")
        assert restart(ods).returncode == 0
        if not own_influx.is_running:
            own_influx.start()
        fleet.finish()
        ods.wait_until_settled()
        assert ods.status()["restarts"]["count"] == 5
    points = own_influx.points(ods.database)
    for (name, pod), rows in [item for item in points.items() if item[0][1] == "first"]:
        points[name, "127.0.3.1"] = points.get((name, "127.0.3.1"), []) + points.pop((name, pod)) if rows else rows
    oracle.check(points)
    measured(f"{oracle.sent_count()} records, longest send {fleet.longest_send_seconds:.3f} s")


@pytest.mark.parametrize("failing", FAILING)
def test_a_version_that_fails_after_it_was_taken_gives_way_to_the_one_before(
    own_influx: InfluxServer, tmp_path: Path, versions: Versions, failing: str, measured: Measured
) -> None:
    """No pod notices, each record is stored once, and whoever asked is told; deaths to come do not bring it back."""
    oracle = Oracle()
    ods = OdsProcess(tmp_path / "ods-life", influx_port=own_influx.port, database="failing", has_keeper=True)
    ods.program = [sys.executable, str(versions.link / "ods_server.py")]
    with running(ods), Fleet(ods.port, oracle, pods=PODS) as fleet:
        versions.use(failing)
        done = restart(ods)
        assert done.returncode == 1 and "the new version failed: " in done.stderr, done
        assert len(done.stderr.splitlines()) == 1
        assert version(ods) == "1.0.1"
        before = len(causes(ods))
        signal_worker(ods, signal.SIGKILL)
        wait_for_restart(ods, before, what="the restart")
        wait_until_serving(ods)
        wait_until(ods.answers, timeout_seconds=20, what="the status page", state=ods.log_tail)
        assert version(ods) == "1.0.1"
        versions.use("1.0.2")
        done = restart(ods)
        assert (done.returncode, version(ods)) == (0, "1.0.2"), done.stderr + ods.log_tail()
        fleet.finish()
        check_exactly_once(ods, own_influx, oracle)
    measured(f"{failing}: {oracle.sent_count()} records, longest send {fleet.longest_send_seconds:.3f} s")


@pytest.mark.parametrize("option", ["--port", "--host", "--directory"])
def test_a_change_that_takes_a_new_port_or_directory_is_refused_with_its_reason(
    start_ods: StartOds, influx: InfluxServer, tmp_path: Path, option: str
) -> None:
    """What a keeper holds it cannot let go of while pods are connected."""
    config = tmp_path / "ods.toml"
    ods = start_ods(influx, has_keeper=True)
    changed = {"--port": free_port(), "--host": "127.0.0.2", "--directory": str(tmp_path / "other")}[option]
    ods.stop()
    at = ods.arguments.index(option)
    value = ods.arguments[at + 1]
    config.write_text(f"[ods]\n{option[2:]} = {json.dumps(int(value) if value.isdecimal() else value)}\n")
    ods.left_out = [option]
    ods.options = ["--config", str(config)]
    ods.start()
    config.write_text(f"[ods]\n{option[2:]} = {json.dumps(changed)}\n")
    done = restart(ods)
    assert done.returncode == 1 and option in done.stderr, done
    assert ods.healthz() == 200
    config.write_text(f"[ods]\n{option[2:]} = {json.dumps(int(value) if value.isdecimal() else value)}\n")


# -- One program ------------------------------------------------------------------------------------------------------


def test_the_worker_stores_what_it_has_read_and_ends_when_the_keeper_dies(
    start_ods: StartOds, own_influx: InfluxServer, measured: Measured
) -> None:
    """And the next start works at once, on the same port and directory."""
    ods, oracle = start_ods(own_influx, has_keeper=True), Oracle()
    with PodClient(ods.port) as pod:
        pod.send_lines(oracle.next_lines(pod.address, 5000))
        pod.wait_until_read()
        worker = ods.worker_id
        assert worker is not None
        began = time.monotonic()
        os.kill(ods.process_id, signal.SIGKILL)
        wait_until(lambda: has_ended(worker), timeout_seconds=10, what="the end of the worker")
        measured(f"the worker has ended {time.monotonic() - began:.2f} s after its keeper")
        ods.kill()
        began = time.monotonic()
        ods.start()
        measured(f"the next start took {time.monotonic() - began:.2f} s")
    check_exactly_once(ods, own_influx, oracle)


def test_the_next_start_waits_for_the_worker_of_a_keeper_that_was_killed(
    start_ods: StartOds, influx: InfluxServer
) -> None:
    """It stores what it had read, and holds the buffer until then."""
    ods = start_ods(influx, has_keeper=True)
    os.kill(ods.process_id, signal.SIGKILL)
    ods.wait_for_end(10)
    ods.forget()
    ods.start()
    with PodClient(ods.port).read_replies() as pod:
        assert pod.exchange(b"POD2accel_x 1\n") == b"OK: (accel_x,1.0)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_stores_what_was_read_and_ends_with_0(
    start_ods: StartOds, own_influx: InfluxServer, number: signal.Signals
) -> None:
    ods, oracle = start_ods(own_influx, has_keeper=True), Oracle()
    with PodClient(ods.port) as pod:
        pod.send_lines(oracle.next_lines(pod.address, 5000))
        pod.wait_until_read()
        ods.stop(number)
        assert re.search("stopped: 0 points wait", ods.log[-1]), ods.log_tail()
        assert pod.read_replies().has_ended.wait(10)
    oracle.check(own_influx.points(ods.database))


def test_ctrl_c_reaches_both_and_ends_them_once(start_ods: StartOds, influx: InfluxServer) -> None:
    """A terminal sends SIGINT to the worker too, which leaves it to the keeper; a second one changes nothing."""
    ods = start_ods(influx, has_keeper=True)
    worker = ods.worker_id
    assert worker is not None
    for process in (worker, ods.process_id, worker):
        os.kill(process, signal.SIGINT)
    ods.stop(signal.SIGINT)
    assert not causes(ods)
    assert len(ods.lines_with("stopped: ")) == 1


def test_a_worker_that_is_sent_sigterm_is_replaced(start_ods: StartOds, influx: InfluxServer) -> None:
    """Only the keeper ends ODS: whoever ends the worker in good order gets a restart that no pod notices."""
    ods = start_ods(influx, has_keeper=True)
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD2accel_x 1\n")
        pod.send(b"POD2accel_x 2")
        signal_worker(ods, signal.SIGTERM)
        wait_for_restart(ods, 0, what="the worker to end")
        assert pod.exchange(b"5\n") == b"OK: (accel_x,25.0)"


@pytest.mark.parametrize("taken", ["--port", "--http-port"])
def test_a_port_in_use_at_the_first_start_is_one_line_and_status_2(
    influx: InfluxServer, tmp_path: Path, taken: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        other = "--http-port" if taken == "--port" else "--port"
        arguments = ["--host", "127.0.0.1", taken, str(port), other, str(free_port()), "--directory", str(tmp_path)]
        ended = run_serve([*arguments, "--influx-port", str(influx.port)], home=tmp_path)
    assert ended.returncode == 2
    assert [line for line in ended.stderr.splitlines() if line.startswith("ods: ")] == ended.stderr.splitlines()[-1:]
    assert str(port) in ended.stderr and "Traceback" not in ended.stderr


def test_a_second_ods_on_the_same_directory_is_refused(start_ods: StartOds, influx: InfluxServer) -> None:
    ods = start_ods(influx, has_keeper=True)
    arguments = ["--port", str(free_port()), "--http-port", "0", "--directory", str(ods.directory)]
    ended = run_serve(arguments, home=ods.folder)
    assert ended.returncode == 2
    assert str(ods.process_id) in ended.stderr and len(ended.stderr.splitlines()) == 1


def test_a_pod_that_connects_while_there_is_no_worker_is_accepted(start_ods: StartOds, influx: InfluxServer) -> None:
    ods = start_ods(influx, has_keeper=True)
    signal_worker(ods, signal.SIGSTOP)
    with PodClient(ods.port).read_replies() as pod:
        pod.send(b"POD2accel_x 1\n")
        signal_worker(ods, signal.SIGKILL)
        assert pod.wait_for_replies(1) == [b"OK: (accel_x,1.0)"]
    connected = wait_until(
        lambda: [event for event in influx.events(ods.database) if event[2] == "connected"],
        timeout_seconds=10,
        what="the event",
    )
    assert len(connected) == 1


def test_restarts_are_told_by_the_status_the_log_the_report_and_an_event(
    start_ods: StartOds, influx: InfluxServer
) -> None:
    ods = start_ods(influx, has_keeper=True)
    signal_worker(ods, signal.SIGSEGV)
    wait_for_restart(ods, 0, what="the restart")
    wait_until_answering(ods, lives=2)
    (restart,) = ods.status()["restarts"]["latest"]
    assert (ods.status()["restarts"]["count"], restart["cause"]) == (1, "SIGSEGV")
    told = wait_until(
        lambda: [event for event in influx.events(ods.database) if event[2] == "worker_restarted"],
        timeout_seconds=10,
        what="the event",
    )
    assert [(pod, detail) for _, pod, _, detail in told] == [("ods", "SIGSEGV")]
    ods.stop()
    assert ods.lines_with("started anew 1 times.*SIGSEGV")


def test_systemd_hears_of_the_worker_and_the_watchdog_is_fed_by_the_next(influx: InfluxServer, tmp_path: Path) -> None:
    ods = OdsProcess(tmp_path / "ods", influx_port=influx.port, database="notified", has_keeper=True)
    with NotifySocket(tmp_path / "notify") as manager:
        ods.extra_environment = manager.environment(watchdog_seconds=3.0)
        with running(ods):
            manager.wait_for("READY")
            manager.wait_for_more("WATCHDOG", 2)
            signal_worker(ods, signal.SIGKILL)
            wait_for_restart(ods, 0, what="the restart")
            manager.wait_for_more("WATCHDOG", 2)
            assert not manager.count("STOPPING")
        manager.wait_for("STOPPING")


@pytest.mark.parametrize("has_keeper", [True, False])
def test_any_number_of_ctrl_c_ends_with_0_and_one_report(
    start_ods: StartOds, influx: InfluxServer, has_keeper: bool
) -> None:
    """Also where the last comes while the interpreter is taken down."""
    ods = start_ods(influx, has_keeper=has_keeper)
    until = time.monotonic() + STOP_TIMEOUT_SECONDS
    os.kill(ods.process_id, signal.SIGINT)
    while ods.is_running and time.monotonic() < until:
        os.kill(ods.process_id, signal.SIGINT)
        time.sleep(0.002)
    ods.stop(signal.SIGINT)
    assert len(ods.lines_with("stopped: ")) == 1


def test_what_is_logged_reaches_no_file_of_the_data_where_stderr_is_closed(
    start_ods: StartOds, influx: InfluxServer
) -> None:
    """The lock, or a connection, would get the number of stderr."""
    ods = start_ods(influx, has_keeper=True)
    ods.stop()
    ods.launcher = ["sh", "-c", 'exec "$@" <&- 2>&-', "sh"]
    ods.launch()
    wait_until(ods.answers, timeout_seconds=20, what="the status page")
    assert (ods.directory / "lock").read_text().strip() == str(ods.process_id)
    assert not {str(Path(f"/proc/{ods.process_id}/fd/{number}").readlink()) for number in (0, 2)} - {os.devnull}
    ods.stop()


def test_what_a_zygote_has_forked_that_died_before_it_told_is_no_zombie(
    start_ods: StartOds, influx: InfluxServer
) -> None:
    ods = start_ods(influx, has_keeper=True)
    children = Path(f"/proc/{ods.process_id}/task/{ods.process_id}/children")
    for pause_seconds in (0.0, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008):
        zygote = wait_until(lambda: ods.zygote_id, timeout_seconds=20, what="a zygote", state=ods.log_tail)
        before = len(causes(ods))
        signal_worker(ods, signal.SIGKILL)
        time.sleep(pause_seconds)
        os.kill(zygote, signal.SIGKILL)
        wait_for_restart(ods, before, what="the restart")
        # Before the next serves, the one worker to be seen may be one that the keeper does not know, about to end.
        wait_until_answering(ods, lives=len(causes(ods)) + 1)
        wait_until(
            lambda: len(children.read_text().split()) == 2,
            timeout_seconds=20,
            what="worker and zygote, and nothing else",
            state=children.read_text,
        )


# -- The keeper alone -------------------------------------------------------------------------------------------------


def test_the_keeper_does_not_grow(start_ods: StartOds, influx: InfluxServer, measured: Measured) -> None:
    """Over restarts of the worker and pods that came and went: memory, open files."""
    ods = start_ods(influx, has_keeper=True)
    wait_until(ods.answers, timeout_seconds=30, what="the page", state=ods.log_tail)

    def files() -> int:
        return len(list(Path(f"/proc/{ods.process_id}/fd").iterdir()))

    without_pods = files()

    def round_of(pods: int, restarts: int) -> int:
        for _ in range(pods // 50):
            connected = [PodClient(ods.port) for _ in range(50)]
            for pod in connected:
                pod.connect()
                pod.send(b"POD2accel_x 1\n")
            for pod in connected:
                pod.close()
        for _ in range(restarts):
            before = len(causes(ods))
            signal_worker(ods, signal.SIGKILL)
            wait_for_restart(ods, before, what="the restart")
            wait_until(lambda: ods.worker_id, timeout_seconds=10, what="a worker")
        wait_until(ods.answers, timeout_seconds=30, what="the page", state=ods.log_tail)
        # It holds two files of each pod until the worker has told that the connection has ended.
        wait_until(lambda: files() <= without_pods, timeout_seconds=30, what="what is open as before", state=files)
        return memory_bytes(ods.process_id)

    first = round_of(sized(200, long=1000), sized(5, long=20))
    last = round_of(sized(800, long=10_000), sized(10, long=50))
    measured(f"memory {first} -> {last} bytes, {without_pods} open files before, {files()} after")
    assert last - first < 1_000_000


def test_the_keeper_imports_nothing_of_the_worker() -> None:
    """So that it can be trusted: what it does not have cannot fail in it."""
    program = """
import sys
import ods.commands.serve
strangers = {"gevent", "influxdb", "requests", "sqlite3", "sqlite_utils", "psutil", "prometheus_client"}
print(sorted(strangers & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
