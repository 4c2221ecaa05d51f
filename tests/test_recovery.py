"""Recovery after a crash, with real files, buffer and store manager; the InfluxDB does what the test says."""

import errno
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from components.fake_influx import FakeInflux
from components.hub import fail_when_hung, let_all_run, wait_in_hub

import ods.playback
import ods.recovery
from ods.availability import Availability
from ods.buffer import Buffer
from ods.errors import BufferUnavailable, Unavailable
from ods.ledger import Counts, Ledger
from ods.playback import Piece
from ods.pods import Pods
from ods.recorder import Recorder
from ods.recording import segment_name
from ods.recovery import Recovery
from ods.rows import BadLine
from ods.segments import Rows
from ods.store import StoreManager
from ods.supervisor import Supervisor
from ods.worker import Worker

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)

AWAY = Unavailable("connection refused")
SECOND_NS = 1_000_000_000
BEGIN_NS = 1_790_000_000 * SECOND_NS
#: This run begins long after what was left.
NOW_NS = BEGIN_NS + 1000 * SECOND_NS


class FakeDisk:
    """A disk with as much room as a test says."""

    free_bytes = 2**40

    def free_for_buffer_bytes(self) -> int:
        return self.free_bytes

    def free_for_recordings_bytes(self) -> int:
        return self.free_bytes


class Bench:
    """A start of ODS after a crash, as `ods.service` wires it, without pods."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.influx = FakeInflux()
        self.disk = FakeDisk()
        self.supervisor = Supervisor()
        self.ledger = Ledger()
        self.pods = Pods({}, max_names=10)
        self.buffer = Buffer(folder / "buffer.db", limit_bytes=2**30, disk=self.disk)  # type: ignore[arg-type]
        self.worker = Worker("buffer")
        self.recorder = Recorder(
            directory=folder / "recordings",
            disk=self.disk,  # type: ignore[arg-type]
            limit_bytes=0,
            confirmed_before_ns=lambda: 0,
        )
        self.recovery = Recovery(
            directory=folder / "recordings",
            recorder=self.recorder,
            store=StoreManager(
                influx=self.influx,  # type: ignore[arg-type]
                buffer=self.buffer,
                buffer_worker=self.worker,
                availability=Availability(url="http://fake"),
                ledger=self.ledger,
                supervisor=self.supervisor,
                backlog_grew=lambda: None,
            ),
            buffer=self.buffer,
            buffer_worker=self.worker,
            ledger=self.ledger,
            pods=self.pods,
        )
        self.worker.start()

    def start(self, settled_ns: int = BEGIN_NS - 1) -> None:
        self.worker.submit(self.buffer.open)
        self.recovery.start(self.supervisor, settled_ns=settled_ns, now_ns=NOW_NS)
        self.recorder.start(self.supervisor)

    @property
    def is_finished(self) -> bool:
        return self.recovery.limit(NOW_NS) == NOW_NS

    def run(self, settled_ns: int = BEGIN_NS - 1) -> None:
        """Start, and wait for the end of the recovery."""
        self.start(settled_ns)
        wait_in_hub(lambda: self.is_finished, "the end of the recovery")

    def stop(self) -> None:
        self.recovery.stop()
        self.supervisor.stop()
        self.recorder.stop(5.0)
        self.worker.run(self.buffer.close)
        self.worker.stop()

    def leave(self, numbers: range, *, pod: str = "a", state: str = ".open") -> Path:
        """A segment as a crash leaves it, with a data point a microsecond."""
        return self.leave_rows("".join(f"{BEGIN_NS + n * 1000},x,{n}\n" for n in numbers), "data", pod, state)

    def leave_rows(self, rows: str, kind: str, pod: str = "a", state: str = ".open") -> Path:
        path = self.folder / "recordings" / pod / (segment_name(BEGIN_NS, kind) + state)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = "time_ns,name,value\n" if kind == "data" else "time_ns,kind,text\n"
        path.write_text(header + rows)
        return path

    def commit(self, numbers: range, *, pod: str = "a", first: int | None = None) -> int:
        """Have the buffer hold these, as the run before did."""
        self.worker.run(self.buffer.open)
        return self.worker.run(
            self.buffer.append,
            "".join(line(n, pod) + "\n" for n in numbers).encode(),
            database="ods",
            pods={pod: len(numbers)},
            first_ns=BEGIN_NS + (numbers[0] if first is None else first) * 1000,
        )

    def buffered(self) -> list[str]:
        rows = self.worker.run(self.buffer.oldest, excluding=(), limit_points=10**9, limit_bytes=10**9)
        return [one for row in rows for one in row.lines()]

    @property
    def stored(self) -> list[str]:
        return self.influx.stored.get("ods", [])

    def open_segments(self) -> list[Path]:
        return list(self.folder.glob("recordings/*/*.open"))


def line(number: int, pod: str = "a") -> str:
    return f"x,pod={pod} value={number}.0 {BEGIN_NS + number * 1000}"


def lines(*numbers: range) -> list[str]:
    return [line(number) for some in numbers for number in some]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(ods.recovery, "RETRY_SECONDS", 0.01)
    bench = Bench(tmp_path)
    yield bench
    bench.stop()
    assert not bench.supervisor.has_failed
    assert bench.ledger.totals().add_up()


# -- What is put through the store again ------------------------------------------------------------------------------


def test_what_may_not_have_been_stored_is_stored(bench: Bench) -> None:
    """With its time, its pod and its value; then its segment is closed and compressed."""
    path = bench.leave(range(10))
    bench.run(settled_ns=BEGIN_NS + 3000)
    assert bench.stored == lines(range(4, 10))
    assert bench.ledger.of("a") == Counts(received=6, stored=6)
    assert list(bench.pods.by_name) == ["a"]
    wait_in_hub(lambda: path.with_name(path.name.replace(".open", ".gz")).exists(), "the compressed segment")
    assert not bench.open_segments()


def test_it_is_buffered_while_influx_is_away(bench: Bench) -> None:
    bench.influx.error = AWAY
    bench.leave(range(20_000))
    bench.run()
    assert bench.buffered() == lines(range(20_000))
    assert bench.ledger.of("a") == Counts(received=20_000, pending=20_000)


def test_messages_are_stored_and_what_was_no_record_is_not(bench: Bench) -> None:
    bench.leave_rows(f'{BEGIN_NS},log,"[INFO]  a ""b"""\n{BEGIN_NS + 1},invalid,"x"\n{BEGIN_NS + 2},torn,"y"\n', "log")
    bench.run()
    assert bench.stored == [f'pod_log,level=info,pod=a message="a \\"b\\"" {BEGIN_NS}']
    assert bench.ledger.totals() == Counts(received=1, stored=1)


def test_a_segment_of_which_all_is_settled_is_closed(bench: Bench) -> None:
    path = bench.leave(range(10))
    bench.run(settled_ns=BEGIN_NS + SECOND_NS)
    assert (bench.stored, bench.open_segments(), bench.ledger.pods) == ([], [], {})
    assert path.with_suffix("").exists() or path.with_name(path.name.replace(".open", ".gz")).exists()


def test_the_time_of_a_closed_segment_is_that_of_its_last_row(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.recorder, "archive", lambda closed: None)
    path = bench.leave(range(10))
    bench.run(settled_ns=BEGIN_NS + SECOND_NS)
    assert path.with_suffix("").stat().st_mtime_ns == BEGIN_NS + 9000


def test_segments_that_this_run_has_begun_are_left_to_it(bench: Bench) -> None:
    """Their records are on their way already. Not even the clock tells them apart, for it may have gone back."""
    bench.recorder._segments.append(
        [Rows("a", f"{BEGIN_NS},x,1\n".encode(), b"", BEGIN_NS, BEGIN_NS)], time.monotonic()
    )
    bench.leave(range(3), pod="b")
    bench.run()
    assert bench.stored == [line(number, "b") for number in range(3)]
    (own,) = bench.open_segments()
    assert own.parent.name == "a"


def test_nothing_is_said_or_stored_where_nothing_was_left(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench.run()
    assert not [record for record in caplog.records if "recover" in record.message]


# -- Once -------------------------------------------------------------------------------------------------------------


def test_what_the_buffer_holds_already_counts_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench.influx.error = AWAY
    bench.commit(range(5))
    bench.commit(range(8, 12))
    bench.commit(range(20), pod="b")
    bench.leave(range(20))
    bench.run()
    assert sorted(bench.buffered()) == sorted(lines(range(20)) + [line(n, "b") for n in range(20)])
    assert bench.ledger.of("a") == Counts(received=11, pending=11)
    assert "11 records were put through the store again, 9 were kept already; 1 open" in caplog.text


def test_a_row_of_the_buffer_covers_nothing_that_is_not_in_it(bench: Bench) -> None:
    """Neither what lies between two of its times, nor messages of the same time as another pod's points."""
    bench.commit(range(0, 20, 2))
    bench.leave(range(20))
    bench.leave_rows(f'{BEGIN_NS + 1},log,"m"\n', "log")
    bench.run()
    assert bench.stored == [*lines(range(1, 20, 2)), f'pod_log,pod=a message="m" {BEGIN_NS + 1}']


def test_what_is_in_the_quarantine_counts_once(bench: Bench) -> None:
    bench.commit(range(3))
    (row,) = bench.worker.run(bench.buffer.oldest, excluding=(), limit_points=10, limit_bytes=10**6)
    bench.worker.run(bench.buffer.quarantine, row, [BadLine("a", BEGIN_NS + 1000, line(1), "no", 1)])
    bench.leave(range(3))
    bench.run()
    assert bench.stored == [line(0), line(2)]


def test_batches_that_came_out_of_their_order_are_found(bench: Bench) -> None:
    """One that waited for InfluxDB began a second before what was settled when it was committed."""
    bench.commit(range(5), first=-1_000_000)
    bench.leave(range(5))
    bench.run()
    assert bench.stored == []


def test_where_the_buffer_cannot_be_read_all_is_stored_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """To count a point twice is better than to lose it."""

    def refuse(after_ns: int) -> None:
        raise BufferUnavailable("no disk")

    monkeypatch.setattr(bench.buffer, "newest", refuse)
    bench.commit(range(3))
    bench.leave(range(5))
    bench.run()
    assert bench.stored == lines(range(5))


# -- What holds it up, and what does not ------------------------------------------------------------------------------


def test_what_neither_store_takes_waits_and_is_never_dropped(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.influx.error, bench.disk.free_bytes = AWAY, 0
    path = bench.leave(range(5))
    bench.start()
    wait_in_hub(lambda: "waits in the recordings" in caplog.text, "the warning")
    let_all_run()
    assert bench.ledger.of("a") == Counts(received=5, in_flight=5)
    assert path.exists() and not bench.is_finished
    bench.disk.free_bytes = 2**40
    wait_in_hub(lambda: bench.is_finished, "the end of the recovery")
    assert bench.ledger.of("a") == Counts(received=5, pending=5)
    assert not bench.open_segments()
    assert caplog.text.count("waits in the recordings") == 1


def test_while_it_is_under_way_nothing_later_counts_as_settled(bench: Bench) -> None:
    """A second crash must find the same again."""
    bench.influx.error, bench.disk.free_bytes = AWAY, 0
    bench.leave(range(5))
    assert bench.recovery.limit(NOW_NS) <= BEGIN_NS, "before its start"
    bench.start(settled_ns=BEGIN_NS + 7)
    wait_in_hub(lambda: bench.ledger.totals().in_flight, "the recovery to begin")
    assert bench.recovery.limit(NOW_NS) == BEGIN_NS + 7
    assert bench.recovery.limit(5) == 5, "a clock that has gone back"
    bench.disk.free_bytes = 2**40
    wait_in_hub(lambda: bench.is_finished, "the end of the recovery")


def test_what_waits_when_ods_is_stopped_is_left_to_the_next_start(bench: Bench) -> None:
    """It is no loss: its segment is as it was, and nothing counts that is not kept."""
    bench.influx.error, bench.disk.free_bytes = AWAY, 0
    path = bench.leave(range(5))
    bench.start()
    wait_in_hub(lambda: bench.ledger.totals().in_flight, "the recovery to begin")
    bench.recovery.stop()
    assert bench.ledger.totals() == Counts()
    assert path.exists() and not bench.is_finished


def test_one_that_cannot_be_read_is_said_once_and_stops_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.leave(range(3), pod="Not a pod's")
    bench.leave(range(3), pod="%0aevil")
    unreadable = bench.leave(range(3), pod="b")
    unreadable.unlink()
    unreadable.mkdir()
    foreign = bench.leave(range(3), pod="c").with_name("x.csv.open")
    foreign.touch()
    bench.leave(range(3), pod="d")
    bench.run()
    assert {one.partition(" ")[0] for one in bench.stored} == {"x,pod=c", "x,pod=d"}
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len([text for text in warnings if "left as it is" in text]) == 4
    assert unreadable.exists() and foreign.exists()


def test_rows_that_cannot_be_read_are_told_of_in_one_line(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for pod in ("a", "b"):
        path = bench.leave(range(3), pod=pod)
        path.write_bytes(path.read_bytes() + b"\0\0\n1790,\n")
    bench.run()
    (warning,) = [record.message for record in caplog.records if "could not be read" in record.message]
    assert "4 rows" in warning
    assert len(bench.stored) == 6


def test_a_disk_that_fails_to_read_for_a_moment_hides_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it gave before is not put through a second time, and what is settled goes no further meanwhile."""
    monkeypatch.setattr(ods.playback, "PIECE_BYTES", 64)
    monkeypatch.setattr(ods.recovery, "RETRY_SECONDS", 0.01)
    bench.leave(range(20))
    read, failures = ods.recovery.play, iter([0, 3])

    def sick(path: Path, *, after_ns: int) -> Iterator[Piece]:
        failing_at = next(failures, None)
        for number, piece in enumerate(read(path, after_ns=after_ns)):
            if number == failing_at:
                assert bench.recovery.limit(NOW_NS) < NOW_NS
                raise OSError(errno.EIO, "Input/output error")
            yield piece

    monkeypatch.setattr(ods.recovery, "play", sick)
    bench.run()
    assert len(bench.stored) == len(set(bench.stored)) == 20
    assert bench.ledger.totals().received == 20


def test_recordings_that_cannot_be_listed_for_a_moment_are_not_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ods.recovery, "RETRY_SECONDS", 0.01)
    bench.leave(range(3))
    look, failures = ods.recovery.left_behind, iter([errno.EIO, errno.EMFILE])

    def sick(*arguments: Any) -> list[Path]:
        for number in failures:
            raise OSError(number, "sick")
        return look(*arguments)

    monkeypatch.setattr(ods.recovery, "left_behind", sick)
    bench.run()
    assert bench.stored == lines(range(3))


# -- What is recorded, for those who repeat what the run before had in flight


def test_what_is_recorded_is_told_before_it_begins(bench: Bench) -> None:
    bench.leave(range(5))
    assert bench.recovery.recorded({"a": BEGIN_NS + 3000, "b": 0}) == {
        "a": {BEGIN_NS + 3000, BEGIN_NS + 4000},
        "b": set(),
    }
    bench.run()
    assert bench.stored == lines(range(5))


def test_a_disk_that_does_not_answer_keeps_no_pod_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer = threading.Event()

    def finding(directory: Path, since: Mapping[str, int], found: dict[str, set[int]]) -> None:
        found["a"] = {1}
        answer.wait(10)
        found["b"] = {1}

    monkeypatch.setattr(ods.recovery, "RECORDED_SECONDS", 0.1)
    monkeypatch.setattr(ods.recovery, "find_recorded_times", finding)
    assert bench.recovery.recorded({"a": 0, "b": 0}) == {"a": {1}}
    assert "counted twice" in caplog.text
    answer.set()
    bench.leave(range(5))
    bench.run()
    assert bench.stored == lines(range(5))
