"""A real VictoriaMetrics (single node) on a free loopback port, with its data in a temporary folder."""

import json
import os
import shutil
import signal
import subprocess
import urllib.parse
from collections import defaultdict
from pathlib import Path
from typing import Any

from harness.loopback import free_port, http
from harness.wait import wait_until

#: All distinct values that are stored, by measurement and pod.
Values = dict[tuple[str, str], set[float]]

START_TIMEOUT_SECONDS = 30.0


class VictoriaMetrics:
    """It comes back on the same port, with the same data, but for what it had confirmed and not yet put on its disk.

    That is the last five to ten seconds where it is killed (its README: "the last few seconds of inserted data may be
    lost on unclean shutdown"); `flush_to_disk` puts all of it there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_installed() -> bool:
        """Tell whether there is one to start."""
        return shutil.which("victoria-metrics") is not None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it is healthy."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ["-storageDataPath", str(self.folder / "data"), "-retentionPeriod", "100y"]
        arguments += ["-httpListenAddr", f"127.0.0.1:{self.port}", "-memory.allowedBytes", "256MiB"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["victoria-metrics", *arguments], stdout=log, stderr=log, env=dict(os.environ)
            )
        wait_until(self._is_healthy, timeout_seconds=START_TIMEOUT_SECONDS, what="health", state=self._log_tail)

    def stop(self) -> None:
        """Stop it in good order: what it has confirmed is on its disk. May be called twice."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it as a crash would. May be called twice."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it: the kernel accepts its connections, and nothing answers."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGSTOP)

    def write(self, lines: str) -> int:
        """Write line protocol past ODS; return the status of the answer."""
        return http(f"{self.url}/write?precision=ns", body=lines.encode())[0]

    def flush_to_disk(self) -> None:
        """Put on the disk what has been confirmed: making a snapshot does so first."""
        answer = json.loads(self._get("/snapshot/create"))
        assert answer["status"] == "ok", answer
        self._get(f"/snapshot/delete?snapshot={answer['snapshot']}")

    def series(self) -> list[dict[str, Any]]:
        """Return every series that can be found, as /api/v1/export gives it: its labels, values, and times in ms."""
        self._get("/internal/force_flush")  # else it answers what it knew a moment ago
        selector = urllib.parse.quote('{__name__!=""}')
        return [json.loads(line) for line in self._get(f"/api/v1/export?match[]={selector}&start=0").splitlines()]

    def values(self, database: str) -> Values:
        """Return the distinct values of every data point written to `database`."""
        values: Values = defaultdict(set)
        for series in self.series():
            labels = series["metric"]
            name = labels["__name__"]
            if labels.get("db") == database and name.endswith("_value"):
                values[name.removesuffix("_value"), labels["pod"]].update(series["values"])
        return dict(values)

    def _get(self, path: str) -> bytes:
        status, body = http(f"{self.url}{path}", timeout_seconds=60)
        assert status == 200, f"{path}: {status} {body!r}"
        return body

    def _is_healthy(self) -> bool:
        try:
            return http(f"{self.url}/health", timeout_seconds=2.0)[0] == 200
        except OSError:
            return False

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _log_tail(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]
