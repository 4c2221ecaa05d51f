"""Every answer of InfluxDB and every fault of the network or the server, for a few seconds or for longer.

Pods send before, in and after the fault. At the end InfluxDB must hold all that was sent, once, and the ledger must say
the same.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from faults.behaviours import Answer, Behaviour, Blackhole, Cut, Delay, Refuse, Reset, Throttle, Unreachable
from faults.bench import Bench
from faults.table import Row
from faults.trial import Trial, trial, wait_for_write

#: How long the pods send before the first fault, and after each one. Seconds.
WELL_SECONDS = 0.5
#: Outages last so much longer than asked for, so that their ends meet what ODS does regularly at any time. Seconds.
PHASES_SECONDS = (0.27, 0.41, 0.13)
#: How long ODS may take to write again before that is given up. Seconds.
RECOVER_SECONDS = 60.0
#: In a fault that lasts so long, InfluxDB must get what it would take. Seconds.
NEIGHBOURS_SECONDS = 10.0

#: The measurement that is not taken while the fault lasts, as it stands in line protocol.
BAD = b"gyro_z,"
PORTAL = b"<html>Log in to the guest network</html>"
NO_DATABASE = b'{"error":"database not found: \\"ods\\""}'
NOT_PARSED = b'{"error":"unable to parse \'gyro_z\': as the fault suite says"}'


@dataclass(frozen=True)
class Fault:
    """How a fault begins; it ends by healing everything."""

    name: str
    begin: Callable[[Bench], None]
    #: Whether InfluxDB takes some writes all the time.
    is_selective: bool = False
    #: Whether what it does not take ends up in the quarantine, and is tried again from there at the end.
    quarantines: bool = False


def _proxied(name: str, behaviour: Behaviour, *, quarantines: bool = False) -> Fault:
    is_selective = isinstance(behaviour, Answer) and behaviour.is_selective
    return Fault(name, lambda bench: bench.proxy.behave(behaviour), is_selective, quarantines)


def _answered(status: int, body: bytes = b'{"error":"as the fault suite says"}', **headers: str) -> Fault:
    fields = tuple((key.replace("_", "-"), value) for key, value in headers.items())
    name = " ".join([f"answer {status}", *(f"{key} {value}" for key, value in fields)])
    return _proxied(name, Answer(status, body, fields))


def _crash_influx(bench: Bench) -> None:
    bench.influx.kill()
    bench.proxy.behave(Refuse())


FAULTS = (
    _proxied("answer 200 portal", Answer(200, PORTAL, (("Content-Type", "text/html"),))),
    _proxied("answer 302 portal", Answer(302, PORTAL, (("Location", "http://127.0.0.1:9/login"),))),
    _proxied("answer 400 to one name", Answer(400, NOT_PARSED, containing=BAD), quarantines=True),
    _answered(401),
    _answered(403),
    _answered(404, b"404 page not found\n"),
    _proxied("answer 404 database", Answer(404, NO_DATABASE)),
    _answered(408),
    _proxied("answer 413 above 1500 bytes", Answer(413, b"too large", above_bytes=1500)),
    _answered(418),
    _proxied("answer 422 to one name", Answer(422, NOT_PARSED, containing=BAD), quarantines=True),
    _answered(429, Retry_After="2"),
    _answered(500),
    _proxied("answer 500 to one name", Answer(500, NOT_PARSED, containing=BAD), quarantines=True),
    _answered(502),
    _answered(503),
    _answered(503, Retry_After="5"),
    _answered(504),
    _proxied("refused", Refuse()),
    _proxied("unreachable", Unreachable()),
    _proxied("blackhole", Blackhole()),
    _proxied("reset", Reset()),
    _proxied("cut after the 204", Cut()),
    _proxied("delay 2 s", Delay(2.0)),
    _proxied("delay 12 s", Delay(12.0)),
    _proxied("throttle 4 kB a second", Throttle(4000.0)),
    Fault("influxd frozen", lambda bench: bench.influx.pause()),
    Fault("influxd crashed", _crash_influx),
)


def run_cell(bench: Bench, fault: Fault, *, seconds: float, rounds: int) -> Row:
    """Run one cell, return its row. What goes wrong is in it."""
    row = Row(f"{fault.name}, {seconds:g} s", rounds=rounds)
    with trial(bench, row) as tried:
        wait_for_write(bench, 0.0, timeout_seconds=RECOVER_SECONDS)
        for phase_seconds in itertools.islice(itertools.cycle(PHASES_SECONDS), rounds):
            time.sleep(WELL_SECONDS)
            tried.check(partial(_suffer, tried, fault, seconds + phase_seconds))
        time.sleep(WELL_SECONDS)
        if fault.quarantines:
            tried.retry_quarantined()
    return row


def _suffer(tried: Trial, fault: Fault, seconds: float) -> None:
    bench, began = tried.bench, time.monotonic()
    fault.begin(bench)
    time.sleep(seconds)
    healed_at = bench.heal()
    if fault.is_selective and seconds >= NEIGHBOURS_SECONDS:
        tried.check(lambda: _look_at_neighbours(tried, began, seconds))
    _recover(tried, healed_at)


def _recover(tried: Trial, healed_at: float) -> None:
    healthy_at = max(healed_at, tried.bench.proxy.retry_at)
    seconds = wait_for_write(tried.bench, healthy_at, timeout_seconds=RECOVER_SECONDS) - healthy_at
    tried.row.recovery_seconds = max(tried.row.recovery_seconds or 0.0, seconds)


def _look_at_neighbours(tried: Trial, began: float, seconds: float) -> None:
    """While some writes are refused, the others must be stored: in the latter half too."""
    written_at = tried.bench.proxy.first_confirmed(began + seconds / 2)
    assert written_at is not None and written_at < began + seconds, (
        "good neighbours of what was refused were not stored"
    )
