"""The machine and the versions that a table was measured with: figures of two tables compare only where these agree."""

import importlib.metadata
import os
import platform
import re
import sqlite3
import subprocess
from pathlib import Path

from harness.ods_process import REPOSITORY

PACKAGES = ("gevent", "influxdb")


def told() -> list[str]:
    """Lines to be printed above the table; the load is that of before the first row."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return [
        f"machine: {_cpu_model()}, {os.cpu_count()} cores, {_memory_gib():.1f} GiB; "
        f"load at begin (1, 5, 15 minutes): {load}",
        f"system: {platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {', '.join(f'{name} {_version(name)}' for name in PACKAGES)}, {_influx()}",
        f"ODS: {_ods()}",
    ]


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "?"


def _influx() -> str:
    said = _output("influxd", "version")
    found = re.search(r"InfluxDB v?(\S+)", said)
    return f"InfluxDB {found[1] if found else '?'}"


def _ods() -> str:
    version = re.search(r'__version__ = "(.*)"', (REPOSITORY / "ods" / "__init__.py").read_text())
    commit = _output("git", "-C", str(REPOSITORY), "describe", "--always", "--dirty")
    return " ".join(part for part in (version[1] if version else "?", commit and f"({commit})") if part)


def _output(*command: str) -> str:
    """What a command prints; nothing where it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
