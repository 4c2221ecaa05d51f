"""A real InfluxDB 1.x on free loopback ports, with its data in a temporary folder, to be killed and stopped at will."""

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

#: A stored point's time and value, the latter a string where a test made it so.
Row = tuple[int, float | str]
#: All points of a database, in the order of time, by measurement and pod.
Points = dict[tuple[str, str], list[Row]]

#: Points of one series that InfluxDB puts in one piece of its answer.
CHUNK_POINTS = 50_000
START_TIMEOUT_SECONDS = 30.0

CONFIGURATION = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc_port}"

[meta]
  dir = "{folder}/meta"

[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false

[monitor]
  store-enabled = false

[http]
  bind-address = "127.0.0.1:{http_port}"
  auth-enabled = {auth_enabled}
  log-enabled = false
"""


class InfluxError(Exception):
    """InfluxDB refused a query or a write of the test itself."""


class InfluxServer:
    """An influxd of the test's own. It comes back on the same port, with the same data, however it went.

    `user` and `password` are those of the administrator once `create_administrator` has made one.
    """

    def __init__(self, folder: Path, *, auth_enabled: bool = False) -> None:
        self.folder = folder
        self.port = free_port()
        self.auth_enabled = auth_enabled
        self.user = ""
        self.password = ""
        self._rpc_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_installed() -> bool:
        """Tell whether there is an influxd to start."""
        return shutil.which("influxd") is not None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start influxd, and return when it answers a ping."""
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "influxdb.conf"
        configuration.write_text(
            CONFIGURATION.format(
                folder=self.folder,
                http_port=self.port,
                rpc_port=self._rpc_port,
                auth_enabled=str(self.auth_enabled).lower(),
            )
        )
        environment = {key: value for key, value in os.environ.items() if not key.startswith("INFLUXDB_")}
        with (self.folder / "influxd.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["influxd", "-config", str(configuration)], stdout=log, stderr=log, env=environment
            )
        wait_until(self.answers, timeout_seconds=START_TIMEOUT_SECONDS, what="influxd to answer", state=self._log_tail)

    def stop(self) -> None:
        """Stop influxd in good order. May be called twice."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill influxd as a crash would. May be called twice."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze influxd: the kernel accepts its connections, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen influxd run on."""
        self._signal(signal.SIGCONT)

    def answers(self) -> bool:
        """Tell whether influxd answers a ping."""
        try:
            return http(f"{self.url}/ping", timeout_seconds=2.0)[0] == 204
        except OSError:
            return False

    def query(self, statement: str, *, database: str = "") -> list[dict[str, Any]]:
        """Return the series of one statement's answer, times in nanoseconds. Raises InfluxError."""
        parameters = self._parameters(db=database, epoch="ns", chunked="true", chunk_size=str(CHUNK_POINTS))
        body = urllib.parse.urlencode({"q": statement}).encode()
        status, body = http(f"{self.url}/query?{parameters}", body=body, timeout_seconds=120.0)
        series: list[dict[str, Any]] = []
        for piece in body.splitlines():
            answer = json.loads(piece)
            results = answer.get("results", [{}])
            error = answer.get("error") or next((result["error"] for result in results if "error" in result), None)
            if error:
                raise InfluxError(f"{statement}: {status} {error}")
            series.extend(one for result in results for one in result.get("series", []))
        return series

    def write(self, database: str, lines: str) -> None:
        """Write line protocol past ODS. Raises InfluxError."""
        status, body = http(f"{self.url}/write?{self._parameters(db=database)}", body=lines.encode())
        if status != 204:
            raise InfluxError(f"write: {status} {body!r}")

    def create_database(self, database: str) -> None:
        self.query(f'CREATE DATABASE "{database}"')

    def create_administrator(self, user: str, password: str) -> None:
        """Make the first user, and be that user from now on."""
        self.query(f"CREATE USER \"{user}\" WITH PASSWORD '{password}' WITH ALL PRIVILEGES")
        self.user, self.password = user, password

    def databases(self) -> list[str]:
        return [name for series in self.query("SHOW DATABASES") for (name,) in series.get("values", [])]

    def refused_logins(self) -> int:
        """Return how many requests were refused for their user or password since influxd's start."""
        for series in self.query("SHOW STATS FOR 'httpd'"):
            return int(dict(zip(series["columns"], series["values"][0], strict=True))["authFail"])
        return 0

    def points(self, database: str) -> Points:
        """Return every data point that `database` holds."""
        points: Points = defaultdict(list)
        for series in self.query("SELECT value FROM /.*/ GROUP BY pod", database=database):
            points[series["name"], series["tags"]["pod"]].extend(map(tuple, series["values"]))
        return dict(points)

    def messages(self, database: str) -> dict[str, list[tuple[int, str, str]]]:
        """Return every log message by pod, in the order of time, as time, level (or empty) and text."""
        messages: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        for series in self.query("SELECT message, level FROM pod_log GROUP BY pod", database=database):
            rows = ((time_ns, level or "", text) for time_ns, text, level in series["values"])
            messages[series["tags"]["pod"]].extend(rows)
        return dict(messages)

    def events(self, database: str) -> list[tuple[int, str, str, str]]:
        """Return ODS's own events in the order of time, as time, pod, event and detail."""
        rows: list[tuple[int, str, str, str]] = []
        for series in self.query("SELECT pod, event, detail FROM ods_event", database=database):
            rows.extend(map(tuple, series["values"]))
        return sorted(rows)

    def _parameters(self, **parameters: str) -> str:
        if self.user:
            parameters |= {"u": self.user, "p": self.password}
        return urllib.parse.urlencode({key: value for key, value in parameters.items() if value})

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "influxd was not started"
        self._process.send_signal(number)

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
        return (self.folder / "influxd.log").read_text(errors="replace")[-2000:]
