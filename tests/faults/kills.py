"""ODS killed, at a fail-point or at any moment, with InfluxDB up, away or flapping; and started again.

Several kills share one data directory and one database. At the end of such a group ODS is left alone, and then InfluxDB
must hold all that ODS had said OK to before any of the kills, and all that it had recorded. The choices of a round are
repeated by its number and the seed.
"""

import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.ods_process import OdsProcess
from harness.wait import wait_until

from faults.bench import Bench, LedgerWatch
from faults.load import PODS, Load
from faults.oracle import Oracle, Stretch, Verdict
from faults.recordings import Recordings
from faults.rounds import ANYWHERE, FAILPOINT_SECONDS, FAILPOINTS, STATES, Kill
from faults.table import Row
from faults.trial import TROUBLE

#: So many kills share a data directory.
GROUP_ROUNDS = 20
#: How long ODS may take to send its backlog, and to put the recordings through the store. Seconds.
SETTLE_SECONDS, RECOVER_SECONDS = 120.0, 30.0


class Weather:
    """Lets the proxy behave as a round has it, in a thread."""

    def __init__(self, bench: Bench, kill: Kill) -> None:
        self._bench = bench
        self._kill = kill
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._change, name="weather", daemon=True)

    def __enter__(self) -> "Weather":
        self._bench.proxy.behave(self._kill.weather[0][0])
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _change(self) -> None:
        for (_, seconds), (behaviour, _) in zip(self._kill.weather, self._kill.weather[1:], strict=False):
            if self._stopped.wait(seconds):
                return
            self._bench.proxy.behave(behaviour)


@dataclass
class Place:
    """What the kills at one place did."""

    row: Row
    states: Counter[str] = field(default_factory=Counter)
    reached: int = 0
    recorded: int = 0
    unrecovered: int = 0

    def describe(self) -> None:
        """Bring the remarks up to date."""
        states = ", ".join(f"{self.states[state]} {state}" for state in STATES)
        self.row.remarks = [f"InfluxDB {states}", f"{self.recorded} recorded, {self.unrecovered} of them missing"]
        if not self.row.fault.endswith(ANYWHERE):
            self.row.remarks.insert(0, f"{self.reached} at the point")


class Kills:
    """Runs rounds in groups, and keeps one row for each place of a kill."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._places: dict[str, Place] = {}

    def rows(self) -> list[Row]:
        """The rows so far."""
        places = [self._places[place] for place in (*FAILPOINTS, ANYWHERE) if place in self._places]
        for place in places:
            place.describe()
        return [place.row for place in places]

    def run_group(self, kills: Sequence[Kill]) -> None:
        """Run these on one data directory, and judge all of them at the end."""
        oracle = Oracle([kind.address for kind in PODS])
        lives: list[tuple[Kill, Stretch]] = []
        with self._bench.ods(f"kills {kills[0].number} to {kills[-1].number}") as ods:
            recordings = Recordings(ods.directory)
            for kill in kills:
                lives.append((kill, oracle.begin_stretch()))
                self._live_and_die(kill, ods, oracle)
                oracle.end_stretch(lives[-1][1])
                oracle.take_recorded(recordings.read(oracle))
            verdict = self._recover(lives[-1][0], ods, oracle)
        for kill, stretch in lives:
            self._count(kill, oracle, stretch, verdict)
        unknown = [problem for problem in verdict.problems if problem.number < 0]
        last = self._place(lives[-1][0]).row
        last.doubled_or_wrong += len(unknown)
        last.failures += Verdict(unknown).describe()
        if verdict.problems:
            last.failures.append(f"what ODS left is kept in {ods.folder}")
        else:
            self._bench.forget(ods)

    def _place(self, kill: Kill) -> Place:
        return self._places.setdefault(kill.place, Place(Row(kill.title)))

    def _live_and_die(self, kill: Kill, ods: OdsProcess, oracle: Oracle) -> None:
        place = self._place(kill)
        ods.extra_environment = {} if kill.place == ANYWHERE else {"ODS_FAILPOINT": f"{kill.place}:{kill.count}"}
        load = Load(ods, oracle, [kind.times(kill.burst_factor) for kind in PODS])
        try:
            with Weather(self._bench, kill):
                ods.launch()
                load.start()
                status = ods.wait_for_end(kill.after_seconds if kill.place == ANYWHERE else FAILPOINT_SECONDS)
                ods.kill()
        finally:
            load.stop()
        place.row.rounds += 1
        place.states[kill.state] += 1
        place.reached += status == -signal.SIGKILL
        place.row.longest_send_seconds = max(place.row.longest_send_seconds, load.longest_send_seconds)
        place.row.failures += [f"{kill}: {trouble}" for trouble in load.troubles]
        if status not in (None, -signal.SIGKILL):
            place.row.failures.append(f"{kill}: ODS ended by itself with status {status}")

    def _recover(self, last: Kill, ods: OdsProcess, oracle: Oracle) -> Verdict:
        """Let ODS put everything in order, and judge."""
        verdict = Verdict()

        def is_complete() -> bool:
            nonlocal verdict
            influx, database = self._bench.influx, ods.database
            verdict = oracle.judge(influx.points(database), influx.messages(database), is_all_required=False)
            return not verdict.count("lost", "unrecovered")

        failures = self._place(last).row.failures
        self._bench.heal()
        ods.extra_environment = {}
        try:
            ods.start()
            with LedgerWatch(ods) as watch:
                ods.wait_until_settled(timeout_seconds=SETTLE_SECONDS)
                with contextlib.suppress(AssertionError):  # the verdict tells what is missing
                    wait_until(is_complete, timeout_seconds=RECOVER_SECONDS, what="all records")
            failures += watch.found[:1]
            ods.stop()
            is_complete()
        except TROUBLE as error:
            failures.append(f"after {last}: {error}".partition("\n")[0])
        failures += ods.tracebacks()[:1]
        return verdict

    def _count(self, kill: Kill, oracle: Oracle, stretch: Stretch, verdict: Verdict) -> None:
        place, found = self._place(kill), verdict.within(stretch)
        place.row.records += stretch.count()
        place.row.acknowledged += stretch.count(oracle.acknowledged)
        place.row.lost += found.count("lost", "unrecovered")
        place.row.doubled_or_wrong += found.count("doubled", "wrong")
        place.recorded += stretch.count(oracle.recorded)
        place.unrecovered += found.count("unrecovered")
        place.row.failures += [f"{kill}: {line}" for line in found.describe()]
