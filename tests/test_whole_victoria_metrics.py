"""The whole program beside a real VictoriaMetrics: points there at least once, log messages only in the recordings.

It keeps milliseconds, never overwrites, stores a string as 0, and calls a field `<measurement>_<field>`: what is looked
at are the distinct values of each pod and name. A new series can be found a second after it is written.
"""

import gzip
import threading
from itertools import groupby
from pathlib import Path

import pytest
from harness.ledger import Status
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.sizes import Measured, sized
from harness.victoria_metrics import Values, VictoriaMetrics
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(120, long=600), method="signal")

POD = "127.0.2.1"


def expected_values(oracle: Oracle, *, pod: str = POD) -> Values:
    """What was sent, as VictoriaMetrics is asked for it."""
    records = sorted(oracle.record(pod, number) for number in range(oracle.sent_count(pod)))
    return {(name, pod): {record.value for record in group} for name, group in groupby(records, lambda it: it.name)}


def missing(expected: Values, found: Values) -> int:
    """How many of the expected values are not found. Raises AssertionError where others are."""
    strangers = {key: values - expected.get(key, set()) for key, values in found.items()}
    assert not any(strangers.values()), f"values that were never sent: {strangers}"
    return sum(len(values - found.get(key, set())) for key, values in expected.items())


def wait_until_found(server: VictoriaMetrics, ods: OdsProcess, oracle: Oracle, *, but: int = 0) -> int:
    """Return when no more than `but` of the values that were sent cannot be found, and how many cannot."""
    expected = expected_values(oracle)
    counts: list[int] = []

    def look() -> bool:
        counts.append(missing(expected, server.values(ods.database)))
        return counts[-1] <= but

    wait_until(look, timeout_seconds=20, what=f"all but {but} values", state=lambda: f"{counts[-1]} are missing")
    return counts[-1]


def send_and_acknowledge(ods: OdsProcess, oracle: Oracle, count: int) -> None:
    """Play a pod that sends `count` records, and is answered OK to each."""
    first = oracle.sent_count(POD)
    with PodClient(ods.port).read_replies() as pod:
        pod.send_lines(oracle.next_lines(POD, count))
        oracle.acknowledge(POD, pod.wait_for_replies(count), first=first)


def test_points_are_written_and_log_messages_recorded(start_ods: StartOds, victoria_metrics: VictoriaMetrics) -> None:
    """Nothing is quarantined, though a message is no number: its text is in the recording."""
    ods, oracle = start_ods(victoria_metrics), Oracle()
    send_and_acknowledge(ods, oracle, 1000)
    with PodClient(ods.port).read_replies() as pod:
        assert pod.exchange(b"POD1[NOTE]  all is well\n") == b"OK: LOGGED"
    ods.wait_for_totals(stored=1001, pending=0, quarantined=0, dropped=0)
    wait_until_found(victoria_metrics, ods, oracle)
    ods.stop()
    recorded = b"".join(map(_content, sorted((ods.directory / "recordings").rglob("*.log.csv*"))))
    assert b"all is well" in recorded


def _content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def test_a_backlog_is_drained_into_it(start_ods: StartOds, victoria_metrics: VictoriaMetrics) -> None:
    """ODS starts without it, buffers, and backfills in large batches of joined gzip members."""
    victoria_metrics.stop()
    ods, oracle = start_ods(victoria_metrics), Oracle()
    send_and_acknowledge(ods, oracle, sized(20_000, long=500_000))
    ods.wait_for_totals(pending=oracle.sent_count(), stored=0)
    victoria_metrics.start()
    ods.wait_until_settled()
    wait_until_found(victoria_metrics, ods, oracle)
    assert ods.totals()["quarantined"] == ods.totals()["dropped"] == 0


def test_nothing_is_lost_where_it_is_frozen_and_then_killed_under_load(
    start_ods: StartOds, victoria_metrics: VictoriaMetrics
) -> None:
    """What was under way when it died was never confirmed, and is sent again."""
    ods, oracle = start_ods(victoria_metrics), Oracle()
    send_and_acknowledge(ods, oracle, 5000)
    ods.wait_until_settled()
    victoria_metrics.flush_to_disk()
    victoria_metrics.pause()
    send_and_acknowledge(ods, oracle, 5000)
    victoria_metrics.kill()
    send_and_acknowledge(ods, oracle, 5000)
    victoria_metrics.start()
    ods.wait_until_settled()
    wait_until_found(victoria_metrics, ods, oracle)


def stored_before(ods: OdsProcess) -> int:
    """Return how many points were confirmed before the outage, once ODS knows of it, and counts no more."""
    counts = [-1]

    def is_steady(status: Status) -> bool:
        counts.append(status["totals"]["stored"])
        return not status["influx"]["available"] and counts[-1] == counts[-2]

    ods.wait_for_status(is_steady, what="the outage to be noticed")
    return counts[-1]


def test_killed_in_the_middle_of_a_stream_it_loses_nothing_but_what_it_had_confirmed(
    start_ods: StartOds, victoria_metrics: VictoriaMetrics, measured: Measured
) -> None:
    """VictoriaMetrics confirms before it writes to its disk. Nothing else is lost, and nothing comes back changed."""
    ods, oracle = start_ods(victoria_metrics), Oracle()
    send_and_acknowledge(ods, oracle, 2000)
    ods.wait_until_settled()
    victoria_metrics.flush_to_disk()
    with PodClient(ods.port).read_replies() as pod:
        lines = oracle.next_lines(POD, sized(20_000, long=200_000))
        run = threading.Thread(
            target=pod.send_at_rate, args=(lines,), kwargs={"lines_per_second": 10_000, "burst_lines": 50}
        )
        run.start()
        pod.wait_for_replies(len(lines) // 3)
        victoria_metrics.kill()
        confirmed = stored_before(ods)
        victoria_metrics.start()
        run.join()
        oracle.acknowledge(POD, pod.wait_for_replies(len(lines)), first=2000)
    ods.wait_until_settled()
    lost = wait_until_found(victoria_metrics, ods, oracle, but=confirmed - 2000)
    measured(f"{lost} points lost by VictoriaMetrics, of {confirmed - 2000} that it had confirmed since its last flush")


def test_it_keeps_points_under_names_of_its_own(victoria_metrics: VictoriaMetrics) -> None:
    """`<measurement>_value`, milliseconds, a string as 0, nothing overwritten, and no word of a bad line."""
    point = "accel_x,pod=a value=1.5 1700000000123456789"
    for _ in range(2):
        assert victoria_metrics.write(f'{point}\nnonsense\npod_log,pod=a message="text" 1700000000123456789\n') == 204
    found = wait_until(
        lambda: series if len(series := victoria_metrics.series()) == 2 else None,
        timeout_seconds=20,
        what="two series",
        state=victoria_metrics.series,
    )
    assert sorted(found, key=lambda series: series["values"]) == [
        {"metric": {"__name__": name, "pod": "a"}, "values": [value] * 2, "timestamps": [1_700_000_000_123] * 2}
        for name, value in (("pod_log_message", 0), ("accel_x_value", 1.5))
    ]
