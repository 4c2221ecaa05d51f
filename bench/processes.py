"""Processes: those that make the load, and what ODS's own have used.

The load is in processes of its own, as pods are on machines of theirs: what it costs is not taken from ODS's
interpreter (though on a machine with few cores it is from its cores).
"""

import multiprocessing
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

#: How long an answer may take where nothing else is said. Seconds.
ANSWER_SECONDS = 120.0
_CONTEXT = multiprocessing.get_context("spawn")


class Load:
    """A process that runs `work(connection, *arguments)`: it is told what to do, and answers. A context manager."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_run, args=(work, theirs, arguments), daemon=True)
        self._theirs = theirs

    def __enter__(self) -> "Load":
        self._process.start()
        self._theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join(1.0)
        self._process.kill()
        self._process.join()

    def ask(self, *question: Any, timeout_seconds: float = ANSWER_SECONDS) -> Any:
        """Tell it something, and return its answer."""
        self._connection.send(question)
        return self.answer(timeout_seconds=timeout_seconds)

    def answer(self, *, timeout_seconds: float = ANSWER_SECONDS) -> Any:
        """Return its next answer. Raises TimeoutError, and EOFError where it has ended."""
        if not self._connection.poll(timeout_seconds):
            raise TimeoutError(f"the load has not answered within {timeout_seconds:g} s")
        return self._connection.recv()


def _run(work: Callable[..., None], connection: Connection, arguments: tuple[Any, ...]) -> None:
    """In the new process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        work(connection, *arguments)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # nobody asks any more


@dataclass(frozen=True)
class Used:
    """What a process has used so far, from Linux's /proc."""

    cpu_seconds: float
    memory_bytes: int
    files: int


def used(process_id: int) -> Used:
    """Raises OSError where there is no such process."""
    folder = Path(f"/proc/{process_id}")
    cpu_ns = sum(int((task / "schedstat").read_text().split()[0]) for task in (folder / "task").iterdir())
    resident = int((folder / "statm").read_text().split()[1]) * resource.getpagesize()
    return Used(cpu_ns / 1e9, resident, len(list((folder / "fd").iterdir())))


def age_seconds(process_id: int) -> float:
    """How long ago a process was started. Raises OSError where there is none."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
    uptime_seconds = float(Path("/proc/uptime").read_text().split()[0])
    return uptime_seconds - int(fields[19]) / os.sysconf("SC_CLK_TCK")
