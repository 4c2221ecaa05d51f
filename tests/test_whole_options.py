"""The whole program's command line: one clear line for what is wrong, and what is right takes effect."""

import json
import re
import signal
import socket
from pathlib import Path

import pytest
from harness.influx_server import InfluxServer
from harness.loopback import free_port, http
from harness.ods_process import OdsProcess, StartOds, run_serve
from harness.pod_client import PodClient
from harness.sizes import sized

pytestmark = pytest.mark.timeout(sized(60, long=120), method="signal")


def assert_refused(
    folder: Path, *options: str, says: str, environment: dict[str, str] | None = None, http_port: str = "0"
) -> None:
    """Assert that `serve` ends with status 2 and one line on stderr, which matches `says`."""
    basics = ["--host", "127.0.0.1", "--http-port", http_port, "--directory", str(folder / "data")]
    result = run_serve([*basics, *options], home=folder, extra_environment=environment)
    lines = result.stderr.splitlines()
    assert result.returncode == 2, result
    assert len(lines) == 1, f"one line, not\n{result.stderr}"
    assert re.search(says, lines[0], re.IGNORECASE), lines[0]
    assert "Traceback" not in result.stdout


BAD_OPTIONS = {
    "a port that is no number": (["--port", "seven"], "port.*seven|seven.*port"),
    "a port too high": (["--port", "70000"], "port.*70000|70000.*port"),
    "an unknown option": (["--no-such-option"], "no-such-option"),
    "a name for no address": (["--pod", "alpha"], "pod.*alpha"),
    "a name for what is no address": (["--pod", "nowhere=alpha"], "pod.*nowhere"),
    "no network": (["--allow", "everyone"], "allow.*everyone"),
    "no size": (["--buffer-limit", "lots"], "buffer-limit.*lots"),
    "no count of names": (["--max-names", "few"], "max-names.*few"),
    "no log format": (["--log-format", "xml"], "log-format.*xml"),
    "a password file that is missing": (["--influx-pass-file", "/nowhere/pass"], "/nowhere/pass"),
    "a sensor file that is missing": (["--sensors", "/nowhere/sensors.toml"], "sensors.*/nowhere/sensors.toml"),
    "a configuration file that is missing": (["--config", "/nowhere/ods.toml"], "/nowhere/ods.toml"),
}


@pytest.mark.parametrize(("options", "says"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_a_bad_option_gets_one_line_and_status_2(tmp_path: Path, options: list[str], says: str) -> None:
    assert_refused(tmp_path, "--port", str(free_port()), *options, says=says)


BAD_FILES = {
    "an unknown key": ("[ods]\nprot = 7778\n", "prot"),
    "a bad value": ('[ods]\nport = "seven"\n', "port"),
    "no TOML": ("port: 7778\n", "ods.toml"),
}


@pytest.mark.parametrize(("text", "says"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_configuration_file_gets_one_line_and_status_2(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "ods.toml").write_text(text)
    assert_refused(tmp_path, "--config", str(tmp_path / "ods.toml"), says=says)


def test_a_wrong_sensor_file_gets_one_line_with_the_number_of_its_line_and_status_2(tmp_path: Path) -> None:
    file = tmp_path / "sensors.toml"
    file.write_text("[accel_x]\nunit = 'm'\ndanger = {low = 3, high = 1}\n")
    told = re.escape(f"--sensors {file}, line 3: accel_x: danger.low is not below danger.high")
    assert_refused(tmp_path, "--port", str(free_port()), "--sensors", str(file), says=told)


def test_a_bad_value_in_the_environment_gets_one_line_and_status_2(tmp_path: Path) -> None:
    assert_refused(tmp_path, says="port", environment={"ODS_PORT": "seven"})


def test_a_port_in_use_gets_one_line_and_status_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_refused(tmp_path, "--port", port, says=port)


def test_a_port_of_the_status_page_in_use_gets_one_line_and_status_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_refused(tmp_path, "--port", str(free_port()), says=port, http_port=port)


def test_a_second_ods_on_the_same_directory_is_refused(ods: OdsProcess) -> None:
    """And the first one goes on."""
    options = ["--port", str(free_port()), "--directory", str(ods.directory)]
    assert_refused(ods.folder, *options, says=re.escape(str(ods.directory)))
    with PodClient(ods.port).read_replies() as pod:
        assert pod.exchange(b"POD2accel_x 1\n") == b"OK: (accel_x,1.0)"


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    """Shown by what is wrong with the one that wins."""
    (tmp_path / "ods.toml").write_text('[ods]\nport = "from-file"\n')
    file = ["--config", str(tmp_path / "ods.toml")]
    assert_refused(tmp_path, *file, says="from-file")
    assert_refused(tmp_path, *file, says="from-environment", environment={"ODS_PORT": "from-environment"})
    assert_refused(
        tmp_path, *file, "--port", "from-flag", says="from-flag", environment={"ODS_PORT": "from-environment"}
    )


def test_options_are_taken_from_a_configuration_file(start_ods: StartOds, influx: InfluxServer, tmp_path: Path) -> None:
    file = tmp_path / "ods.toml"
    file.write_text('[ods]\npod = ["127.0.2.1=alpha"]\nmax-names = 1\n')
    ods = start_ods(influx, "--config", str(file))
    assert ods.lines_with(re.escape(str(file))), "the start says which file was read"
    with PodClient(ods.port).read_replies() as pod:
        assert pod.exchange(b"POD2accel_x 1\n").startswith(b"OK")
        assert pod.exchange(b"POD2accel_y 1\n").startswith(b"FAIL")
    assert ods.pod_status("alpha")["received"] == 1


def test_the_start_says_what_its_user_must_know(ods: OdsProcess, influx: InfluxServer) -> None:
    """Addresses for pods, the data directory in full, the configuration file, InfluxDB, backlog, disk, the page."""
    for pattern in (
        rf"127\.0\.0\.1\b.*\b{ods.port}\b",
        re.escape(str(ods.directory)),
        r"configuration",
        rf"127\.0\.0\.1:{influx.port}",
        r"backlog|waiting|pending",
        r"hours?",
        rf"http://127\.0\.0\.1:{ods.http_port}",
    ):
        ods.wait_for_line(pattern)


def test_a_peer_outside_the_allowed_networks_is_refused_with_a_warning(
    start_ods: StartOds, influx: InfluxServer
) -> None:
    ods = start_ods(influx, "--allow", "127.0.2.0/24", "--allow", "127.0.5.1")
    for address in ("127.0.2.200", "127.0.5.1"):
        with PodClient(ods.port, address=address).read_replies() as pod:
            assert pod.exchange(b"POD2accel_x 1\n") == b"OK: (accel_x,1.0)"
    with PodClient(ods.port, address="127.0.3.1").read_replies() as stranger:
        assert stranger.has_ended.wait(10), "a stranger's connection is closed"
        assert stranger.replies == []
    assert "warn" in ods.wait_for_line(r"127\.0\.3\.1").lower()
    ods.wait_for_totals(received=2, stored=2)
    assert "127.0.3.1" not in {pod["name"] for pod in ods.status()["pods"]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_ods_in_good_order(ods: OdsProcess, influx: InfluxServer, number: signal.Signals) -> None:
    """With status 0 within five seconds, beside an open connection, with what was read stored."""
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD2accel_x 1\n")
        pod.send(b"POD2accel_x 2\nPOD1[NOTE]  last words")
        pod.wait_until_read()
        ods.stop(number)
        assert pod.has_ended.wait(10)
    assert [value for _, value in influx.points(ods.database)["accel_x", "127.0.2.1"]] == [1, 2]


def test_secrets_are_in_no_log_and_on_no_page(start_ods: StartOds, influx: InfluxServer) -> None:
    ods = start_ods(influx, "--influx-pass", "very-secret", "--verbose")
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD2accel_x 1\n")
    pages = [http(f"{ods.url}{path}")[1] for path in ("/api/status", "/healthz", "/")]
    ods.stop()
    assert not [line for line in ods.log if "very-secret" in line]
    assert not [page for page in pages if b"very-secret" in page]


def test_the_log_can_be_json(start_ods: StartOds, influx: InfluxServer) -> None:
    """Every line of it, from the first to the last."""
    ods = start_ods(influx, "--log-format", "json")
    ods.stop()
    assert ods.log and all(isinstance(json.loads(line), dict) for line in ods.log)
