"""The store manager, behind the batcher as in ODS: every point gets exactly one fate, and its pod the right answer.

Real buffer, real worker; the InfluxDB does what the test says.
"""

import inspect
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from components.fake_influx import FakeInflux
from components.hub import fail_when_hung, let_all_run, wait_in_hub

import ods.batcher
import ods.store
from ods.availability import Availability
from ods.batch import Batch
from ods.batcher import Batcher
from ods.buffer import Buffer
from ods.chunk import Chunk, settle
from ods.errors import Rejected, Unavailable
from ods.influx import Influx
from ods.intake import Intake
from ods.ledger import Fate, Ledger
from ods.rows import Row
from ods.store import StoreManager
from ods.supervisor import Supervisor
from ods.worker import Worker

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)

AWAY = Unavailable("connection refused")


class FakeDisk:
    """A disk with as much room as a test says."""

    def __init__(self) -> None:
        self.free_bytes = 2**40

    def free_for_buffer_bytes(self) -> int:
        return self.free_bytes


@dataclass(eq=False)
class FakeIntake:
    """One whose reads are nobody's business here but when they are asked for."""

    flush: Callable[[], object]
    whole_lines: bytes | None = None


class Store:
    """The components under test, wired as in `ods.service`, and what came of each chunk."""

    def __init__(self, folder: Path) -> None:
        self.influx = FakeInflux()
        self.disk = FakeDisk()
        self.buffer = Buffer(folder / "buffer.db", limit_bytes=2**30, disk=self.disk)  # type: ignore[arg-type]
        self.worker = Worker("buffer")
        self.ledger = Ledger()
        self.availability = Availability(url="http://fake")
        self.supervisor = Supervisor()
        self.grown = 0
        self.manager = StoreManager(
            influx=self.influx,  # type: ignore[arg-type]
            buffer=self.buffer,
            buffer_worker=self.worker,
            availability=self.availability,
            ledger=self.ledger,
            supervisor=self.supervisor,
            backlog_grew=self._grew,
        )
        self.batcher = Batcher(
            keep=self.manager.keep,
            is_buffering=lambda: not self.availability.is_available,
            supervisor=self.supervisor,
        )
        #: Chunks in the order in which they were settled.
        self.settled: list[Chunk] = []
        self.made: list[Chunk] = []
        self.wrong_sums: list[object] = []
        self._numbers = itertools.count(1)

    def start(self) -> None:
        self.worker.start()
        self.worker.run(self.buffer.open)
        self.batcher.start()

    def stop(self) -> None:
        self.supervisor.stop()
        self.worker.run(self.buffer.close)
        self.worker.stop()

    def _grew(self) -> None:
        self.grown += 1

    def chunk(self, pod: str = "a", points: int = 1, size_bytes: int = 0) -> Chunk:
        """A chunk as `ods.intake` makes it: received, and in flight."""
        numbers = [next(self._numbers) for _ in range(max(points, 1))]
        lines = [f"name,pod={pod} value={number}.0 {number}\n" for number in numbers] if points else []
        text = "".join(lines).encode().rjust(size_bytes, b"#") if points else b""
        chunk = Chunk(
            pod=pod, points=points, lines=text, first_ns=numbers[0], last_ns=numbers[-1], received_at=time.monotonic()
        )
        self.ledger.receive(pod, points)
        self.made.append(chunk)

        def on_settled() -> None:
            self.settled.append(chunk)
            sums = (*self.ledger.pods.values(), self.ledger.totals())
            self.wrong_sums += [counts for counts in sums if not counts.add_up()]
            in_flight = sum(one.points for one in self.made if one.fate is Fate.IN_FLIGHT)
            if self.ledger.totals().in_flight != in_flight:
                self.wrong_sums.append(f"{in_flight} points are in flight, the ledger says {self.ledger.totals()}")

        chunk.on_settled = on_settled
        return chunk

    def put(self, pod: str = "a", points: int = 1, **changes: int) -> Chunk:
        """Put a chunk in."""
        chunk = self.chunk(pod, points, **changes)
        self.batcher.put(chunk)
        return chunk

    def expect(self, flush: Callable[[], object], size_bytes: int = 1, *, urgent: bool = False) -> Intake:
        """Have the batcher expect an intake that is flushed so, and that is decoded by itself."""
        intake: Any = FakeIntake(flush)
        self.batcher.expect(intake, size_bytes, urgent=urgent)
        return intake

    def wait_for(self, *chunks: Chunk) -> list[Fate]:
        """Wait until these are settled; returns their fates."""
        wait_in_hub(lambda: all(chunk in self.settled for chunk in chunks), "the end of every chunk")
        return [chunk.fate for chunk in chunks]

    def rows(self) -> list[Row]:
        """What the buffer gives out."""
        return self.worker.run(self.buffer.oldest, excluding=(), limit_points=10**9, limit_bytes=10**9)

    def buffered(self) -> list[str]:
        """The lines that the buffer gives out, in order."""
        return [line for row in self.rows() for line in row.lines()]

    def counts(self) -> dict[str, int]:
        """The totals of the ledger that are not 0."""
        totals = self.ledger.totals()
        named = {fate.value: getattr(totals, fate.value) for fate in Fate}
        return {name: count for name, count in named.items() if count}


def text_of(*chunks: Chunk) -> list[str]:
    return b"".join(chunk.lines for chunk in chunks).decode().splitlines()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """With a short patience, and a law: the ledger adds up at every settlement, and nothing fails unexpectedly."""
    monkeypatch.setattr(ods.store, "PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(ods.store, "LEAST_PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(ods.batcher, "BUFFERING_PACE_SECONDS", 0.005)
    store = Store(tmp_path)
    store.start()
    yield store
    failed = store.supervisor.has_failed
    store.stop()
    assert not failed, "a greenlet of the store has failed"
    assert store.wrong_sums == []
    assert all(store.settled.count(chunk) == 1 for chunk in store.settled), "a chunk was settled twice"


@pytest.fixture
def patient(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch is overdue in this test, however slow the machine is."""
    monkeypatch.setattr(ods.store, "PATIENCE_SECONDS", 60.0)


def test_the_bounds_are_those_of_the_contract() -> None:
    """250 ms; 25 ms between batches, 100 ms while buffering."""
    assert ods.store.PATIENCE_SECONDS == 0.25
    assert (ods.batcher.PACE_SECONDS, ods.batcher.BUFFERING_PACE_SECONDS) == (0.025, 0.1)


def test_the_fake_influx_has_the_interface_of_the_real_one() -> None:
    """What these tests show holds for `ods.influx.Influx`."""
    for name in ("write", "probe", "drop_idle"):
        fake, real = (inspect.signature(getattr(kind, name)) for kind in (FakeInflux, Influx))
        assert fake == real


@pytest.mark.usefixtures("patient")
class TestFates:
    """InfluxDB answers in time."""

    def test_a_confirmed_point_is_stored(self, store: Store) -> None:
        """Its lines are in InfluxDB, and nowhere else."""
        chunk = store.put(points=3)
        assert store.wait_for(chunk) == [Fate.STORED]
        assert store.influx.stored == {"ods": text_of(chunk)}
        assert (store.counts(), store.buffered()) == ({"stored": 3}, [])

    def test_a_point_is_pending_when_influx_is_away(self, store: Store) -> None:
        """It is answered once it is committed to the buffer."""
        store.influx.error = AWAY
        chunk = store.put(points=3)
        assert store.wait_for(chunk) == [Fate.PENDING]
        assert (store.buffered(), store.counts()) == (text_of(chunk), {"pending": 3})
        (row,) = store.rows()
        assert (row.database, dict(row.pods), row.first_ns) == ("ods", {"a": 3}, chunk.first_ns)
        assert not store.availability.is_available
        assert store.grown > 0

    def test_batches_go_straight_to_the_buffer_during_an_outage(self, store: Store) -> None:
        """InfluxDB is not asked: its return is the drain's to notice."""
        store.influx.error = AWAY
        store.wait_for(store.put())
        store.influx.error = None
        chunks = [store.put() for _ in range(3)]
        assert set(store.wait_for(*chunks)) == {Fate.PENDING}
        assert len(store.influx.calls) == 1

    def test_live_points_go_to_influx_when_the_outage_is_over(self, store: Store) -> None:
        """Beside the drain, and before the backlog."""
        store.influx.error = AWAY
        store.wait_for(store.put())
        store.influx.error = None
        store.availability.confirmed(time.monotonic())
        assert store.wait_for(store.put()) == [Fate.STORED]
        assert store.counts() == {"stored": 1, "pending": 1}

    def test_a_rejected_batch_waits_to_be_sifted(self, store: Store) -> None:
        """Commit the batch and answer; it is no outage, and no part of the queue."""
        store.influx.find_fault = lambda line: "HTTP 400 conflict" if "value=2.0" in line else None
        chunk = store.put(points=3)
        assert store.wait_for(chunk) == [Fate.PENDING]
        rejected = store.worker.run(store.buffer.rejected)
        assert rejected is not None
        assert (rejected.lines(), rejected.rejected) == (text_of(chunk), "HTTP 400 conflict")
        assert store.buffered() == []
        assert store.counts() == {"pending": 3}
        assert store.availability.is_available
        assert store.grown > 0

    def test_what_neither_store_takes_is_dropped(self, store: Store) -> None:
        """Counted and refused, and points are taken again when there is room."""
        store.influx.error = AWAY
        store.disk.free_bytes = -1
        lost = store.put(points=5)
        assert store.wait_for(lost) == [Fate.DROPPED]
        assert store.counts() == {"dropped": 5}
        assert store.manager.is_dropping
        store.disk.free_bytes = 2**40
        assert store.wait_for(store.put()) == [Fate.PENDING]
        assert store.counts() == {"dropped": 5, "pending": 1}
        assert not store.manager.is_dropping

    def test_a_full_buffer_does_not_stop_live_forwarding(self, store: Store) -> None:
        """Each store is enough."""
        store.disk.free_bytes = -1
        assert store.wait_for(store.put(), store.put()) == [Fate.STORED] * 2
        assert not store.manager.is_dropping

    def test_a_rejected_batch_that_the_buffer_refuses_is_dropped(self, store: Store) -> None:
        """No fate is left but this one."""
        store.influx.find_fault = lambda line: "HTTP 400"
        store.disk.free_bytes = -1
        assert store.wait_for(store.put()) == [Fate.DROPPED]

    def test_points_are_counted_by_pod(self, store: Store) -> None:
        """In one batch as in one row."""
        store.influx.error = AWAY
        chunks = [store.put("a", 2), store.put("b", 3), store.put("a", 4)]
        store.wait_for(*chunks)
        assert {name: counts.pending for name, counts in store.ledger.pods.items()} == {"a": 6, "b": 3}
        rows = store.rows()
        assert sum(row.points for row in rows) == 9

    def test_a_chunk_without_points_is_settled_in_its_order(self, store: Store) -> None:
        """Bad data alone takes no store, and is answered OK or not as it is."""
        before, empty, after = store.put(), store.put(points=0), store.put()
        assert store.wait_for(before, empty, after) == [Fate.STORED] * 3
        assert store.influx.stored["ods"] == text_of(before, after)

    def test_events_are_stored_and_not_counted(self, store: Store) -> None:
        """ODS's own events are points that no pod sent."""
        event = Chunk(
            pod="ods",
            points=0,
            lines=b'ods_event,event=x,pod=ods detail="" 1\n',
            first_ns=1,
            last_ns=1,
            received_at=time.monotonic(),
        )
        store.batcher.put(event)
        wait_in_hub(lambda: event.fate is Fate.STORED, "the event's end")
        assert store.counts() == {}
        assert store.influx.stored["ods"] == ['ods_event,event=x,pod=ods detail="" 1']


class TestSlowInflux:
    """InfluxDB answers later than a pod may wait."""

    def hold(self, store: Store, points: int = 2) -> Chunk:
        """A chunk whose request is under way, and which has been answered from the buffer."""
        store.influx.is_held = True
        chunk = store.put(points=points)
        assert store.wait_for(chunk) == [Fate.PENDING]
        return chunk

    def test_a_batch_that_was_late_already_when_it_was_sent_is_given_time(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where ODS is what is slow, commits of what InfluxDB is about to confirm would make it slower."""
        monkeypatch.setattr(ods.store, "LEAST_PATIENCE_SECONDS", 60.0)
        store.influx.is_held = True
        late = store.chunk()
        late.received_at -= 10.0
        store.batcher.put(late)
        call = store.influx.call(0)
        let_all_run()
        assert (store.rows(), late.fate) == ([], Fate.IN_FLIGHT)
        call.confirm()
        assert store.wait_for(late) == [Fate.STORED]

    def test_a_slow_write_is_no_outage(self, store: Store) -> None:
        """The batch is committed and answered; its row is claimed by its own request."""
        self.hold(store)
        assert store.counts() == {"pending": 2}
        assert store.worker.run(store.buffer.totals)["pending"] == {"a": 2}
        assert store.buffered() == []
        assert store.availability.is_available

    def test_its_confirmation_deletes_the_row(self, store: Store) -> None:
        """Stored once: the points are neither sent nor counted again."""
        chunk = self.hold(store)
        store.influx.call(0).confirm()
        wait_in_hub(lambda: store.counts() == {"stored": 2}, "the late confirmation")
        assert store.worker.run(store.buffer.totals)["pending"] == {}
        assert store.influx.stored["ods"] == text_of(chunk)
        assert len(store.influx.calls) == 1

    def test_its_failure_leaves_the_row_to_the_drain(self, store: Store) -> None:
        """And begins an outage."""
        chunk = self.hold(store)
        grown = store.grown
        store.influx.call(0).fail(Unavailable("no answer within 10 s"))
        wait_in_hub(store.buffered, "the row's release")
        assert store.buffered() == text_of(chunk)
        assert store.counts() == {"pending": 2}
        assert not store.availability.is_available
        assert store.grown > grown, "nobody told the drain"

    def test_its_rejection_leaves_the_row_to_the_sifter(self, store: Store) -> None:
        """Never to the drain: it would be refused again."""
        chunk = self.hold(store)
        store.influx.call(0).fail(Rejected("HTTP 400 conflict"))
        rejected = wait_in_hub(lambda: store.worker.run(store.buffer.rejected), "the rejected row")
        assert (rejected.lines(), rejected.rejected) == (text_of(chunk), "HTTP 400 conflict")
        let_all_run()
        assert store.buffered() == []
        assert store.counts() == {"pending": 2}

    def test_a_confirmation_of_a_row_that_is_gone_counts_nothing(self, store: Store) -> None:
        """Should the row have been drained meanwhile, its points are stored already."""
        self.hold(store)
        deleted = store.worker.run(store.buffer.delete, [1])
        store.ledger.move(deleted, Fate.PENDING, Fate.STORED)
        grown = store.grown
        store.influx.call(0).confirm()
        wait_in_hub(lambda: store.grown > grown, "the late confirmation")
        assert store.counts() == {"stored": 2}

    def test_other_batches_are_written_meanwhile(self, store: Store) -> None:
        """A request that hangs holds up nobody."""
        self.hold(store)
        store.influx.is_held = False
        for _ in range(5):
            assert store.wait_for(store.put()) == [Fate.STORED]

    def test_requests_that_hang_are_bounded(self, store: Store) -> None:
        """Where many hang, batches go to the buffer at once; InfluxDB is not loaded with ever more."""
        chunks = []
        store.influx.is_held = True
        for _ in range(ods.store.OVERDUE_WRITES + 10):
            chunks.append(store.put())
            store.wait_for(chunks[-1])
        assert {chunk.fate for chunk in chunks} == {Fate.PENDING}
        assert len(store.influx.calls) <= ods.store.OVERDUE_WRITES + 2
        for call in store.influx.calls:
            call.confirm()
        late = len(store.influx.calls)
        wait_in_hub(lambda: store.counts().get("stored") == late, "all late confirmations")
        store.influx.is_held = False
        assert store.wait_for(store.put()) == [Fate.STORED]

    def test_a_request_that_fails_unexpectedly_confirms_nothing(self, store: Store) -> None:
        """Whether InfluxDB has the points is not known: they stay in the buffer, for the next start to send."""
        chunk = self.hold(store)
        store.influx.call(0).fail(ValueError("a defect"))  # type: ignore[arg-type]
        wait_in_hub(lambda: store.supervisor.has_failed, "the failure that ends ODS")
        store.supervisor.has_failed = False
        let_all_run()
        assert store.worker.run(store.buffer.totals)["pending"] == {"a": 2}
        assert store.counts() == {"pending": 2}
        store.worker.run(store.buffer.close)
        again = Buffer(store.buffer.path, limit_bytes=2**30, disk=store.disk)  # type: ignore[arg-type]
        (row,) = store.worker.run(again.oldest, excluding=(), limit_points=10**9, limit_bytes=10**9)
        store.worker.run(again.close)
        assert row.lines() == text_of(chunk)

    def test_where_the_buffer_is_full_too_batches_wait_for_the_slow_influx(self, store: Store) -> None:
        """However many requests hang already: InfluxDB has not failed, so that nothing may be dropped."""
        for _ in range(ods.store.OVERDUE_WRITES):
            self.hold(store, points=1)
        assert store.manager._overdue == ods.store.OVERDUE_WRITES
        store.disk.free_bytes = -1
        chunks = [store.put(points=2) for _ in range(3)]
        call = store.influx.call(ods.store.OVERDUE_WRITES)
        wait_in_hub(lambda: not store.worker.waiting, "the refusal of the buffer")
        let_all_run()
        assert store.counts() == {"pending": ods.store.OVERDUE_WRITES, "in_flight": 6}
        store.influx.is_held = False
        call.confirm()
        assert store.wait_for(*chunks) == [Fate.STORED] * 3
        assert store.influx.stored["ods"] == text_of(*chunks)
        assert store.counts() == {"pending": ods.store.OVERDUE_WRITES, "stored": 6}
        assert not store.manager.is_dropping

    @pytest.mark.parametrize("is_confirmed", [True, False])
    def test_a_slow_batch_that_the_buffer_refuses_waits_for_its_answer(self, store: Store, is_confirmed: bool) -> None:
        """It is not dropped before InfluxDB has failed too."""
        store.influx.is_held = True
        store.disk.free_bytes = -1
        chunk = store.put(points=2)
        call = store.influx.call(0)
        wait_in_hub(lambda: store.manager._overdue, "the end of the patience")
        wait_in_hub(lambda: not store.worker.waiting, "the refusal of the buffer")
        let_all_run()
        assert store.counts() == {"in_flight": 2}
        if is_confirmed:
            call.confirm()
        else:
            call.fail(AWAY)
        assert store.wait_for(chunk) == [Fate.STORED if is_confirmed else Fate.DROPPED]

    def test_a_row_whose_delete_fails_is_left_to_the_drain(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sending it again is harmless."""
        monkeypatch.setattr("ods.buffer_file.REOPEN_SECONDS", 0.0)
        chunk = self.hold(store)
        store.worker.run(store.buffer.close)
        path, away = store.buffer.path, store.buffer.path.with_name("away.db")
        path.rename(away)
        path.mkdir()
        grown = store.grown
        store.influx.call(0).confirm()
        wait_in_hub(lambda: store.grown > grown, "the end of the late answer")
        path.rmdir()
        away.rename(path)
        assert store.buffered() == text_of(chunk)
        assert store.counts() == {"pending": 2}


@pytest.mark.usefixtures("patient")
class TestBatches:
    """How chunks become batches."""

    def test_a_flood_travels_in_large_batches_in_order(self, store: Store) -> None:
        """Bounded in size; every line once, in the order of arrival."""
        chunks = [store.put(points=10, size_bytes=20_000) for _ in range(200)]
        store.wait_for(*chunks)
        assert store.influx.stored["ods"] == text_of(*chunks)
        largest = ods.batcher.FULL_BYTES + 20_000
        sizes = [len("\n".join(call.lines)) for call in store.influx.calls]
        assert max(sizes) <= largest
        assert len(sizes) <= 200 * 20_000 / ods.batcher.FULL_BYTES + 3

    def test_rows_of_the_buffer_are_bounded_and_in_order(self, store: Store) -> None:
        """The order of the rows is that of arrival."""
        store.influx.error = AWAY
        chunks = [store.put(points=10, size_bytes=20_000) for _ in range(100)]
        store.wait_for(*chunks)
        assert store.buffered() == text_of(*chunks)

    def test_a_chunk_larger_than_a_batch_travels_alone(self, store: Store) -> None:
        """It is not split, and does not hold up the next."""
        chunks = [store.put(size_bytes=2 * ods.batcher.FULL_BYTES), store.put()]
        assert store.wait_for(*chunks) == [Fate.STORED] * 2
        assert len(store.influx.calls) == 2

    def test_chunks_gather_while_writes_are_under_way(self, store: Store) -> None:
        """A bounded number of batches is in hand; the rest forms the next one."""
        store.influx.is_held = True
        chunks = [store.put(size_bytes=ods.batcher.FULL_BYTES) for _ in range(6)]
        store.influx.call(ods.batcher.UNDER_WAY - 1)
        let_all_run()
        assert len(store.influx.calls) == ods.batcher.UNDER_WAY
        store.influx.is_held = False
        for call in store.influx.calls:
            call.confirm()
        assert set(store.wait_for(*chunks)) == {Fate.STORED}

    def test_an_urgent_chunk_that_finds_nothing_under_way_goes_at_once(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A pod that waits for each reply does not wait for the pace."""
        monkeypatch.setattr(ods.batcher, "PACE_SECONDS", 3600.0)
        for number in range(20):
            chunk = store.chunk()
            store.expect(lambda chunk=chunk: store.batcher.put(chunk), urgent=True)
            assert store.wait_for(chunk) == [Fate.STORED]
            assert len(store.influx.calls) == number + 1

    def test_it_is_tried_ever_more_rarely_whether_a_pod_that_waits_really_does(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After so many at once one keeps the pace, after it twice as many; what nobody waits for begins anew."""
        at_once = ods.batcher.URGENT_BATCHES
        store.wait_for(store.put())
        for allowed in (at_once, 2 * at_once):
            assert self._count_at_once(store, monkeypatch) == allowed
        store.wait_for(store.put())
        assert self._count_at_once(store, monkeypatch) == at_once

    @staticmethod
    def _count_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> int:
        """How many urgent batches go before one keeps the pace; that one goes at last."""
        monkeypatch.setattr(ods.batcher, "PACE_SECONDS", 3600.0)
        before = len(store.influx.calls)
        while True:
            chunk = store.chunk()
            store.expect(lambda chunk=chunk: store.batcher.put(chunk), urgent=True)
            let_all_run()
            if chunk.fate is Fate.IN_FLIGHT:
                break
        at_once = len(store.influx.calls) - before
        monkeypatch.setattr(ods.batcher, "PACE_SECONDS", 0.0)
        store.batcher._changed.set()  # it slept for the pace of before
        store.wait_for(chunk)
        return at_once

    def test_a_trickle_keeps_the_pace(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """What follows the first batch gathers until the next is due."""
        store.wait_for(store.put())
        monkeypatch.setattr(ods.batcher, "PACE_SECONDS", 3600.0)
        chunks = [store.put() for _ in range(10)]
        let_all_run()
        assert len(store.influx.calls) == 1
        monkeypatch.setattr(ods.batcher, "PACE_SECONDS", 0.0)
        store.batcher.stop(10.0)
        assert set(store.wait_for(*chunks)) == {Fate.STORED}
        assert len(store.influx.calls) == 2

    def test_what_is_expected_is_asked_for_when_its_batch_begins(self, store: Store) -> None:
        """Small reads are decoded together; a flush that brings nothing makes no batch."""
        chunk, asked = store.chunk(), []

        def flush() -> None:
            asked.append(chunk)
            store.batcher.put(chunk)

        store.expect(lambda: asked.append(None))
        wait_in_hub(lambda: asked == [None], "the flush that brings nothing")
        intake = store.expect(flush)
        for _ in range(2):
            store.batcher.expect(intake, 1, urgent=False)
        assert store.wait_for(chunk) == [Fate.STORED]
        assert (asked, len(store.influx.calls)) == ([None, chunk], 1)

    def test_much_that_is_expected_is_asked_for_before_a_batch_begins(self, store: Store) -> None:
        """So that no batch begins with work during which nothing else goes on."""
        store.influx.is_held = True
        chunks = [store.put(size_bytes=ods.batcher.FULL_BYTES) for _ in range(ods.batcher.UNDER_WAY)]
        store.influx.call(ods.batcher.UNDER_WAY - 1)
        asked: list[int] = []
        store.expect(lambda: asked.append(1), ods.batcher.PIECE_BYTES - 1)
        let_all_run()
        assert asked == []
        store.expect(lambda: asked.append(2), 1)
        assert asked == [1, 2]
        store.influx.is_held = False
        for call in store.influx.calls:
            call.confirm()
        store.wait_for(*chunks)

    def test_a_flush_that_fails_ends_the_service_and_not_who_happened_to_run_it(self, store: Store) -> None:
        """It may be any pod's greenlet; what that pod sends next must not depend on another pod's records."""

        def fail() -> None:
            raise OSError("broken")

        store.expect(fail, ods.batcher.PIECE_BYTES)
        assert store.supervisor.has_failed
        assert store.supervisor.ended.is_set()
        store.supervisor.has_failed = False  # as was to be shown

    def test_settled_chunks_are_told_of_once_a_batch(self) -> None:
        """A connection with many chunks in a batch sends its replies together."""
        told: list[int] = []

        def on_settled() -> None:
            told.append(1)

        chunks = [
            Chunk(pod="a", points=0, first_ns=1, last_ns=1, received_at=0.0, on_settled=on_settled) for _ in range(3)
        ]
        settle(chunks, Fate.STORED)
        assert told == [1]
        assert {chunk.fate for chunk in chunks} == {Fate.STORED}

    def test_stop_stores_what_was_taken_over(self, store: Store) -> None:
        """At once, whatever the pace."""
        chunks = [store.put() for _ in range(10)]
        store.batcher.stop(10.0)
        assert {chunk.fate for chunk in chunks} == {Fate.STORED}


def test_a_stop_with_an_influx_that_hangs_leaves_points_in_the_buffer(store: Store) -> None:
    """What is not confirmed by then is committed: ODS stops within 5 s and loses nothing."""
    store.influx.is_held = True
    chunks = [store.put(size_bytes=ods.batcher.FULL_BYTES) for _ in range(4)]
    store.batcher.stop(10.0)
    assert {chunk.fate for chunk in chunks} == {Fate.PENDING}
    assert store.counts() == {"pending": 4}


def test_a_batch_knows_what_it_holds(store: Store) -> None:
    """The oldest time of its chunks, their lines in order, their points by pod."""
    chunks = [store.chunk("b", 2), store.chunk("a", 1), store.chunk("b", 0)]
    batch = Batch(chunks)
    assert batch.lines == b"".join(chunk.lines for chunk in chunks)
    assert batch.first_ns == chunks[0].first_ns
    assert batch.read_at == chunks[0].received_at
    assert dict(batch.pods) == {"a": 1, "b": 2}


# A batch that the server fails over, and a disk that hangs


def test_a_batch_that_influx_fails_over_is_kept_and_begins_no_outage(store: Store) -> None:
    """Others pass, so they go on passing."""
    store.influx.find_poison = lambda line: "HTTP 500" if line.startswith("name,pod=poison ") else None
    chunk, other = store.put("poison"), store.put("a")
    assert store.wait_for(chunk) == [Fate.PENDING]
    store.wait_for(other)
    assert store.availability.is_available
    assert store.wait_for(store.put("a")) == [Fate.STORED]


class HangingDisk:
    """Makes the buffer's thread wait, as a disk that hangs does, until the test lets it go on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._go_on = threading.Event()

    def __enter__(self) -> "HangingDisk":
        self._store.worker.submit(self._go_on.wait, 30)
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()

    def go_on(self) -> None:
        self._go_on.set()


def test_a_late_answer_settles_a_batch_whose_commit_hangs(store: Store) -> None:
    """Either store is enough: the commit is not waited for, and not made any more."""
    store.influx.is_held = True
    with HangingDisk(store) as disk:
        chunk = store.put(points=2)
        call = store.influx.call(0)
        wait_in_hub(lambda: store.worker.waiting > 1, "the commit that waits for the disk")
        call.confirm()
        assert store.wait_for(chunk) == [Fate.STORED]
        disk.go_on()
    wait_in_hub(lambda: not store.worker.waiting, "the disk")
    assert (store.counts(), store.buffered()) == ({"stored": 2}, [])


def test_a_commit_that_began_before_the_answer_is_taken_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row is deleted, and counted nowhere."""
    began, go_on = threading.Event(), threading.Event()
    append = store.buffer.append

    def slow_append(*arguments: object, **keywords: object) -> int:
        began.set()
        go_on.wait(30)
        return append(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(store.buffer, "append", slow_append)
    store.influx.is_held = True
    chunk = store.put(points=2)
    call = store.influx.call(0)
    wait_in_hub(began.is_set, "the commit to begin")
    call.confirm()
    assert store.wait_for(chunk) == [Fate.STORED]
    go_on.set()
    wait_in_hub(lambda: not store.worker.waiting and store.counts() == {"stored": 2}, "the row to go")
    assert store.buffered() == []
    assert store.worker.run(store.buffer.totals)["pending"] == {}


def test_a_batch_that_waits_for_the_disk_is_sent_when_influx_is_back(store: Store) -> None:
    """An outage, and a disk that hangs: whichever is back first takes it."""
    store.availability.failed(time.monotonic(), AWAY)
    with HangingDisk(store):
        chunk = store.put(points=2)
        wait_in_hub(lambda: store.worker.waiting > 1, "the commit that waits for the disk")
        store.availability.confirmed(time.monotonic())
        assert store.wait_for(chunk) == [Fate.STORED]
    wait_in_hub(lambda: not store.worker.waiting, "the disk")
    assert (store.counts(), store.buffered()) == ({"stored": 2}, [])


class TestWhatCanWait:
    """`try_keep`: batches that nobody waits for."""

    def kept(self, store: Store, chunk: Chunk) -> bool:
        return store.manager.try_keep(Batch([chunk]))

    def test_what_influx_takes_is_stored(self, store: Store) -> None:
        chunk = store.chunk(points=3)
        assert self.kept(store, chunk)
        assert (chunk.fate, store.counts(), store.rows()) == (Fate.STORED, {"stored": 3}, [])

    def test_what_influx_does_not_take_is_pending(self, store: Store) -> None:
        store.influx.error = AWAY
        first, second = store.chunk(points=3), store.chunk(points=2)
        assert self.kept(store, first) and self.kept(store, second)
        assert (first.fate, second.fate, store.counts()) == (Fate.PENDING, Fate.PENDING, {"pending": 5})
        assert store.buffered() == text_of(first, second)
        assert len(store.influx.calls) == 1, "in an outage InfluxDB is not asked"

    def test_what_influx_will_never_take_is_left_to_be_sifted(self, store: Store) -> None:
        store.influx.find_fault = lambda line: "no"
        assert self.kept(store, store.chunk())
        assert store.rows() == []
        assert store.worker.run(store.buffer.rejected) is not None

    def test_what_neither_takes_stays_in_flight_until_one_does(self, store: Store) -> None:
        """Never dropped, and no reason to say that live points are."""
        store.influx.error, store.disk.free_bytes = AWAY, 0
        chunk = store.chunk(points=3)
        batch = Batch([chunk])
        assert not store.manager.try_keep(batch)
        assert (chunk.fate, store.counts(), store.manager.is_dropping) == (Fate.IN_FLIGHT, {"in_flight": 3}, False)
        store.disk.free_bytes = 2**40
        assert store.manager.try_keep(batch)
        assert (chunk.fate, store.counts()) == (Fate.PENDING, {"pending": 3})


def test_a_batch_whose_request_failed_while_the_disk_hangs_is_sent_again_when_influx_is_back(store: Store) -> None:
    store.influx.is_held = True
    with HangingDisk(store):
        chunk = store.put(points=2)
        call = store.influx.call(0)
        wait_in_hub(lambda: store.worker.waiting > 1, "the commit that waits for the disk")
        call.fail(AWAY)
        wait_in_hub(lambda: not store.availability.is_available, "the outage")
        store.influx.is_held = False
        store.availability.confirmed(time.monotonic())
        assert store.wait_for(chunk) == [Fate.STORED]
    wait_in_hub(lambda: not store.worker.waiting, "the disk")
    assert (store.counts(), store.buffered()) == ({"stored": 2}, [])
