"""What the README and `--help` tell a reader to type works, and every option is told of."""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import StartOds, environment
from harness.pod_client import PodClient
from harness.wait import wait_until

from ods.__main__ import COMMANDS
from ods.options import build_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPTIONS = sorted(
    option for action in build_parser()._actions for option in action.option_strings if option.startswith("--")
)
TIMEOUT_SECONDS = 60


def run_ods(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ods", *arguments],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def help_of(command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ods", *([command] if command else []), "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    return done.stdout


def examples(text: str) -> list[str]:
    """The indented lines of a help text that begin like a command."""
    return re.findall(r"^  (?:\$ )?((?:\./server\.py|ods (?=simulate|status|serve|quarantine)).*)$", text, re.MULTILINE)


def console_lines(text: str) -> list[str]:
    """The commands of the README's console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def serve_examples() -> list[str]:
    given = [line for command in ("", *COMMANDS) for line in examples(help_of(command))]
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    given += [line for block in blocks for line in block.splitlines()]
    return [line for line in dict.fromkeys(given) if line.startswith(("./server.py", "ods serve"))]


def client_examples() -> list[str]:
    given = [line for command in ("", *COMMANDS) for line in examples(help_of(command))]
    given += [line.removeprefix(".venv/bin/") for line in console_lines(README)]
    return [line for line in dict.fromkeys(given) if line.startswith(("ods simulate", "curl"))]


def status_examples() -> list[str]:
    given = examples(help_of("status")) + [line.removeprefix(".venv/bin/") for line in console_lines(README)]
    return [line for line in dict.fromkeys(given) if line.startswith("ods status")]


def quarantine_examples() -> list[str]:
    return [line for line in examples(help_of("quarantine")) if line.startswith("ods quarantine")]


def test_readme_and_help_have_examples() -> None:
    """The tests below run what they find: they must find something."""
    assert len(serve_examples()) >= 3
    assert len(client_examples()) >= 4
    assert {word for line in status_examples() for word in line.split()} >= {
        "--watch",
        "--boot",
        "--url",
        "--json",
        "|",
    }
    assert {line.split()[2] for line in quarantine_examples()} == {"list", "export", "retry", "drop"}


@pytest.mark.parametrize("example", serve_examples())
def test_an_example_of_the_server_serves(example: str, tmp_path: Path) -> None:
    arguments = shlex.split(example)
    arguments = arguments[2:] if arguments[0] == "ods" else arguments[1:]
    server = subprocess.Popen(
        [sys.executable, "server.py", *arguments, "--port", "0", "--http-port", "0", "--directory", str(tmp_path)],
        cwd=ROOT,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if "pods connect to" in line:
                break
        else:
            pytest.fail(f"{example} ended with status {server.wait(TIMEOUT_SECONDS)}")
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_SECONDS) == 0
    finally:
        server.kill()
        server.communicate()


def test_the_other_examples_do_what_they_say(influx: InfluxServer, start_ods: StartOds, tmp_path: Path) -> None:
    """Pods are simulated first, as in the README's walk, so that there is something to see."""
    ods = start_ods(influx)
    for example in sorted(client_examples(), key=lambda line: "simulate" not in line):
        words = shlex.split(example)
        if words[0] == "curl":
            for told, used in (("//localhost:8086", influx.url), ("//localhost:7777", ods.url)):
                words = [word.replace(f"http:{told}", used).replace("db=ods", f"db={ods.database}") for word in words]
            done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True)
            assert ("127.0.1.1" if "accel_x" in example else "ok" if "healthz" in example else "pods") in done.stdout
            continue
        if words[1] == "simulate":
            seconds = words.index("--seconds") if "--seconds" in words else None
            words = words if seconds is None else [*words[:seconds], *words[seconds + 2 :]]
            words += ["--host", "127.0.0.1", "--port", str(ods.port), "--seconds", "1", "--rate", "200"]
        done = run_ods(*words[1:], home=tmp_path)
        assert done.returncode == 0, f"{example}: {done.stdout}{done.stderr}"
        wait_until(lambda: ods.totals()["in_flight"] == 0, timeout_seconds=TIMEOUT_SECONDS, what="everything is stored")


@pytest.mark.parametrize("example", status_examples())
def test_an_example_of_the_status_shows_the_running_ods(
    example: str, influx: InfluxServer, start_ods: StartOds, tmp_path: Path
) -> None:
    """As a shell runs it; a watch goes on until Ctrl-C, which is no failure."""
    ods = start_ods(influx)
    wanted, bar, rest = example.replace("http://localhost:7777", ods.url).partition(" |")
    if "--url" not in wanted:
        wanted += f" --directory {shlex.quote(str(ods.directory))}"
    line = wanted.replace("ods", f"{'' if bar else 'exec '}{shlex.quote(sys.executable)} -m ods", 1) + bar + rest
    with PodClient(ods.port, address="127.0.2.7").read_replies() as pod:
        pod.exchange(b"POD2accel_x 1\n")
        command = subprocess.Popen(
            line, shell=True, cwd=ROOT, env=environment(tmp_path), stdout=subprocess.PIPE, text=True
        )
        assert command.stdout is not None
        shown = command.stdout.readline()
        if "--watch" in wanted:
            command.send_signal(signal.SIGINT)
        shown += command.communicate()[0]
        assert command.wait(TIMEOUT_SECONDS) == 0, shown
    assert (
        "1 is connected" if "--boot" in wanted else "pods_connected=1" if "--watch" in wanted else "127.0.2.7"
    ) in shown


def test_the_examples_of_the_quarantine_do_what_they_say(
    influx: InfluxServer, start_ods: StartOds, tmp_path: Path
) -> None:
    """Each finds something: the points that InfluxDB refuses come back after the retry, and are dropped at last."""
    ods = start_ods(influx)
    influx.create_database(ods.database)
    influx.write(ods.database, f'accel_x,pod=other value="text" {time.time_ns()}')
    with PodClient(ods.port).read_replies() as pod:
        for number in range(10):
            pod.exchange(b"POD2accel_x %d\n" % number)
    for example in quarantine_examples():
        ods.wait_for_totals(quarantined=10, pending=0)
        words = [*shlex.split(example)[1:], "--directory", str(ods.directory)]
        words = [str(tmp_path / word) if word.endswith(".csv") else word for word in words]
        done = run_ods(*words, home=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), f"{example}: {done.stdout}{done.stderr}"
    ods.wait_for_totals(quarantined=0, dropped=10)
    assert len((tmp_path / "quarantine.csv").read_text().splitlines()) == 11


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_in_the_readme_and_in_the_configuration_file(option: str) -> None:
    assert f"`{option}" in README
    if option not in ("--help", "--version", "--config"):
        assert re.search(rf"^(# )?{option[2:]} =", (ROOT / "conf" / "ods.toml").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_an_example(command: str) -> None:
    text = help_of(command)
    assert "example" in text
    assert command in README
    assert command in help_of("")


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_what_the_readme_links_to_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["status", "--nonsense"],
        ["simulate", "--rate", "x"],
        ["quarantine"],
        ["quarantine", "nonsense"],
        ["quarantine", "drop", "--id", "x"],
    ],
)
def test_a_wrong_command_line_ends_with_status_2_and_no_traceback(arguments: list[str], tmp_path: Path) -> None:
    done = run_ods(*arguments, home=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_status_says_so_when_no_ods_answers(tmp_path: Path) -> None:
    done = run_ods("status", "--directory", str(tmp_path), home=tmp_path)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
