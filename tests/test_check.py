"""The checks hang on nothing: each is bounded, and none that fails goes missing."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.loopback import free_port

from ods.check import checks, influx, ports, storage
from ods.check.finding import Finding, State, failed, ok
from ods.check.options import Read, read
from ods.check.running import Running
from ods.commands.check import _parser


@pytest.fixture
def options(tmp_path: Path) -> Read:
    return read(_parser(), ["--port=0", "--http-port=0", f"--directory={tmp_path}"], {"HOME": str(tmp_path)})


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """What hangs until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def found(options: Read) -> dict[str, Finding]:
    all_found = checks.findings(options, points_per_second=1.0, begin=lambda what: None)
    return {finding.what: finding for finding in all_found}


def test_a_check_that_hangs_is_told_and_keeps_no_other_waiting(
    options: Read, hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(settings: object) -> Iterator[Finding]:
        hanging.wait()
        yield ok("InfluxDB", "never told")

    monkeypatch.setattr(influx, "look", hang)
    monkeypatch.setattr(checks, "LONGEST_SECONDS", 2.0)
    told = found(options)
    assert told["InfluxDB"].state is State.FAILED
    assert "no answer within 2 s" in told["InfluxDB"].found
    assert told["data directory"].state is not State.FAILED


def test_a_check_that_goes_wrong_is_told(options: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> Finding:
        raise OSError("the disk has said no")

    monkeypatch.setattr(storage, "look_at_directory", fail)
    monkeypatch.setattr(influx, "look", lambda settings: [failed("InfluxDB", "away", "start it")])
    assert "the disk has said no" in found(options)["data directory"].found


@pytest.mark.parametrize(
    ("pods_host", "page_host", "state"),
    [
        ("0.0.0.0", "127.0.0.1", State.FAILED),
        ("127.0.0.1", "127.0.0.1", State.FAILED),
        ("127.0.0.2", "127.0.0.1", State.OK),
    ],
)
def test_one_port_for_pods_and_page_is_told(pods_host: str, page_host: str, state: State) -> None:
    """Each of them is free by itself."""
    port = free_port()
    found = ports.look_at_second("page", page_host, port, Running(), option="--http-port", first=(pods_host, port))
    assert found.state is state
