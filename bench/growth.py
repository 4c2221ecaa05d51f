"""What must not grow: the cost of a point with the number of pods, memory and start with the backlog."""

import contextlib
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.ods_process import OdsProcess
from harness.wait import wait_until

from bench import backlogs, pods
from bench.figures import Figure, Ratio, Round
from bench.fleets import Seen, bursts
from bench.processes import Load
from bench.rows import Row, Sizes
from bench.stand import Stand, cpu_seconds, memory_bytes, worker_of

#: What each of a thousand pods sends. Lines a second.
POD_LINES_PER_SECOND = 100.0
#: They have done so before they are measured: InfluxDB makes forty thousand series then. Seconds.
WARM_SECONDS = 2.0
#: The contract's bound for replies. Seconds.
REPLY_SECONDS = 0.25
#: What a fleet of any size sends in all, where the cost of a line is measured. Lines a second.
FLEET_LINES_PER_SECOND = 20_000.0
FLEETS = (1, 10, 100, 1000, 2000)
#: Minutes of an outage, at 1000 points a second, after which memory is measured.
MINUTES = (10, 60)
SETTLE_SECONDS = 60.0
REFUSED = "refused in all floods"
MIB = 2**20


def _many_pods(stand: Stand, sizes: Sizes, _: int) -> Round:
    """What was answered, and after how long; what is not kept in the end is lost."""
    rate = sizes.fleet * POD_LINES_PER_SECOND
    with stand.ods(has_keeper=True) as ods, Load(bursts, ods.port, sizes.fleet, rate) as load:
        load.answer()
        first: Seen = load.ask(WARM_SECONDS)
        before = cpu_seconds(ods)[0]
        seen: Seen = load.ask(sizes.seconds)
        spent = cpu_seconds(ods)[0] - before
        totals = ods.wait_until_settled(timeout_seconds=SETTLE_SECONDS)["totals"]
    waited = sorted(seen.waited_seconds)
    return {
        "lines sent": [seen.lines / seen.seconds],
        "lines lost": [first.lines + seen.lines - totals["stored"]],
        "replies within 250 ms": [100 * sum(one <= REPLY_SECONDS for one in waited) / len(waited)],
        "99 % of replies within": [1000 * waited[len(waited) * 99 // 100]],
        "last reply": [1000 * waited[-1]],
        "processor": [100 * spent / seen.seconds],
    }


def _cost(stand: Stand, sizes: Sizes, _: int) -> Round:
    """Processor time of all of ODS, threads and keeper too, for each line: at a steady rate, and in a flood."""
    measured, dropped = {}, 0
    for fleet in sizes.fleets:
        with stand.ods(has_keeper=True) as ods, Load(bursts, ods.port, fleet, FLEET_LINES_PER_SECOND) as load:
            load.answer()
            before = cpu_seconds(ods)[0]
            seen: Seen = load.ask(sizes.seconds)
            measured[_steady(fleet)] = [1e6 * (cpu_seconds(ods)[0] - before) / seen.lines]
        lines = sizes.points // fleet * fleet
        with stand.ods(has_keeper=True) as ods, Load(pods.flood, ods.port, fleet, lines) as load:
            load.answer()
            before = cpu_seconds(ods)[0]
            load.ask("flood")
            dropped += ods.wait_until_settled(timeout_seconds=SETTLE_SECONDS)["totals"]["dropped"]
            measured[_flood(fleet)] = [1e6 * (cpu_seconds(ods)[0] - before) / lines]
    return measured | {REFUSED: [float(dropped)]}


def _memory(stand: Stand, sizes: Sizes, _: int) -> Round:
    """Resident memory of all of ODS at the begin, and as an outage goes on."""
    measured, pending = {}, 0
    with stand.ods(has_keeper=True, has_influx=False) as ods:
        measured["at the begin"] = [memory_bytes(ods) / MIB]
        for minutes in MINUTES:
            lines = minutes * sizes.minute_points - pending
            with Load(pods.flood, ods.port, backlogs.PODS, lines) as load:
                load.answer()
                load.ask("flood")
            pending += lines
            ods.wait_for_totals(pending=pending, in_flight=0, timeout_seconds=SETTLE_SECONDS)
            measured[f"after {minutes} minutes"] = [memory_bytes(ods) / MIB]
    return measured


def _start(stand: Stand, sizes: Sizes, _: int) -> Round:
    """With InfluxDB there, so that the drain begins at once; it is not waited for."""
    with stand.process(has_keeper=True) as ods:
        ods.start()
        ods.stop()
        backlogs.fill_alike(ods, sizes.waiting_points, backlogs.LARGE_ROW_POINTS)
        began = time.monotonic()
        ods.launch()
        measured = {}
        with _connected(ods) as sock:
            measured["listening after"] = [time.monotonic() - began]
            sock.sendall(b"POD2here 1\n")
            sock.recv(pods.PIECE_BYTES)
            measured["first reply after"] = [time.monotonic() - began]
        ods.wait_for_line(r"\bbacklog\b")
        wait_until(ods.answers, timeout_seconds=SETTLE_SECONDS, what="the status page", state=ods.log_tail)
        measured["status page after"] = [time.monotonic() - began]
        ods.wait_for_status(lambda status: status["totals"]["stored"] > 1, what="a drain")
        time.sleep(sizes.seconds)
        measured["memory while it drains"] = [memory_bytes(ods) / MIB]
        measured["most memory"] = [_most_memory_bytes(worker_of(ods)) / MIB]
        assert ods.totals()["pending"], "the backlog was drained before it was measured"
        ods.stop()
    return measured


@contextlib.contextmanager
def _connected(ods: OdsProcess) -> Iterator[socket.socket]:
    """A pod's connection, as soon as ODS listens."""

    def connect() -> socket.socket | None:
        with contextlib.suppress(ConnectionRefusedError):
            return pods.connect(ods.port, "127.1.9.1")
        return None

    with wait_until(connect, timeout_seconds=SETTLE_SECONDS, what="ODS to listen", state=ods.log_tail) as sock:
        yield sock


def _most_memory_bytes(process_id: int) -> int:
    """The most that a process has had resident."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    (said,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(said.split()[1]) * 1024


def _steady(fleet: int) -> str:
    return f"steady, {fleet} pod{'s' if fleet > 1 else ''}"


def _flood(fleet: int) -> str:
    return f"flood, {fleet} pod{'s' if fleet > 1 else ''}"


def of_fleets(fleets: Iterable[int]) -> tuple[Figure, ...]:
    """The figures that are measured of fleets of these sizes."""
    return tuple(Figure(name(fleet), "us of processor") for name in (_steady, _flood) for fleet in fleets)


ROWS = [
    Row(
        "a thousand pods",
        "each sends 100 points a second in bursts of ten",
        (
            Figure("lines sent", "lines/s"),
            Figure("lines lost", "lines", "0"),
            Figure("replies within 250 ms", "%", "99"),
            Figure("99 % of replies within", "ms", "250"),
            Figure("last reply", "ms"),
            Figure("processor", "% of a core"),
        ),
        _many_pods,
    ),
    Row(
        "cost of a point",
        "processor time, from 1 pod to 2000: at 20 000 lines a second in bursts of ten, and in a flood",
        (*of_fleets(FLEETS), Figure(REFUSED, "lines")),
        _cost,
        tuple(Ratio(f"{name(FLEETS[-1])} / 1 pod", name(FLEETS[-1]), name(1)) for name in (_steady, _flood)),
    ),
    Row(
        "memory",
        "resident, with InfluxDB away, after so long at 1000 points a second (sped up)",
        tuple(Figure(name, "MiB") for name in ("at the begin", *(f"after {minutes} minutes" for minutes in MINUTES))),
        _memory,
    ),
    Row(
        "start",
        "with 50 million points in the buffer, and InfluxDB there",
        (
            Figure("listening after", "s", "1"),
            Figure("first reply after", "s"),
            Figure("status page after", "s"),
            Figure("memory while it drains", "MiB", "200 MB"),
            Figure("most memory", "MiB", "200 MB"),
        ),
        _start,
    ),
]
