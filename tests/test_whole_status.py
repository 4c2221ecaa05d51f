"""Whoever asks ODS how things are is told the same: the page, Prometheus, a program, a person at a terminal, the log.

And it is what was sent: so many records of each pod, with the fates that the pods were told of and that InfluxDB shows.
Each is asked at a quiet moment, one at which the answer is the same before and after.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.influx_server import InfluxServer
from harness.ledger import COUNTERS
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.sick_disk import BROKEN, SickDisk
from harness.sizes import sized
from harness.tellings import WAYS, Told, by_api, by_report
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(120, long=600), method="signal")

POD, OTHER, NAMED, MISSING = "127.0.2.1", "127.0.2.2", "pod-a", "pod-b"
#: What a pod sends besides its points, and what each line counts as.
ODD_LINES = {b"POD1[INFO]  Pushing\n": "received", b"hello\n": "invalid", b"POD2accel_x nan\n": "invalid"}


@pytest.fixture
def ods(start_ods: StartOds, own_influx: InfluxServer, sick_disk: SickDisk) -> Iterator[OdsProcess]:
    """One that names a pod which comes and one which does not, on a disk that can fall sick."""
    yield start_ods(
        own_influx,
        *("--pod", f"{OTHER}={NAMED}", "--pod", f"127.0.2.3={MISSING}"),
        directory=sick_disk.directory / "data",
        extra_environment=sick_disk.environment,
    )
    sick_disk.heal()


def send(ods: OdsProcess, oracle: Oracle, count: int, *, address: str = POD) -> None:
    """Play a pod that sends so many points and reads what became of each."""
    first = oracle.sent_count(address)
    with PodClient(ods.port, address=address).read_replies() as pod:
        pod.send_lines(oracle.next_lines(address, count))
        oracle.judge(address, pod.wait_for_replies(count), first=first)


def send_odd_lines(ods: OdsProcess, address: str) -> None:
    """A log message, lines that are no record, and one that is cut off by the end."""
    with PodClient(ods.port, address=address).read_replies() as pod:
        pod.send(b"".join(ODD_LINES))
        pod.wait_for_replies(len(ODD_LINES))
        pod.send(b"POD2accel_x 12")
        pod.finish()


def told_by_all(ods: OdsProcess, level: str) -> Told:
    """What all say, once nothing is in flight and nothing changes while they are asked."""
    ods.wait_for_status(lambda status: status["totals"]["in_flight"] == 0, what="nothing in flight")
    agreed: list[Told] = []

    def ask() -> bool:
        before = by_api(ods)
        with ThreadPoolExecutor() as pool:  # at once, for InfluxDB is not frozen for long before it counts as away
            told = dict(zip(WAYS, pool.map(lambda way: way(ods), WAYS.values()), strict=True))
        if by_api(ods) != before:
            return False  # no quiet moment
        for name, other in told.items():
            for field, expected, found in zip(Told._fields, before, other, strict=True):
                assert found in (None, expected), f"{field}: {found} by {name}, {expected} by /api/status"
        agreed.append(before)
        return True

    wait_until(ask, timeout_seconds=60, what="a quiet moment", state=ods.log_tail)
    assert agreed[0].level == level, ods.log_tail()
    assert (ods.healthz() == 503) == (level == "losing")
    return agreed[0]


def check_sent(told: Told, oracle: Oracle, *, names: dict[str, str], odd: int = 0) -> None:
    """Each pod has what it sent: the points, and the odd lines so many times."""
    assert told.pods is not None
    for address, name in names.items():
        counts = told.pods[name]
        messages, invalid = (odd * list(ODD_LINES.values()).count(kind) for kind in ("received", "invalid"))
        expected = (oracle.sent_count(address) + messages, oracle.refused_count(address), invalid, odd)
        assert tuple(counts[counter] for counter in ("received", "dropped", "invalid", "torn")) == expected
    assert told.pods[MISSING] == dict.fromkeys(COUNTERS, 0)
    for counter in COUNTERS:
        assert told.totals[counter] == sum(counts[counter] for counts in told.pods.values())
    assert told.pending_in_buffer == told.totals["pending"]


def check_report(ods: OdsProcess, told: Told) -> None:
    """What ODS says when it is stopped is what it said before."""
    ods.stop()
    report = by_report(ods)
    assert (report.totals, report.pods, report.largest_backlog) == (told.totals, told.pods, told.largest_backlog)
    assert f"{told.totals['pending']} points wait in the buffer" in ods.log[-1]


def test_all_tell_the_same_of_a_live_ods(ods: OdsProcess, own_influx: InfluxServer) -> None:
    oracle, names = Oracle(), {POD: POD, OTHER: NAMED}
    for address in names:
        send(ods, oracle, 1234, address=address)
        send_odd_lines(ods, address)
    ods.wait_until_settled()
    told = told_by_all(ods, "live")
    check_sent(told, oracle, names=names, odd=1)
    assert told.totals["stored"] == told.totals["received"]
    assert sum(map(len, own_influx.points(ods.database).values())) == oracle.sent_count()
    check_report(ods, told)


def test_all_tell_the_same_through_an_outage_and_its_drain(ods: OdsProcess, own_influx: InfluxServer) -> None:
    """A frozen InfluxDB holds the drain still for as long as they are asked."""
    oracle, names, count = Oracle(), {POD: POD}, sized(60_000, long=600_000)
    send(ods, oracle, 500)
    ods.wait_for_totals(stored=500, pending=0)
    own_influx.kill()
    send(ods, oracle, count)
    send_odd_lines(ods, POD)
    told = told_by_all(ods, "buffering")
    check_sent(told, oracle, names=names, odd=1)
    assert (told.totals["stored"], told.pending_in_buffer) == (500, count + 1)
    assert told.largest_backlog == count + 1

    own_influx.start()
    ods.wait_for_status(lambda status: status["totals"]["stored"] > 500, what="the drain to be under way")
    own_influx.pause()
    told = told_by_all(ods, "draining")
    check_sent(told, oracle, names=names, odd=1)
    assert 500 < told.totals["stored"] < told.totals["received"]

    own_influx.resume()
    ods.wait_until_settled()
    ods.wait_for_status(lambda status: status["sentence"]["level"] == "live", what="the end of the drain")
    told = told_by_all(ods, "live")
    check_sent(told, oracle, names=names, odd=1)
    assert (told.totals["stored"], told.largest_backlog) == (count + 501, count + 1)
    oracle.check(own_influx.points(ods.database))
    check_report(ods, told)


def test_all_tell_the_same_while_points_are_dropped(
    ods: OdsProcess, own_influx: InfluxServer, sick_disk: SickDisk
) -> None:
    """What is counted as dropped is what the pods were told, to the point."""
    oracle, names = Oracle(), {POD: POD, OTHER: NAMED}
    own_influx.kill()
    send(ods, oracle, 700)
    sick_disk.fall_sick(BROKEN)
    send(ods, oracle, 800)
    send(ods, oracle, 900, address=OTHER)
    told = told_by_all(ods, "losing")
    check_sent(told, oracle, names=names)
    assert told.totals["dropped"] == oracle.refused_count() > 0
    assert told.totals["pending"] == oracle.acknowledged_count()
    sick_disk.heal()
    ods.wait_for_status(lambda status: status["sentence"]["level"] == "buffering", what="the disk to be used again")
    check_report(ods, told_by_all(ods, "buffering"))


def test_all_tell_the_same_after_points_were_quarantined(ods: OdsProcess, own_influx: InfluxServer) -> None:
    oracle, names = Oracle(names=("accel_x", "accel_y")), {POD: POD}
    own_influx.create_database(ods.database)
    own_influx.write(ods.database, f'accel_x,pod=nobody value="text" {time.time_ns()}')
    send(ods, oracle, 600)
    ods.wait_for_totals(quarantined=300, stored=300, pending=0, in_flight=0)
    told = told_by_all(ods, "live")
    check_sent(told, oracle, names=names)
    assert told.totals["quarantined"] == 300
    check_report(ods, told)
