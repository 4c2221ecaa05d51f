"""Every example of every `--help` and of the documentation, word for word as a reader types it, does what it says.

They run on a machine of their own (`harness.example_world`), where ODS, InfluxDB, the recordings of an earlier day, a
mark and points that InfluxDB refused are to be found where the examples look for them. `--seconds` alone is shortened.
What of the documentation is not run is listed with the reason, and nothing else is left out.
"""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.example_world import ExampleWorld
from harness.ods_process import REPOSITORY
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(240, method="signal")

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
#: Lines of the documentation that are not run here, and why.
NOT_RUN = {
    r"make ": "makes an environment from a package registry, or takes an hour",
    r"docker ": "needs Docker",
    r"(sudo )?systemctl ": "needs systemd",
    r"sudo (apt-get|ufw|make|env|git|install|cp|rm|tar) ": "changes the machine, and needs its owner",
    r"sudo -u ods sqlite3 ": "another program",
    r"echo .* \| sudo tee ": "changes the machine",
    r"(PIP_NO_INDEX=1 .*)?(python3 -m pip|make) ": "needs packages",
    r" +\S": "the rest of the line before",
    r"ssh ": "another program",
    r"(cp|zcat) ": "another program",
    r"prometheus ": "another program",
}
#: These go on until Ctrl-C, which is no failure.
ENDLESS = re.compile(r"--watch|--loop|^ods replay --server \S+$")  # the last at the pace of all that was recorded
ENDED_BY_HAND = (0, 130)
#: The order in which they find something: what is made by some is used by others.
ORDER = ("simulate", "mark", "status", "check", "curl", "restart", "replay", "export", "quarantine")
#: A recording of an earlier day that examples name: the moment of it, in two writings, and its pod.
EARLIER, EARLIER_NS = "20260921-141320.000000000", 1_790_000_000_000_000_000
EARLIER_POD = "10.0.0.20"


@dataclass(frozen=True)
class Example:
    """A line, and where it is from."""

    line: str
    source: str

    @property
    def command(self) -> str:
        """What of ODS it shows; `serve` for all ways to start it."""
        words = re.sub(r"^(sudo (-u \S+ )?)?(\.venv/bin/)?", "", self.line).split()
        return "serve" if words[0].endswith("server.py") else words[1] if words[0] == "ods" else words[0]

    @property
    def as_run(self) -> str:
        """The line as it is run: by root, and not for as long."""
        line = re.sub(r"^sudo (-u \S+ )?", "", self.line)
        return re.sub(r"--seconds \d+", "--seconds 2", line)


def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ods", *command, "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


COMMANDS = re.findall(r"^  ([a-z]+) {2,}", help_of().partition("commands:")[2], re.MULTILINE)


def of_helps() -> Iterator[Example]:
    """The indented lines of a help that begin like a command."""
    for command in ("", *COMMANDS):
        text = help_of(*([command] if command else []))
        for line in re.findall(r"^  ((?:\./server\.py|ods (?!COMMAND)).*)$", text, re.MULTILINE):
            yield Example(line, f"ods {command} --help")


def lines_of_documents() -> Iterator[Example]:
    """The lines of the blocks that are to be typed."""
    for path in DOCUMENTS:
        blocks = re.findall(r"^```(console|sh)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for kind, block in blocks:
            for line in block.splitlines():
                if kind == "sh" and line.strip():
                    yield Example(line, path.name)
                elif line.startswith("$ "):
                    yield Example(line[2:], path.name)


def is_run(example: Example) -> bool:
    return not any(re.match(pattern, example.line) for pattern in NOT_RUN)


def examples() -> list[Example]:
    """Each line once, in the order in which they find something."""
    found = [*of_helps(), *filter(is_run, lines_of_documents())]
    unique = list({example.line: example for example in reversed(found)}.values())[::-1]
    return sorted(unique, key=lambda one: ORDER.index(one.command) if one.command in ORDER else -1)


EXAMPLES = examples()
SERVERS = [example for example in EXAMPLES if example.command == "serve"]
OTHERS = [example for example in EXAMPLES if example.command != "serve"]


def require_world() -> None:
    if advice := ExampleWorld.lacking():
        pytest.skip(advice)


@pytest.fixture(scope="module")
def world(needs_influx: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExampleWorld]:
    """ODS and InfluxDB at their own ports, and what the examples speak of."""
    require_world()
    with ExampleWorld(tmp_path_factory.mktemp("world")) as machine:
        rows = [f"{EARLIER_NS + number * 100_000_000},accel_y,{number}.5" for number in range(600)]
        machine.record(EARLIER_POD, EARLIER, rows)
        machine.start_influx()
        server = machine.start_ods()
        yield machine
        server.terminate()
        assert server.wait(10) == 0
        assert not re.search(r"^Traceback", machine.log(), re.MULTILINE), machine.log()


@pytest.mark.parametrize("example", SERVERS, ids=lambda example: example.line)
def test_an_example_of_the_server_serves(example: Example, tmp_path: Path) -> None:
    require_world()
    with ExampleWorld(tmp_path / "world") as machine:
        server = machine.start_ods(example.as_run)
        server.terminate()
        assert server.wait(10) == 0, machine.log()


@pytest.mark.parametrize("example", OTHERS, ids=lambda example: example.line)
def test_an_example_does_what_it_says(world: ExampleWorld, example: Example) -> None:
    """It ends well, with something to see and without a traceback."""
    if example.command == "quarantine":
        have_points_refused(world)
    if example.command in ("replay", "export"):
        have_a_marked_test(world)
    is_endless = ENDLESS.search(example.line) is not None
    with points_waiting(world) if "--source buffer" in example.line else contextlib.nullcontext():
        done = world.run(example.as_run, is_endless=is_endless)
    told = f"{example.line}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.returncode in (ENDED_BY_HAND if is_endless else (0,)), told
    assert done.stdout or done.stderr or "-o " in example.line or "--output" in example.line, told
    assert "Traceback" not in done.stderr, told
    wait_until(lambda: world.status()["totals"]["in_flight"] == 0, timeout_seconds=30, what="all is settled")


def have_points_refused(world: ExampleWorld) -> None:
    """Points of a type that InfluxDB has in another one, for what works on them; as often as it is asked for."""
    if not world.status()["totals"]["quarantined"]:
        world.query("DROP MEASUREMENT accel_x")
        world.write('accel_x,pod=other value="text"')
        world.run("ods simulate --pods 1 --seconds 1 --rate 100")
    wait_until(lambda: world.status()["totals"]["quarantined"], timeout_seconds=30, what="points to be refused")


@contextlib.contextmanager
def points_waiting(world: ExampleWorld) -> Iterator[None]:
    """Points in the buffer, as in an outage of InfluxDB."""
    with world.frozen_influx():
        assert world.run("ods simulate --pods 1 --seconds 1").returncode == 0
        wait_until(lambda: world.status()["totals"]["pending"], timeout_seconds=60, what="points to be buffered")
        yield


def have_a_marked_test(world: ExampleWorld) -> None:
    """The part of a run that examples choose by its marks."""
    if "end of test 3" not in world.run("ods mark --list").stdout:
        for line in ("ods mark pressure test 3", "ods simulate --pods 1 --seconds 1", "ods mark end of test 3"):
            assert world.run(line).returncode == 0, line


def test_each_command_has_an_example() -> None:
    assert {example.command for example in EXAMPLES} >= set(COMMANDS)


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_what_is_not_run_is_still_in_the_documentation(pattern: str) -> None:
    assert any(re.match(pattern, example.line) for example in lines_of_documents())
