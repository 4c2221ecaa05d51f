"""Fixtures of the whole-program tests: a real InfluxDB, and ODS as a process of its own."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import preload
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds
from harness.pod_client import PodClient
from harness.sick_disk import SickDisk
from harness.sizes import Measured
from harness.small_disk import SmallDisk
from harness.stepped_clock import SteppedClock
from harness.victoria_metrics import VictoriaMetrics

if TYPE_CHECKING:
    from harness.browser import OpenPage
    from playwright.sync_api import Browser

#: What was measured, for the summary at the end of the run.
MEASURED = pytest.StashKey[list[str]]()

#: A job that a script leaves in the background begins with this signal ignored, and so would what is tested begin.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count(1)
_hosts = itertools.count(1)


def _require_influx() -> None:
    _require(InfluxServer.is_installed(), program="influxd", package="influxdb")


def _require(is_installed: bool, *, program: str, package: str) -> None:
    if is_installed:
        return
    advice = f"no {program} on this machine: install Debian's package {package} to run the whole-program tests"
    if os.environ.get("CI"):
        pytest.fail(advice, pytrace=False)
    pytest.skip(advice)


def _running_influx(folder: Path) -> Iterator[InfluxServer]:
    _require_influx()
    server = InfluxServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def needs_influx() -> None:
    """For what starts an InfluxDB itself."""
    _require_influx()


@pytest.fixture(scope="module")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """An InfluxDB that the tests of a module share. No test takes it away."""
    yield from _running_influx(tmp_path_factory.mktemp("influx"))


@pytest.fixture(scope="module")
def two_influxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[InfluxServer]]:
    """For what runs twice at once; to be taken away, and to be there again at the end of each run."""
    with contextlib.ExitStack() as running:
        start = contextlib.contextmanager(_running_influx)
        yield [running.enter_context(start(tmp_path_factory.mktemp("influx"))) for _ in range(2)]


@pytest.fixture
def own_influx(tmp_path: Path) -> Iterator[InfluxServer]:
    """An InfluxDB of the test's own, to be killed, stopped and started."""
    yield from _running_influx(tmp_path / "influx")


@pytest.fixture
def locked_influx(tmp_path: Path) -> Iterator[InfluxServer]:
    """An InfluxDB of the test's own that asks for a password. Its administrator is the test."""
    _require_influx()
    server = InfluxServer(tmp_path / "influx", auth_enabled=True)
    try:
        server.start()
        server.create_administrator("root", "the-right-password")
        yield server
    finally:
        server.kill()


@pytest.fixture
def victoria_metrics(tmp_path: Path) -> Iterator[VictoriaMetrics]:
    """A VictoriaMetrics of the test's own, to be killed, stopped and started."""
    _require(VictoriaMetrics.is_installed(), program="victoria-metrics", package="victoria-metrics")
    server = VictoriaMetrics(tmp_path / "victoria-metrics")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def start_ods(tmp_path: Path) -> Iterator[StartOds]:
    """Start an ODS that writes to a given InfluxDB, in a database of its own.

    At the end each must stop in good order, and must never have logged a traceback.
    """
    processes: list[OdsProcess] = []

    def start(
        influx: InfluxServer,
        *options: str,
        has_buffer: bool = True,
        directory: Path | None = None,
        extra_environment: Mapping[str, str] | None = None,
        has_keeper: bool | None = None,
    ) -> OdsProcess:
        number = next(_numbers)
        ods = OdsProcess(
            tmp_path / f"ods-{number}",
            influx_port=influx.port,
            database=f"run_{number}",
            options=options,
            directory=directory,
            extra_environment=extra_environment,
            has_keeper=has_keeper,
        )
        processes.append(ods)
        ods.start(has_buffer=has_buffer)
        return ods

    try:
        yield start
        for ods in processes:
            ods.stop()
            assert not ods.tracebacks(), f"ODS logged a traceback\n{ods.log_tail(200)}"
    finally:
        for ods in processes:
            ods.kill()
            print(ods.log_tail())


def _library(name: str, factory: pytest.TempPathFactory) -> Path:
    """Build a library to be preloaded."""
    if advice := preload.lacking():
        if os.environ.get("CI") and sys.platform == "linux":
            pytest.fail(advice, pytrace=False)
        pytest.skip(advice)
    return preload.build(name, factory.mktemp("preload"))


@pytest.fixture(scope="session")
def sick_disk_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _library("sick_disk", tmp_path_factory)


@pytest.fixture(scope="session")
def stepped_clock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _library("stepped_clock", tmp_path_factory)


@pytest.fixture
def sick_disk(tmp_path: Path, sick_disk_library: Path) -> SickDisk:
    """The disk below a directory of the test's own, sound until it is told to be sick."""
    directory = tmp_path / "disk"
    directory.mkdir()
    return SickDisk(sick_disk_library, tmp_path / "sick_disk", directory)


@pytest.fixture
def stepped_clock(tmp_path: Path, stepped_clock_library: Path) -> SteppedClock:
    """The wall clock of a process that is started with its environment."""
    return SteppedClock(stepped_clock_library, tmp_path / "stepped_clock")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A real file system of 64 MB."""
    if advice := SmallDisk.lacking():
        pytest.skip(advice)
    disk = SmallDisk(tmp_path / "small_disk")
    try:
        disk.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a small disk cannot be mounted here: {error.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        disk.unmount()


@pytest.fixture
def ods(start_ods: StartOds, influx: InfluxServer) -> OdsProcess:
    """An ODS of the test's own beside the module's InfluxDB."""
    return start_ods(influx)


@pytest.fixture(scope="module")
def shared_ods(influx: InfluxServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OdsProcess]:
    """One ODS for all lines: it must survive every one of them."""
    ods = OdsProcess(tmp_path_factory.mktemp("ods"), influx_port=influx.port, database="input")
    try:
        ods.start()
        yield ods
        ods.stop()
        assert not ods.tracebacks(), ods.log_tail(200)
    finally:
        ods.kill()
        print(ods.log_tail())


@pytest.fixture
def pod(shared_ods: OdsProcess) -> Iterator[PodClient]:
    """A pod that nobody else is, and that reads its replies."""
    with PodClient(shared_ods.port, address=f"127.0.4.{next(_hosts)}") as client:
        yield client.read_replies()


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A browser that the tests of a module share. What drives it is imported where it is used alone."""
    from harness.browser import is_installed, running_browser

    _require(is_installed(), program="/usr/bin/chromium", package="chromium")
    with running_browser() as started:
        yield started


@pytest.fixture
def open_page(browser: "Browser") -> "Iterator[OpenPage]":
    """Open the live page of an ODS, or (address None) a window for it.

    At the end no page may have done what it must never do.
    """
    from harness.browser import LivePage

    pages: list[LivePage] = []

    def open_one(ods: OdsProcess, address: str | None = "/", **options: object) -> LivePage:
        pages.append(LivePage(browser, ods.url, **options))
        return pages[-1] if address is None else pages[-1].open(address)

    yield open_one
    for page in pages:
        page.close()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Note a figure, to be shown at the end of the run: tests measure, and only the long run asserts."""

    def note(figure: str) -> None:
        request.config.stash.setdefault(MEASURED, []).append(f"{request.node.name}: {figure}")

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what was measured."""
    figures = config.stash.get(MEASURED, [])
    if figures:
        terminalreporter.section("measured")
        for figure in figures:
            terminalreporter.line(figure)
