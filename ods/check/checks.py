"""All checks, in the order in which they are told: side by side, so that one that hangs keeps no other waiting.

Promises an end within `LONGEST_SECONDS`, whatever hangs: what has not answered by then is told as such, and left alone.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from ods.check import buffer, clock, influx, ports, running, storage
from ods.check.finding import Finding, failed, warning
from ods.check.options import Read
from ods.check.running import Running

#: The longest that all of it takes. Seconds.
LONGEST_SECONDS = 13.0
#: How long it is waited to know whether an ODS runs, which the others take into account. Seconds.
RUNNING_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Check:
    """`needs` are the options it stands on; where one is wrong, it would look at the wrong thing."""

    what: str
    look: Callable[[], Iterable[Finding]]
    needs: tuple[str, ...] = ()


def findings(read: Read, *, points_per_second: float, begin: Callable[[str], None]) -> Iterator[Finding]:
    """Each finding as soon as those before it are there. `begin` is told which check is waited for."""
    deadline = time.monotonic() + LONGEST_SECONDS
    yield from read.findings
    settings = read.settings
    begin("the data directory")
    looked = _Job(lambda: [running.find(settings.directory)])
    found = next(iter(looked.results(time.monotonic() + RUNNING_SECONDS)), None)
    is_known = isinstance(found, Running)
    checks = _checks(read, found if isinstance(found, Running) else Running(), points_per_second, is_known=is_known)
    jobs = [(check, None if set(check.needs) & read.wrong else _Job(check.look)) for check in checks]
    for check, job in jobs:
        begin(check.what)
        yield from _of_job(check, job, deadline)


def _checks(read: Read, found: Running, points_per_second: float, *, is_known: bool) -> Iterator[Check]:
    settings = read.settings
    directory = settings.directory
    used_bytes = None if found.status is None else found.status["buffer"]["bytes"]

    def one(what: str, look: Callable[[], Finding], *needs: str) -> Check:
        return Check(what, lambda: [look()], needs)

    yield one("data directory", partial(storage.look_at_directory, directory), "directory")
    if is_known:
        port = settings.listener.port
        yield one("other ODS", partial(running.look, directory, found, port=port), "directory", "port")
    disk = partial(
        storage.look_at_disk,
        directory,
        limit_bytes=settings.buffer_limit_bytes,
        used_bytes=used_bytes,
        points_per_second=points_per_second,
    )
    yield one("disk", disk, "directory", "buffer_limit")
    yield one("buffer", partial(buffer.look, directory, found), "directory")
    yield one("clock", lambda: clock.look_at_time(directory, now_ns=clock.now_ns()), "directory")
    yield one("clock's source", clock.look_at_source)
    pods, page = settings.listener, settings.http_port
    of_pods = partial(ports.look, "port for pods", pods.host, pods.port, found, option="--port")
    yield one("port for pods", of_pods, "host", "port")
    if page is not None:
        of_page = partial(
            ports.look_at_second,
            "port of the page",
            settings.http_host,
            page,
            found,
            option="--http-port",
            first=(pods.host, pods.port),
        )
        yield one("port of the page", of_page, "http_host", "http_port")
    needs = tuple(dest for dest in vars(read.given) if dest.startswith("influx_"))
    yield Check("InfluxDB", lambda: influx.look(settings.influx), needs)


def _of_job(check: Check, job: "_Job | None", deadline: float) -> Iterator[Finding]:
    if job is None:
        yield warning(check.what, "not looked at, for an option that it needs is wrong", "mend that option")
        return
    for result in job.results(deadline):
        if isinstance(result, Finding):
            yield result
        elif isinstance(result, TimeoutError):
            yield failed(check.what, f"no answer within {LONGEST_SECONDS:.0f} s", "see whether it hangs")
        else:
            found = f"cannot be looked at: {result}"
            yield failed(check.what, found, "mend what it says; ODS may meet it too")


class _Job:
    """One check on a thread of its own, which nobody waits for longer than they want."""

    def __init__(self, look: Callable[[], Iterable[object]]) -> None:
        self._look = look
        self._found: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._end = object()
        threading.Thread(target=self._run, name="check", daemon=True).start()

    def results(self, deadline: float) -> Iterator[object]:
        """What it finds; at the last, where it went wrong, the error, or TimeoutError where there is no end."""
        while True:
            try:
                result = self._found.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                yield TimeoutError()
                return
            if result is self._end:
                return
            yield result

    def _run(self) -> None:
        try:
            for finding in self._look():
                self._found.put(finding)
        except OSError as error:
            self._found.put(error)
        except BaseException as error:  # whatever it was, the operator is told: no check goes missing
            self._found.put(error)
            raise
        finally:
            self._found.put(self._end)
