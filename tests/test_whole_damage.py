"""The whole program started on damaged buffers: it listens at once, and what stands on undamaged pages arrives.

`ODS_TEST_LONG=1` makes a thousand rounds, `ODS_TEST_ROUNDS` as many as asked, `ODS_TEST_SEED` others. What a failed
round began with is kept in its folder, in `damaged`.
"""

import contextlib
import csv
import io
import os
import random
import shutil
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.backlogs import DATABASE, Backlog, Maker, points_in
from harness.buffer_pages import QUARANTINE_COLUMNS, Fields, Key, copy_buffer
from harness.damaging import DAMAGES, FOREIGN_LOG, NO_DAMAGE, Damaging
from harness.influx_server import InfluxServer
from harness.loopback import free_port
from harness.ods_process import OdsProcess, run_command
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.sizes import IS_LONG, Measured, sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(240, long=2700), method="signal")

SEED = int(os.environ.get("ODS_TEST_SEED", "1"))
ROUNDS = int(os.environ.get("ODS_TEST_ROUNDS", sized(len(DAMAGES) + 4, long=1000)))
#: The measurements of ODS itself, which no pod sent.
OWN = ("ods_event", "ods_health")
#: The contract: ODS listens within seconds. Asserted in the long run alone.
LISTENING_SECONDS = 5.0
#: What each life of ODS is sent.
SIZE = {"small_rows": sized(30, long=120), "bursts": sized(2, long=3)}
#: How often two kinds of damage meet, and how often InfluxDB is away at the start.
TWICE_SHARE, AWAY_SHARE = 0.2, 0.2
#: The pod of the round itself, and what it sends while InfluxDB is away.
PROBE = "127.0.4.1"
PROBE_LINES = 3000
#: A start that takes longer has failed.
START_SECONDS = 20.0
#: What is missing once ODS has nothing more to do will not come.
GRACE_SECONDS = 10.0
#: More failures than that are no longer looked for.
MOST_FAILURES = 10


@dataclass(frozen=True)
class Plan:
    """A round: which buffer is damaged, and how."""

    number: int
    backlog: Backlog
    other: Backlog
    damagings: tuple[Damaging, ...]
    is_influx_away: bool
    random: random.Random


@dataclass(frozen=True)
class Outcome:
    """What a round showed."""

    rows_required: int
    rows_more: int
    rows_lost: int
    seconds_to_listen: float


@pytest.fixture(scope="module")
def backlogs(two_influxes: list[InfluxServer], tmp_path_factory: pytest.TempPathFactory) -> list[Backlog]:
    """Buffers as runs of ODS leave them, made side by side."""
    makers = [
        Maker(name, tmp_path_factory.mktemp(name), [f"127.0.3.{10 * at + pod}" for pod in range(3)], **SIZE)
        for at, name in enumerate(["stopped", "killed", "drained", "quarantined"])
    ]
    stopped, killed, drained, quarantined = makers
    runs = [stopped.stopped, killed.killed, drained.drained_in_part, lambda: quarantined.quarantined(two_influxes[0])]
    try:
        with ThreadPoolExecutor(len(runs)) as pool:
            for run in [pool.submit(run) for run in runs]:
                run.result()
        return [maker.finish(two_influxes[0]) for maker in makers]
    finally:
        for maker in makers:
            maker.end()


def test_the_buffers_to_be_damaged_are_of_every_kind(backlogs: list[Backlog], measured: Measured) -> None:
    """Rows that share a page and rows with a chain of pages, in the file and in its log; free pages; a quarantine."""
    stopped, killed, drained, quarantined = (backlog.pages for backlog in backlogs)
    for pages in (stopped, killed, drained, quarantined):
        lengths = Counter(len(batch.pages) for batch in pages.batches)
        assert lengths[1] > 5 and max(lengths) > 5, lengths
    assert (stopped.log, quarantined.log) == (b"", b"")
    assert set(killed.frames) and set(killed.images) - set(killed.frames)
    assert drained.free_pages and drained.log
    assert quarantined.quarantine
    for backlog in backlogs:
        pages, lines = backlog.pages, sum(len(batch.lines) for batch in backlog.pages.batches)
        measured(
            f"{backlog.name}: {lines} lines in {len(pages.batches)} rows on {len(pages.images)} pages,"
            f" {len(pages.frames)} of them in the log, {pages.free_pages} free"
        )


def test_ods_starts_on_every_damaged_buffer_and_saves_every_row_on_undamaged_pages(
    two_influxes: list[InfluxServer], backlogs: list[Backlog], tmp_path: Path, measured: Measured
) -> None:
    """Each copy beside an InfluxDB of its own, for all buffers are meant for one database.

    Ports are used again and again: of two thousand, somebody else's program would take one.
    """
    free = [(influx, free_port(), free_port()) for influx in two_influxes]
    failures: list[str] = []

    def run(plan: Plan) -> Outcome | None:
        if len(failures) >= MOST_FAILURES:
            return None
        place = free.pop()
        folder = tmp_path / f"round-{plan.number}"
        try:
            outcome = Round(plan, folder, *place).run()
        except AssertionError as error:
            failures.append(f"round {plan.number}, kept in {folder}: {error}")
            return None
        finally:
            free.append(place)
        shutil.rmtree(folder)
        return outcome

    with ThreadPoolExecutor(len(two_influxes)) as pool:
        outcomes = [outcome for outcome in pool.map(run, plans(backlogs, SEED, ROUNDS)) if outcome]
    note(outcomes, measured)
    assert not failures, f"{len(failures)} of {ROUNDS} rounds, seed {SEED}:\n" + "\n".join(failures)
    assert max(outcome.seconds_to_listen for outcome in outcomes) < LISTENING_SECONDS or not IS_LONG


def note(outcomes: list[Outcome], measured: Measured) -> None:
    """Say what the rounds showed together."""
    seconds = [outcome.seconds_to_listen for outcome in outcomes]
    required = sum(outcome.rows_required for outcome in outcomes)
    more = sum(outcome.rows_more for outcome in outcomes)
    lost = sum(outcome.rows_lost for outcome in outcomes)
    measured(
        f"{len(outcomes)} starts: {required} rows on undamaged pages, all of which arrived; of others {more} arrived"
        f" and {lost} did not; a line was answered OK after {statistics.median(seconds):.2f} s (median),"
        f" {max(seconds):.2f} s (at most)"
    )


def plans(backlogs: list[Backlog], seed: int, rounds: int) -> Iterator[Plan]:
    """First an undamaged buffer of each kind, then every damage in turn, each round repeatable by seed and number."""
    for number in range(rounds):
        chance = random.Random(f"{seed}/{number}")
        if number < len(backlogs):
            backlog, damagings = backlogs[number], [NO_DAMAGE]
        else:
            damagings = [DAMAGES[number % len(DAMAGES)]]
            backlog = chance.choice([one for one in backlogs if one.has_log or not damagings[0].needs_log])
            if chance.random() < TWICE_SHARE:
                damagings.append(chance.choice(DAMAGES))
        other = chance.choice([one for one in backlogs if one is not backlog and one.has_log])
        yield Plan(number, backlog, other, tuple(damagings), chance.random() < AWAY_SHARE, chance)


class Round:
    """One start on a damaged copy."""

    def __init__(self, plan: Plan, folder: Path, influx: InfluxServer, port: int, http_port: int) -> None:
        self._plan = plan
        self._influx = influx
        self._damaged = folder / "damaged"
        self._ods = OdsProcess(folder, influx_port=influx.port, database=DATABASE)
        self._ods.port, self._ods.http_port = port, http_port
        self._probe = Oracle()
        self._began_ns = time.time_ns()

    def run(self) -> Outcome:
        """Raises AssertionError, with all that is needed to understand it."""
        done = self._damage()
        self._influx.query(f'DROP DATABASE "{DATABASE}"')
        untouched = self._plan.backlog.pages.untouched(self._damaged)
        if self._plan.is_influx_away:
            self._influx.kill()
        try:
            seconds_to_listen = self._start()
            if self._plan.is_influx_away:
                self._send(PROBE_LINES)
                self._influx.start()
            outcome = self._judge(untouched, seconds_to_listen)
            self._check_end(untouched)
        except AssertionError as error:
            away = ", InfluxDB away at the start" if self._plan.is_influx_away else ""
            log = self._ods.log_tail(60)
            raise AssertionError(f"{self._plan.backlog.name}, {'; '.join(done)}{away}: {error}\n{log}") from error
        finally:
            self._ods.kill()
            if not self._influx.answers():
                self._influx.start()
        return outcome

    def _damage(self) -> list[str]:
        self._damaged.mkdir(parents=True)
        copy_buffer(self._plan.backlog.directory, self._damaged)
        other = self._plan.other.directory
        done = [damaging.inflict(self._damaged, other, self._plan.random) for damaging in self._plan.damagings]
        shutil.copytree(self._damaged, self._ods.directory)
        return done

    def _start(self) -> float:
        """Start ODS; returns the seconds until a pod was accepted and its line answered OK."""
        began = time.monotonic()
        self._ods.launch()
        wait_until(self._accepts, timeout_seconds=START_SECONDS, what="ODS to listen", state=self._ods.log_tail)
        self._send(1)
        return time.monotonic() - began

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), PodClient(self._ods.port, address=PROBE):
            return True
        return False

    def _send(self, count: int) -> None:
        first = self._probe.sent_count(PROBE)
        with PodClient(self._ods.port, address=PROBE).read_replies() as pod:
            pod.send_lines(self._probe.next_lines(PROBE, count))
            self._probe.acknowledge(PROBE, pod.wait_for_replies(count), first=first)

    def _judge(self, untouched: set[int], seconds_to_listen: float) -> Outcome:
        self._ods.wait_for_line(r"\bbacklog\b")
        pages = self._plan.backlog.pages
        required = [batch for batch in pages.batches if batch.pages <= untouched]
        needed = set().union(*(batch.keys for batch in required))
        self._wait_until_idle()
        stored = points_in(self._influx, DATABASE)
        deadline = time.monotonic() + GRACE_SECONDS
        while not needed <= stored.keys() and time.monotonic() < deadline:
            self._wait_until_idle()
            stored = points_in(self._influx, DATABASE)
        rows = [batch for batch in required if not batch.keys <= stored.keys()]
        missing = sorted(needed - stored.keys())
        assert not rows, (
            f"{len(missing)} points of {len(rows)} rows on undamaged pages are missing, of {len(required)} rows:"
            f" pages {[sorted(batch.pages) for batch in rows[:5]]}, first {missing[:3]}"
        )
        self._check_strangers(stored)
        records = sum(measurement not in OWN for measurement, _, _ in stored)
        totals = self._ods.totals()
        assert totals["stored"] >= records, f"{records} records are stored, counted are {totals}"
        arrived = sum(batch.keys <= stored.keys() for batch in pages.batches)
        return Outcome(len(required), arrived - len(required), len(pages.batches) - arrived, seconds_to_listen)

    def _wait_until_idle(self) -> None:
        """Return when nothing waits, and every file that was moved aside is worked through."""
        while True:
            moved_aside = wait_until(self._worked_through, timeout_seconds=60, what="rescue", state=self._ods.log_tail)
            self._ods.wait_until_settled()
            if moved_aside == self._worked_through():
                return

    def _worked_through(self) -> list[str]:
        """The log lines on files that were moved aside; nothing while one of them is not worked through."""
        moved_aside = self._ods.lines_with(r"kept as \S+damaged-")
        return ["begun", *moved_aside] if len(self._ods.lines_with(r"are saved from")) == len(moved_aside) else []

    def _check_strangers(self, stored: dict[Key, Fields]) -> None:
        """Nothing is there that was never sent, and nothing of what was sent has another value."""
        sources = [self._plan.backlog, *([self._plan.other] if FOREIGN_LOG in self._plan.damagings else [])]
        known = {key: fields for key, fields in stored.items() if not self._is_of_this_round(key)}
        strangers = [item for item in known.items() if not any(source.was_sent(*item) for source in sources)]
        assert not strangers, f"{len(strangers)} points were never sent: {sorted(strangers)[:5]}"
        probed = defaultdict(list)
        for (measurement, pod, time_ns), fields in stored.items():
            if pod == PROBE and measurement not in OWN:
                probed[measurement, pod].append((time_ns, dict(fields)["value"]))
        self._probe.check(probed)

    def _is_of_this_round(self, key: Key) -> bool:
        measurement, pod, time_ns = key
        return pod == PROBE or (measurement in OWN and time_ns >= self._began_ns)

    def _check_end(self, untouched: set[int]) -> None:
        """The ledger adds up, ODS is well and ends well, and the quarantine is what it was where it was undamaged."""
        required = {line.values for line in self._plan.backlog.pages.quarantine if line.pages <= untouched}
        if required:
            wait_until(
                lambda: required <= self._quarantined(),
                timeout_seconds=GRACE_SECONDS,
                what=f"{len(required)} quarantined lines on undamaged pages",
                state=lambda: f"of these are missing {sorted(required - self._quarantined())[:3]}",
            )
            self._wait_until_idle()  # it may have been found to be damaged only now
        assert self._ods.totals()["received"] >= self._probe.sent_count()
        assert self._ods.healthz() == 200
        self._ods.stop()
        assert not self._ods.tracebacks(), "a traceback"

    def _quarantined(self) -> set[tuple[str, ...]]:
        """What ODS says of its quarantine; nothing while it cannot, for it may have to find out that it is damaged."""
        exported = run_command("quarantine", "export", "--directory", str(self._ods.directory), home=self._ods.folder)
        rows = csv.DictReader(io.StringIO(exported.stdout))
        return {tuple(row[column] for column in QUARANTINE_COLUMNS) for row in rows}
