"""`ods check` names what is amiss before a run, each thing prepared by real means; and finds nothing where nothing is.

Of one fault exactly one check fails: an operator who mends what it says is done.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from harness.damaging import DAMAGES
from harness.influx_server import InfluxServer
from harness.loopback import free_port
from harness.ods_process import REPOSITORY, OdsProcess, StartOds, environment, run_command
from harness.pod_client import PodClient
from harness.small_disk import SmallDisk
from harness.stepped_clock import SteppedClock

pytestmark = pytest.mark.timeout(120, method="signal")

PASSWORD = "the-right-password"
#: Whatever hangs, it ends before that; with room for a busy machine.
LONGEST_SECONDS = 30
#: A disk of 64 MB is enough for this.
SLOW = ("--rate", "1")
#: Root without its right to write everywhere.
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


@dataclass(frozen=True)
class Checked:
    """What the command has said."""

    status: int
    checks: list[dict[str, str]]
    options: dict[str, tuple[str, str]]
    output: str

    def of(self, what: str) -> dict[str, str]:
        """The finding of this name. Raises StopIteration where there is none."""
        return next(finding for finding in self.checks if finding["what"] == what)

    @property
    def failed(self) -> list[str]:
        return [finding["what"] for finding in self.checks if finding["state"] == "failed"]


@dataclass
class Check:
    """A healthy set-up, in which a test prepares one fault."""

    home: Path
    directory: Path
    influx_port: int
    database: str = "checked"
    extra_environment: dict[str, str] | None = None
    #: What runs the command.
    launcher: Sequence[str] = ()

    def __call__(self, *arguments: str) -> Checked:
        """Run `ods check --json`; what is given replaces what it is given besides."""
        given = {
            "--host": "127.0.0.1",
            "--port": str(free_port()),
            "--http-port": str(free_port()),
            "--directory": str(self.directory),
            "--influx-host": "127.0.0.1",
            "--influx-port": str(self.influx_port),
            "--influx-name": self.database,
        }
        words = [word for option, value in given.items() if option not in arguments for word in (option, value)]
        done = subprocess.run(
            [*self.launcher, sys.executable, "-m", "ods", "check", "--json", *words, *arguments],
            cwd=REPOSITORY,
            env=environment(self.home, self.extra_environment),
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
        return understood(done)


def understood(done: subprocess.CompletedProcess[str]) -> Checked:
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    options = {one["option"]: (one["value"], one["from"]) for one in result["options"]}
    assert result["ok"] == (done.returncode == 0)
    return Checked(done.returncode, result["checks"], options, done.stdout)


def check_named(checked: Checked, what: str, *words: str) -> None:
    """This one thing has failed, in these words, and there is advice."""
    assert (checked.status, checked.failed) == (1, [what]), checked.output
    finding = checked.of(what)
    assert all(word in finding["found"] for word in words), finding
    assert finding["advice"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def check(folder: Path, influx: InfluxServer) -> Check:
    return Check(folder, folder / "data", influx.port)


def test_a_healthy_set_up_passes(check: Check, influx: InfluxServer) -> None:
    """Nothing stays of it in InfluxDB but the database, and nothing in the directory."""
    checked = check()
    assert (checked.status, checked.failed) == (0, []), checked.output
    assert "version 1." in checked.of("InfluxDB")["found"]
    assert "created" in checked.of("database")["found"]
    assert "to the nanosecond" in checked.of("point")["found"]
    assert influx.query("SHOW MEASUREMENTS", database=check.database) == []
    assert list(check.directory.iterdir()) == []
    assert "is there" in check().of("database")["found"]


def test_a_directory_that_is_not_there_yet_is_not_made(check: Check) -> None:
    check.directory.rmdir()
    assert check().status == 0
    assert not check.directory.exists()


@pytest.mark.parametrize("has_keeper", [False, True], ids=["alone", "keeper"])
def test_it_passes_beside_the_ods_that_runs(
    check: Check, influx: InfluxServer, start_ods: StartOds, has_keeper: bool
) -> None:
    """Its ports and its buffer are not amiss for being in use."""
    ods = start_ods(influx, has_keeper=has_keeper)
    check.directory = ods.directory
    checked = check("--port", str(ods.port), "--http-port", str(ods.http_port))
    assert (checked.status, checked.failed) == (0, []), checked.output
    assert "runs" in checked.of("other ODS")["found"]
    assert "by the ODS that runs" in checked.of("port for pods")["found"]
    assert "by the ODS that runs" in checked.of("port of the page")["found"]
    assert "0 points wait" in checked.of("buffer")["found"]


# -- InfluxDB ---------------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_named_and_not_told(check: Check, locked_influx: InfluxServer) -> None:
    check.influx_port = locked_influx.port
    check.extra_environment = {"ODS_INFLUX_USER": "root", "ODS_INFLUX_PASS": "the-wrong-password"}
    checked = check()
    check_named(checked, "InfluxDB user", "refuses the user or the password")
    assert "--influx-pass" in checked.of("InfluxDB user")["advice"]
    assert "the-wrong-password" not in checked.output
    assert checked.options["influx-pass"] == ("(hidden)", "ODS_INFLUX_PASS")
    check.extra_environment["ODS_INFLUX_PASS"] = PASSWORD
    assert check().status == 0


def test_no_database_and_no_right_to_create_it_is_named(check: Check, locked_influx: InfluxServer) -> None:
    """What it says to do mends it."""
    locked_influx.query("CREATE USER \"writer\" WITH PASSWORD 'writes'")
    check.influx_port = locked_influx.port
    check.extra_environment = {"ODS_INFLUX_USER": "writer", "ODS_INFLUX_PASS": "writes"}
    checked = check()
    check_named(checked, "database", "'checked'", "is not there", "may not create it")
    advice = checked.of("database")["advice"]
    for statement in advice.removeprefix("as an administrator: ").partition(" (")[0].split("; "):
        locked_influx.query(statement)
    assert check().status == 0


def test_no_right_to_write_is_named(check: Check, locked_influx: InfluxServer) -> None:
    """What it says to do mends it; that ODS may not read what it writes is no fault."""
    locked_influx.query("CREATE USER \"writer\" WITH PASSWORD 'writes'")
    locked_influx.create_database("checked")
    check.influx_port = locked_influx.port
    check.extra_environment = {"ODS_INFLUX_USER": "writer", "ODS_INFLUX_PASS": "writes"}
    checked = check()
    check_named(checked, "InfluxDB user", "may not write")
    locked_influx.query(checked.of("InfluxDB user")["advice"].removeprefix("as an administrator: "))
    checked = check()
    assert checked.status == 0
    assert "cannot be read back" in checked.of("point")["found"]


def test_a_frozen_influxdb_is_told_from_one_that_is_away(check: Check, own_influx: InfluxServer) -> None:
    check.influx_port = own_influx.port
    own_influx.pause()
    check_named(check(), "InfluxDB", "takes connections, and does not answer")
    own_influx.kill()
    check_named(check(), "InfluxDB", "refuses the connection")


def test_a_host_that_cannot_be_resolved_is_named(check: Check) -> None:
    check_named(check("--influx-host", "no.such.host.invalid"), "InfluxDB", "'no.such.host.invalid'", "resolved")


def test_what_takes_connections_and_is_no_influxdb_is_named(check: Check) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check.influx_port = server.getsockname()[1]
        check_named(check(), "InfluxDB", "does not answer")


# -- The data directory, its disk, the clock --------------------------------------------------------------------------


def test_a_directory_that_its_user_may_not_write_to_is_named(check: Check) -> None:
    check.directory.chmod(0o555)
    if os.geteuid() == 0:
        tried = subprocess.run([*WITHOUT_RIGHTS, "true"], capture_output=True, check=False)
        if tried.returncode != 0:
            pytest.skip("root can give up no right here")
        check.launcher = WITHOUT_RIGHTS
    check_named(check(), "data directory", "Permission denied")


def test_a_disk_that_is_mounted_read_only_is_named(check: Check, small_disk: SmallDisk) -> None:
    check.directory = small_disk.path
    assert check(*SLOW).status == 0
    small_disk.make_read_only()
    checked = check(*SLOW)
    check_named(checked, "data directory", "Read-only file system")
    assert "mount its disk writable" in checked.of("data directory")["advice"]


def test_a_disk_that_is_nearly_full_is_named(check: Check, small_disk: SmallDisk) -> None:
    check.directory = small_disk.path
    small_disk.fill(leaving_bytes=8 * 1024 * 1024)
    check_named(check("--rate", "1000"), "disk", "nearly full", "hours at 1000 points a second")


def test_a_clock_in_1970_is_named(check: Check, stepped_clock: SteppedClock) -> None:
    """And that InfluxDB's machine has another one."""
    stepped_clock.step(5 - time.time())
    check.extra_environment = stepped_clock.environment
    checked = check()
    check_named(checked, "clock", "1970")
    assert "ahead of" in checked.of("InfluxDB's clock")["found"]


def test_a_clock_before_the_run_before_is_named(
    check: Check, influx: InfluxServer, start_ods: StartOds, stepped_clock: SteppedClock
) -> None:
    ods = start_ods(influx)
    ods.stop()
    check.directory = ods.directory
    stepped_clock.step(-7200)
    check.extra_environment = stepped_clock.environment
    check_named(check(), "clock", "before the last reception time")


# -- Ports ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "what"), [("--port", "port for pods"), ("--http-port", "port of the page")], ids=["pods", "page"]
)
def test_a_port_that_is_taken_is_named_with_its_owner(check: Check, option: str, what: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        checked = check(option, str(port))
        check_named(checked, what, f"port {port} is taken", str(os.getpid()))
        assert option in checked.of(what)["advice"]


def test_an_address_that_is_not_this_machines_is_named(check: Check) -> None:
    check_named(check("--host", "192.0.2.1"), "port for pods", "192.0.2.1")


# -- The buffer, and other ODS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backlog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with points that wait."""
    ods = OdsProcess(tmp_path_factory.mktemp("backlog"), influx_port=free_port(), database="checked")
    try:
        ods.start()
        with PodClient(ods.port).read_replies() as pod:
            for number in range(300):
                pod.exchange(b"POD2name_%d %d.5\n" % (number, number))
        ods.stop()
    finally:
        ods.kill()
    return ods.directory


def take_over(check: Check, backlog: Path) -> None:
    """Give the set-up a copy of this data directory."""
    shutil.copytree(backlog, check.directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock"))


def test_what_waits_in_a_sound_buffer_is_told_and_left_there(check: Check, backlog: Path) -> None:
    take_over(check, backlog)
    for _ in range(2):
        checked = check()
        assert checked.status == 0
        assert "sound; 3" in checked.of("buffer")["found"]
        assert "points wait" in checked.of("buffer")["found"]


@pytest.mark.parametrize("name", ["header destroyed", "cut", "no SQLite file", "a page zeroed", "newer version"])
def test_a_damaged_buffer_is_named_and_left_as_it_is(check: Check, backlog: Path, name: str) -> None:
    """Mending it is ODS's own, at its start."""
    take_over(check, backlog)
    inflict = next(damaging.inflict for damaging in DAMAGES if damaging.name == name)
    inflict(check.directory, check.directory, Random(3))
    before = (check.directory / "buffer.db").read_bytes()
    check_named(check(), "buffer", "buffer.db")
    assert (check.directory / "buffer.db").read_bytes() == before
    assert not list(check.directory.glob("*damaged*"))


def test_another_ods_on_the_directory_is_named(check: Check, influx: InfluxServer, start_ods: StartOds) -> None:
    ods = start_ods(influx)
    check.directory = ods.directory
    check_named(check(), "other ODS", f"port {ods.port}", str(ods.process_id))


def test_an_ods_that_does_not_answer_is_named(check: Check, influx: InfluxServer, start_ods: StartOds) -> None:
    ods = start_ods(influx)
    check.directory = ods.directory
    ods.pause()
    try:
        check_named(check(), "other ODS", "does not answer", str(ods.process_id))
    finally:
        ods.resume()


# -- Options ----------------------------------------------------------------------------------------------------------

WriteFile = Callable[[str], tuple[str, str]]


@pytest.fixture
def write_file(folder: Path) -> WriteFile:
    def write(text: str) -> tuple[str, str]:
        path = folder / "ods.toml"
        path.write_text(text)
        return "--config", str(path)

    return write


def test_an_unknown_key_in_the_configuration_is_named_with_the_nearest(check: Check, write_file: WriteFile) -> None:
    """And all others of the file count."""
    checked = check(*write_file('[ods]\nmax-naems = 5\nlog-format = "json"\n'))
    check_named(checked, "configuration", "'max-naems'")
    assert "'max-names'" in checked.of("configuration")["advice"]
    assert checked.options["log-format"][0] == "json"


def test_a_misspelt_variable_is_named_with_the_nearest(check: Check) -> None:
    check.extra_environment = {"ODS_INFLUX_PAS": "hunter2", "ODS_SOMETHING": "else"}
    checked = check()
    check_named(checked, "environment", "ODS_INFLUX_PAS")
    assert "ODS_INFLUX_PASS" in checked.of("environment")["advice"]
    assert "hunter2" not in checked.output
    assert [one["state"] for one in checked.checks if "ODS_SOMETHING" in one["found"]] == ["warning"]


@pytest.mark.parametrize("third", ["warning = {low = 2, high = 1}", "unti = 'm'"])
def test_a_wrong_sensor_file_is_named_with_its_line(check: Check, folder: Path, third: str) -> None:
    file = folder / "sensors.toml"
    file.write_text(f"[accel_x]\nlabel = 'a'\n{third}\n")
    check_named(check("--sensors", str(file)), "sensor file", str(file), "line 3")
    file.write_text("[accel_x]\nunit = 'm'\n")
    assert f"{file}, 1 names" in check("--sensors", str(file)).of("sensor file")["found"]
    assert check("--sensors", "").of("sensor file")["found"] == "none"


def test_every_wrong_option_is_named_and_nothing_that_stands_on_one_is_looked_at(
    check: Check, write_file: WriteFile
) -> None:
    file = write_file("[ods]\nbuffer-limit = 'much'\nverbose = 'perhaps'\npod = [1]\n")
    check.extra_environment = {"ODS_MAX_NAMES": "-1", "ODS_LOG_FORMAT": "xml"}
    checked = check(*file, "--influx-port", "http")
    assert checked.failed == ["option"] * 6
    told = " ".join(one["found"] for one in checked.checks if one["what"] == "option")
    for option in ("buffer-limit", "verbose", "pod", "--max-names", "--log-format", "--influx-port"):
        assert option in told
    assert "not looked at" in checked.of("InfluxDB")["found"]
    assert "not looked at" in checked.of("disk")["found"]


def test_each_option_is_told_with_where_it_came_from(check: Check, write_file: WriteFile) -> None:
    check.extra_environment = {"ODS_MAX_NAMES": "7", "ODS_INFLUX_USER": "someone"}
    file = write_file('[ods]\nmax-names = 9\nlog-format = "json"\npod = ["10.0.0.1=a"]\ninflux-pass = "hunter2"\n')
    checked = check(*file, "--pod=10.0.0.2=b", "--buffer-limit", "1GiB", "-v", "--influx-user", "flagged")
    assert checked.options["max-names"] == ("7", "ODS_MAX_NAMES")
    assert checked.options["influx-user"] == ("flagged", "flag")
    assert checked.options["log-format"] == ("json", file[1])
    assert checked.options["influx-pass"] == ("(hidden)", file[1])
    assert checked.options["pod"] == ("10.0.0.2=b", "flag")
    assert checked.options["buffer-limit"] == ("1GiB", "flag")
    assert checked.options["verbose"] == ("true", "flag")
    assert checked.options["recordings-limit"] == ("0", "default")
    assert "hunter2" not in checked.output


# -- As a command -----------------------------------------------------------------------------------------------------


def test_in_a_pipe_it_prints_a_line_a_check(check: Check) -> None:
    words = ["--directory", str(check.directory), "--influx-port", str(check.influx_port), "--influx-name", "checked"]
    ports = ["--port", str(free_port()), "--http-port", str(free_port())]
    done = run_command("check", *words, *ports, home=check.home)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "warning"}
    assert lines[-1].startswith("all is well")
    assert "ok       option            --directory" in done.stdout
    done = run_command("check", *words, *ports, "--rate", "1e8", home=check.home)
    failed = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert done.returncode == 1
    assert len(failed) == 1 and " -> " in failed[0]


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--rate", "x"], ["--rate", "0"], ["--port"], ["more"]])
def test_a_wrong_use_is_one_line_and_status_2(check: Check, arguments: list[str]) -> None:
    done = run_command("check", *arguments, home=check.home)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("ods check: ")
