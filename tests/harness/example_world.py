"""A machine of its own, as far as an example can see: its network, /var/lib, /etc and /media, all ports free.

There examples run word for word as a reader types them, at ODS's and InfluxDB's own ports, and touch nothing of the
real machine. It is a network namespace and a mount namespace of Linux; making them needs root.
"""

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.influx_server import CONFIGURATION
from harness.ods_process import REPOSITORY, environment
from harness.wait import wait_until

#: What the examples need of the code's folder.
COPIED = ("ods", "conf", "server.py", "ods_server.py")
#: Addresses that the examples name, of InfluxDB and of a pod.
ADDRESSES = ("10.0.0.5", "10.0.0.20")
#: How long an example that does not end by itself is let run. Seconds.
ENOUGH_SECONDS = 3.0
LONGEST_SECONDS = 90.0

_SETUP = """
set -e
ip link set lo up
for address in {addresses}; do ip addr add $address/24 dev lo; done
for place in var/lib etc media; do mount --bind {folder}/$place /$place; done
echo ready
exec sleep infinity
"""


class ExampleWorld:
    """One such machine. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.here = folder / "ods"
        self.data = folder / "var/lib/ods"
        self._holder: subprocess.Popen[str] | None = None
        self._started: list[subprocess.Popen[str]] = []
        self._influx: subprocess.Popen[str] | None = None

    @staticmethod
    def lacking() -> str:
        """What there lacks to make one, as advice; empty where nothing does."""
        if sys.platform != "linux" or os.geteuid() != 0:
            return "running the examples word for word needs root, on Linux"
        if missing := [name for name in ("unshare", "nsenter", "ip", "curl") if shutil.which(name) is None]:
            return f"running the examples word for word needs {', '.join(missing)}"
        tried = subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True, check=False)
        return "no namespaces can be made here" if tried.returncode else ""

    def __enter__(self) -> "ExampleWorld":
        self._furnish()
        setup = _SETUP.format(addresses=" ".join(ADDRESSES), folder=self.folder)
        self._holder = subprocess.Popen(
            ["unshare", "-n", "-m", "--propagation", "private", "bash", "-c", setup], stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", "the machine cannot be set up"
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*reversed(self._started), self._holder]:
            if process is not None:
                process.kill()
                process.wait()

    def start(self, line: str) -> "subprocess.Popen[str]":
        """Begin what runs beside the examples."""
        log = (self.folder / f"log-{len(self._started)}").open("w")
        process = subprocess.Popen(
            self._command(f"exec {line}"), env=self._environment(), stdout=log, stderr=log, text=True
        )
        log.close()
        self._started.append(process)
        return process

    def log(self) -> str:
        """What it has printed that was started last."""
        return (self.folder / f"log-{len(self._started) - 1}").read_text(errors="replace")

    def start_influx(self) -> None:
        """An InfluxDB at its own port, on every address."""
        folder = self.folder / "influx"
        folder.mkdir()
        text = CONFIGURATION.format(folder=folder, http_port=8086, rpc_port=8088, auth_enabled="false")
        (folder / "influxdb.conf").write_text(text.replace('"127.0.0.1:8086"', '":8086"'))
        self._influx = self.start(f"influxd -config {folder}/influxdb.conf")
        ping = "curl -sf http://localhost:8086/ping"
        wait_until(lambda: self.run(ping).returncode == 0, timeout_seconds=30, what="influxd to answer", state=self.log)

    @contextlib.contextmanager
    def frozen_influx(self) -> Iterator[None]:
        """Its InfluxDB answers nobody in the meantime."""
        assert self._influx is not None, "start_influx first"
        self._influx.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._influx.send_signal(signal.SIGCONT)

    def start_ods(self, line: str = "./server.py") -> "subprocess.Popen[str]":
        """ODS, as a reader starts it; returns when pods may connect and it answers."""
        process = self.start(line)
        wait_until(
            lambda: "pods connect to" in self.log() or process.poll() is not None,
            timeout_seconds=30,
            what=f"{line} to listen",
            state=self.log,
        )
        assert process.poll() is None, f"{line} ended: {self.log()}"
        wait_until(lambda: self.run("ods status").returncode == 0, timeout_seconds=30, what="ODS to answer")
        return process

    def run(self, line: str, *, is_endless: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a line as a shell does; one without an end gets Ctrl-C after a while."""
        prefix = "exec " if is_endless and "|" not in line else "set -o pipefail; "
        process = subprocess.Popen(
            self._command(prefix + line),
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if is_endless:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(ENOUGH_SECONDS)
                process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=LONGEST_SECONDS)
        finally:
            process.kill()
            process.wait()
        return subprocess.CompletedProcess(line, process.returncode, output, errors)

    def status(self) -> dict[str, Any]:
        """What ODS says of itself."""
        status: dict[str, Any] = json.loads(self.run("curl -s http://localhost:7777/api/status").stdout)
        return status

    def query(self, statement: str, *, database: str = "ods") -> None:
        """Have InfluxDB do something."""
        asked = f"-d db={database} --data-urlencode 'q={statement}'"
        done = self.run(f"curl -sfG http://localhost:8086/query {asked} -X POST")
        assert done.returncode == 0, done

    def write(self, line: str, *, database: str = "ods") -> None:
        """Write a line to InfluxDB past ODS."""
        done = self.run(f"curl -sf 'http://localhost:8086/write?db={database}' --data-binary '{line}'")
        assert done.returncode == 0, done

    def record(self, pod: str, begin: str, rows: Sequence[str]) -> None:
        """A closed recording of an earlier day."""
        folder = self.data / "recordings" / pod
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{row}\n" for row in ("time_ns,name,value", *rows))
        (folder / f"{begin}.data.csv.gz").write_bytes(gzip.compress(text.encode()))

    def _furnish(self) -> None:
        """The files: a copy of the code's folder, an empty /var/lib and /media, a copy of /etc with the options."""
        self.here.mkdir(parents=True)
        for name in COPIED:
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, self.here / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, self.here / name, follow_symlinks=False)
        shutil.copytree("/etc", self.folder / "etc", symlinks=True, ignore_dangling_symlinks=True)
        (self.folder / "etc/ods").mkdir()
        for name in ("ods.toml", "sensors.toml"):
            shutil.copy(REPOSITORY / "conf" / name, self.folder / "etc/ods" / name)
        shutil.copytree(REPOSITORY / "conf/grafana/dashboards", self.folder / "etc/ods-grafana/dashboards")
        for place in ("var/lib/ods/recordings", "media/card", "home/.local/state"):
            (self.folder / place).mkdir(parents=True)
        (self.folder / "home/.local/state/ods").symlink_to("/var/lib/ods")
        (self.here / "recordings").symlink_to("/var/lib/ods/recordings")
        (self.folder / "media/card/recordings").symlink_to("/var/lib/ods/recordings")
        for place in ("bin", "ods/.venv/bin"):
            (self.folder / place).mkdir(parents=True)
            program = self.folder / place / "ods"
            program.write_text(f'#!/bin/sh\nPYTHONPATH={self.here} exec {sys.executable} -m ods "$@"\n')
            program.chmod(0o755)

    def _command(self, line: str) -> list[str]:
        assert self._holder is not None, "use it as a context manager"
        enter = ["nsenter", "--target", str(self._holder.pid), "--net", "--mount"]
        return [*enter, "bash", "-c", f"cd {self.here} && {line}"]

    def _environment(self) -> dict[str, str]:
        path = f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return environment(self.folder / "home", {"PATH": path})
