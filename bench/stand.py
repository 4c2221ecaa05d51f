"""What a run stands on: a real InfluxDB, and ODS as its users run it, started anew for each measurement."""

import compileall
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from harness.influx_server import InfluxServer
from harness.loopback import free_port
from harness.ods_process import REPOSITORY, OdsProcess
from harness.wait import wait_until

from bench.processes import used

#: What is larger is deleted between two measurements. Bytes.
LARGE_BYTES = 1024 * 1024
#: How long a worker may take to be there. Seconds.
WORKER_SECONDS = 30.0


class Stand:
    """One InfluxDB for all; each ODS and each raw rate has a database of its own, dropped afterwards."""

    def __init__(self, folder: Path) -> None:
        self.influx = InfluxServer(folder / "influx")
        self._folder = folder
        self._numbers = itertools.count(1)

    def __enter__(self) -> "Stand":
        """Start InfluxDB. ODS is compiled, as it is wherever it has run once, or else each worker would start later."""
        compileall.compile_dir(REPOSITORY / "ods", quiet=1)
        self.influx.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.influx.kill()

    @contextlib.contextmanager
    def ods(self, *, has_keeper: bool, has_influx: bool = True) -> Iterator[OdsProcess]:
        """An ODS that serves; with `has_influx` false nothing listens where it expects InfluxDB."""
        with self.process(has_keeper=has_keeper, has_influx=has_influx) as ods:
            ods.start()
            if has_influx:
                ods.wait_for_status(lambda status: status["influx"]["available"], what="InfluxDB to be seen")
            yield ods
            ods.stop()

    @contextlib.contextmanager
    def process(self, *, has_keeper: bool, has_influx: bool = True) -> Iterator[OdsProcess]:
        """An ODS that is not started yet."""
        number = next(self._numbers)
        port = self.influx.port if has_influx else free_port()
        ods = OdsProcess(
            self._folder / f"ods-{number}", influx_port=port, database=f"bench_{number}", has_keeper=has_keeper
        )
        try:
            yield ods
        finally:
            ods.kill()
            _delete_large(ods.folder)
            self.influx.query(f'DROP DATABASE "{ods.database}"')

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A database to be posted to past ODS."""
        name = f"raw_{next(self._numbers)}"
        self.influx.create_database(name)
        try:
            yield name
        finally:
            self.influx.query(f'DROP DATABASE "{name}"')


def _delete_large(folder: Path) -> None:
    """Make room; the many small files stay until the end of the run.

    Where thousands were deleted, ext4 takes some hundred microseconds to make each new one for the next five minutes,
    for it passes over what was deleted lately (`recently_deleted` in its ialloc.c): a thousand pods' first rows would
    be late.
    """
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_size > LARGE_BYTES:
                path.unlink()


def worker_of(ods: OdsProcess) -> int:
    """The process that does the work."""
    return wait_until(lambda: ods.worker_id, timeout_seconds=WORKER_SECONDS, what="a worker", state=ods.log_tail)


def cpu_seconds(ods: OdsProcess) -> tuple[float, float]:
    """The processor time of all of ODS, and of its first process alone (the keeper, where there is one)."""
    first = used(ods.process_id).cpu_seconds
    return (first + used(worker_of(ods)).cpu_seconds if ods.has_keeper else first), first


def memory_bytes(ods: OdsProcess) -> int:
    """The resident memory of all of ODS."""
    first = used(ods.process_id).memory_bytes
    return first + used(worker_of(ods)).memory_bytes if ods.has_keeper else first
