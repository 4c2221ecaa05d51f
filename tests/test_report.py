"""The report of a run, printed when ODS is stopped."""

from ods.availability import Outage
from ods.ledger import Counts
from ods.report import duration, report


def test_it_holds_what_a_team_wants_to_know_after_a_run() -> None:
    counts = Counts(received=10, stored=4, pending=3, quarantined=2, dropped=1, invalid=5, torn=6)
    over = Outage(100.0, "connection refused", began_ns=1_700_000_000_000_000_000, ended=112.5, drained=114.0)
    not_over = Outage(200.0, "no answer", began_ns=1_700_000_100_000_000_000)
    lines = report(
        seconds=3725, pods={"b": Counts(), "a": counts}, outages=[over, not_over], outages_before=0, largest_backlog=77
    )
    assert list(lines) == [
        "report of the run, which took 1:02:05:",
        "  pod a: 10 received: 4 stored, 3 pending, 2 quarantined, 1 dropped; 5 invalid, 6 torn",
        "  pod b: 0 received: 0 stored, 0 pending, 0 quarantined, 0 dropped; 0 invalid, 0 torn",
        "  outage from 2023-11-14 22:13:20 UTC to 2023-11-14 22:13:32 UTC (12.5 s): connection refused;"
        " drained 1.5 s later",
        "  outage from 2023-11-14 22:15:00 UTC, not over: no answer",
        "  largest backlog: 77 points",
    ]


def test_outages_that_are_not_remembered_are_counted() -> None:
    over = Outage(1.0, "x", ended=2.0)
    lines = list(report(seconds=1, pods={}, outages=[over], outages_before=9, largest_backlog=0))
    assert lines[1:3] == [
        "  9 outages before these",
        "  outage from 1970-01-01 00:00:00 UTC to 1970-01-01 00:00:01 UTC (1.0 s): x; its backlog was not drained",
    ]


def test_a_run_without_an_outage_says_so() -> None:
    assert "  InfluxDB was never seen to be away" in report(
        seconds=1, pods={}, outages=[], outages_before=0, largest_backlog=0
    )


def test_durations_are_hours_minutes_and_seconds() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 90_061)] == ["0:00:00", "0:01:00", "25:01:01"]
