"""What a damaged buffer held is brought into the new one, in the background, and counted once."""

import logging
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from components.hub import fail_when_hung, wait_in_hub

import ods.buffer_file
import ods.rescue
from ods.buffer import Buffer
from ods.buffer_file import ASIDE
from ods.errors import BufferUnavailable
from ods.ledger import Fate, Ledger
from ods.rescue import Rescue
from ods.rows import BadLine, Row
from ods.supervisor import Supervisor
from ods.worker import Worker

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)

ROWS = 300
POINTS = 50


class FakeDisk:
    """A disk with as much room as a test says."""

    def __init__(self) -> None:
        self.free_bytes = 2**40

    def free_for_buffer_bytes(self) -> int:
        return self.free_bytes


def row(number: int) -> bytes:
    """Incompressible enough to fill a page or two."""
    numbers = random.Random(number)
    values = [numbers.randrange(10**9) for _ in range(POINTS)]
    return b"".join(b"m%d,pod=a value=%d.5 %d\n" % (at, value, number * 1000 + at) for at, value in enumerate(values))


class Run:
    """A run of ODS, as far as the buffer is concerned."""

    def __init__(self, path: Path) -> None:
        self.disk = FakeDisk()
        self.buffer = Buffer(path, limit_bytes=2**40, disk=self.disk, database="now")  # type: ignore[arg-type]
        self.worker = Worker("buffer")
        self.worker.start()
        self.ledger = Ledger()
        self.supervisor = Supervisor()
        self.pods: set[str] = set()
        self.rescue = Rescue(
            buffer=self.buffer,
            buffer_worker=self.worker,
            ledger=self.ledger,
            name_pod=self.pods.add,
            backlog_grew=lambda: None,
        )
        self.worker.run(self.buffer.open)
        for fate, points in (self.buffer.file.take_found() or {}).items():
            self.ledger.begin_with(Fate(fate), points)

    def append(self, number: int) -> None:
        self.ledger.receive("a", POINTS)
        self.worker.run(self.buffer.append, row(number), database="then", pods={"a": POINTS}, first_ns=number)
        self.ledger.move({"a": POINTS}, Fate.IN_FLIGHT, Fate.PENDING)

    def start(self) -> None:
        self.rescue.start(self.supervisor)

    def wait(self) -> None:
        wait_in_hub(lambda: self.rescue._moved_aside == self.buffer.file.moved_aside, "the end of the rescue")
        assert not self.supervisor.has_failed

    def lines(self) -> list[bytes]:
        rows: list[Row] = []
        while more := self.oldest([one.id for one in rows]):
            rows += more
        return [line.encode() for one in rows for line in one.lines()]

    def oldest(self, excluding: list[int]) -> list[Row]:
        return self.worker.run(self.buffer.oldest, excluding=excluding, limit_points=10**9, limit_bytes=10**9)

    def counts(self) -> dict[str, int]:
        totals = self.ledger.totals()
        assert totals.add_up()
        return {fate.value: getattr(totals, fate.value) for fate in Fate if getattr(totals, fate.value)}

    def stop(self) -> None:
        self.supervisor.stop()
        self.rescue.stop()
        self.worker.run(self.buffer.close)
        self.worker.stop()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ods.buffer_file, "REOPEN_SECONDS", 0.0)
    monkeypatch.setattr(ods.rescue, "LOOK_SECONDS", 0.01)
    return tmp_path / "buffer.db"


@pytest.fixture
def run(path: Path) -> Iterator[Run]:
    run = Run(path)
    yield run
    run.stop()


def fill(path: Path, rows: int = ROWS, bad: int = 0) -> None:
    """A run before, which ended in good order."""
    run = Run(path)
    for number in range(rows):
        run.append(number)
    if bad:
        (first, *_) = run.worker.run(run.buffer.oldest, excluding=(), limit_points=1, limit_bytes=1)
        run.worker.run(
            run.buffer.quarantine, first, [BadLine("a", n, f"x,pod=a value=1 {n}", "no", 1) for n in range(bad)]
        )
    run.stop()


def destroy_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(100))


def test_all_rows_of_a_buffer_whose_header_is_destroyed_are_brought_over(path: Path) -> None:
    """Its quarantine too; and each point is counted once."""
    fill(path, bad=7)
    destroy_header(path)
    run = Run(path)
    try:
        assert run.counts() == {}
        run.start()
        run.wait()
        assert sorted(run.lines()) == sorted(line for n in range(1, ROWS) for line in row(n).splitlines())
        assert run.counts() == {"pending": (ROWS - 1) * POINTS, "quarantined": 7}
        assert run.worker.run(run.buffer.totals) == {"pending": {"a": (ROWS - 1) * POINTS}, "quarantined": {"a": 7}}
        assert run.pods == {"a"}
    finally:
        run.stop()


def test_what_was_brought_over_is_not_brought_over_again(path: Path) -> None:
    """Neither by the next start, nor after a crash half-way."""
    fill(path)
    destroy_header(path)
    run = Run(path)
    run.start()
    run.wait()
    run.stop()
    run = Run(path)
    try:
        run.start()
        run.wait()
        assert run.counts() == {"pending": ROWS * POINTS}
    finally:
        run.stop()


def test_what_was_brought_over_is_not_brought_over_again_from_a_buffer_that_is_damaged_in_turn(path: Path) -> None:
    """The note of it is lost with that buffer; the name of the file is not."""
    fill(path)
    destroy_header(path)
    run = Run(path)
    run.start()
    run.wait()
    rows = run.oldest([])[:100]
    run.worker.run(run.buffer.delete, [one.id for one in rows])
    run.worker.run(run.buffer.close)
    left = ROWS * POINTS - sum(one.points for one in rows)
    run.stop()
    destroy_header(path)
    run = Run(path)
    try:
        run.start()
        run.wait()
        assert run.counts() == {"pending": left}
    finally:
        run.stop()


def test_a_rescue_that_was_interrupted_goes_on_where_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    destroy_header(path)
    restore = Buffer.restore
    pieces = iter(range(2))

    def restore_twice(self: Buffer, *arguments: object) -> object:
        if next(pieces, None) is None:
            raise BufferUnavailable("no more for now")
        return restore(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ods.rescue, "PIECE_ROWS", 10)
    with monkeypatch.context() as patched:
        patched.setattr(Buffer, "restore", restore_twice)
        run = Run(path)
        run.start()
        wait_in_hub(lambda: run.counts() == {"pending": 20 * POINTS}, "two pieces")
        run.stop()
    run = Run(path)
    try:
        assert run.counts() == {"pending": 20 * POINTS}
        run.start()
        run.wait()
        assert run.counts() == {"pending": ROWS * POINTS}
        assert len(set(run.lines())) == len(run.lines()) == ROWS * POINTS
    finally:
        run.stop()


def test_points_of_a_file_that_is_damaged_while_it_is_used_are_counted_once(run: Run) -> None:
    """They are pending all the time; what is lost with the file is dropped in the end."""
    for number in range(ROWS):
        run.append(number)
    run.start()
    run.wait()
    run.worker.run(run.buffer.file.move_aside, sqlite3.DatabaseError("database disk image is malformed"))
    assert run.counts() == {"pending": ROWS * POINTS}
    run.append(ROWS)
    run.wait()
    assert run.counts() == {"pending": (ROWS + 1) * POINTS}
    assert len(run.lines()) == (ROWS + 1) * POINTS


def test_points_that_are_lost_with_a_file_are_counted_as_dropped(
    run: Run, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(ROWS):
        run.append(number)
    run.worker.run(run.buffer.file.move_aside, sqlite3.DatabaseError("database disk image is malformed"))
    for aside in path.parent.glob(f"*{ASIDE}*"):
        aside.write_bytes(b"\0" * aside.stat().st_size)
    run.start()
    run.wait()
    assert run.counts() == {"dropped": ROWS * POINTS}
    assert [record for record in caplog.records if record.levelno == logging.ERROR and "are lost" in record.message]


def test_a_buffer_that_is_full_is_waited_for(path: Path) -> None:
    """What was said OK to is not given up for want of room."""
    fill(path)
    destroy_header(path)
    run = Run(path)
    try:
        run.disk.free_bytes = 0
        run.start()
        deadline = time.monotonic() + 0.2
        wait_in_hub(lambda: time.monotonic() > deadline, "a while")
        assert run.counts() == {}
        run.disk.free_bytes = 2**40
        run.wait()
        assert run.counts() == {"pending": ROWS * POINTS}
    finally:
        run.stop()


def test_rows_that_should_wait_and_are_not_there_make_the_file_count_as_damaged(run: Run) -> None:
    run.append(1)
    run.worker.run(lambda: run.buffer.file.if_open.execute("DELETE FROM batches"))  # type: ignore[union-attr]
    with pytest.raises(BufferUnavailable, match="50 points should wait"):
        run.worker.run(run.buffer.check_empty)
    assert run.buffer.file.moved_aside == 1
