"""The whole program after a crash: nothing that ODS had recorded is lost, and nothing counts twice."""

import csv
import gzip
import os
import re
import sqlite3
import threading
from pathlib import Path

import pytest
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds
from harness.oracle import Oracle
from harness.pod_client import PodClient
from harness.sick_disk import SLOW, SickDisk
from harness.sizes import sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(90, long=300), method="signal")

POD, OTHER = "127.0.2.1", "127.0.2.2"
#: About so many reads go into a batch of a `Load` while InfluxDB is away.
READS_A_BATCH = 40
BEGIN_NS = 1_790_000_000_000_000_000
#: A segment that begins at `BEGIN_NS`.
SEGMENT = "20260921-141320.000000000.data.csv.open"

#: A row as it is recorded: time, name or kind, value or text.
Row = tuple[int, str, str]


def recorded(ods: OdsProcess, pod: str, kind: str) -> list[Row]:
    """Return every whole row of a pod's recordings, in whatever state its segments are."""
    rows: list[Row] = []
    for path in sorted((ods.directory / "recordings" / pod).glob(f"*.{kind}.csv*")):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1].decode()
        rows += [(int(time_ns), second, third) for time_ns, second, third in list(csv.reader(whole.splitlines()))[1:]]
    return rows


def recorded_points(ods: OdsProcess) -> int:
    """Return how many data points and log messages have been recorded."""
    data = sum(len(recorded(ods, pod, "data")) for pod in (POD, OTHER))
    return data + sum(kind == "log" for pod in (POD, OTHER) for _, kind, _ in recorded(ods, pod, "log"))


def left_open(ods: OdsProcess) -> list[Path]:
    return sorted((ods.directory / "recordings").glob("*/*.open"))


def buffered(ods: OdsProcess) -> int:
    """Return how many points the buffer of an ODS that does not run holds, set aside or not."""
    db = sqlite3.connect(ods.directory / "buffer.db")
    try:
        return int(db.execute("SELECT coalesce(sum(points), 0) FROM totals").fetchone()[0])
    finally:
        db.close()


def put_through_again(ods: OdsProcess) -> int:
    """Return how many records ODS says that it has taken from its recordings, once it has said so."""
    found = re.search(r"recovery: (\d+) records were put", ods.wait_for_line(r"recovery: \d+ records were put"))
    assert found is not None
    return int(found[1])


def check_stored(ods: OdsProcess, influx: InfluxServer, oracle: Oracle) -> None:
    """Raise AssertionError unless InfluxDB has all that was recorded, once, with its time, and nothing else."""
    points = influx.points(ods.database)
    oracle.check(points, only_acknowledged=True)
    messages = influx.messages(ods.database)
    for pod in (POD, OTHER):
        stored = {(time_ns, name) for (name, owner), rows in points.items() if owner == pod for time_ns, _ in rows}
        missing = sorted({(time_ns, name) for time_ns, name, _ in recorded(ods, pod, "data")} - stored)
        assert not missing, f"{len(missing)} recorded points of {pod} are missing: {missing[:5]}\n{ods.log_tail()}"
        said = {(time_ns, text) for time_ns, kind, text in recorded(ods, pod, "log") if kind == "log"}
        found = [(time_ns, f"[NOTE]  {text}") for time_ns, _, text in messages.get(pod, [])]
        assert said <= set(found), f"{len(said - set(found))} messages of {pod} are missing"
        assert len(found) == len(set(found))


class Load:
    """Two pods that send, messages too, until ODS is gone."""

    def __init__(self, ods: OdsProcess, oracle: Oracle, *, records: int) -> None:
        self._oracle = oracle
        self._pods = {address: PodClient(ods.port, address=address).read_replies() for address in (POD, OTHER)}
        self._first = {address: oracle.sent_count(address) for address in self._pods}
        lines = {address: oracle.next_lines(address, records) for address in self._pods}
        self._threads = [
            threading.Thread(target=self._send, args=(pod, lines[address])) for address, pod in self._pods.items()
        ]
        for pod in self._pods.values():
            pod.connect()
        for thread in self._threads:
            thread.start()

    def wait_until_gone(self) -> None:
        """Return when both have lost their connections; the oracle then knows what they were answered."""
        for thread in self._threads:
            thread.join()
        for address, pod in self._pods.items():
            assert pod.has_ended.wait(10)
            replies = [reply for reply in pod.replies if reply != b"OK: LOGGED"]
            self._oracle.acknowledge(address, replies, first=self._first[address])
            pod.close()

    def _send(self, pod: PodClient, lines: list[bytes]) -> None:
        try:
            for first in range(0, len(lines), 1000):
                message = b'POD1[NOTE]  at "%d", on\n' % first
                pod.send_at_rate([*lines[first : first + 1000], message], lines_per_second=20_000, burst_lines=100)
        except (ConnectionError, TimeoutError):
            return  # killed: that is the end of this pod


def wait_until_killed(ods: OdsProcess) -> None:
    """Return when ODS has killed itself at its fail-point."""
    wait_until(lambda: not ods.is_running, timeout_seconds=30, what="the fail-point to be reached", state=ods.log_tail)
    ods.kill()
    ods.extra_environment.clear()


# -- A kill at every point --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", sized([10], long=[3, 10, 25]))
@pytest.mark.parametrize(
    ("point", "is_influx_up"),
    [
        *((point, True) for point in ("read", "recorded", "requested")),
        *((point, False) for point in ("read", "recorded", "committing", "committed")),
    ],
)
def test_nothing_that_was_recorded_is_lost_by_a_kill(
    start_ods: StartOds, own_influx: InfluxServer, point: str, is_influx_up: bool, batches: int
) -> None:
    """At exactly this point of the way of a record, with InfluxDB there and away."""
    if not is_influx_up:
        own_influx.kill()
    ods, oracle = start_ods(own_influx, has_keeper=False), Oracle()
    with PodClient(ods.port).read_replies() as pod:  # what was stored long before
        oracle.acknowledge(POD, [pod.exchange(line) for line in oracle.next_lines(POD, 3)])
    ods.stop()
    ods.extra_environment["ODS_FAILPOINT"] = f"{point}:{batches * (READS_A_BATCH if point == 'read' else 1)}"
    ods.start()
    load = Load(ods, oracle, records=60_000)
    wait_until_killed(ods)
    load.wait_until_gone()
    assert left_open(ods)
    held, rows = buffered(ods), recorded_points(ods)

    ods.start()
    again = put_through_again(ods)
    totals = ods.wait_for_totals(in_flight=0)["totals"]
    assert totals["received"] == held + again, "each point counts once"
    if not is_influx_up:
        assert totals["received"] == totals["pending"] == rows, "each is either in the buffer or put back"
        own_influx.start()
    ods.wait_until_settled()
    check_stored(ods, own_influx, oracle)
    wait_until(lambda: not left_open(ods), timeout_seconds=10, what="the segments left open to be closed")


def test_a_kill_between_the_204_and_the_delete_counts_nothing_twice(
    start_ods: StartOds, own_influx: InfluxServer
) -> None:
    own_influx.kill()
    ods, oracle = start_ods(own_influx, has_keeper=False, extra_environment={"ODS_FAILPOINT": "confirmed:1"}), Oracle()
    with PodClient(ods.port).read_replies() as pod:
        pod.send_lines(oracle.next_lines(POD, 2000))
        oracle.acknowledge(POD, pod.wait_for_replies(2000))
    own_influx.start()
    wait_until_killed(ods)
    ods.start()
    ods.wait_until_settled()
    assert ods.totals()["received"] == ods.totals()["stored"] == 2000
    check_stored(ods, own_influx, oracle)


def wait_for_next_note(ods: OdsProcess) -> None:
    """Return when ODS has noted afresh what is settled."""
    note = ods.directory / "settled"
    before = note.stat().st_mtime_ns
    wait_until(lambda: note.stat().st_mtime_ns != before, timeout_seconds=15, what="the next note", state=ods.log_tail)


def test_what_has_waited_for_both_stores_for_seconds_is_found_after_a_kill(
    start_ods: StartOds, own_influx: InfluxServer, sick_disk: SickDisk
) -> None:
    """InfluxDB is away and a commit takes ten seconds: what is noted as settled goes no further meanwhile."""
    own_influx.kill()
    ods = start_ods(own_influx, directory=sick_disk.directory / "data", extra_environment=sick_disk.environment)
    oracle = Oracle()
    sick_disk.fall_sick(SLOW)
    with PodClient(ods.port).read_replies() as pod:
        for sent in (100, 200):  # the first is being committed, the second waits behind it
            pod.send_lines(oracle.next_lines(POD, 100))
            wait_until(
                lambda sent=sent: len(recorded(ods, POD, "data")) == sent, timeout_seconds=10, what=f"{sent} rows"
            )
        wait_for_next_note(ods)
        wait_for_next_note(ods)
        assert ods.totals()["in_flight"] == 200
        assert not pod.replies
        ods.kill()
    sick_disk.heal()
    held = buffered(ods)
    ods.start()
    assert put_through_again(ods) == 200 - held >= 100
    own_influx.start()
    assert ods.wait_until_settled()["totals"]["received"] == 200
    oracle.check(own_influx.points(ods.database))


# -- A kill in the recovery itself ------------------------------------------------------------------------------------


def forget_all_but_the_recordings(ods: OdsProcess) -> int:
    """Leave of the life before nothing but its recordings, all of which were left open; returns their points."""
    for path in [*ods.directory.glob("buffer.db*"), ods.directory / "settled"]:
        path.unlink()
    return recorded_points(ods)


@pytest.mark.parametrize("point", ["committing", "committed"])
def test_a_kill_in_the_recovery_loses_nothing_and_counts_nothing_twice(
    start_ods: StartOds, own_influx: InfluxServer, point: str
) -> None:
    """Again and again, each time a little further on: what the buffer holds by then is not taken back once more."""
    own_influx.kill()
    ods, oracle = start_ods(own_influx, has_keeper=False), Oracle()
    load = Load(ods, oracle, records=20_000)
    ods.wait_for_status(lambda status: status["totals"]["received"] > 30_000, what="some load")
    ods.kill()
    load.wait_until_gone()
    points = forget_all_but_the_recordings(ods)
    for life in range(3):
        ods.extra_environment["ODS_FAILPOINT"] = f"{point}:{2 + life}"
        ods.launch()
        wait_until_killed(ods)
    ods.start()
    put_through_again(ods)
    totals = ods.wait_for_totals(in_flight=0)["totals"]
    assert totals["received"] == totals["pending"] == points
    own_influx.start()
    ods.wait_until_settled()
    check_stored(ods, own_influx, oracle)


# -- What is found after a crash --------------------------------------------------------------------------------------


def segment_of(ods: OdsProcess, *, rows: int, torn: bytes = b"") -> Path:
    """Make a segment of `POD` that a crash has left open: a row a microsecond, with the values of the oracle."""
    path = ods.directory / "recordings" / POD / SEGMENT
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(b"time_ns,name,value\n")
        file.writelines(b"%d,accel_x,%f\n" % (BEGIN_NS + number * 1000, number * 0.5) for number in range(rows))
        file.write(torn)
    return path


def note_settled(ods: OdsProcess, time_ns: int) -> None:
    (ods.directory / "settled").write_text(f"{time_ns}\n")


def accel_x(ods: OdsProcess, influx: InfluxServer) -> list[tuple[int, float | str]]:
    return influx.points(ods.database).get(("accel_x", POD), [])


def test_the_end_of_a_large_segment_alone_is_put_through_again(start_ods: StartOds, influx: InfluxServer) -> None:
    """What was settled a second before the crash is left alone, however much it is."""
    ods = start_ods(influx)
    ods.stop()
    rows = sized(300_000, long=1_000_000)
    segment = segment_of(ods, rows=rows)
    note_settled(ods, BEGIN_NS + (rows - 100) * 1000)
    ods.start()
    assert put_through_again(ods) == 99
    assert ods.wait_until_settled()["totals"]["received"] == 99
    expected = [(BEGIN_NS + number * 1000, number * 0.5) for number in range(rows - 99, rows)]
    assert accel_x(ods, influx) == expected
    archived = segment.with_name(SEGMENT.replace(".open", ".gz"))
    wait_until(archived.exists, timeout_seconds=20, what="the segment to be compressed", state=ods.log_tail)
    assert len(recorded(ods, POD, "data")) == rows


@pytest.mark.parametrize(
    "torn", [b"1790000001", b"1790000001000000000,accel_x,12", b"\0" * 5000], ids=["time", "value", "zeros"]
)
def test_a_last_row_without_its_newline_is_no_row(start_ods: StartOds, influx: InfluxServer, torn: bytes) -> None:
    """Who knows what the value was; the rows before it are whole."""
    ods = start_ods(influx)
    ods.stop()
    segment_of(ods, rows=10, torn=torn)
    note_settled(ods, 1)
    ods.start()
    assert put_through_again(ods) == 10
    ods.wait_until_settled()
    assert accel_x(ods, influx) == [(BEGIN_NS + number * 1000, number * 0.5) for number in range(10)]
    ods.stop()
    (segment,) = (ods.directory / "recordings" / POD).iterdir()
    whole = b"".join(b"%d,accel_x,%f\n" % (BEGIN_NS + number * 1000, number * 0.5) for number in range(10))
    assert gzip.decompress(segment.read_bytes()) == b"time_ns,name,value\n" + whole


def test_rows_that_a_power_cut_made_unreadable_are_told_of_and_hold_up_nothing(
    start_ods: StartOds, influx: InfluxServer
) -> None:
    ods = start_ods(influx)
    ods.stop()
    segment = segment_of(ods, rows=2000)
    data = bytearray(segment.read_bytes())
    data[4096:8192] = bytes(4096)
    segment.write_bytes(data)
    foreign = segment.with_name(SEGMENT.replace("141320", "141321"))
    foreign.write_bytes(bytes(100_000))
    note_settled(ods, 1)
    ods.start()
    again = put_through_again(ods)
    assert 1800 < again < 2000
    ods.wait_until_settled()
    assert {(BEGIN_NS + n * 1000, n * 0.5) for n in range(2000)}.issuperset(stored := accel_x(ods, influx))
    assert len(stored) == again
    assert len(ods.lines_with(r"warning.*rows could not be read")) == 1
    assert len(ods.lines_with(rf"warning.*{re.escape(foreign.name)}.*left as it is")) == 1
    assert foreign.read_bytes() == bytes(100_000)


def test_a_segment_that_was_closed_just_before_the_crash_is_looked_through_too(
    start_ods: StartOds, influx: InfluxServer
) -> None:
    """It had reached its size, or its age, while its last rows were on their way to the store."""
    ods = start_ods(influx)
    ods.stop()
    open_one = segment_of(ods, rows=1000)
    closed = open_one.rename(open_one.with_suffix(""))
    os.utime(closed, ns=(BEGIN_NS + 999_000, BEGIN_NS + 999_000))
    note_settled(ods, BEGIN_NS + 989_500)
    ods.start()
    assert put_through_again(ods) == 10
    ods.wait_until_settled()
    assert [time_ns for time_ns, _ in accel_x(ods, influx)] == [BEGIN_NS + n * 1000 for n in range(990, 1000)]


def test_the_pods_name_and_its_messages_come_back_as_they_were(start_ods: StartOds, influx: InfluxServer) -> None:
    ods = start_ods(influx)
    ods.stop()
    folder = ods.directory / "recordings" / "%50od%20%41"
    folder.mkdir(parents=True)
    (folder / SEGMENT.replace("data", "log")).write_text(
        "time_ns,kind,text\n"
        f'{BEGIN_NS},log,"[WARN]  it said ""no"", and \\n, twice"\n'
        f'{BEGIN_NS + 1},invalid,"rubbish"\n'
        f'{BEGIN_NS + 2},torn,"POD2x 1"\n'
        f'{BEGIN_NS + 3},log,"ü, without a level"\n',
        encoding="utf-8",
    )
    note_settled(ods, 1)
    ods.start()
    assert put_through_again(ods) == 2
    ods.wait_until_settled()
    assert influx.messages(ods.database)["Pod A"] == [
        (BEGIN_NS, "warn", 'it said "no", and \\n, twice'),
        (BEGIN_NS + 3, "", "ü, without a level"),
    ]
    assert ods.pod_status("Pod A")["stored"] == 2


# -- What is not put through again, and what waits --------------------------------------------------------------------


def test_after_an_end_in_good_order_nothing_is_put_through_again(start_ods: StartOds, influx: InfluxServer) -> None:
    """Though it came in the very moment after the last record."""
    ods, oracle = start_ods(influx), Oracle()
    for _ in range(2):
        with PodClient(ods.port).read_replies() as pod:
            pod.send_lines(oracle.next_lines(POD, 5000))
            pod.wait_for_replies(5000)
            ods.stop()
        ods.start()
        assert ods.wait_until_settled()["totals"]["received"] == 0
        assert not left_open(ods)
    ods.stop()
    assert not ods.lines_with("recovery")


def test_pods_are_served_while_there_is_no_room_for_what_was_left(
    start_ods: StartOds, own_influx: InfluxServer
) -> None:
    """The start waits for nothing; what neither store takes waits in the recording, and is tried until one does."""
    own_influx.kill()
    ods = start_ods(own_influx, "--buffer-limit", "200KiB")
    ods.stop()
    rows = 60_000
    segment = segment_of(ods, rows=rows)
    note_settled(ods, 1)
    ods.start()
    ods.wait_for_line("recovery: .* waits in the recordings")
    with PodClient(ods.port, address=OTHER).read_replies() as pod:
        assert pod.exchange(b"POD2accel_x 1\n") == b"OK: (accel_x,1.0)", "there is room for so little"
    waiting = ods.totals()
    assert waiting["in_flight"] > 0 and waiting["dropped"] == 0 and ods.healthz() == 200
    assert segment.exists()
    ods.stop()
    assert not ods.lines_with("stopped in the middle"), "what waits is safe in the recording"

    ods.start()
    own_influx.start()
    put_through_again(ods)
    ods.wait_until_settled()
    assert ods.pod_status(POD)["received"] == ods.pod_status(POD)["stored"] == rows
    assert [time_ns for time_ns, _ in accel_x(ods, own_influx)] == [BEGIN_NS + n * 1000 for n in range(rows)]
