"""The buffer, with real files: what it has taken is safe, in order, counted, and leaves only by being told to."""

import contextlib
import errno
import gzip
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ods.buffer
import ods.buffer_file
from ods.buffer import Buffer
from ods.errors import BufferFull, BufferUnavailable
from ods.rows import BadLine, NewRow, QuarantinedLine, Row

#: What the buffer's files together may have when nothing is in them. Bytes.
EMPTY_BYTES = 1_000_000
GIGABYTE = 2**30
EVERYTHING = {"limit_points": 10**9, "limit_bytes": 10**9}

_generator = random.Random(1)


class FakeDisk:
    """A disk with as much room as a test says; the interface is that of `ods.disk.Disk`."""

    def __init__(self) -> None:
        self.free_bytes = 2**40
        self.error: OSError | None = None

    def free_for_buffer_bytes(self) -> int:
        if self.error is not None:
            raise self.error
        return self.free_bytes


def made(path: Path, disk: FakeDisk | None = None, *, limit_bytes: int = GIGABYTE) -> Buffer:
    """A buffer that is not opened yet."""
    return Buffer(path, limit_bytes=limit_bytes, disk=disk or FakeDisk())  # type: ignore[arg-type]


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "buffer.db"


@pytest.fixture
def buffer(path: Path, disk: FakeDisk) -> Iterator[Buffer]:
    buffer = made(path, disk)
    buffer.open()
    yield buffer
    buffer.close()


def reopened(buffer: Buffer) -> Buffer:
    """The same file, as the next run of ODS finds it."""
    buffer.close()
    again = made(buffer.path)
    again.open()
    return again


def append(buffer: Buffer, text: str = "accel_x,pod=a value=1.0 1\n", **changes: object) -> int:
    """Commit a small batch of the pod `a`."""
    batch: dict[str, object] = {"database": "ods", "pods": {"a": 1}, "first_ns": 1} | changes
    return buffer.append(text.encode(), **batch)  # type: ignore[arg-type]


def noise(size_bytes: int) -> bytes:
    """Bytes that do not compress."""
    return _generator.randbytes(size_bytes)


def append_noise(buffer: Buffer, size_bytes: int = 9000) -> int:
    return buffer.append(noise(size_bytes), database="ods", pods={"a": 1}, first_ns=1)


def fill(buffer: Buffer) -> list[int]:
    """Append until the buffer is full; returns the rows."""
    ids = []
    with pytest.raises(BufferFull):
        while True:
            ids.append(append_noise(buffer))
    return ids


def everything(buffer: Buffer) -> list[Row]:
    """All rows of the queue, over all databases."""
    rows: list[Row] = []
    while found := buffer.oldest(excluding=[row.id for row in rows], **EVERYTHING):
        rows += found
    return rows


def ids_of(buffer: Buffer) -> list[int]:
    return [row.id for row in everything(buffer)]


def size_bytes(path: Path) -> int:
    """What all files of the buffer have on disk."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))


def change(path: Path, statements: str) -> None:
    """What another program does to the file, or what it makes of it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(statements)


def dumped(path: Path) -> list[str]:
    """All that a database holds."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


def quarantined_lines(path: Path) -> list[tuple[str, str, int | None, str, str]]:
    """The quarantine as another program reads it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT database, pod, time_ns, line, reason FROM quarantine ORDER BY id").fetchall()


# What is committed


def test_committed_rows_survive_a_reopening(buffer: Buffer) -> None:
    """What `append` returned from is in the file, with all that belongs to it."""
    row_id = append(buffer, "a 1\nb 2\n", database="other", pods={"a": 1, "b": 1}, first_ns=17, rejected=None)
    (row,) = everything(reopened(buffer))
    assert (row.id, row.database, row.points, row.first_ns, row.rejected) == (row_id, "other", 2, 17, None)
    assert dict(row.pods) == {"a": 1, "b": 1}
    assert (row.is_sound, row.lines()) == (True, ["a 1", "b 2"])


def test_a_row_survives_a_kill_right_after_append_returned(path: Path) -> None:
    """`append` returned: the row is committed, whatever happens to the process then."""
    program = """if True:
        import os, sys
        sys.path[:0] = sys.argv[2:]
        from pathlib import Path
        from test_buffer import append, made
        buffer = made(Path(sys.argv[1]))
        buffer.open()
        for number in range(20):
            append(buffer, f"line {number}\\n")
        os.kill(os.getpid(), 9)
    """
    roots = [str(Path(ods.__file__).parents[1]), str(Path(__file__).parent)]
    ended = subprocess.run([sys.executable, "-c", program, str(path), *roots], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    buffer = made(path)
    assert buffer.open() == {"pending": {"a": 20}, "quarantined": {}}
    assert [row.lines() for row in everything(buffer)] == [[f"line {number}"] for number in range(20)]


def test_every_commit_waits_for_the_disk(buffer: Buffer, path: Path) -> None:
    """A power cut takes nothing: the file is in WAL mode, and its connection syncs at every commit."""
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert buffer.file._db is not None
    assert buffer.file._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_rows_come_out_in_the_order_of_arrival(buffer: Buffer) -> None:
    """The order is that of `append`, not that of the points' times."""
    ids = [append(buffer, first_ns=first_ns) for first_ns in (30, 10, 20)]
    assert [row.first_ns for row in everything(buffer)] == [30, 10, 20]
    assert ids_of(buffer) == ids == sorted(ids)


def test_ids_are_never_used_again(buffer: Buffer) -> None:
    """A late delete of a row that is gone cannot hit a newer one, over restarts too."""
    first = append(buffer)
    buffer.delete([first])
    second = append(buffer)
    buffer.delete([second])
    buffer = reopened(buffer)
    third = append(buffer)
    assert first < second < third
    assert buffer.delete([first, second]) == {}
    assert ids_of(buffer) == [third]


# What a row holds


def test_payloads_joined_are_the_lines_joined(buffer: Buffer) -> None:
    """Rows are posted as they are stored: gzip members concatenate."""
    texts = [f"accel_x,pod=a value={number}.0 {number}\n" * 100 for number in range(5)]
    for text in texts:
        append(buffer, text)
    rows = everything(buffer)
    assert [gzip.decompress(row.payload).decode() for row in rows] == texts
    assert gzip.decompress(b"".join(row.payload for row in rows)).decode() == "".join(texts)


def test_a_row_knows_whether_it_is_sound(buffer: Buffer, path: Path) -> None:
    """A payload that is not what was committed is told by its checksum."""
    append(buffer, "good 1\n")
    append(buffer, "harmed 2\n")
    change(path, "UPDATE batches SET payload = CAST(payload || x'00' AS BLOB) WHERE id = 2")
    assert [row.is_sound for row in everything(buffer)] == [True, False]


def test_rows_are_joined_up_to_the_limits_and_for_one_database(buffer: Buffer) -> None:
    """One request holds rows of one database, up to about the limits, and at least one."""
    for database in ("x", "x", "x", "y", "x"):
        append(buffer, database=database, pods={"a": 10})

    def joined(limit_points: int, limit_bytes: int = 10**6) -> list[int]:
        return [row.id for row in buffer.oldest(excluding=(), limit_points=limit_points, limit_bytes=limit_bytes)]

    assert joined(1000) == [1, 2, 3]
    assert joined(20) == [1, 2]
    assert joined(1) == [1]
    assert joined(1000, limit_bytes=1) == [1]


# What is given out


def test_a_claimed_row_is_not_given_out_before_its_release(buffer: Buffer) -> None:
    """A row whose own request is under way is nobody else's to send."""
    first, claimed, last = append(buffer), append(buffer, is_claimed=True), append(buffer)
    assert ids_of(buffer) == [first, last]
    buffer.release(claimed)
    assert ids_of(buffer) == [first, claimed, last]


def test_a_claim_ends_with_the_run(buffer: Buffer) -> None:
    """After a restart nobody's request is under way: the row is given out."""
    claimed = append(buffer, is_claimed=True)
    assert ids_of(buffer) == []
    assert ids_of(reopened(buffer)) == [claimed]


def test_excluded_rows_are_not_given_out(buffer: Buffer) -> None:
    """What is in hand is not given out twice."""
    ids = [append(buffer) for _ in range(4)]
    rows = buffer.oldest(excluding=ids[:2], **EVERYTHING)
    assert [row.id for row in rows] == ids[2:]


def test_rejected_rows_leave_the_queue(buffer: Buffer) -> None:
    """A bad batch never blocks those behind it; it waits apart, the oldest first."""
    first, second, third = append(buffer), append(buffer), append(buffer, rejected="HTTP 400")
    assert (ids_of(buffer), buffer.rejected().id) == ([first, second], third)  # type: ignore[union-attr]
    buffer.mark_rejected([first], "HTTP 422")
    rejected = buffer.rejected()
    assert rejected is not None
    assert (ids_of(buffer), rejected.id, rejected.rejected) == ([second], first, "HTTP 422")
    assert buffer.totals()["pending"] == {"a": 3}
    assert reopened(buffer).rejected() == rejected


def test_the_oldest_row_is_known_without_asking_the_file(buffer: Buffer) -> None:
    """Its reception time is kept up to date by what changes it."""
    assert buffer.oldest_ns is None
    ids = [append(buffer, first_ns=first_ns) for first_ns in (5, 6)]
    assert buffer.oldest_ns == 5
    buffer = reopened(buffer)
    assert buffer.oldest_ns == 5
    buffer.delete(ids[:1])
    assert buffer.oldest_ns == 6
    buffer.delete(ids[1:])
    assert buffer.oldest_ns is None


# What leaves


def test_delete_counts_each_row_once(buffer: Buffer) -> None:
    """A row that is gone already counts nothing, so that the ledger moves each point once."""
    first, second = append(buffer, pods={"a": 2}), append(buffer, pods={"a": 3, "b": 4})
    assert buffer.delete([first]) == {"a": 2}
    assert buffer.delete([first, second, second, 999]) == {"a": 3, "b": 4}
    assert buffer.delete([first, second]) == {}
    assert buffer.totals() == {"pending": {}, "quarantined": {}}


def test_quarantine_moves_exactly_the_bad_lines(buffer: Buffer, path: Path) -> None:
    """They are kept with pod, time and reason; the row leaves, for its other lines are confirmed."""
    append(buffer, pods={"a": 3, "b": 2}, database="other", rejected="HTTP 400")
    stays = append(buffer, pods={"a": 5})
    row = buffer.rejected()
    assert row is not None
    bad = [BadLine("a", 7, "bad,pod=a value=1 7", "conflict", 1), BadLine("b", 8, "bad,pod=b value=2 8", "old", 1)]
    event = BadLine("ods", 9, 'ods_event,event=x,pod=ods detail="" 9', "old", 0)
    buffer.quarantine(row, [*bad, event])
    assert buffer.rejected() is None
    assert buffer.totals() == {"pending": {"a": 5}, "quarantined": {"a": 1, "b": 1}}
    assert quarantined_lines(path) == [
        ("other", "a", 7, "bad,pod=a value=1 7", "conflict"),
        ("other", "b", 8, "bad,pod=b value=2 8", "old"),
        ("other", "ods", 9, 'ods_event,event=x,pod=ods detail="" 9', "old"),
    ]
    buffer = reopened(buffer)
    assert (ids_of(buffer), buffer.totals()["quarantined"]) == ([stays], {"a": 1, "b": 1})


def test_a_row_is_quarantined_once(buffer: Buffer, path: Path) -> None:
    """A second time, after an answer that came late, changes nothing."""
    append(buffer, rejected="HTTP 400")
    row = buffer.rejected()
    assert row is not None
    for _ in range(2):
        buffer.quarantine(row, [BadLine("a", 1, "line", "why", 1)])
    assert buffer.totals() == {"pending": {}, "quarantined": {"a": 1}}
    assert len(quarantined_lines(path)) == 1


def test_an_unreadable_row_is_set_aside_as_it_is(buffer: Buffer, path: Path) -> None:
    """What cannot be read is kept, byte by byte, and counted as quarantined."""
    append(buffer, pods={"a": 2, "b": 1})
    (row,) = everything(buffer)
    buffer.set_aside(row)
    assert ids_of(buffer) == []
    assert buffer.totals() == {"pending": {}, "quarantined": {"a": 2, "b": 1}}
    ((_, _, _, line, _),) = quarantined_lines(path)
    assert bytes.fromhex(line) == row.payload
    (found,) = in_quarantine(buffer)
    assert (found.is_unreadable, found.points) == (True, {"a": 2, "b": 1})


def quarantine_lines(buffer: Buffer, count: int, pod: str = "a") -> None:
    """Put lines of a pod into the quarantine, one point each."""
    append(buffer, pods={pod: count}, rejected="HTTP 400")
    row = buffer.rejected()
    assert row is not None
    lines = [BadLine(pod, n, f"bad,pod={pod} value={n}.0 {n}", "why", 1) for n in range(count)]
    buffer.quarantine(row, lines)


def in_quarantine(buffer: Buffer) -> list[QuarantinedLine]:
    end = buffer.quarantine_end()
    return buffer.quarantined(after_id=0, until_id=end, limit_lines=10**6, limit_bytes=10**9)


def row_of(lines: list[QuarantinedLine], pods: dict[str, int]) -> NewRow:
    text = "".join(f"{line.line}\n" for line in lines)
    return NewRow(lines=text.encode(), database="ods", pods=pods, first_ns=lines[0].time_ns)


def test_the_quarantine_is_read_in_pages(buffer: Buffer) -> None:
    """From one line up to another, as many as asked for, and no more text at a time than asked for."""
    quarantine_lines(buffer, 10)
    assert [line.time_ns for line in in_quarantine(buffer)] == list(range(10))
    ids = [line.id for line in in_quarantine(buffer)]

    def page(after: int, until: int, lines: int = 100, size_bytes: int = 10**6) -> list[int]:
        found = buffer.quarantined(after_id=after, until_id=until, limit_lines=lines, limit_bytes=size_bytes)
        return [line.id for line in found]

    assert buffer.quarantine_end() == ids[-1]
    assert page(ids[2], ids[6]) == ids[3:7]
    assert page(ids[2], ids[-1], lines=3) == ids[3:6]
    assert page(0, ids[-1], size_bytes=1) == ids[:1]
    assert page(ids[-1], ids[-1]) == []


def test_lines_leave_the_quarantine_for_the_end_of_the_queue(buffer: Buffer) -> None:
    """They are ordinary rows then, and counted as such, over a restart too."""
    quarantine_lines(buffer, 5)
    quarantine_lines(buffer, 2, pod="b")
    before = append(buffer)
    lines = in_quarantine(buffer)
    taken = buffer.take_out(lines[3:6], into=[row_of(lines[3:6], {"a": 2, "b": 1})])
    assert taken == {"a": 2, "b": 1}
    buffer = reopened(buffer)
    assert buffer.totals() == {"pending": {"a": 3, "b": 1}, "quarantined": {"a": 3, "b": 1}}
    assert in_quarantine(buffer) == lines[:3] + lines[6:]
    first, last = everything(buffer)
    assert (first.id, last.lines()) == (before, [line.line for line in lines[3:6]])
    assert append(buffer) > last.id


def test_lines_leave_the_quarantine_for_good(buffer: Buffer) -> None:
    quarantine_lines(buffer, 5)
    lines = in_quarantine(buffer)
    assert buffer.take_out(lines[:2]) == {"a": 2}
    assert (in_quarantine(buffer), everything(buffer)) == (lines[2:], [])
    assert buffer.totals() == {"pending": {}, "quarantined": {"a": 3}}


@pytest.mark.parametrize("is_dropped", [False, True], ids=["retried", "dropped"])
@pytest.mark.parametrize("is_done", [False, True], ids=["undone", "done"])
def test_lines_whose_leaving_is_in_doubt_are_in_one_place_and_counted(
    buffer: Buffer, monkeypatch: pytest.MonkeyPatch, is_done: bool, is_dropped: bool
) -> None:
    """A commit that failed may be found done when the file is opened again: `take_done` tells, the queue has them."""
    monkeypatch.setattr(ods.buffer_file, "REOPEN_SECONDS", 0.0)
    append(buffer)
    quarantine_lines(buffer, 3)
    lines = in_quarantine(buffer)
    atomic = ods.buffer_file.Database.atomic
    trouble = sqlite3.OperationalError("disk I/O error")
    trouble.sqlite_errorname = "SQLITE_IOERR_FSYNC"

    @contextlib.contextmanager
    def failing(db: ods.buffer_file.Database) -> Iterator[object]:
        with atomic(db) as transaction:
            yield transaction
            if not is_done:
                raise trouble
        raise trouble

    with monkeypatch.context() as patched, pytest.raises(BufferUnavailable):
        patched.setattr(ods.buffer_file.Database, "atomic", failing)
        buffer.take_out(lines, into=[] if is_dropped else [row_of(lines, {"a": 3})])
    buffer.look_after()
    counted = Counter({"pending": 1, "quarantined": 3})
    for fate, points in (buffer.file.take_done() or {}).items():
        counted["pending"] -= points["a"]
        counted[fate] += points["a"]
    if not is_done:
        assert +counted == {"pending": 1, "quarantined": 3}
        assert in_quarantine(buffer) == lines
    else:
        assert +counted == ({"pending": 1, "dropped": 3} if is_dropped else {"pending": 4})
        assert in_quarantine(buffer) == []
    assert sum(row.points for row in everything(buffer)) == counted["pending"]
    append(buffer)
    assert buffer.totals()["pending"] == {"a": counted["pending"] + 1}


# Totals


@pytest.mark.parametrize(
    "pods", [{f"pod-{at}": at for at in range(1, 1001)}, {'a"b\\c é😀': 1, "": 2}], ids=["many", "odd"]
)
def test_points_of_any_pods_are_counted_and_taken_off(buffer: Buffer, pods: dict[str, int]) -> None:
    ids = [append(buffer, pods=pods) for _ in range(2)]
    assert buffer.totals()["pending"] == {pod: 2 * points for pod, points in pods.items()}
    assert buffer.delete(ids[:1]) == pods
    assert buffer.totals()["pending"] == pods


def test_totals_are_known_without_reading_the_backlog(buffer: Buffer, path: Path) -> None:
    """They are a table of their own: they stay what they were when the rows are taken away behind its back."""
    append(buffer, pods={"a": 3, "b": 4})
    change(path, "DELETE FROM batches")
    assert reopened(buffer).totals() == {"pending": {"a": 3, "b": 4}, "quarantined": {}}


@dataclass
class Expected:
    """What the model knows of a row."""

    database: str
    text: str
    pods: dict[str, int]
    is_rejected: bool
    is_claimed: bool = False


@dataclass
class Model:
    """A buffer in memory, too simple to be wrong."""

    rows: dict[int, Expected] = field(default_factory=dict)
    quarantined: Counter[str] = field(default_factory=Counter)
    highest_id: int = 0

    def totals(self) -> dict[str, dict[str, int]]:
        pending: Counter[str] = Counter()
        for row in self.rows.values():
            pending.update(row.pods)
        return {"pending": dict(+pending), "quarantined": dict(+self.quarantined)}

    def queue(self) -> list[int]:
        return [row_id for row_id, row in self.rows.items() if not row.is_rejected and not row.is_claimed]

    def rejected(self) -> int | None:
        return next((row_id for row_id, row in self.rows.items() if row.is_rejected), None)


class BufferMachine(RuleBasedStateMachine):
    """Random operations and restarts: the buffer agrees with the model after each."""

    pods = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 50), min_size=1)

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "buffer.db"
        self.buffer = made(self.path)
        self.buffer.open()
        self.model = Model()

    def teardown(self) -> None:
        self.buffer.close()
        self.folder.cleanup()

    @rule(
        text=st.text(st.characters(codec="utf-8"), max_size=30),
        database=st.sampled_from(["x", "y"]),
        pods=pods,
        is_rejected=st.booleans(),
        is_claimed=st.booleans(),
    )
    def append(self, text: str, database: str, pods: dict[str, int], is_rejected: bool, is_claimed: bool) -> None:
        rejected = "HTTP 400" if is_rejected else None
        row_id = self.buffer.append(
            text.encode(), database=database, pods=pods, first_ns=1, rejected=rejected, is_claimed=is_claimed
        )
        assert row_id > self.model.highest_id
        self.model.highest_id = row_id
        self.model.rows[row_id] = Expected(database, text, pods, is_rejected, is_claimed)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.integers(1, self.model.highest_id + 1), max_size=4))
        deleted: Counter[str] = Counter()
        for row_id in ids:
            row = self.model.rows.pop(row_id, None)
            deleted.update(row.pods if row else {})
        assert self.buffer.delete(ids) == deleted

    @rule(data=st.data())
    @precondition(lambda self: self.model.rows)
    def mark_rejected(self, data: st.DataObject) -> None:
        row_id = data.draw(st.sampled_from(sorted(self.model.rows)))
        self.buffer.mark_rejected([row_id], "HTTP 400")
        self.model.rows[row_id].is_rejected = True

    @rule(data=st.data())
    @precondition(lambda self: self.model.rows)
    def release(self, data: st.DataObject) -> None:
        row_id = data.draw(st.sampled_from(sorted(self.model.rows)))
        self.buffer.release(row_id)
        self.model.rows[row_id].is_claimed = False

    @rule(data=st.data())
    @precondition(lambda self: self.model.rejected() is not None)
    def quarantine(self, data: st.DataObject) -> None:
        row = self.buffer.rejected()
        assert row is not None
        pods = self.model.rows.pop(row.id).pods
        bad = {pod: data.draw(st.integers(0, points)) for pod, points in pods.items()}
        self.buffer.quarantine(row, [BadLine(pod, 1, "line", "why", 1) for pod in bad for _ in range(bad[pod])])
        self.model.quarantined.update(bad)

    @rule()
    @precondition(lambda self: self.model.queue())
    def set_aside(self) -> None:
        row = self.buffer.oldest(excluding=(), limit_points=1, limit_bytes=1)[0]
        self.buffer.set_aside(row)
        self.model.quarantined.update(self.model.rows.pop(row.id).pods)

    @rule(data=st.data(), is_dropped=st.booleans())
    def take_out(self, data: st.DataObject, is_dropped: bool) -> None:
        readable = [line for line in in_quarantine(self.buffer) if not line.is_unreadable]
        lines = data.draw(st.lists(st.sampled_from(readable), unique=True)) if readable else []
        if not lines:
            return
        pods = dict(Counter(line.pod for line in lines))
        row = NewRow(lines=b"retried", database="x", pods=pods, first_ns=1)
        assert self.buffer.take_out(lines, into=[] if is_dropped else [row]) == pods
        self.model.quarantined.subtract(pods)
        if not is_dropped:
            self.model.highest_id = everything(self.buffer)[-1].id
            self.model.rows[self.model.highest_id] = Expected("x", "retried", pods, False)

    @rule()
    def give_back(self) -> None:
        self.buffer.give_back()

    @rule()
    def restart(self) -> None:
        self.buffer = reopened(self.buffer)
        for row in self.model.rows.values():
            row.is_claimed = False

    @invariant()
    def the_buffer_is_the_model(self) -> None:
        assert self.buffer.totals() == self.model.totals()
        rows = everything(self.buffer)
        assert sorted(row.id for row in rows) == self.model.queue()
        for row in rows:
            expected = self.model.rows[row.id]
            assert (row.database, dict(row.pods)) == (expected.database, expected.pods)
            assert gzip.decompress(row.payload).decode() == expected.text
        oldest = self.buffer.rejected()
        assert (oldest.id if oldest else None) == self.model.rejected()


BufferMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
test_totals_and_queue_are_right_after_any_operations = BufferMachine.TestCase


# Limits


def test_a_full_buffer_refuses_and_keeps_what_it_has(path: Path) -> None:
    """At its limit `append` raises BufferFull; what was acknowledged is never discarded to make room."""
    buffer = made(path, limit_bytes=2**20)
    buffer.open()
    ids = fill(buffer)
    with pytest.raises(BufferFull):
        append_noise(buffer)
    assert path.stat().st_size <= 2**20
    assert buffer.totals()["pending"] == {"a": len(ids)}
    assert ids_of(buffer) == ids
    assert ids_of(reopened(buffer)) == ids


def test_a_full_buffer_takes_points_again_when_rows_have_left(path: Path) -> None:
    """A full buffer can be drained, and is a buffer again."""
    buffer = made(path, limit_bytes=2**20)
    buffer.open()
    ids = fill(buffer)
    buffer.delete(ids[:10])
    new = append_noise(buffer)
    assert ids_of(buffer) == [*ids[10:], new]


def test_a_row_of_a_full_buffer_can_be_marked_rejected(path: Path) -> None:
    """A bad batch never blocks the queue, be the buffer full or not."""
    buffer = made(path, limit_bytes=2**20)
    buffer.open()
    ids = fill(buffer)
    buffer.mark_rejected(ids[:10], "HTTP 400 partial write: field type conflict " + "x" * 250)
    assert ids_of(buffer) == ids[10:]


def test_a_row_of_a_full_buffer_can_be_quarantined(path: Path) -> None:
    """The quarantine takes the room of the row that leaves."""
    buffer = made(path, limit_bytes=2**20)
    buffer.open()
    ids = fill(buffer)
    (row,) = buffer.oldest(excluding=(), limit_points=1, limit_bytes=1)
    buffer.quarantine(row, [BadLine("a", 1, "line", "why", 1)])
    assert buffer.totals() == {"pending": {"a": len(ids) - 1}, "quarantined": {"a": 1}}


def test_the_reserve_of_the_disk_is_left_alone(buffer: Buffer, disk: FakeDisk) -> None:
    """Near the reserve `append` raises BufferFull; with room again it goes on."""
    kept = append(buffer)
    disk.free_bytes = 10
    with pytest.raises(BufferFull):
        append(buffer)
    assert (ids_of(buffer), buffer.totals()["pending"]) == ([kept], {"a": 1})
    disk.free_bytes = 2**40
    new = append(buffer)
    assert ids_of(buffer) == [kept, new]


def test_a_full_disk_does_not_keep_rows_from_leaving(buffer: Buffer, disk: FakeDisk) -> None:
    """The drain empties a buffer whose disk is full."""
    kept = append(buffer)
    disk.free_bytes = -1
    assert buffer.delete([kept]) == {"a": 1}


def test_it_can_be_tried_whether_a_commit_would_succeed(buffer: Buffer, disk: FakeDisk) -> None:
    """What waits is not touched by it."""
    append(buffer)
    before = buffer.totals()
    buffer.try_writing()
    disk.free_bytes = 0
    with pytest.raises(BufferFull):
        buffer.try_writing()
    assert buffer.totals() == before


def test_a_disk_that_cannot_be_asked_makes_the_buffer_unavailable(buffer: Buffer, disk: FakeDisk) -> None:
    """A broken file system is an error of the buffer, not a crash."""
    disk.error = OSError(5, "Input/output error")
    with pytest.raises(BufferUnavailable, match="Input/output error"):
        append(buffer)
    disk.error = None
    assert append(buffer)


def test_an_emptied_buffer_gives_the_disk_space_back(buffer: Buffer, path: Path) -> None:
    """After a drain all its files together have less than 1 MB."""
    ids = [append_noise(buffer, 512 * 1024) for _ in range(40)]
    assert size_bytes(path) > 20 * 2**20
    for row_id in ids:
        buffer.delete([row_id])
    while buffer.give_back():
        pass
    assert size_bytes(path) < EMPTY_BYTES
    assert buffer.used_bytes < EMPTY_BYTES


def test_space_is_given_back_beside_new_rows(buffer: Buffer, path: Path) -> None:
    """What comes in meanwhile stays."""
    ids = [append_noise(buffer, 512 * 1024) for _ in range(20)]
    stays = append(buffer)
    buffer.delete(ids)
    while buffer.give_back():
        append(buffer)
    assert ids_of(buffer)[0] == stays
    assert size_bytes(path) < EMPTY_BYTES


# Files that are no buffer


def with_random_page(page: int) -> bytes:
    """A buffer with 200 rows, one page of which is overwritten."""
    with tempfile.TemporaryDirectory() as folder:
        buffer = made(Path(folder) / "buffer.db")
        buffer.open()
        for _ in range(200):
            append_noise(buffer)
        buffer.close()
        data = bytearray(buffer.path.read_bytes())
    data[page * 4096 : (page + 1) * 4096] = noise(4096)
    return bytes(data)


def assert_moved_aside(path: Path, content: object, read: Callable[[Path], object] = Path.read_bytes) -> None:
    """A new buffer works in the place of the file, which keeps its content."""
    buffer = made(path)
    assert buffer.open() == {"pending": {}, "quarantined": {}}
    row_id = append(buffer)
    assert ids_of(buffer) == [row_id]
    assert buffer.delete(ids_of(buffer)) == {"a": 1}
    buffer.close()
    aside = [part for part in path.parent.glob("buffer.db.damaged-*") if not part.name.endswith(("-wal", "-shm"))]
    assert [read(part) for part in aside] == [content]


@pytest.mark.parametrize("call", ["replace", "iterdir"])
def test_a_file_that_cannot_be_moved_aside_is_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A card that fails is mounted read-only: when it is mended, nothing is lost, nor counted twice."""
    monkeypatch.setattr(ods.buffer_file, "REOPEN_SECONDS", 0.0)
    buffer = made(path)
    buffer.open()
    buffer.file.take_found()
    append(buffer, pods={"a": 3})
    quarantine_lines(buffer, 2)

    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as sick:
        sick.setattr(Path, call, fail)
        with pytest.raises(BufferUnavailable, match="nor be moved aside"):
            buffer.file.move_aside(sqlite3.DatabaseError("malformed"))
    assert buffer.totals() == {"pending": {"a": 3}, "quarantined": {"a": 2}}
    assert buffer.file.take_done() is None
    assert not any(buffer.file.take_left().values())


@pytest.mark.parametrize("content", [b"this is no database\n" * 1000, noise(50_000)], ids=["text", "noise"])
def test_a_file_that_is_no_database_is_moved_aside(path: Path, content: bytes) -> None:
    """ODS starts, on a new buffer; it never wipes what it does not understand."""
    path.write_bytes(content)
    assert_moved_aside(path, content)


@pytest.mark.parametrize("page", range(8))
def test_a_damaged_file_is_moved_aside_or_works(path: Path, page: int) -> None:
    """ODS starts on a damaged buffer, and its buffer takes points: that file where it can, a new one where not."""
    content = with_random_page(page)
    path.write_bytes(content)
    buffer = made(path)
    buffer.open()
    for aside in path.parent.glob("buffer.db.damaged-*"):
        if not aside.name.endswith(("-wal", "-shm")):
            assert aside.read_bytes()[100:] == content[100:]  # but for the counters in the header
    taken = append(buffer)
    assert taken in ids_of(buffer)
    buffer.close()


@pytest.mark.parametrize("pages", [1, 2, 5, 100])
def test_a_file_that_was_cut_is_moved_aside(path: Path, pages: int) -> None:
    """A cut file opens to nothing; it is kept for the salvage."""
    content = with_random_page(10_000)[: pages * 4096]
    path.write_bytes(content)
    assert_moved_aside(path, content)


@pytest.mark.parametrize("version", [0, 1, 2, 99])
def test_a_database_of_another_kind_is_moved_aside(path: Path, version: int) -> None:
    """Another schema version, or somebody else's database: not touched, not used."""
    change(path, f"CREATE TABLE things (name TEXT); PRAGMA user_version = {version};")
    assert_moved_aside(path, dumped(path), dumped)


def test_an_empty_file_becomes_a_buffer(path: Path) -> None:
    """A file that a crash left before its first commit is begun with."""
    path.write_bytes(b"")
    buffer = made(path)
    assert buffer.open() == {"pending": {}, "quarantined": {}}
    row_id = append(buffer)
    assert ids_of(buffer) == [row_id]


def test_ids_go_on_after_a_file_that_was_moved_aside(buffer: Buffer) -> None:
    """A late answer to a row of the old file must not delete a row of the new one."""
    ids = [append(buffer), append(buffer, is_claimed=True), append(buffer)]
    buffer.file.move_aside(sqlite3.DatabaseError("database disk image is malformed"))
    new = append(buffer)
    assert new > max(ids)
    assert buffer.delete(ids) == {}
    assert (ids_of(buffer), buffer.totals()["pending"]) == ([new], {"a": 1})


def test_ids_go_on_after_the_rows_that_a_run_before_has_left(buffer: Buffer) -> None:
    """Those found at the start are in hand too: the drain may be about to delete them."""
    ids = [append(buffer), append(buffer)]
    buffer.delete(ids[1:])
    buffer = reopened(buffer)
    buffer.file.move_aside(sqlite3.DatabaseError("database disk image is malformed"))
    assert append(buffer) > max(ids)
    buffer.close()


def test_claims_end_with_the_file_that_was_moved_aside(buffer: Buffer) -> None:
    """None of them is of a row of the new one: each row of it is given out, and nothing is remembered for ever."""
    append(buffer, is_claimed=True)
    buffer.file.move_aside(sqlite3.DatabaseError("database disk image is malformed"))
    assert buffer._claimed == set()
    claimed, free = append(buffer, is_claimed=True), append(buffer)
    assert ids_of(buffer) == [free]
    buffer.release(claimed)
    assert ids_of(buffer) == [claimed, free]


def test_a_file_that_cannot_be_moved_aside_makes_the_buffer_unavailable(path: Path) -> None:
    """A directory that is read-only, say: no call raises anything else, the file stays, and points are taken later."""
    content = b"this is no database\n" * 1000
    path.write_bytes(content)
    buffer = made(path)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        patch.setattr(Path, "rename", refuse)
        for call in (buffer.open, lambda: append(buffer)):
            with pytest.raises(BufferUnavailable, match=r"buffer\.db"):
                call()
    assert path.read_bytes() == content
    assert_moved_aside(path, content)


# A disk that does not let the file be used


@pytest.mark.parametrize("obstacle", ["a directory in its place", "locked by another"])
def test_an_unusable_path_is_told_and_works_again_once_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    """BufferUnavailable from every call, never anything else; each later call tries again."""
    monkeypatch.setattr(ods.buffer_file, "REOPEN_SECONDS", 0.0)
    path = tmp_path / "disk" / "buffer.db"
    buffer = made(path)
    mend = _obstruct(path, obstacle)
    for call in (buffer.open, buffer.totals, lambda: append(buffer), lambda: ids_of(buffer), buffer.give_back):
        with pytest.raises(BufferUnavailable, match=r"buffer\.db"):
            call()
    mend()
    row_id = append(buffer)
    assert ids_of(buffer) == [row_id]
    assert buffer.totals()["pending"] == {"a": 1}
    buffer.close()


def _obstruct(path: Path, obstacle: str) -> Callable[[], None]:
    """Make a path unusable; returns what mends it."""
    path.parent.mkdir()
    if obstacle == "a directory in its place":
        path.mkdir()
        return path.rmdir
    other = sqlite3.connect(path)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    return other.close


@pytest.mark.parametrize("content", ["no database", "another version"])
def test_a_file_that_turns_up_later_and_is_no_buffer_makes_it_unavailable_or_moves_aside(
    path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """Not only `open` meets such a file: a disk that is mounted later may hold one. No call may raise anything else."""
    monkeypatch.setattr(ods.buffer_file, "REOPEN_SECONDS", 0.0)
    path.mkdir()
    buffer = made(path)
    with pytest.raises(BufferUnavailable):
        buffer.open()
    path.rmdir()
    if content == "no database":
        path.write_bytes(b"this is no database\n" * 1000)
    else:
        change(path, "CREATE TABLE things (name TEXT); PRAGMA user_version = 7;")
    before = path.read_bytes()
    try:
        append(buffer)
    except BufferUnavailable:
        assert path.read_bytes() == before
    else:
        assert ids_of(buffer) != []


def test_a_call_after_a_failure_opens_the_file_afresh(
    buffer: Buffer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the file in the middle of a run ends with its cause."""
    monkeypatch.setattr(ods.buffer_file, "REOPEN_SECONDS", 0.0)
    kept = append(buffer)
    change(path, "ALTER TABLE batches RENAME TO gone")
    with pytest.raises(BufferUnavailable):
        append(buffer)
    change(path, "ALTER TABLE gone RENAME TO batches")
    assert ids_of(buffer) == [kept]


def test_close_may_be_called_twice(buffer: Buffer) -> None:
    """As every component's."""
    buffer.close()
    buffer.close()
    assert buffer.path.exists()


# -- What was committed last ------------------------------------------------------------------------------------------


def test_the_newest_rows_are_those_that_begin_late(buffer: Buffer) -> None:
    """A row that came out of its order hides none of those before it."""
    ids = [append(buffer, first_ns=first_ns) for first_ns in (1, 10, 11, 2, 12)]
    assert [row.id for row in buffer.newest(5)] == [ids[4], ids[2], ids[1]]
    assert [row.id for row in buffer.newest(-1)] == ids[::-1]
    assert buffer.newest(12) == []
    assert append(buffer, first_ns=12) in [row.id for row in buffer.newest(11)]


def test_rejected_and_claimed_rows_are_among_the_newest(buffer: Buffer) -> None:
    ids = [append(buffer, first_ns=7, rejected="no"), append(buffer, first_ns=8, is_claimed=True)]
    assert [row.id for row in buffer.newest(5)] == ids[::-1]


def test_no_backlog_makes_the_newest_rows_many(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in number nor in size, though all of them begin late."""
    for first_ns in range(1, 11):
        buffer.append(noise(1000), database="ods", pods={"a": 1}, first_ns=first_ns)
    monkeypatch.setattr(ods.buffer, "NEWEST_BYTES", 3500)
    assert [row.first_ns for row in buffer.newest(0)] == [10, 9, 8]
    monkeypatch.setattr(ods.buffer, "NEWEST_BYTES", GIGABYTE)
    monkeypatch.setattr(ods.buffer, "NEWEST_ROWS", 4)
    assert [row.first_ns for row in buffer.newest(0)] == [10, 9, 8, 7]


def test_the_newest_of_the_quarantine_are_told_by_pod_and_time(buffer: Buffer) -> None:
    assert buffer.newest_quarantined(0) == []
    append(buffer, rejected="no")
    row = buffer.rejected()
    assert row is not None
    buffer.quarantine(row, [BadLine("a", time_ns, f"x,pod=a value=1 {time_ns}", "no", 1) for time_ns in (3, 9, 7)])
    assert buffer.newest_quarantined(5) == [("a", 9), ("a", 7)]


def test_a_log_that_belongs_to_another_buffer_is_told_from_its_own(path: Path) -> None:
    """Each file has an id of its own from its first byte on, before there is a log."""
    own_ids = set()
    for name in ("one.db", "other.db"):
        buffer = made(path.with_name(name))
        buffer.open()
        own_ids.add(path.with_name(name).read_bytes()[68:72])
        assert buffer.file.if_open is not None
        assert buffer.file.if_open.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        buffer.close()
    assert len(own_ids) == 2 and b"\0\0\0\0" not in own_ids


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE batches SET points = 'many'",
        "UPDATE batches SET pods = '{'",
        "UPDATE batches SET pods = '[1]'",
        "UPDATE batches SET first_ns = 'then'",
        "UPDATE batches SET payload = 'text'",
        "UPDATE totals SET fate = 'pendinf'",
        "UPDATE totals SET points = 'many'",
        "UPDATE totals SET points = 0",
    ],
)
def test_what_cannot_have_been_written_is_damage(path: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    """SQLite believes whatever a page says; nothing but BufferUnavailable comes of it, and the file is moved aside."""
    monkeypatch.setattr(ods.buffer_file, "REOPEN_SECONDS", 0.0)
    first = made(path)
    first.open()
    row_id = append(first)
    first.close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(harm)
    buffer = made(path)
    for call in (buffer.open, lambda: ids_of(buffer), lambda: buffer.delete([row_id]), buffer.totals):
        with contextlib.suppress(BufferUnavailable):
            call()
    assert buffer.file.moved_aside == 1
    assert [append(buffer)] == ids_of(buffer)
