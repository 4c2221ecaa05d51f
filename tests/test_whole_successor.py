"""The keeper's own end: it takes its own code anew, is killed, or stands still, and no pod notices."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import REPOSITORY, OdsProcess, StartOds, environment
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.service_manager import HeldSocket, NotifySocket
from harness.sizes import Measured, sized
from harness.strict_pod import Fleet
from harness.versions import Versions
from harness.wait import wait_until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the keeper is for Linux"),
    pytest.mark.timeout(sized(180, long=1500), method="signal"),
]

PODS = 10
ENDED = r"worker \d+ ended: (.*); another takes over"
ANEW = "its own code is taken anew"
WATCHDOG_SECONDS = 3.0


@contextmanager
def kept(ods: OdsProcess) -> Iterator[OdsProcess]:
    """ODS, whatever is done with its lives; the last is stopped in good order."""
    try:
        yield ods
        ods.stop()
        assert not ods.tracebacks(), ods.log_tail(200)
    finally:
        ods.kill()
        print(ods.log_tail(100))


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


def wait_for_lines(ods: OdsProcess, pattern: str, count: int) -> None:
    wait_until(
        lambda: len(ods.lines_with(pattern)) >= count,
        timeout_seconds=30,
        what=f"{count} lines with {pattern!r}",
        state=ods.log_tail,
    )


# -- Its own code -----------------------------------------------------------------------------------------------------


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    versions = Versions(tmp_path / "versions")
    versions.add("1.0.1")
    versions.add("1.0.2", changed="\nLATEST = 21\n", module="restarts")
    versions.add("1.0.3", changed="\nraise RuntimeError('this keeper is broken')\n", module="held")
    versions.add("1.0.4", changed="\nVERSION = 99\n", module="keeper_state")
    versions.use("1.0.1")
    return versions


def test_no_pod_notices_that_the_keeper_takes_its_own_code_anew_and_back(
    own_influx: InfluxServer, tmp_path: Path, versions: Versions, measured: Measured
) -> None:
    """The process stays, and its worker is watched as before: it is replaced when it dies then."""
    oracle = Oracle()
    ods = OdsProcess(tmp_path / "ods-life", influx_port=own_influx.port, database="anew", has_keeper=True)
    ods.program = [sys.executable, str(versions.link / "ods_server.py")]
    with kept(ods):
        ods.start()
        with Fleet(ods.port, oracle, pods=PODS) as fleet:
            for number, new in enumerate(["1.0.2", "1.0.1", "1.0.2"], 1):
                versions.use(new)
                done = restart(ods)
                assert (done.returncode, ods.status()["version"]) == (0, new), done.stderr + ods.log_tail()
                wait_for_lines(ods, ANEW, number)
                with PodClient(ods.port, address="127.0.4.1").read_replies() as late:  # it accepts
                    assert late.exchange(b"not understood\n") == b"FAIL: not understood"
                worker = ods.worker_id
                assert worker is not None
                os.kill(worker, signal.SIGKILL)
                wait_for_lines(ods, ENDED, 2 * number)
                wait_until(ods.answers, timeout_seconds=20, what="the status page", state=ods.log_tail)
            assert restart(ods).returncode == 0
            fleet.finish()
            check_exactly_once(ods, own_influx, oracle)
            assert ods.status()["restarts"]["count"] == 7
        assert len(ods.lines_with(ANEW)) == 3, "the same code is not taken anew"
    measured(f"{oracle.sent_count()} records, longest send {fleet.longest_send_seconds:.3f} s")


@pytest.mark.parametrize(("broken", "reason"), [("1.0.3", "this keeper is broken"), ("1.0.4", "of its state")])
def test_a_keeper_that_could_not_go_on_is_refused_with_its_reason(
    own_influx: InfluxServer, tmp_path: Path, versions: Versions, broken: str, reason: str
) -> None:
    """Broken, or of another form: nothing is changed then, the worker included."""
    oracle = Oracle()
    ods = OdsProcess(tmp_path / "ods-life", influx_port=own_influx.port, database="refused", has_keeper=True)
    ods.program = [sys.executable, str(versions.link / "ods_server.py")]
    with kept(ods):
        ods.start()
        worker = ods.worker_id
        with Fleet(ods.port, oracle, pods=2) as fleet:
            versions.use(broken)
            done = restart(ods)
            assert done.returncode == 1
            assert reason in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
            assert (ods.status()["version"], ods.worker_id) == ("1.0.1", worker)
            versions.use("1.0.1")
            fleet.finish()
            check_exactly_once(ods, own_influx, oracle)
        assert not ods.lines_with(ANEW)


# -- Its death --------------------------------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path / "notify") as socket:
        yield socket


def end_whole(ods: OdsProcess) -> None:
    """The keeper is killed, and its worker before it can end."""
    ods.kill()


def end_keeper(ods: OdsProcess) -> None:
    """The keeper alone is killed, and the next start is quicker than the end of the worker."""
    os.kill(ods.process_id, signal.SIGKILL)
    ods.wait_for_end(10)
    ods.forget()


def stop(ods: OdsProcess) -> None:
    """As `systemctl restart` does."""
    ods.stop()


@pytest.mark.parametrize("end", [end_whole, end_keeper, stop])
def test_no_pod_notices_that_a_service_manager_starts_ods_anew(
    own_influx: InfluxServer,
    manager: NotifySocket,
    tmp_path: Path,
    measured: Measured,
    end: Callable[[OdsProcess], None],
) -> None:
    oracle, chance = Oracle(), random.Random(1)
    ods = OdsProcess(tmp_path / "ods-life", influx_port=own_influx.port, database="stored", has_keeper=True)
    ods.extra_environment = manager.environment()
    with HeldSocket(ods.port) as held, kept(ods):
        ods.launcher, ods.passed_on = manager.launcher(held)
        ods.start()
        with Fleet(ods.port, oracle, pods=PODS) as fleet:
            for life in range(sized(4, long=40)):
                time.sleep(chance.random() * 1.5)  # the moment is what this is about
                if life % 3 == 1:
                    own_influx.kill()
                elif not own_influx.is_running:
                    own_influx.start()
                end(ods)
                ods.launcher, ods.passed_on = manager.launcher(held)
                ods.start()
                assert ods.lines_with(f"{PODS} connections that systemd has held are taken up")
                assert not any(pod.is_in_emergency for pod in fleet.pods), ods.log_tail(100)
            if not own_influx.is_running:
                own_influx.start()
            fleet.finish()
            check_exactly_once(ods, own_influx, oracle)
            connected = [event for event in own_influx.events(ods.database) if event[2] == "connected"]
            assert len(connected) == PODS, "it is no new connection to the operator either"
        wait_until(lambda: not manager.stored, timeout_seconds=20, what="no file to be held", state=manager.stored)
    measured(f"{oracle.sent_count()} records, longest send {fleet.longest_send_seconds:.3f} s")


def test_what_a_pod_sent_before_its_end_is_stored_though_it_ended_while_ods_was_away(
    influx: InfluxServer, manager: NotifySocket, tmp_path: Path
) -> None:
    """It has closed its connection, or reset it: the tape tells whose it was."""
    ods = OdsProcess(tmp_path / "ods-life", influx_port=influx.port, database="ended", has_keeper=True)
    ods.extra_environment = manager.environment()
    with HeldSocket(ods.port) as held, kept(ods):
        ods.launcher, ods.passed_on = manager.launcher(held)
        ods.start()
        oracle = Oracle()
        pods = [PodClient(ods.port, address=f"127.0.2.{number}") for number in (1, 2)]
        for pod in pods:
            pod.connect()
            pod.send_lines(oracle.next_lines(pod.address, 10))
            pod.wait_until_read()
        ods.wait_for_totals(received=20, in_flight=0)
        ods.kill()
        for pod in pods:
            pod.send_lines(oracle.next_lines(pod.address, 10))
        pods[0].close()
        pods[1].reset()
        ods.launcher, ods.passed_on = manager.launcher(held)
        ods.start()
        check_exactly_once(ods, influx, oracle)
        wait_until(lambda: not manager.stored, timeout_seconds=20, what="no file to be held", state=manager.stored)


def test_without_a_keeper_what_was_held_is_let_go_of(
    influx: InfluxServer, manager: NotifySocket, tmp_path: Path
) -> None:
    """A connection that nobody reads from would keep its pod waiting for ever."""
    ods = OdsProcess(tmp_path / "ods-life", influx_port=influx.port, database="let_go", has_keeper=True)
    ods.extra_environment = manager.environment()
    with HeldSocket(ods.port) as held, kept(ods):
        ods.launcher, ods.passed_on = manager.launcher(held)
        ods.start()
        with PodClient(ods.port).read_replies() as pod:
            pod.exchange(b"POD2accel_x 1\n")
            ods.stop()
            ods.launcher, ods.passed_on = manager.launcher(held)
            ods.has_keeper = False
            ods.start()
            wait_until(lambda: not manager.stored, timeout_seconds=20, what="no file to be held")
            assert pod.has_ended.wait(20)


def test_the_next_start_works_at_once_while_pods_are_connected_under_load(
    start_ods: StartOds, own_influx: InfluxServer, measured: Measured
) -> None:
    """Without a service manager their connections end, and new pods are served."""
    ods, oracle = start_ods(own_influx, has_keeper=True), Oracle()
    with Fleet(ods.port, oracle, pods=PODS, records_per_second=500) as fleet:
        ods.wait_for_status(lambda status: status["totals"]["received"] > 5000, what="load")
        os.kill(ods.process_id, signal.SIGKILL)
        ods.wait_for_end(10)
        ods.forget()
        began = time.monotonic()
        ods.start()
        measured(f"the next start took {time.monotonic() - began:.2f} s")
        wait_until(
            lambda: all(pod.is_in_emergency for pod in fleet.pods), timeout_seconds=20, what="their connections to end"
        )
    with PodClient(ods.port, address="127.0.4.1").read_replies() as pod:
        assert pod.exchange(b"POD2late 1\n") == b"OK: (late,1.0)"
    ods.wait_until_settled()


# -- Its standing still -----------------------------------------------------------------------------------------------


def test_the_watchdog_starves_while_the_keeper_is_frozen(
    influx: InfluxServer, manager: NotifySocket, tmp_path: Path
) -> None:
    """It accepts no pod then, and starts no worker; the pods that are connected are served."""
    ods = OdsProcess(tmp_path / "ods", influx_port=influx.port, database="frozen", has_keeper=True)
    ods.extra_environment = manager.environment(watchdog_seconds=WATCHDOG_SECONDS)
    with kept(ods):
        ods.start()
        with PodClient(ods.port).read_replies() as pod:
            assert pod.exchange(b"POD2accel_x 1\n") == b"OK: (accel_x,1.0)"
            manager.wait_for_more("WATCHDOG", 3)
            os.kill(ods.process_id, signal.SIGSTOP)
            fed = manager.count("WATCHDOG")
            wait_until(
                lambda: manager.is_silent_for(WATCHDOG_SECONDS), timeout_seconds=30, what="the watchdog to starve"
            )
            assert manager.count("WATCHDOG") - fed <= 1
            assert pod.exchange(b"POD2accel_x 2\n") == b"OK: (accel_x,2.0)"
            os.kill(ods.process_id, signal.SIGCONT)
            manager.wait_for_more("WATCHDOG", 2)
            assert not ods.lines_with(ENDED)
