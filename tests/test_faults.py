"""The short form of `make faults`: some faults, for about a second each, and some kills. No record is lost in any."""

from collections.abc import Iterator

import pytest
from faults import suite
from faults.behaviours import Answer
from faults.bench import Bench
from faults.cells import FAULTS, Fault, run_cell
from faults.kills import Kills
from faults.rounds import plan
from faults.slow import run_slow
from faults.table import Row
from harness.sizes import IS_LONG, Measured

pytestmark = pytest.mark.timeout(150, method="signal")

#: The rounds of kills are these in every run, so that a failure is seen again.
SEED = "short form"


@pytest.fixture(scope="module")
def bench(needs_influx: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("faults")) as bench:
        yield bench


def check(row: Row, measured: Measured) -> None:
    """Nothing lost, doubled or wrong; how long a pod waited is asserted in the long run alone."""
    measured(f"{row.longest_send_seconds:.3f} s longest send, recovered in {row.recovery_seconds or 0:.2f} s")
    assert row.is_good, "\n".join([str(row), *row.failures])
    assert row.is_prompt or not IS_LONG


@pytest.mark.parametrize("name", suite.SHORT_FAULTS)
def test_nothing_is_lost_in_a_fault(bench: Bench, name: str, measured: Measured) -> None:
    (fault,) = [fault for fault in FAULTS if fault.name == name]
    row = run_cell(bench, fault, seconds=suite.SHORT_OUTAGE_SECONDS, rounds=1)
    check(row, measured)
    assert row.records > 0


def test_nothing_is_lost_and_nothing_flaps_beside_a_slow_influx(bench: Bench, measured: Measured) -> None:
    row = run_slow(bench, seconds=suite.SHORT_SLOW_SECONDS)
    measured(", ".join(row.remarks))
    check(row, measured)


def test_nothing_that_was_acknowledged_or_recorded_is_lost_by_kills(bench: Bench, measured: Measured) -> None:
    kills = Kills(bench)
    kills.run_group([plan(SEED, number) for number in range(suite.SHORT_ROUNDS)])
    for row in kills.rows():
        measured(f"{row.fault}: {'; '.join(row.remarks)}")
        check(row, measured)
    assert sum(row.records for row in kills.rows()) > 0


def test_the_suite_sees_what_a_lying_server_loses(bench: Bench) -> None:
    """One that says 204 and stores nothing: ODS cannot know, the oracle must."""
    liar = Fault("liar", lambda bench: bench.proxy.behave(Answer(204)))
    row = run_cell(bench, liar, seconds=0.5, rounds=1)
    assert row.lost > 100 and not row.is_good, row
