"""The whole program on a sick disk: slow, full, read-only, broken, gone; beside InfluxDB, and with InfluxDB away.

Each store is enough. Where neither takes a point it is refused, and the ledger counts exactly what the pods were told.
"""

import contextlib
import shutil
import time
from collections.abc import Iterator

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.pod_client import SEND_TIMEOUT_SECONDS
from harness.sick_disk import BROKEN, FULL, READ_ONLY, SLOW, UNREADABLE, UNSYNCED, SickDisk, Sickness
from harness.sizes import IS_LONG, Measured, sized
from harness.small_disk import SmallDisk
from harness.stream import Stream
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(120, long=900), method="signal")

#: So many points of a pod are taken for proof that a state lasts.
ENOUGH = sized(2000, long=20_000)

SICK = pytest.mark.parametrize(
    "sickness", [SLOW, FULL, READ_ONLY, BROKEN, UNSYNCED], ids=lambda sickness: sickness.name
)
FAILING = pytest.mark.parametrize("sickness", [FULL, READ_ONLY, BROKEN, UNSYNCED], ids=lambda sickness: sickness.name)


@pytest.fixture
def ods(start_ods: StartOds, own_influx: InfluxServer, sick_disk: SickDisk) -> Iterator[OdsProcess]:
    """An ODS whose data directory lies on the sick disk, which is sound as yet, and at the end again."""
    ods = start_ods(own_influx, directory=sick_disk.directory / "data", extra_environment=sick_disk.environment)
    yield ods
    sick_disk.heal()


def wait_for_more(ods: OdsProcess, fate: str, count: int = ENOUGH) -> None:
    """Return when `count` points more have met this fate."""
    enough = ods.totals()[fate] + count
    ods.wait_for_status(lambda status: status["totals"][fate] >= enough, what=f"{enough} points {fate}")


def wait_until_hit(ods: OdsProcess, disk: SickDisk) -> None:
    """Return when ODS has met the fault once more."""
    before = disk.hits()
    wait_until(lambda: disk.hits() > before, timeout_seconds=20, what="ODS to meet the fault", state=ods.log_tail)


def wait_until_live(ods: OdsProcess) -> None:
    ods.wait_for_status(lambda status: status["influx"]["available"], what="InfluxDB to be available")


def check_all(ods: OdsProcess, influx: InfluxServer, oracle: Oracle, *streams: Stream) -> None:
    """Nothing waits any more: `dropped` is what the pods were told, all the rest is in InfluxDB, each point once."""
    for stream in streams:
        stream.finish()
    totals = ods.wait_until_settled()["totals"]
    assert all(pod["replies_dropped"] == 0 for pod in ods.status()["pods"]), "the oracle has heard of each"
    assert (totals["received"], totals["dropped"]) == (oracle.sent_count(), oracle.refused_count()), ods.log_tail()
    oracle.check(influx.points(ods.database))
    assert not ods.tracebacks(), ods.log_tail(200)


def note_waits(measured: Measured, *streams: Stream) -> None:
    """Must-show 7: the longest time that a send waited. (A send of a second fails the test by itself.)"""
    longest_send = max(stream.pod.longest_send_seconds for stream in streams)
    longest_reply = max(stream.longest_wait_for_a_reply_seconds() for stream in streams)
    measured(f"longest send {longest_send * 1000:.1f} ms, longest wait for a reply {longest_reply * 1000:.0f} ms")
    assert longest_send < SEND_TIMEOUT_SECONDS


@SICK
def test_live_forwarding_goes_on_beside_a_sick_disk(
    ods: OdsProcess, own_influx: InfluxServer, sick_disk: SickDisk, sickness: Sickness, measured: Measured
) -> None:
    """Also when InfluxDB is slow for a moment, so that ODS turns to the disk: nothing is dropped."""
    oracle = Oracle()
    with Stream(ods.port, oracle) as stream:
        wait_for_more(ods, "stored", 200)
        sick_disk.fall_sick(sickness)
        wait_for_more(ods, "stored")
        own_influx.pause()
        wait_until_hit(ods, sick_disk)
        own_influx.resume()
        wait_for_more(ods, "stored")
        assert ods.healthz() == 200
        sick_disk.heal()
        wait_for_more(ods, "stored", 200)
        check_all(ods, own_influx, oracle, stream)
        note_waits(measured, stream)
    assert oracle.refused_count() == 0


@FAILING
def test_what_neither_store_takes_is_refused_and_counted(
    ods: OdsProcess, own_influx: InfluxServer, sick_disk: SickDisk, sickness: Sickness, measured: Measured
) -> None:
    """It recovers by itself, whichever of the two comes back first, and keeps what was buffered before."""
    oracle = Oracle()
    with Stream(ods.port, oracle) as stream:
        wait_for_more(ods, "stored", 200)
        own_influx.kill()
        wait_for_more(ods, "pending", 500)
        sick_disk.fall_sick(sickness)
        wait_for_more(ods, "dropped")
        assert ods.healthz() == 503
        sick_disk.heal()
        wait_for_more(ods, "pending", 500)
        assert ods.healthz() == 200

        sick_disk.fall_sick(sickness)
        wait_for_more(ods, "dropped", 200)
        own_influx.start()
        wait_until_live(ods)
        assert ods.healthz() == 200
        wait_for_more(ods, "stored")
        sick_disk.heal()
        check_all(ods, own_influx, oracle, stream)
        note_waits(measured, stream)
    assert oracle.refused_count() > ENOUGH
    assert ods.lines_with(r"error.*buffer") and ods.lines_with(r"info.*takes points again")


def test_a_disk_that_hangs_in_an_outage_only_delays_the_replies(
    ods: OdsProcess, own_influx: InfluxServer, sick_disk: SickDisk, measured: Measured
) -> None:
    """An fsync of ten seconds: what comes meanwhile waits in memory, and InfluxDB's return is not waited for."""
    oracle = Oracle()
    with Stream(ods.port, oracle) as stream:
        wait_for_more(ods, "stored", 200)
        own_influx.kill()
        wait_for_more(ods, "pending", 500)
        sick_disk.fall_sick(SLOW)
        wait_until_hit(ods, sick_disk)
        own_influx.start()
        wait_until_live(ods)
        wait_for_more(ods, "stored", 200)
        measured(f"InfluxDB was back for live points while the disk still hung: {sick_disk.hits()} syncs waited")
        sick_disk.heal()
        check_all(ods, own_influx, oracle, stream)
        note_waits(measured, stream)
    assert oracle.refused_count() == 0


def test_a_backlog_that_cannot_be_read_for_a_moment_is_not_given_up(
    ods: OdsProcess, own_influx: InfluxServer, sick_disk: SickDisk
) -> None:
    """A disk that fails to read is not a buffer that is damaged: it stays in its place, and is drained later."""
    oracle = Oracle()
    own_influx.kill()
    with Stream(ods.port, oracle) as stream:
        wait_for_more(ods, "pending", 5000)
        stream.finish()
    ods.wait_for_status(lambda status: status["totals"]["in_flight"] == 0, what="nothing in flight")
    ods.restart()  # what it reads is in no cache of its own any more
    sick_disk.fall_sick(UNREADABLE)
    own_influx.start()
    wait_until_hit(ods, sick_disk)
    with Stream(ods.port, oracle) as stream:
        wait_for_more(ods, "stored", 500)
        sick_disk.heal()
        stream.finish()
    ods.wait_until_settled()
    oracle.check(own_influx.points(ods.database))
    assert not list(ods.directory.glob("*damaged*"))


@pytest.mark.parametrize("is_influx_up", [True, False], ids=["beside-influx", "in-an-outage"])
def test_a_deleted_data_directory_loses_nothing_that_was_answered_ok(
    ods: OdsProcess, own_influx: InfluxServer, is_influx_up: bool, measured: Measured
) -> None:
    """`rm -rf` under the running ODS. What is buffered from then on outlives ODS, and recordings are written again."""
    oracle = Oracle()
    with Stream(ods.port, oracle) as stream:
        wait_for_more(ods, "stored", 200)
        if not is_influx_up:
            own_influx.kill()
            wait_for_more(ods, "pending", 500)
        shutil.rmtree(ods.directory)
        wait_for_more(ods, "received")
        if is_influx_up:
            own_influx.kill()
        wait_for_more(ods, "pending", 500)
        stream.finish()
        note_waits(measured, stream)
    ods.wait_for_status(lambda status: status["totals"]["in_flight"] == 0, what="nothing in flight")
    assert ods.totals()["dropped"] == oracle.refused_count()
    wait_until(lambda: list(ods.directory.rglob("*.data.csv*")), timeout_seconds=10, what="a recording")
    ods.kill()
    own_influx.start()
    ods.start()
    ods.wait_until_settled()
    oracle.check(own_influx.points(ods.database))


@pytest.mark.parametrize(
    "sickness", [SLOW, FULL, BROKEN, *sized([], long=[READ_ONLY, UNSYNCED])], ids=lambda sickness: sickness.name
)
def test_ods_starts_on_a_sick_disk(
    start_ods: StartOds, own_influx: InfluxServer, sick_disk: SickDisk, sickness: Sickness, measured: Measured
) -> None:
    """It listens at once, forwards, and buffers as soon as the disk lets it."""
    sick_disk.fall_sick(sickness)
    began = time.monotonic()
    ods = start_ods(
        own_influx,
        has_buffer=False,
        directory=sick_disk.directory / "data",
        extra_environment=sick_disk.environment,
    )
    measured(f"listening {time.monotonic() - began:.2f} s after the start")
    oracle = Oracle()
    with Stream(ods.port, oracle) as stream:
        wait_for_more(ods, "stored", 500)
        assert sick_disk.hits(), "the disk was sick"
        sick_disk.heal()
        ods.wait_for_line(r"\bbacklog\b", timeout_seconds=sized(30, long=120))
        own_influx.kill()
        wait_for_more(ods, "pending", 500)
        own_influx.start()
        check_all(ods, own_influx, oracle, stream)
        note_waits(measured, stream)
    assert oracle.refused_count() == 0


def test_ods_starts_on_a_disk_that_is_mounted_read_only(
    start_ods: StartOds, own_influx: InfluxServer, small_disk: SmallDisk
) -> None:
    """There is not even a directory. Once it can be made, it is, and is locked as ever."""
    small_disk.make_read_only()
    ods, oracle = start_ods(own_influx, has_buffer=False, directory=small_disk.path / "data"), Oracle()
    with Stream(ods.port, oracle) as stream:
        wait_for_more(ods, "stored", 500)
        small_disk.make_writable()
        ods.wait_for_line(r"\bbacklog\b")
        own_influx.kill()
        wait_for_more(ods, "pending", 500)
        own_influx.start()
        check_all(ods, own_influx, oracle, stream)
    assert oracle.refused_count() == 0
    assert {"buffer.db", "lock", "clock", "recordings"} <= {path.name for path in ods.directory.iterdir()}


def test_a_small_disk_that_fills_up_in_an_outage_and_is_freed_later(
    start_ods: StartOds, own_influx: InfluxServer, small_disk: SmallDisk, measured: Measured
) -> None:
    """64 MB: recordings stop first and say so, then points are refused; when there is room again all goes on."""
    small_disk.fill(leaving_bytes=sized(15_000_000, long=40_000_000))
    ods, oracle = start_ods(own_influx, directory=small_disk.path / "data"), Oracle()
    process_id = ods.working_id
    with contextlib.ExitStack() as connected:
        streams = [
            connected.enter_context(
                Stream(ods.port, oracle, address=f"127.0.2.{host}", lines_per_second=10_000, burst_lines=100)
            )
            for host in range(1, 4)
        ]
        wait_for_more(ods, "stored", 500)
        own_influx.kill()
        ods.wait_for_line(r"error.*recordings: stopped", timeout_seconds=60)
        assert ods.totals()["dropped"] == 0, "the buffer goes on when the recordings have stopped"
        wait_for_more(ods, "pending", 10 * ENOUGH)
        assert ods.totals()["dropped"] == 0, "the buffer has its room to itself"
        if not IS_LONG:
            small_disk.fill(leaving_bytes=7_000_000)  # a little above the reserve
        ods.wait_for_status(lambda status: status["totals"]["dropped"] > 0, what="a full buffer", timeout_seconds=300)
        wait_for_more(ods, "dropped", 20 * ENOUGH)
        assert ods.healthz() == 503
        small_disk.free()
        wait_for_more(ods, "pending")
        assert ods.healthz() == 200
        ods.wait_for_line(r"info.*recordings: begun again")
        own_influx.start()
        check_all(ods, own_influx, oracle, *streams)
        note_waits(measured, *streams)
        measured(f"{oracle.sent_count()} points sent, {oracle.refused_count()} refused")
    assert oracle.refused_count() > 0
    assert ods.working_id == process_id and ods.is_running


def test_a_disk_without_any_room_does_not_stop_the_drain(
    start_ods: StartOds, own_influx: InfluxServer, small_disk: SmallDisk
) -> None:
    """Somebody else has filled it to the last byte: what is buffered is sent all the same, and counted once."""
    ods, oracle = start_ods(own_influx, directory=small_disk.path / "data"), Oracle()
    with Stream(ods.port, oracle) as stream:
        own_influx.kill()
        wait_for_more(ods, "pending")
        small_disk.fill()
        wait_for_more(ods, "dropped", 200)
        own_influx.start()
        wait_until_live(ods)
        wait_for_more(ods, "stored")
        small_disk.free()
        check_all(ods, own_influx, oracle, stream)
