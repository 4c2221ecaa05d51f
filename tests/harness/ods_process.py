"""ODS as its users run it: a process of its own, seen through its log, its status page and its exit status."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.ledger import Status, check_ledger
from harness.loopback import free_port, http
from harness.wait import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]

#: What the fixture `start_ods` gives: called with an InfluxServer and options, it returns a running OdsProcess.
StartOds = Callable[..., "OdsProcess"]

START_TIMEOUT_SECONDS = 20.0
COMMAND_TIMEOUT_SECONDS = 120.0
#: Whether an ODS has a keeper where a test does not say. Most tests look at the process that does the work, and are run
#: without; `make test-keeper` runs those of the whole program with one.
HAS_KEEPER = os.environ.get("ODS_TEST_KEEPER") == "1"
#: The contract's bound for an end in good order.
STOP_TIMEOUT_SECONDS = 5.0


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for ODS: nobody's ODS_* settings, proxies, configuration files or systemd reach it."""
    of_systemd = r"(STATE|CONFIGURATION)_DIRECTORY|NOTIFY_SOCKET|WATCHDOG_.*|LISTEN_.*|JOURNAL_STREAM"
    foreign = re.compile(rf"ODS_.*|{of_systemd}|XDG_.*|.*_proxy", re.IGNORECASE)
    kept = {key: value for key, value in os.environ.items() if not foreign.fullmatch(key)}
    return kept | {"HOME": str(home), "PYTHONUNBUFFERED": "1"} | dict(extra or {})


def run_serve(
    arguments: Sequence[str], *, home: Path, extra_environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `serve` where it is expected to refuse; return its status and its output. Raises TimeoutExpired."""
    return subprocess.run(
        [sys.executable, "-m", "ods", "serve", *arguments],
        cwd=REPOSITORY,
        env=environment(home, extra_environment),
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_SECONDS,
        check=False,
    )


def run_command(
    *arguments: str, home: Path, extra_environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run another command of ODS where there is no terminal; return its status and its output."""
    return subprocess.run(
        [sys.executable, "-m", "ods", *arguments],
        cwd=REPOSITORY,
        env=environment(home, extra_environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_SECONDS,
        check=False,
    )


def memory_bytes(process_id: int) -> int:
    """Return the resident memory of a process, from Linux's /proc."""
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def name_of(process_id: int) -> str:
    """Return what a process is called, from Linux's /proc; nothing for one that has ended."""
    try:
        return Path(f"/proc/{process_id}/comm").read_text().strip()
    except OSError:
        return ""


class OdsProcess:
    """An ODS on loopback, with a data directory of its own.

    However it ended, `start` starts it again on the same directory and ports. `log` holds the lines of all its lives.
    """

    def __init__(
        self,
        folder: Path,
        *,
        influx_port: int,
        database: str,
        options: Sequence[str] = (),
        directory: Path | None = None,
        extra_environment: Mapping[str, str] | None = None,
        has_keeper: bool | None = None,
    ) -> None:
        self.folder = folder
        self.directory = directory or folder / "data"
        self.port = free_port()
        self.http_port = free_port()
        self.database = database
        self.options = list(options)
        #: What the environment of the next life has besides.
        self.extra_environment = dict(extra_environment or {})
        #: What `serve` is run by, and options that it is not given.
        self.program: Sequence[str] = (sys.executable, "-m", "ods", "serve")
        self.left_out: Sequence[str] = ()
        #: The command that becomes ODS, and the file descriptors that it is given besides.
        self.launcher: Sequence[str] = ()
        self.passed_on: Sequence[int] = ()
        self.log: list[str] = []
        #: Whether a keeper holds the connections; where none does, all of ODS is one process.
        self.has_keeper = HAS_KEEPER if has_keeper is None else has_keeper
        self._influx_port = influx_port
        self._life_began = 0  # the number of this life's first log line
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def arguments(self) -> list[str]:
        """What `serve` is started with; of an option given twice the last one counts."""
        given = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--http-port": str(self.http_port),
            "--directory": str(self.directory),
            "--influx-name": self.database,
            "--influx-host": "127.0.0.1",
            "--influx-port": str(self._influx_port),
        }
        return [
            *(word for option, value in given.items() if option not in self.left_out for word in (option, value)),
            *(() if self.has_keeper else ("--no-keeper",)),
            *self.options,
        ]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def process_id(self) -> int:
        assert self._process is not None, "ODS was not started"
        return self._process.pid

    @property
    def worker_id(self) -> int | None:
        """The process that the keeper has do the work, None while there is none; in an upgrade the older one."""
        return next((child for child in self._children() if name_of(child) == "ods-worker"), None)

    @property
    def zygote_id(self) -> int | None:
        """The process that workers are forked from, None while there is none; in an upgrade the older one."""
        return next((child for child in self._children() if name_of(child) != "ods-worker"), None)

    @property
    def working_id(self) -> int:
        """The process that does the work: the worker where there is a keeper."""
        if not self.has_keeper:
            return self.process_id
        return wait_until(lambda: self.worker_id, timeout_seconds=START_TIMEOUT_SECONDS, what="a worker")

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def life_log(self) -> list[str]:
        """The log lines of the latest life alone."""
        return self.log[self._life_began :]

    def start(self, *, has_buffer: bool = True) -> None:
        """Start ODS, and return when it has said where it listens and what waits, and its status page answers.

        It listens before it has opened its buffer, so the backlog is told, and counted, a moment later. With
        `has_buffer` false the disk is such that this is not waited for.
        """
        self.launch()
        self.wait_for_line(rf"127\.0\.0\.1\b.*\b{self.port}\b", timeout_seconds=START_TIMEOUT_SECONDS)
        if has_buffer:
            self.wait_for_line(r"\bbacklog\b", timeout_seconds=START_TIMEOUT_SECONDS)
        wait_until(self.answers, timeout_seconds=START_TIMEOUT_SECONDS, what="the status page", state=self.log_tail)

    def launch(self) -> None:
        """Start ODS, and return at once."""
        assert not self.is_running, "ODS is running already"
        self._forget()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._life_began = len(self.log)
        self._process = subprocess.Popen(
            [*self.launcher, *self.program, *self.arguments],
            cwd=REPOSITORY,
            env=environment(self.folder, self.extra_environment),
            pass_fds=self.passed_on,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._collect, args=(self._process,), name="ods log", daemon=True)
        self._reader.start()

    def wait_for_end(self, timeout_seconds: float) -> int | None:
        """Return the exit status of an ODS that ends by itself within this time, None of one that does not."""
        assert self._process is not None, "ODS was not started"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_seconds)
        return self._process.returncode

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End ODS in good order. Raises AssertionError unless it exits with 0 within the contract's five seconds."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            status = self._process.wait(timeout=STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"ODS did not exit within {STOP_TIMEOUT_SECONDS} s\n{self.log_tail()}") from None
        self._forget()
        assert status == 0, f"ODS exited with {status}\n{self.log_tail()}"

    def kill(self) -> None:
        """Kill ODS as a power cut would, its worker too. May be called twice."""
        if self._process is None:
            return
        workers = self._children()
        self._process.kill()
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        self._process.wait()
        self._forget()

    def forget(self) -> None:
        """Have nothing more to do with a life that has ended by itself, so that there can be another."""
        self._process = None

    def restart(self) -> None:
        """Stop in good order, and start on the same directory and ports."""
        self.stop()
        self.start()

    def command(self, *words: str) -> str:
        """Run `ods COMMAND ...` on this data directory; return what it prints. Raises AssertionError where it fails."""
        ended = subprocess.run(
            [sys.executable, "-m", "ods", *words, "--directory", str(self.directory)],
            cwd=REPOSITORY,
            env=environment(self.folder),
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, f"ods {' '.join(words)} exited with {ended.returncode}: {ended.stderr.strip()}"
        return ended.stdout

    def pause(self) -> None:
        """Freeze ODS: the kernel takes for it what pods send."""
        os.kill(self.working_id, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen ODS run on."""
        os.kill(self.working_id, signal.SIGCONT)

    def status(self) -> Status:
        """Return /api/status. Raises AssertionError where its ledger does not add up."""
        code, body = http(f"{self.url}/api/status", timeout_seconds=10)
        assert code == 200, f"/api/status: {code} {body!r}\n{self.log_tail()}"
        status: Status = json.loads(body)
        check_ledger(status)
        return status

    def pod_status(self, name: str) -> Status:
        """Return what /api/status says of one pod."""
        return next(pod for pod in self.status()["pods"] if pod["name"] == name)

    def stored_pod_status(self, name: str, count: int) -> Status | None:
        """Return what /api/status says of one pod once it has sent `count` records and all of them are stored."""
        counts = self.pod_status(name)
        return counts if counts["received"] == counts["stored"] == count else None

    def totals(self) -> dict[str, int]:
        """Return the ledger's totals."""
        totals: dict[str, int] = self.status()["totals"]
        return totals

    def healthz(self) -> int:
        """Return the HTTP status of /healthz."""
        return http(f"{self.url}/healthz", timeout_seconds=10)[0]

    def wait_for_status(self, predicate: Callable[[Status], bool], *, what: str, timeout_seconds: float = 30) -> Status:
        """Return the first status page for which `predicate` holds."""
        last: Status = {}

        def look() -> bool:
            last.clear()
            last.update(self.status())
            return predicate(last)

        wait_until(
            look,
            timeout_seconds=timeout_seconds,
            what=what,
            state=lambda: f"{json.dumps(last, indent=1)}\n{self.log_tail()}",
        )
        return last

    def wait_for_totals(self, *, timeout_seconds: float = 30, **expected: int) -> Status:
        """Return the first status page whose totals are `expected`, as in `stored=100, in_flight=0`."""
        return self.wait_for_status(
            lambda status: {key: status["totals"][key] for key in expected} == expected,
            what=f"totals {expected}",
            timeout_seconds=timeout_seconds,
        )

    def wait_until_settled(self, *, timeout_seconds: float = 60) -> Status:
        """Return the first status page on which nothing is in flight or pending."""
        return self.wait_for_status(
            lambda status: status["totals"]["pending"] == status["totals"]["in_flight"] == 0,
            what="nothing in flight or pending",
            timeout_seconds=timeout_seconds,
        )

    def lines_with(self, pattern: str) -> list[str]:
        """Return the log lines of this life that match `pattern`, letter case aside."""
        return [line for line in self.life_log if re.search(pattern, line, re.IGNORECASE)]

    def wait_for_line(self, pattern: str, *, timeout_seconds: float = 15) -> str:
        """Return the first log line of this life that matches `pattern`, letter case aside."""
        lines = wait_until(
            lambda: self.lines_with(pattern) or self._raise_if_ended(),
            timeout_seconds=timeout_seconds,
            what=f"a log line with {pattern!r}",
            state=self.log_tail,
        )
        return lines[0]

    def log_tail(self, lines: int = 40) -> str:
        """Return the end of the log, for a message."""
        return "ODS log:\n" + "\n".join(f"  | {line}" for line in self.log[-lines:])

    def tracebacks(self) -> list[str]:
        """Return the lines that begin a traceback, in all lives."""
        return [line for line in self.log if "Traceback (most recent call last)" in line]

    def buffer_bytes(self) -> int:
        """Return the size of the buffer's files."""
        return sum(path.stat().st_size for path in self.directory.glob("buffer.db*"))

    def cpu_seconds(self) -> float:
        """Return the processor time that the process which does the work has used, from Linux's /proc."""
        fields = Path(f"/proc/{self.working_id}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """Return the resident memory of the process that does the work, from Linux's /proc."""
        return memory_bytes(self.working_id)

    def _children(self) -> list[int]:
        try:
            children = Path(f"/proc/{self.process_id}/task/{self.process_id}/children").read_text().split()
        except OSError:  # it has ended
            return []
        return [int(child) for child in children]

    def answers(self) -> bool:
        """Whether the status page answers. Raises AssertionError where ODS has ended."""
        try:
            return http(f"{self.url}/healthz", timeout_seconds=2)[0] in (200, 503)
        except OSError:
            self._raise_if_ended()
            return False

    def _raise_if_ended(self) -> list[str]:
        if self._process is not None and self._reader is not None and self._process.poll() is not None:
            self._reader.join(timeout=5)
            raise AssertionError(f"ODS ended with status {self._process.returncode}\n{self.log_tail()}")
        return []

    def _collect(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.log.append(line.rstrip("\n"))

    def _forget(self) -> None:
        if self._reader is not None:
            self._reader.join(timeout=5)
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._process = self._reader = None
