"""One ODS under load from its start to its end, without a kill, and what is said of it."""

import contextlib
import http.client
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.influx_server import InfluxError
from harness.ods_process import OdsProcess
from harness.wait import wait_until

from faults.bench import Bench, LedgerWatch
from faults.load import PODS, Kind, Load
from faults.oracle import Oracle
from faults.table import Row

#: How long ODS may take to read what was sent, and then to send its backlog, before that is given up. Seconds.
READ_SECONDS, SETTLE_SECONDS = 30.0, 120.0

#: What a run meets where something is wrong: it is noted, and the next run begins.
TROUBLE = (AssertionError, OSError, http.client.HTTPException, InfluxError)


@dataclass
class Trial:
    """What a fault is tried on."""

    bench: Bench
    ods: OdsProcess
    oracle: Oracle
    load: Load
    row: Row

    def retry_quarantined(self) -> None:
        """All that is in the quarantine is tried again, by the command that an operator uses."""
        self.check(lambda: self.ods.command("quarantine", "retry"))

    def check(self, what: Callable[[], object]) -> None:
        """Do what raises where something is wrong; that is noted in the row."""
        try:
            what()
        except TROUBLE as error:
            self.row.fail(error)


@contextlib.contextmanager
def trial(bench: Bench, row: Row, kinds: Sequence[Kind] = PODS) -> Iterator[Trial]:
    """Start ODS and the pods; at the end judge what became of their records, and fill the row in.

    All that was sent must be in InfluxDB, and the ledger must say the same.
    """
    oracle = Oracle([kind.address for kind in kinds])
    with bench.ods(row.fault) as ods:
        ods.start()
        load = Load(ods, oracle, kinds)
        tried = Trial(bench, ods, oracle, load, row)
        try:
            with LedgerWatch(ods) as watch:
                load.start()
                yield tried
                load.stop_sending()
                _settle(tried)
            row.failures += watch.found[:1]
        except TROUBLE as error:
            row.fail(error)
        finally:
            load.stop()
        tried.check(lambda: _judge(tried))
        tried.check(ods.stop)
        row.failures += ods.tracebacks()[:1]
    if row.is_good:
        bench.forget(ods)


def _settle(tried: Trial) -> None:
    """Return when ODS has read all, answered all, and sent all."""
    sent = tried.oracle.sent_count()
    tried.check(lambda: tried.ods.wait_for_totals(received=sent, timeout_seconds=READ_SECONDS))
    tried.check(tried.load.wait_for_replies)
    tried.check(lambda: tried.ods.wait_until_settled(timeout_seconds=SETTLE_SECONDS))
    tried.check(lambda: _compare_ledger(tried))


def _compare_ledger(tried: Trial) -> None:
    """At quiet every record is received and stored, each under its pod, and nothing has another fate."""
    for pod in tried.ods.status()["pods"]:
        sent = tried.oracle.sent_count(pod["name"]) if pod["name"] in tried.oracle.pods else 0
        expected = {"received": sent, "stored": sent, "quarantined": 0, "dropped": 0, "invalid": 0, "torn": 0}
        counted = {key: pod[key] for key in expected}
        assert counted == expected, f"the ledger of {pod['name']} says {counted}, and sent were {sent}"


def _judge(tried: Trial) -> None:
    row, oracle, influx, database = tried.row, tried.oracle, tried.bench.influx, tried.ods.database
    verdict = oracle.judge(influx.points(database), influx.messages(database), is_all_required=True)
    row.records, row.acknowledged = oracle.sent_count(), oracle.acknowledged_count()
    row.lost, row.doubled_or_wrong = verdict.count("lost"), verdict.count("doubled", "wrong")
    row.longest_send_seconds = tried.load.longest_send_seconds
    row.failures += verdict.describe() + tried.load.troubles


def wait_for_write(bench: Bench, since: float, *, timeout_seconds: float) -> float:
    """Return when InfluxDB first confirmed points through the proxy after `since`."""
    return wait_until(
        lambda: bench.proxy.first_confirmed(since),
        timeout_seconds=timeout_seconds,
        what="a write of points that InfluxDB confirmed",
    )
