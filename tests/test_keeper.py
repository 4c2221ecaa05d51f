"""The keeper with workers that do what they should not; with the real one it is tested in `test_whole_keeper.py`."""

import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.sizes import Measured, sized

from ods import zygotes
from ods.directory import DataDirectory
from ods.failpoints import of_worker
from ods.held import Held
from ods.keeper import Keeper
from ods.options import parse
from ods.restarts import LATEST, Restarts
from ods.systemd import for_worker as environment_of_worker

ROOT = Path(__file__).parents[1]
FAKE = ROOT / "tests" / "components" / "fake_worker.py"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the keeper is for Linux"),
    pytest.mark.timeout(sized(120, long=900), method="signal"),
]

#: A keeper of fake workers, in a process of its own. It says its port first.
PROGRAM = """
import os, sys
from pathlib import Path
from ods import keeper, keeper_log, zygote_process
from ods.directory import DataDirectory
from ods.options import parse
from ods.sockets import listening
zygote_process.COMMAND = (sys.executable, sys.argv[1])
keeper.STILL_SECONDS = 0.5
keeper.LONGEST_PAUSE_SECONDS = 0.1
settings = parse(["--host", "127.0.0.1", "--port", "0", "--directory", sys.argv[3]], {})
keeper_log.set_up(log_format="plain", is_verbose=False)
server = listening(settings.listener)
os.write(1, f"port {server.getsockname()[1]}\\n".encode())
directory = DataDirectory(Path(sys.argv[3]))
sys.exit(keeper.Keeper(settings, [sys.argv[2]], os.environ, listening=server, directory=directory).run())
"""


class Running:
    """A keeper that runs, and what it and its workers say."""

    def __init__(self, behaviour: str, directory: Path) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(FAKE), behaviour, str(directory)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.wait_for(r"port (\d+)")[1])

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The next line that matches; those before it are gone."""
        while True:
            found = re.search(pattern, self._lines.get(timeout=20))
            if found:
                return found

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], Running]]:
    started: list[Running] = []

    def start(behaviour: str) -> Running:
        started.append(Running(behaviour, tmp_path))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()


def test_a_worker_that_dies_at_once_is_replaced_again_and_again(run: Callable[[str], Running]) -> None:
    running = run("dies")
    for number in range(1, 5):
        assert running.wait_for(r"ended: (.*); another takes over.*restart (\d+)").groups() == ("status 1", str(number))
    running.end()


def test_a_worker_that_stands_still_is_ended_and_replaced_and_gets_every_connection(
    run: Callable[[str], Running],
) -> None:
    running = run("hangs")
    running.wait_for("all")
    with socket.create_connection(("127.0.0.1", running.port)):
        assert running.wait_for(r"ended: (.*); another takes over, with (\d+)").groups() == (
            "stood still for 0.5 s",
            "1",
        )
        assert running.wait_for(r"connection (\w+) (\d)").groups() == ("True", "2"), "no worker has known of it"
        running.wait_for("all")
    running.end()


def test_a_worker_that_raves_does_the_keeper_no_harm(run: Callable[[str], Running]) -> None:
    running = run("raves")
    running.wait_for("all")
    with socket.create_connection(("127.0.0.1", running.port)):
        running.wait_for("connection")
        assert running.end() == 0


def test_a_connection_of_which_the_worker_says_that_it_has_ended_ends(run: Callable[[str], Running]) -> None:
    """It ends for the pod when the last process has let go of it: the worker, and then the keeper."""
    running = run("closes")
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as pod:
        running.wait_for("connection")
        os.kill(worker_of(running), signal.SIGKILL)
        running.wait_for("all")
        with contextlib.suppress(ConnectionResetError):
            assert pod.recv(1) == b""
    running.end()


def test_the_keeper_does_not_grow(run: Callable[[str], Running], measured: Measured) -> None:
    """Over restarts of the worker, and pods that came and went: memory, open files. Its processor time is told."""
    running = run("ends")

    def let_pass(pods: int, restarts: int) -> None:
        for _ in range(restarts):
            running.wait_for("all")
            for _ in range(pods // restarts):
                socket.create_connection(("127.0.0.1", running.port)).close()
            os.kill(worker_of(running), signal.SIGKILL)
        running.wait_for("all")
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as pod:
            assert pod.recv(1) == b""  # so all before it are closed too
        os.kill(worker_of(running), signal.SIGKILL)

    def size() -> tuple[int, int]:
        folder = Path(f"/proc/{running.process.pid}")
        pages = int((folder / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(list((folder / "fd").iterdir()))

    let_pass(sized(100, long=1000), sized(10, long=100))
    running.wait_for("all")
    before = size()
    os.kill(worker_of(running), signal.SIGKILL)
    let_pass(sized(500, long=10_000), sized(25, long=1000))
    running.wait_for("all")
    after = size()
    times = Path(f"/proc/{running.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    measured(f"memory {before[0]} -> {after[0]} bytes, files {before[1]} -> {after[1]}, {sum(map(int, times))} ticks")
    assert after[1] == before[1]
    assert after[0] - before[0] < 500_000


def worker_of(running: Running) -> int:
    keeper = running.process.pid
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    return int(children[-1])  # the zygote is older


def test_one_that_fails_at_the_first_start_ends_the_keeper_with_its_words(run: Callable[[str], Running]) -> None:
    running = run("fails")
    running.wait_for("what is wrong")
    assert running.process.wait(20) == 3


def test_a_worker_that_cannot_be_forked_is_tried_again(run: Callable[[str], Running]) -> None:
    running = run("forks late")
    for _ in range(2):
        running.wait_for("a worker cannot be started: no process left; tried again in 0.1 s")
    running.wait_for("all")
    assert running.end() == 0


def test_a_zygote_that_dies_is_started_again_and_the_worker_goes_on(run: Callable[[str], Running]) -> None:
    running = run("")
    running.wait_for("all")
    keeper = running.process.pid
    zygote, worker = map(int, Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split())
    os.kill(zygote, signal.SIGKILL)
    running.wait_for("what workers are forked from ended: SIGKILL")
    os.kill(worker, signal.SIGKILL)
    running.wait_for("ended: SIGKILL; another takes over.*restart 1")
    running.wait_for("all")
    assert running.end() == 0


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    settings = parse(["--port", "0", "--directory", str(tmp_path)], {})
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Keeper(settings, [], {}, listening=server, directory=DataDirectory(tmp_path))


@pytest.mark.parametrize(
    ("has_worker", "longest"),
    [(True, zygotes.LONGEST_PAUSE_SECONDS), (False, zygotes.LONGEST_PAUSE_WITHOUT_WORKER_SECONDS)],
)
def test_the_pause_before_another_try_grows_to_its_bound_and_no_further(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, has_worker: bool, longest: float
) -> None:
    """Without ever giving up: also where no process can be started at all."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no process left")

    monkeypatch.setattr(zygotes, "ZygoteProcess", fail)
    pauses = []
    for _ in range(8):
        keeper._zygotes.pause.until = 0.0
        keeper._zygotes.provide(time.monotonic(), has_worker=has_worker)
        pauses.append(keeper._zygotes.pause.seconds)
    assert pauses == [min(zygotes.PAUSE_SECONDS * 2**number, longest) for number in range(8)]


def test_a_keeper_that_stood_still_itself_blames_no_worker(keeper: Keeper) -> None:
    """After Ctrl-Z and `fg` all beats are missing, and none was missed."""

    class Worker:
        heard_at = began_at = 0.0

    keeper._worker = Worker()  # type: ignore[assignment]
    keeper._forgive(100.0)
    assert keeper._worker.heard_at == keeper._worker.began_at == 100.0  # type: ignore[union-attr]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_where_few_files_may_be_open_a_connection_does_without_a_tape() -> None:
    held = Held(tapes=1)
    before = open_files()
    ends = [socket.socketpair() for _ in range(2)]
    numbers = [held.add(ours, ("127.0.0.1", 1)) for ours, _ in ends]
    assert open_files() == before + 5  # both ends of each, and one tape
    for number, (_, theirs) in zip(numbers, ends, strict=True):
        held.close(number)
        theirs.close()
    assert open_files() == before


def test_what_is_held_is_let_go_of_whole() -> None:
    held = Held(tapes=100)
    before = set(Path("/proc/self/fd").iterdir())
    one, other = socket.socketpair()
    number = held.add(one, ("127.0.0.1", 1))
    held.close(number)
    held.close(number)
    other.close()
    assert not list(held)
    assert set(Path("/proc/self/fd").iterdir()) <= before


def test_of_the_restarts_the_latest_are_told_and_all_are_counted() -> None:
    restarts = Restarts()
    for number in range(LATEST + 5):
        restarts.add(f"cause {number}")
    told = restarts.as_dict()
    assert (told["total"], len(told["latest"]), told["untold"]) == (LATEST + 5, LATEST, LATEST)
    assert told["latest"][-1]["cause"] == f"cause {LATEST + 4}"
    restarts.are_told()
    assert restarts.as_dict()["untold"] == 0


def test_a_fail_point_ends_the_first_worker_alone() -> None:
    """Unless it is in a file, which the next worker that starts takes away."""
    environment = {"ODS_FAILPOINT": "read:3", "HOME": "/"}
    assert of_worker(environment, is_first=True) == "read:3"
    assert of_worker(environment, is_first=False) is None
    assert of_worker({"ODS_FAILPOINT": "@/tmp/file"}, is_first=False) == "@/tmp/file"


def test_the_worker_tells_systemd_and_the_keeper_has_its_sockets() -> None:
    given = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "3", "WATCHDOG_PID": "1", "LISTEN_FDS": "1", "LISTEN_PID": "1"}
    assert environment_of_worker(given) == {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "3"}
