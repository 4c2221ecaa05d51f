"""ODS as a service: what systemd hears of it and hands it, and the files by which systemd and Docker run it."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.influx_server import InfluxServer
from harness.loopback import free_port, http
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.service_manager import HeldSocket, NotifySocket
from harness.sick_disk import SickDisk, Sickness
from harness.stopped_thread import StoppedThread, lacking
from harness.stream import Stream
from harness.tools import require
from harness.wait import wait_until

ROOT = Path(__file__).parents[1]
UNITS = ROOT / "conf" / "systemd"
#: The watchdog's time in these tests: it is fed each second. Seconds.
WATCHDOG_SECONDS = 3.0
#: The highest exposure that `systemd-analyze security` may find, in tenths: what it calls OK is below 5.
EXPOSURE = 19
#: Every sync takes longer than the test.
HANGING = Sickness("hanging", sync_wait_seconds=600.0)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's"),
    pytest.mark.timeout(120, method="signal"),
]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path / "notify") as manager:
        yield manager


@pytest.fixture
def start_service(start_ods: StartOds, manager: NotifySocket) -> Callable[..., OdsProcess]:
    """Start an ODS that is watched over."""

    def start(influx: InfluxServer, **given: object) -> OdsProcess:
        extra = dict(given.pop("extra_environment", {}))  # type: ignore[call-overload]
        extra |= manager.environment(watchdog_seconds=WATCHDOG_SECONDS)
        return start_ods(influx, extra_environment=extra, **given)

    return start


def sentence(ods: OdsProcess) -> str:
    text: str = ods.status()["sentence"]["text"]
    return text


def test_it_is_ready_once_it_listens(influx: InfluxServer, manager: NotifySocket, tmp_path: Path) -> None:
    """A pod that boots when systemd says that ODS is there is accepted at the first try."""
    ods = OdsProcess(tmp_path / "ods", influx_port=influx.port, database="ready")
    ods.extra_environment = manager.environment()
    ods.launch()
    try:
        manager.wait_for("READY")
        with PodClient(ods.port).read_replies() as pod:
            assert pod.exchange(b"POD2accel_x 1\n") == b"OK: (accel_x,1.0)"
        assert manager.count("READY") == 1
        assert not manager.count("WATCHDOG"), "nobody asked for it"
        ods.stop()
    finally:
        ods.kill()


def test_the_status_line_is_the_sentence_of_the_page(
    start_service: Callable[..., OdsProcess], own_influx: InfluxServer, manager: NotifySocket
) -> None:
    """It follows InfluxDB's death and return, and is said only when it changes."""
    ods = start_service(own_influx)
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD2accel_x 1\n")
        live = manager.wait_for("STATUS", lambda said: said.startswith("Live"))
        assert live == sentence(ods)
        said = manager.count("STATUS")
        manager.wait_for_more("WATCHDOG", 3)
        assert manager.count("STATUS") == said
        own_influx.kill()
        pod.exchange(b"POD2accel_x 2\n")
        buffering = manager.wait_for("STATUS", lambda said: said.startswith("Buffering") and "1 point" in said)
        assert buffering == sentence(ods)
        own_influx.start()
        manager.wait_for("STATUS", lambda said: said == live)


def test_the_watchdog_starves_while_ods_is_frozen(
    start_service: Callable[..., OdsProcess], influx: InfluxServer, manager: NotifySocket
) -> None:
    ods = start_service(influx, has_keeper=False)  # a keeper replaces a worker that is frozen
    manager.wait_for_more("WATCHDOG", 2)
    ods.pause()
    manager.is_silent_for(0.5)  # what was said before
    assert manager.is_silent_for(WATCHDOG_SECONDS)
    ods.resume()
    manager.wait_for_more("WATCHDOG", 2)


def test_the_watchdog_starves_while_the_hub_is_blocked_and_its_signal_tells_where(
    influx: InfluxServer, manager: NotifySocket, tmp_path: Path
) -> None:
    """All other threads go on. SIGABRT, the watchdog's, writes the stack of every thread."""
    if advice := lacking():
        pytest.skip(advice)
    ods = OdsProcess(tmp_path / "ods", influx_port=influx.port, database="blocked", has_keeper=False)
    ods.extra_environment = manager.environment(watchdog_seconds=WATCHDOG_SECONDS)
    ods.start()
    try:
        manager.wait_for_more("WATCHDOG", 2)
        try:
            with StoppedThread(ods.process_id):
                manager.is_silent_for(0.5)
                assert manager.is_silent_for(WATCHDOG_SECONDS)
                os.kill(ods.process_id, signal.SIGABRT)
                assert ods.wait_for_end(20) == -signal.SIGABRT
        except PermissionError:
            pytest.skip("a thread cannot be stopped here: ptrace is not permitted")
        for stack in (r"gevent/hub\.py.* in run", r"ods/worker\.py.* in _work", r"ods/progress\.py.* in _watch_hub"):
            ods.wait_for_line(stack)
    finally:
        ods.kill()


def test_the_watchdog_is_fed_while_influx_is_frozen_and_the_disk_hangs(
    start_service: Callable[..., OdsProcess], own_influx: InfluxServer, manager: NotifySocket, sick_disk: SickDisk
) -> None:
    """With both, no batch gets its fate: a restart could not change it, and would end the run of every pod."""
    ods = start_service(own_influx, directory=sick_disk.directory / "data", extra_environment=sick_disk.environment)
    oracle = Oracle()
    with Stream(ods.port, oracle, lines_per_second=100, burst_lines=1) as stream:
        own_influx.pause()
        manager.wait_for("STATUS", lambda said: said.startswith("Buffering"))
        manager.wait_for_more("WATCHDOG", 2)
        sick_disk.fall_sick(HANGING)
        ods.wait_for_status(
            lambda status: "batches" in status["standing_still"], what="batches to stand still", timeout_seconds=60
        )
        manager.wait_for_more("WATCHDOG", 6)
        assert "batches" in ods.status()["standing_still"]
        own_influx.resume()
        sick_disk.heal()
        stream.finish()
    ods.wait_until_settled()
    oracle.check(own_influx.points(ods.database))
    assert oracle.refused_count() == 0


def test_systemd_hears_of_the_stop_before_it_is_over(
    start_service: Callable[..., OdsProcess], influx: InfluxServer, manager: NotifySocket
) -> None:
    ods = start_service(influx)
    ods.stop()
    manager.wait_for("STOPPING")
    assert manager.wait_for("STATUS").startswith("Stopping")


def test_pods_that_come_while_ods_is_down_are_accepted_at_the_next_start(
    influx: InfluxServer, manager: NotifySocket, tmp_path: Path
) -> None:
    """The socket outlives ODS, however ODS ended: nobody is refused, and what was sent meanwhile is stored."""
    oracle, pods = Oracle(), itertools.count(1)
    ods = OdsProcess(tmp_path / "ods", influx_port=influx.port, database="handed_over")
    ods.extra_environment = manager.environment()
    with HeldSocket(ods.port) as held:
        ods.launcher, ods.passed_on = held.launcher, [held.file_descriptor]
        try:
            for end in (ods.stop, ods.kill, ods.stop):
                with PodClient(ods.port, address=f"127.0.2.{next(pods)}").read_replies() as pod:
                    pod.send_lines(oracle.next_lines(pod.address, 1000))
                    ods.start()
                    oracle.judge(pod.address, pod.wait_for_replies(1000))
                    ods.wait_until_settled()
                    end()
            ods.start()
            ods.wait_until_settled()
            ods.stop()
        finally:
            ods.kill()
    oracle.check(influx.points(ods.database))
    assert oracle.refused_count() == 0
    assert not ods.tracebacks()


def test_a_socket_of_systemd_counts_more_than_the_port_of_the_options(influx: InfluxServer, tmp_path: Path) -> None:
    """`systemd-socket-activate` starts ODS for the first pod that connects; the other port is said, and not used."""
    activate = require("systemd-socket-activate", package="systemd")
    port, http_port = free_port(), free_port()
    options = ["--port", str(free_port()), "--http-port", str(http_port), "--directory", str(tmp_path / "data")]
    options += ["--influx-host", "127.0.0.1", "--influx-port", str(influx.port), "--influx-name", "activated"]
    with (tmp_path / "log").open("w") as log:
        ods = subprocess.Popen(
            [
                *(activate, f"--listen=127.0.0.1:{port}", "--fdname=pods", "--setenv=PYTHONUNBUFFERED=1"),
                *(sys.executable, "-m", "ods", "serve", *options),
            ],
            cwd=ROOT,
            stderr=log,
        )
    try:
        pod = wait_until(lambda: connected(port), timeout_seconds=20, what="systemd-socket-activate to listen")
        with contextlib.closing(pod):
            assert pod.exchange(b"POD2accel_x 1\n", timeout_seconds=30) == b"OK: (accel_x,1.0)"
            assert http(f"http://127.0.0.1:{http_port}/healthz")[0] == 200
        ods.send_signal(signal.SIGTERM)
        assert ods.wait(10) == 0
    finally:
        ods.kill()
        ods.wait()
    said = (tmp_path / "log").read_text()
    assert len(re.findall(rf"WARNING.* port {port}\b", said)) == 1, said


def connected(port: int) -> PodClient | None:
    pod = PodClient(port).read_replies()
    try:
        pod.connect()
    except ConnectionRefusedError:
        pod.close()
        return None
    return pod


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as they are installed, for this copy of the code and this Python."""
    folder = tmp_path / "units"
    folder.mkdir()
    for unit in (UNITS / "ods.service", UNITS / "ods.socket"):
        text = unit.read_text().replace("/opt/ods/.venv/bin/python", sys.executable).replace("/opt/ods", str(ROOT))
        (folder / unit.name).write_text(text)
    return folder


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    analyze = require("systemd-analyze", package="systemd")
    return subprocess.run([analyze, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_finds_nothing_wrong_with_the_units(units: Path) -> None:
    done = analyze("verify", "--man=no", str(units / "ods.service"), str(units / "ods.socket"))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_rates_the_hardening_well(units: Path) -> None:
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}", str(units / "ods.service"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", ["ods.service", "ods.socket"])
def test_nothing_delays_the_start_or_ends_the_restarts(unit: str) -> None:
    """Neither the network nor InfluxDB is waited for, and no number of failures is the last."""
    settings = [line for line in (UNITS / unit).read_text().splitlines() if not line.startswith("#")]
    waited_for = re.compile(r"(After|Requires|Requisite|BindsTo|PartOf|Condition\w*|Assert\w*)=")
    assert not [line for line in settings if waited_for.match(line)]
    assert "StartLimitIntervalSec=0" in settings
    assert ("Restart=always" if unit == "ods.service" else "TriggerLimitIntervalSec=0") in settings


def test_the_user_of_the_unit_is_the_one_that_is_made() -> None:
    (user,) = re.findall(r"^User=(\w+)$", (UNITS / "ods.service").read_text(), re.MULTILINE)
    assert re.search(rf"^u {user} ", (UNITS / "sysusers.conf").read_text(), re.MULTILINE)


def check_compose(*compose: str) -> None:
    done = subprocess.run(
        [*compose, "-f", str(ROOT / "conf" / "compose.yaml"), "config"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"influxdb:", "grafana:", "ods:"} <= {line.strip() for line in done.stdout.splitlines()}


def test_docker_compose_accepts_the_compose_file() -> None:
    """Its first generation, which is Debian 12's."""
    check_compose(require("docker-compose", package="docker-compose"))


def test_docker_compose_of_the_second_generation_accepts_the_compose_file() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no `docker compose` on this machine: it is no package of Debian 12")
    check_compose(docker, "compose")


def test_the_image_is_made_of_all_that_the_server_is() -> None:
    """What the Dockerfile copies is there, and is let through to it; nothing else at the top belongs to the server."""
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / "conf" / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sources == let_through == {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "ods_server.py", "ods"}
    assert all((ROOT / source).exists() for source in sources)
