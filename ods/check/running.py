"""Whether an ODS runs on the data directory, which the other checks take into account: what it holds is not amiss."""

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ods.check.finding import Finding, failed, ok
from ods.control_client import ask
from ods.directory import kept

#: How long the running ODS may take to say how it is. Seconds.
ANSWER_SECONDS = 3.0

_WHAT = "other ODS"


@dataclass(frozen=True, slots=True)
class Running:
    """What is known of it."""

    #: The process that holds the lock on the directory; None where none does.
    holder: str | None = None
    #: What it says of itself; None where it does not answer.
    status: dict[str, Any] | None = None

    @property
    def port(self) -> int | None:
        """Where pods connect to it."""
        return None if self.status is None else self.status["listening"]["port"]


def find(directory: Path) -> Running:
    """Look whether one runs. Raises OSError where the directory cannot be looked at."""
    with kept(directory) as holder:
        is_used = holder is not None
    return Running(holder, _status(directory)) if is_used else Running()


def look(directory: Path, running: Running, *, port: int) -> Finding:
    """One that serves this very port is the operator's own; any other keeps ODS from starting."""
    if running.holder is None:
        return ok(_WHAT, f"none uses {directory}")
    if running.status is None:
        return failed(
            _WHAT,
            f"process {running.holder} uses {directory} and does not answer",
            "stop it, or wait until it has started or stopped; --directory names another directory",
        )
    if port not in (0, running.port):
        return failed(
            _WHAT,
            f"another ODS (process {running.holder}, port {running.port}) uses {directory}",
            "stop it, or name another directory (--directory)",
        )
    return ok(_WHAT, f"the ODS of this directory runs: process {running.holder}, port {running.port}")


def _status(directory: Path) -> dict[str, Any] | None:
    try:
        code, body = ask(directory, "/api/status", timeout_seconds=ANSWER_SECONDS)
        status: dict[str, Any] = json.loads(body)
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return status if code == http.client.OK and "listening" in status else None


def is_process(holder: str | None, process_id: int | None) -> bool:
    """Whether a process is the one that holds the lock, or the parent or a child of it (a keeper and its worker)."""
    if holder is None or process_id is None or not holder.isdigit():
        return False
    return process_id in (int(holder), _parent(int(holder))) or _parent(process_id) == int(holder)


def _parent(process_id: int) -> int | None:
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace")
        return int(stat.rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
