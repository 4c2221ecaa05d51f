"""The drain and the sifter on a real buffer: the backlog arrives, oldest first, and nothing blocks it.

The InfluxDB does what the test says.
"""

import contextlib
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from components.fake_influx import FakeInflux
from components.hub import fail_when_hung, let_all_run, wait_in_hub

import ods.buffer
import ods.buffer_file
import ods.drain
import ods.other_databases
import ods.sift
from ods.availability import Availability
from ods.buffer import Buffer
from ods.drain import Drain
from ods.errors import BufferUnavailable, Suspect, Unavailable
from ods.ledger import Fate, Ledger
from ods.rows import Row
from ods.sift import Sifter
from ods.supervisor import Supervisor
from ods.worker import Worker

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)

AWAY = Unavailable("connection refused")
#: What the buffer's files together may have when nothing is in them. Bytes.
EMPTY_BYTES = 1_000_000


class FakeDisk:
    """A disk with room."""

    def free_for_buffer_bytes(self) -> int:
        return 2**40


def line(name: str, number: int, pod: str = "a") -> str:
    return f"{name},pod={pod} value={number}.0 {number}"


def lines(first: int, count: int, name: str = "x") -> list[str]:
    return [line(name, number) for number in range(first, first + count)]


class Backlog:
    """The components under test, wired as in `ods.service`."""

    def __init__(self, folder: Path) -> None:
        self.influx = FakeInflux()
        self.path = folder / "buffer.db"
        self.worker = Worker("buffer")
        self.ledger = Ledger()
        self.supervisor = Supervisor()
        #: The beginnings (False) and ends (True) of outages.
        self.changes: list[bool] = []
        self.availability = Availability(url="http://fake", on_change=self._changed)
        self.buffer = Buffer(self.path, limit_bytes=2**30, disk=FakeDisk())  # type: ignore[arg-type]
        stores = {
            "influx": self.influx,
            "buffer": self.buffer,
            "buffer_worker": self.worker,
            "availability": self.availability,
            "ledger": self.ledger,
        }
        self.sifter = Sifter(**stores, sifted=lambda: self.drain.wake())  # type: ignore[arg-type]
        self.drain = Drain(**stores, sifter=self.sifter)  # type: ignore[arg-type]
        self.worker.start()
        self.worker.run(self.buffer.open)

    def _changed(self, is_available: bool, detail: str) -> None:
        self.changes.append(is_available)
        self.drain.wake()

    def start(self) -> None:
        self.sifter.start(self.supervisor)
        self.drain.start(self.supervisor)

    def stop(self) -> None:
        self.supervisor.stop()
        self.worker.run(self.buffer.close)
        self.worker.stop()

    def append(self, content: list[str], pods: dict[str, int] | None = None, **changes: object) -> int:
        """What the store manager does with a batch that InfluxDB did not take; `grew` has to follow."""
        pods = {"a": len(content)} if pods is None else pods
        batch: dict[str, object] = {"database": "ods", "pods": pods, "first_ns": 1} | changes
        text = "".join(f"{one}\n" for one in content).encode()
        for pod, points in pods.items():
            self.ledger.receive(pod, points)
        row_id: int = self.worker.run(self.buffer.append, text, **batch)  # type: ignore[arg-type]
        self.ledger.move(pods, Fate.IN_FLIGHT, Fate.PENDING)
        return row_id

    def grew(self) -> None:
        self.sifter.wake()
        self.drain.wake()

    def go_away(self) -> None:
        """InfluxDB is away, and ODS knows it."""
        self.influx.error = AWAY
        self.availability.failed(time.monotonic(), AWAY)

    def wait_until_empty(self) -> None:
        def is_done() -> bool:
            assert not self.supervisor.has_failed
            return not self.counts().get("pending")

        wait_in_hub(is_done, "the end of the backlog")
        wait_in_hub(lambda: not self.drain.progress.is_under_way, "the end of the drain")
        assert self.totals()["pending"] == {}

    def totals(self) -> dict[str, dict[str, int]]:
        return self.worker.run(self.buffer.totals)

    def counts(self) -> dict[str, int]:
        """The totals of the ledger that are not 0; the ledger adds up whenever it is looked at."""
        totals = self.ledger.totals()
        assert all(counts.add_up() for counts in (totals, *self.ledger.pods.values()))
        named = {fate.value: getattr(totals, fate.value) for fate in Fate}
        return {name: count for name, count in named.items() if count}

    def change(self, statement: str) -> None:
        """What a failing disk does to the file."""
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            db.executescript(statement)

    def quarantine(self) -> list[tuple[str, str, str]]:
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            return db.execute("SELECT pod, line, reason FROM quarantine ORDER BY line").fetchall()

    def size_bytes(self) -> int:
        return sum(part.stat().st_size for part in self.path.parent.glob(f"{self.path.name}*"))


@pytest.fixture
def backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Backlog]:
    """With short waits, and a law: no greenlet fails, and the ledger agrees with the buffer."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(ods.drain, "PROBE_EVERY_SECONDS", 0.005)
    monkeypatch.setattr(ods.drain, "BUFFER_RETRY_SECONDS", 0.005)
    monkeypatch.setattr(ods.sift, "RETRY_SECONDS", 0.005)
    monkeypatch.setattr(ods.buffer_file, "REOPEN_SECONDS", 0.0)
    backlog = Backlog(tmp_path)
    yield backlog
    failed = backlog.supervisor.has_failed
    backlog.supervisor.stop()
    totals = backlog.totals()
    backlog.stop()
    assert not failed, "a greenlet of the drain has failed"
    for fate in ("pending", "quarantined"):
        counted = {pod: getattr(counts, fate) for pod, counts in backlog.ledger.pods.items()}
        assert totals[fate] == {pod: count for pod, count in counted.items() if count}, fate


def sent_lines(backlog: Backlog, database: str = "ods") -> list[str]:
    return backlog.influx.stored.get(database, [])


def reports(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.message.startswith("drain: done")]


# All goes well


def test_a_backlog_drains_oldest_first_and_exactly_once(backlog: Backlog) -> None:
    """Every line arrives, in the order of arrival; the ledger and the buffer say so."""
    for number in range(300):
        backlog.append(lines(number * 10, 10))
    backlog.start()
    backlog.wait_until_empty()
    assert sent_lines(backlog) == lines(0, 3000)
    assert backlog.counts() == {"stored": 3000}


def test_rows_travel_joined(backlog: Backlog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small rows in few requests, none much larger than the limit."""
    monkeypatch.setattr(ods.drain, "JOINED_POINTS", 100)
    for number in range(100):
        backlog.append(lines(number * 10, 10))
    backlog.start()
    backlog.wait_until_empty()
    sizes = [len(call.lines) for call in backlog.influx.calls]
    assert max(sizes) <= 100
    assert len(sizes) <= 12


def test_rows_that_come_in_later_are_drained(backlog: Backlog) -> None:
    """The drain starts by itself whenever something waits."""
    backlog.start()
    for number in range(3):
        backlog.append(lines(number, 1))
        backlog.grew()
        backlog.wait_until_empty()
    assert sent_lines(backlog) == lines(0, 3)


def test_claimed_rows_are_left_to_their_own_requests(backlog: Backlog) -> None:
    """They are not sent twice; when released they are drained."""
    claimed = backlog.append(lines(0, 1), is_claimed=True)
    backlog.append(lines(1, 1))
    backlog.start()
    wait_in_hub(lambda: backlog.counts() == {"stored": 1, "pending": 1}, "the row that is free")
    assert sent_lines(backlog) == lines(1, 1)
    backlog.worker.run(backlog.buffer.release, claimed)
    backlog.grew()
    backlog.wait_until_empty()
    assert sorted(sent_lines(backlog)) == lines(0, 2)


def test_rows_of_another_database_go_to_it(backlog: Backlog) -> None:
    """A row knows what it is meant for, whatever the option says today."""
    for number, database in enumerate(["ods", "other", "other", "ods"]):
        backlog.append(lines(number, 1), database=database)
    backlog.start()
    backlog.wait_until_empty()
    assert sent_lines(backlog) == [line("x", 0), line("x", 3)]
    assert sent_lines(backlog, "other") == [line("x", 1), line("x", 2)]


def refuse_the_database(backlog: Backlog, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever is written to it; other databases take everything."""
    write = backlog.influx.write

    def picky(text: bytes, *, database: str, is_gzip: bool = False) -> None:
        if database == name:
            raise Unavailable(f"HTTP 403 not authorized to write to {name}")
        write(text, database=database, is_gzip=is_gzip)

    monkeypatch.setattr(backlog.influx, "write", picky)


@pytest.mark.parametrize("rejected", [None, "HTTP 400"])
def test_rows_whose_database_is_out_of_reach_hold_up_no_others(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rejected: str | None
) -> None:
    """The name was changed, and the new user may not write to the old database: that is no outage."""
    monkeypatch.setattr(ods.drain, "BUFFER_RETRY_SECONDS", 1.0)
    with monkeypatch.context() as refused:
        refuse_the_database(backlog, refused, "old")
        backlog.append(lines(0, 3), database="old", rejected=rejected)
        backlog.append(lines(10, 3), database="ods", rejected=rejected)
        backlog.append(lines(20, 3), database="old", rejected=rejected)
        backlog.start()
        wait_in_hub(lambda: backlog.counts() == {"pending": 6, "stored": 3}, "the others")
        assert backlog.changes == [], "no outage"
        wait_in_hub(lambda: backlog.sifter.is_idle, "the end of the search")
    assert len([text for text in caplog.messages if "points wait for the database 'old'" in text]) == 1


def test_rows_that_were_put_off_are_sent_when_their_database_takes_them(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ods.other_databases, "PUT_OFF_SECONDS", 0.05)
    with monkeypatch.context() as refused:
        refuse_the_database(backlog, refused, "old")
        backlog.append(lines(0, 3), database="old")
        backlog.append(lines(3, 3), database="old", rejected="HTTP 400")
        backlog.start()
        wait_in_hub(lambda: backlog.influx.probes > 5, "some tries")
        assert backlog.counts() == {"pending": 6}
    backlog.wait_until_empty()
    assert sorted(backlog.influx.stored["old"]) == lines(0, 6)


def test_the_emptied_buffer_gives_its_space_back(backlog: Backlog) -> None:
    """Under 1 MB once the backlog is drained."""
    fill(backlog)
    backlog.start()
    backlog.wait_until_empty()
    wait_in_hub(lambda: backlog.size_bytes() < EMPTY_BYTES, "the disk space")


def fill(backlog: Backlog, **changes: object) -> None:
    """A backlog of some megabytes."""
    for number in range(10):
        backlog.append(
            [f"x,pod=a value={(k * 7919 + number) ** 3}.0 {number * 40000 + k}" for k in range(40_000)], **changes
        )
    assert backlog.size_bytes() > 3 * EMPTY_BYTES


def test_a_backlog_that_was_sifted_gives_its_space_back(backlog: Backlog) -> None:
    """By whatever way the rows left: the buffer is empty but for a bad line."""
    fill(backlog, rejected="HTTP 400")
    backlog.influx.find_fault = lambda text: "HTTP 400" if text.endswith(" 7") else None
    backlog.start()
    backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 399_999, "quarantined": 1}
    wait_in_hub(lambda: backlog.size_bytes() < EMPTY_BYTES, "the disk space")


def test_space_that_a_run_before_left_free_is_given_back(backlog: Backlog) -> None:
    """A crash between the last delete and the giving back: the next start makes good for it."""
    fill(backlog)
    ids = [
        row.id for row in backlog.worker.run(backlog.buffer.oldest, excluding=(), limit_points=10**9, limit_bytes=10**9)
    ]
    backlog.ledger.move(backlog.worker.run(backlog.buffer.delete, ids), Fate.PENDING, Fate.STORED)
    assert backlog.size_bytes() > 3 * EMPTY_BYTES
    backlog.start()
    wait_in_hub(lambda: backlog.size_bytes() < EMPTY_BYTES, "the disk space")


# Outages


def test_rows_are_kept_while_influx_is_away_and_drained_when_it_is_back(backlog: Backlog) -> None:
    """However long it was; without being told."""
    backlog.influx.error = AWAY
    backlog.append(lines(0, 10))
    backlog.start()
    wait_in_hub(lambda: backlog.influx.probes > 3, "some probes")
    assert (backlog.counts(), sent_lines(backlog)) == ({"pending": 10}, [])
    assert not backlog.availability.is_available
    backlog.influx.error = None
    backlog.wait_until_empty()
    assert sent_lines(backlog) == lines(0, 10)
    assert backlog.availability.is_available


def test_a_drain_that_is_interrupted_goes_on_where_it_was(backlog: Backlog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was confirmed before is not sent again."""
    monkeypatch.setattr(ods.drain, "JOINED_POINTS", 1)
    for number in range(20):
        backlog.append(lines(number, 1))

    def break_down(text: str) -> None:
        if text == line("x", 10) and not backlog.changes:
            backlog.influx.error = AWAY
            raise AWAY

    backlog.influx.find_fault = break_down
    backlog.start()
    wait_in_hub(lambda: backlog.changes == [False], "the outage")
    wait_in_hub(lambda: backlog.counts() == {"stored": 10, "pending": 10}, "the rows confirmed before")
    backlog.influx.error = None
    backlog.wait_until_empty()
    assert sent_lines(backlog) == lines(0, 20)
    assert backlog.changes == [False, True]


def test_an_outage_ends_by_a_write_that_is_confirmed(backlog: Backlog) -> None:
    """A probe that is answered is not enough where rows wait: what takes a comment may not take a point."""
    backlog.go_away()
    backlog.append(lines(0, 1))
    backlog.influx.error = None
    backlog.influx.is_held = True
    backlog.start()
    call = backlog.influx.call(0)
    let_all_run()
    assert backlog.changes == [False]
    call.fail(AWAY)
    backlog.influx.call(1)
    assert backlog.changes == [False]
    backlog.influx.is_held = False
    backlog.influx.calls[1].confirm()
    backlog.wait_until_empty()
    assert backlog.changes == [False, True]


def test_an_outage_with_no_row_ends_by_a_probe(backlog: Backlog) -> None:
    """Nothing else would be there to end it."""
    backlog.go_away()
    backlog.start()
    wait_in_hub(lambda: backlog.influx.probes > 2, "some probes")
    assert backlog.changes == [False]
    backlog.influx.error = None
    wait_in_hub(lambda: backlog.changes == [False, True], "the end of the outage")


def test_a_row_that_cannot_be_read_does_not_end_an_outage(backlog: Backlog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it was written: only a write that is confirmed says that InfluxDB is back."""
    monkeypatch.setattr(ods.drain, "JOINED_POINTS", 1)
    backlog.append(lines(0, 1))
    backlog.append(lines(1, 1))
    backlog.change("UPDATE batches SET checksum = checksum + 1 WHERE id = 1")
    backlog.go_away()
    backlog.influx.error = None
    backlog.influx.is_held = True
    backlog.start()
    backlog.influx.call(0)
    assert backlog.changes == [False]
    backlog.influx.is_held = False
    backlog.influx.calls[0].confirm()
    backlog.wait_until_empty()
    assert backlog.changes == [False, True]


def test_a_refused_password_keeps_everything_until_it_is_right(
    backlog: Backlog, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is quarantined, nothing is lost, one clear line."""
    backlog.influx.error = Unavailable("HTTP 401", advice="check --influx-pass")
    backlog.append(lines(0, 5))
    backlog.append(lines(5, 5), rejected="HTTP 400")
    backlog.start()
    wait_in_hub(lambda: backlog.influx.probes > 10, "some probes")
    assert backlog.counts() == {"pending": 10}
    assert len([record for record in caplog.records if "check --influx-pass" in record.message]) == 1
    backlog.influx.error = None
    backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 10}
    assert backlog.quarantine() == []


def test_influx_is_not_asked_before_the_time_it_named(backlog: Backlog, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Retry-After`: the first probe is answered so, the second waits for that time."""
    backlog.influx.error = Unavailable("HTTP 503", retry_after_seconds=30.0)
    backlog.append(lines(0, 1))
    backlog.start()
    wait_in_hub(lambda: backlog.influx.probes == 1, "the first probe")
    before = backlog.influx.probes
    ended = time.monotonic() + 0.1
    wait_in_hub(lambda: time.monotonic() > ended, "twenty times the usual wait")
    assert backlog.influx.probes == before


@pytest.mark.parametrize("rows", [0, 3], ids=["no row waits", "rows wait"])
def test_a_probe_that_is_answered_late_ends_the_wait(backlog: Backlog, rows: int) -> None:
    """However many were asked meanwhile: a server that answers slowly is one that answers."""
    backlog.go_away()
    for number in range(rows):
        backlog.append(lines(number, 1))
    backlog.influx.error = None
    backlog.influx.is_probe_held = True
    backlog.start()
    wait_in_hub(lambda: len(backlog.influx.held_probes) > 3, "some probes, none of which is answered")
    assert backlog.changes == [False]
    backlog.influx.held_probes[0].confirm()
    wait_in_hub(lambda: backlog.changes == [False, True], "the end of the outage")
    backlog.wait_until_empty()
    assert sent_lines(backlog) == lines(0, rows)


def test_a_probe_that_is_never_answered_does_not_hide_that_influx_is_back(backlog: Backlog) -> None:
    """Its connection may be dead: later ones are asked beside it."""
    backlog.append(lines(0, 3))
    backlog.influx.is_probe_held = True
    backlog.start()
    wait_in_hub(lambda: backlog.influx.held_probes, "a probe")
    backlog.influx.is_probe_held = False
    backlog.wait_until_empty()
    assert sent_lines(backlog) == lines(0, 3)


def test_probes_that_fail_late_are_followed_by_others(backlog: Backlog) -> None:
    """Each failure makes room for another question; none of them ends the wait."""
    backlog.append(lines(0, 3))
    backlog.influx.is_probe_held = True
    backlog.start()
    for number in range(ods.drain.PROBES * 2):
        wait_in_hub(lambda number=number: len(backlog.influx.held_probes) > number, "another probe")
        backlog.influx.held_probes[number].fail(AWAY)
    assert backlog.counts() == {"pending": 3}
    assert backlog.changes == [False]
    backlog.influx.is_probe_held = False
    backlog.wait_until_empty()


def test_probes_that_are_not_answered_are_bounded(backlog: Backlog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is silent for hours is not sent ever more of them."""
    monkeypatch.setattr(ods.drain, "PROBES", 3)
    backlog.influx.is_probe_held = True
    backlog.start()
    wait_in_hub(lambda: len(backlog.influx.held_probes) == 3, "as many probes as may run")
    ended = time.monotonic() + 0.1
    wait_in_hub(lambda: time.monotonic() > ended, "twenty times the usual wait")
    assert len(backlog.influx.held_probes) == 3
    backlog.influx.held_probes[1].fail(AWAY)
    wait_in_hub(lambda: len(backlog.influx.held_probes) == 4, "one more in the place of the one that ended")


def test_what_takes_probes_and_no_writes_is_asked_at_the_usual_pace(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk of InfluxDB, say: a probe that is answered at once must not make the drain spin."""
    monkeypatch.setattr(ods.drain, "PROBE_EVERY_SECONDS", 3600.0)
    backlog.append(lines(0, 3))

    def break_down(text: str) -> None:
        raise AWAY

    backlog.influx.find_fault = break_down
    backlog.start()
    backlog.influx.call(0)
    for _ in range(20):
        backlog.totals()  # after what the drain has asked of the buffer
        let_all_run()
    assert (backlog.influx.probes, len(backlog.influx.calls)) == (1, 1)
    assert backlog.changes == [False]
    assert backlog.counts() == {"pending": 3}


def test_a_buffer_that_fails_for_a_while_is_drained_afterwards(backlog: Backlog) -> None:
    """The drain survives it, and sends again what it could not delete."""
    backlog.append(lines(0, 3))
    backlog.append(lines(3, 3))
    backlog.influx.is_held = True
    backlog.start()
    call = backlog.influx.call(0)
    backlog.change("ALTER TABLE totals RENAME TO gone")
    backlog.influx.is_held = False
    call.confirm()
    wait_in_hub(lambda: sent_lines(backlog), "the confirmation")
    let_all_run()
    assert backlog.counts() == {"pending": 6}
    backlog.change("ALTER TABLE gone RENAME TO totals")
    backlog.wait_until_empty()
    assert set(sent_lines(backlog)) == set(lines(0, 6))
    assert backlog.counts() == {"stored": 6}


# Bad lines


def test_bad_lines_are_quarantined_and_their_neighbours_stored(backlog: Backlog) -> None:
    """Just those, with the reason; the queue behind them goes on."""
    backlog.append([line("x", 1), line("bad", 2), line("bad", 3, "b")], {"a": 2, "b": 1})
    backlog.append([line("bad", 4), line("x", 5)])
    backlog.append(lines(6, 2))
    backlog.influx.find_fault = lambda text: "HTTP 400 conflict" if text.startswith("bad") else None
    backlog.start()
    backlog.wait_until_empty()
    assert set(sent_lines(backlog)) == {line("x", 1), line("x", 5), *lines(6, 2)}
    assert sorted(backlog.quarantine()) == [
        ("a", line("bad", 2), "HTTP 400 conflict"),
        ("a", line("bad", 4), "HTTP 400 conflict"),
        ("b", line("bad", 3, "b"), "HTTP 400 conflict"),
    ]
    assert backlog.counts() == {"stored": 4, "quarantined": 3}
    assert backlog.ledger.of("b").quarantined == 1


def test_a_batch_that_was_rejected_live_is_sifted(backlog: Backlog, caplog: pytest.LogCaptureFixture) -> None:
    """The operator hears of each series once."""
    backlog.influx.find_fault = lambda text: "HTTP 400 conflict" if text.startswith("bad") else None
    backlog.start()
    for number in range(3):
        backlog.append([line("bad", number), line("x", number)], rejected="HTTP 400 conflict")
        backlog.grew()
        backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 3, "quarantined": 3}
    said = [record for record in caplog.records if record.message.startswith("quarantined")]
    assert [record.levelname for record in said] == ["ERROR"]
    assert "bad,pod=a" in said[0].message


def test_bad_lines_are_counted_by_pod_and_events_not_at_all(backlog: Backlog) -> None:
    """An event of ODS that InfluxDB refuses is kept, and is no point of a pod."""
    event = 'ods_event,event=connected,pod=a detail="" 9'
    backlog.append([line("x", 1), event], {"a": 1}, rejected="HTTP 400")
    backlog.influx.find_fault = lambda text: "HTTP 400" if text == event else None
    backlog.start()
    backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 1}
    assert backlog.quarantine() == [("a", event, "HTTP 400")]


def test_names_with_every_allowed_character_are_sifted(backlog: Backlog) -> None:
    """Pods whose names need escaping, messages with anything in them."""
    pod = "pod\\ a\\,b\\=c"
    content = [
        f"x,pod={pod} value=1.0 1",
        f'pod_log,level=info,pod={pod} message="a \\"b\\" = c, d\\\\" 2',
        f"bad:x/y-z.,pod={pod} value=1.0 3",
    ]
    backlog.append(content, {"pod a,b=c": 3}, rejected="HTTP 400")
    backlog.influx.find_fault = lambda text: "HTTP 400" if text.startswith("bad") else None
    backlog.start()
    backlog.wait_until_empty()
    assert backlog.quarantine() == [("pod a,b=c", content[2], "HTTP 400")]
    assert backlog.counts() == {"stored": 2, "quarantined": 1}


def test_a_server_that_refuses_everything_gets_nothing_quarantined(backlog: Backlog) -> None:
    """Where not even the probe is taken it is not the lines that are bad: they wait until the server is mended."""
    row_id = backlog.append(lines(0, 3), rejected="HTTP 400")
    backlog.influx.find_fault = lambda text: "HTTP 400"
    backlog.influx.probe_error = Unavailable("HTTP 400")
    backlog.start()
    wait_in_hub(lambda: not backlog.availability.is_available, "the outage")
    let_all_run()
    rejected = backlog.worker.run(backlog.buffer.rejected)
    assert rejected is not None
    assert (rejected.id, rejected.lines()) == (row_id, lines(0, 3))
    assert (backlog.counts(), backlog.quarantine()) == ({"pending": 3}, [])
    backlog.influx.find_fault = lambda text: "HTTP 400" if text == line("x", 1) else None
    backlog.influx.probe_error = None
    backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 2, "quarantined": 1}


def test_a_row_of_bad_lines_alone_is_quarantined_by_a_server_that_takes_the_probe(backlog: Backlog) -> None:
    """It is the lines that are bad then, all of them."""
    backlog.append(lines(0, 3), rejected="HTTP 400")
    backlog.influx.find_fault = lambda text: "HTTP 400"
    backlog.start()
    backlog.wait_until_empty()
    assert backlog.counts() == {"quarantined": 3}


def test_an_outage_while_sifting_loses_nothing(backlog: Backlog) -> None:
    """It is begun anew when InfluxDB is back."""
    backlog.append([line("bad", 1), line("x", 2)], rejected="HTTP 400")
    backlog.influx.find_fault = lambda text: "HTTP 400" if text.startswith("bad") else None
    backlog.go_away()
    backlog.start()
    wait_in_hub(lambda: not backlog.availability.is_available, "the outage")
    assert backlog.counts() == {"pending": 2}
    backlog.influx.error = None
    backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 1, "quarantined": 1}


# Rows that the server fails over, while it takes others


def test_a_poisonous_line_is_found_though_the_server_only_fails(backlog: Backlog) -> None:
    """The same 5xx again and again for one batch while others pass is a bad line; its neighbours are stored."""
    backlog.append([*lines(0, 40), line("poison", 1)])
    backlog.append(lines(40, 40))
    backlog.influx.find_poison = lambda text: "HTTP 500" if text.startswith("poison") else None
    backlog.start()
    backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 80, "quarantined": 1}
    assert backlog.quarantine() == [("a", line("poison", 1), "HTTP 500")]
    assert backlog.changes == [], "no outage"


def test_poison_in_several_requests_worth_of_rows_does_not_block_the_queue(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that the server fails over in turns must not keep each other from the search."""
    monkeypatch.setattr(ods.drain, "JOINED_POINTS", 5)
    backlog.influx.find_poison = lambda text: "HTTP 500" if text.startswith("x") else None
    for number in range(6):
        backlog.append([line("x", number), *lines(10 * number, 4, name="good")])
    backlog.start()
    backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 24, "quarantined": 6}


@pytest.mark.parametrize("every", [2, 3, 5])
def test_a_line_that_failed_by_chance_is_no_bad_line(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """On a bad link requests are reset while bad lines are searched for: none but these is quarantined."""
    monkeypatch.setattr(ods.sift, "SUSPECT_SECONDS", 0.001)
    write = backlog.influx.write

    def shaky(text: bytes, *, database: str, is_gzip: bool = False) -> None:
        write(text, database=database, is_gzip=is_gzip)
        if len(backlog.influx.calls) % every == 0:
            raise Suspect("connection reset")

    monkeypatch.setattr(backlog.influx, "write", shaky)
    backlog.influx.find_fault = lambda text: "HTTP 400" if text.startswith("bad") else None
    backlog.append([line(f"bad{number}" if number % 20 == 7 else f"x{number}", number) for number in range(60)])
    backlog.start()
    backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 57, "quarantined": 3}


def test_a_server_that_failed_by_chance_gets_the_rows_once_more(backlog: Backlog) -> None:
    backlog.append(lines(0, 10))
    failures = iter(["connection reset"])
    backlog.influx.find_poison = lambda text: next(failures, None)
    backlog.start()
    backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 10}
    assert len(backlog.influx.calls) == 2


# Connections that are dead without a sign


def test_rows_are_sent_again_where_influx_answers_and_the_request_does_not(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that was cut leaves a connection that says nothing for as long as a request may take."""
    monkeypatch.setattr(ods.drain, "PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(ods.drain, "GRACE_SECONDS", 0.02)
    backlog.drain._patience_seconds = 0.02
    backlog.append(lines(0, 10))
    backlog.influx.is_held = True
    backlog.start()
    backlog.influx.call(0)
    backlog.influx.is_held = False
    backlog.wait_until_empty()
    assert len(backlog.influx.calls) == 2


def test_a_request_that_takes_its_time_is_repeated_once_and_then_waited_for(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow server is not made slower."""
    monkeypatch.setattr(ods.drain, "PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(ods.drain, "GRACE_SECONDS", 0.02)
    backlog.append(lines(0, 10))
    backlog.influx.is_held = True
    backlog.start()
    second = backlog.influx.call(1)
    gevent.sleep(0.2)
    assert len(backlog.influx.calls) == 2
    backlog.influx.is_held = False
    second.confirm()
    backlog.wait_until_empty()


def test_a_backlog_drains_though_something_swallows_what_is_compressed(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """InfluxDB answers, and the backlog must move."""
    for name in ("PATIENCE_SECONDS", "GRACE_SECONDS"):
        monkeypatch.setattr(ods.drain, name, 0.02)
    monkeypatch.setattr(ods.drain, "JOINED_POINTS", 1)
    backlog.drain._patience_seconds = 0.02
    for number in range(20):
        backlog.append(lines(number, 1))
    backlog.influx.is_gzip_swallowed = True
    backlog.start()
    backlog.wait_until_empty()
    assert sent_lines(backlog) == lines(0, 20)
    assert len(backlog.influx.calls) == 20 + ods.drain.PLAIN_IN_A_ROW
    assert "sent uncompressed" in caplog.text


# A buffer that cannot be read


def test_an_outage_ends_though_the_buffer_hangs(backlog: Backlog) -> None:
    """Live points need no buffer."""
    backlog.go_away()
    go_on = threading.Event()
    backlog.worker.submit(go_on.wait, 30)
    backlog.start()
    backlog.influx.error = None
    wait_in_hub(lambda: backlog.availability.is_available, "the end of the outage")
    go_on.set()


def test_an_outage_ends_though_the_buffer_cannot_be_read(backlog: Backlog, monkeypatch: pytest.MonkeyPatch) -> None:
    backlog.go_away()

    def broken(**_: object) -> list[Row]:
        raise BufferUnavailable("EIO")

    with monkeypatch.context() as patched:
        patched.setattr(backlog.buffer, "oldest", broken)
        backlog.start()
        backlog.influx.error = None
        wait_in_hub(lambda: backlog.availability.is_available, "the end of the outage")


# A drain that stands still


def test_a_drain_that_is_healed_goes_on(backlog: Backlog) -> None:
    """Begun anew on new connections, with smaller requests; what was in hand is sent again."""
    backlog.append(lines(0, 10))
    backlog.influx.is_held = True
    backlog.start()
    backlog.influx.call(0)
    backlog.influx.is_held = False
    backlog.drain.heal()
    backlog.wait_until_empty()
    assert backlog.influx.dropped_idle == 1
    assert backlog.counts() == {"stored": 10}


def test_a_drain_that_is_healed_while_the_disk_deletes_counts_what_was_deleted(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_held, is_in_hand = threading.Event(), threading.Event()
    delete = backlog.buffer.delete

    def slow(ids: object) -> object:
        is_in_hand.set()
        is_held.wait(10)
        return delete(ids)  # type: ignore[arg-type]

    monkeypatch.setattr(backlog.buffer, "delete", slow)
    backlog.append(lines(0, 3))
    backlog.start()
    wait_in_hub(is_in_hand.is_set, "the delete")
    backlog.drain.heal()
    let_all_run()
    is_held.set()
    backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 3}


def test_a_sifter_that_is_healed_while_the_disk_works_counts_what_was_done(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_held, is_in_hand = threading.Event(), threading.Event()
    quarantine = backlog.buffer.quarantine

    def slow(row: object, bad: object) -> object:
        is_in_hand.set()
        is_held.wait(10)
        return quarantine(row, bad)  # type: ignore[arg-type]

    monkeypatch.setattr(backlog.buffer, "quarantine", slow)
    backlog.influx.find_fault = lambda text: "bad" if text.startswith("x") else None
    backlog.append([line("x", 0), *lines(1, 3, name="good")])
    backlog.start()
    wait_in_hub(is_in_hand.is_set, "the quarantine")
    backlog.sifter.heal()
    let_all_run()
    is_held.set()
    backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 3, "quarantined": 1}


def test_a_row_that_was_moved_aside_while_it_was_sifted_is_not_counted(backlog: Backlog) -> None:
    """Its file was damaged, say: it is brought back by the rescue, and has its fate then."""
    backlog.influx.find_fault = lambda text: "bad" if text.startswith("x") else None
    backlog.append([line("x", 0), *lines(1, 3, name="good")], rejected="bad")
    write = backlog.influx.write

    def write_and_lose(text: bytes, *, database: str, is_gzip: bool = False) -> None:
        backlog.change("DELETE FROM batches")
        write(text, database=database, is_gzip=is_gzip)

    backlog.influx.write = write_and_lose  # type: ignore[method-assign]
    backlog.sifter.start(backlog.supervisor)
    wait_in_hub(lambda: backlog.sifter.answered and backlog.sifter.is_idle, "the end of the search")
    assert backlog.counts() == {"pending": 4}


# Rows that cannot be read

HARMS: dict[str, str] = {
    "a payload cut": "UPDATE batches SET payload = substr(payload, 1, 20) WHERE id = 2",
    "no gzip at all": "UPDATE batches SET payload = CAST('nonsense' AS BLOB) WHERE id = 2",
    "no payload": "UPDATE batches SET payload = x'' WHERE id = 2",
}


@pytest.mark.parametrize(
    "harm",
    ["UPDATE batches SET checksum = checksum + 1 WHERE id = 2", "UPDATE batches SET database = 'odt' WHERE id = 2"],
)
def test_a_row_whose_lines_are_sound_is_stored_whatever_else_is_wrong_with_it(backlog: Backlog, harm: str) -> None:
    """In the database that is written to now: its own may be what is damaged."""
    for number in range(3):
        backlog.append(lines(number, 1))
    backlog.change(harm)
    backlog.start()
    backlog.wait_until_empty()
    assert sorted(sent_lines(backlog)) == lines(0, 3)
    assert backlog.counts() == {"stored": 3}


def test_a_line_that_ods_never_wrote_is_quarantined_and_its_neighbours_are_stored(backlog: Backlog) -> None:
    """Salvage may bring such a one; it must not end ODS."""
    backlog.append([*lines(0, 2), "nonsense"], rejected="HTTP 400 unable to parse")
    backlog.start()
    backlog.wait_until_empty()
    assert backlog.counts() == {"stored": 2, "quarantined": 1}
    assert backlog.quarantine() == [("a", "nonsense", "no line of ODS")]


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_row_that_cannot_be_read_is_set_aside(backlog: Backlog, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    """It does not block those behind it, is counted as quarantined, and told loudly."""
    for number in range(3):
        backlog.append(lines(number, 1))
    backlog.change(harm)
    backlog.start()
    backlog.wait_until_empty()
    assert sent_lines(backlog) == [line("x", 0), line("x", 2)]
    assert backlog.counts() == {"stored": 2, "quarantined": 1}
    assert len(backlog.quarantine()) == 1
    assert [record.levelname for record in caplog.records if "cannot be read" in record.message] == ["ERROR"]


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_rejected_row_that_cannot_be_read_is_set_aside(backlog: Backlog, harm: str) -> None:
    """In the sifter as in the drain: it must not end ODS, nor block the rows to be sifted behind it."""
    for number in range(3):
        backlog.append([line("bad", number), line("x", number)], rejected="HTTP 400")
    backlog.influx.find_fault = lambda text: "HTTP 400" if text.startswith("bad") else None
    backlog.change(harm)
    backlog.start()
    backlog.wait_until_empty()
    assert set(sent_lines(backlog)) == {line("x", 0), line("x", 2)}
    assert backlog.counts() == {"stored": 2, "quarantined": 4}


# What is said


def test_the_report_tells_what_was_backfilled(backlog: Backlog, caplog: pytest.LogCaptureFixture) -> None:
    """How many points, how many confirmed and quarantined, and how long the outage was."""
    backlog.go_away()
    backlog.append([*lines(0, 7), line("bad", 8)])
    backlog.append(lines(10, 5))
    backlog.influx.find_fault = lambda text: "HTTP 400" if text.startswith("bad") else None
    backlog.start()
    backlog.influx.error = None
    backlog.wait_until_empty()
    wait_in_hub(lambda: reports(caplog), "the report")
    (report,) = reports(caplog)
    found = re.search(
        r"done, (\d+) points backfilled .*: (\d+) confirmed, (\d+) quarantined; .*outage.* [\d.]+ s", report
    )
    assert found is not None, report
    assert found.groups() == ("13", "12", "1")


def test_each_outage_has_its_report(backlog: Backlog, caplog: pytest.LogCaptureFixture) -> None:
    """With its own figures."""
    backlog.start()
    for number in (1, 2):
        backlog.go_away()
        backlog.append(lines(number * 10, number))
        backlog.influx.error = None
        backlog.wait_until_empty()
        wait_in_hub(lambda number=number: len(reports(caplog)) == number, "the report")
        assert f"{number} confirmed, 0 quarantined" in reports(caplog)[-1]


def test_the_beginning_is_told(backlog: Backlog, caplog: pytest.LogCaptureFixture) -> None:
    """With what waits."""
    backlog.go_away()
    backlog.append(lines(0, 9))
    backlog.start()
    backlog.influx.error = None
    backlog.wait_until_empty()
    assert "drain: begun, 9 points wait" in [record.message for record in caplog.records]


def test_progress_is_told(backlog: Backlog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points left, rate, time left."""
    monkeypatch.setattr("ods.drain_progress.PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(ods.drain, "JOINED_POINTS", 1)
    for number in range(5):
        backlog.append(lines(number, 1))
    backlog.go_away()
    backlog.start()
    backlog.influx.error = None
    backlog.wait_until_empty()
    assert re.search(r"drain: \d+ points left, \d+ a second, about \d+ s to go", caplog.text)


def test_a_backlog_without_an_outage_is_not_news(backlog: Backlog, caplog: pytest.LogCaptureFixture) -> None:
    """A slow InfluxDB leaves a row now and then: no line for each."""
    backlog.start()
    for number in range(3):
        backlog.append(lines(number, 1))
        backlog.grew()
        backlog.wait_until_empty()
    assert "drain:" not in caplog.text
