"""Salvage, from real buffers that are damaged at random: every row none of whose pages was touched arrives.

Which pages a row has is told by SQLite itself (its table `dbstat`, read before the damage), and where each page stands
by a reading of the log that shares nothing with that of ODS.
"""

import contextlib
import gzip
import json
import os
import random
import sqlite3
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ods.buffer import Buffer
from ods.buffer_tables import SCHEMA_VERSION
from ods.damage import Trouble, damage_of
from ods.rows import BadLine
from ods.salvage import Report, Salvage
from ods.saved import SavedBatch, SavedLine
from ods.sqlite_wal import Wal

PAGE = 4096
FRAME = 24 + PAGE
#: How many damaged copies the random test looks at, and for how long at most. Seconds.
ROUNDS = 600
ROUNDS_SECONDS = 12.0

Saved = SavedBatch | SavedLine


class FakeDisk:
    """A disk with room."""

    def free_for_buffer_bytes(self) -> int:
        return 2**40


@dataclass
class Span:
    """Bytes of one of the two files."""

    name: str
    begin: int
    end: int


@dataclass
class Truth:
    """The rows that SQLite finds in undamaged files, and the bytes that each of them needs."""

    batches: dict[int, tuple[object, ...]] = field(default_factory=dict)
    lines: dict[int, tuple[object, ...]] = field(default_factory=dict)
    spans: dict[tuple[str, int], list[Span]] = field(default_factory=dict)


@dataclass
class Snapshot:
    """The files of a buffer that was not closed, and all that was ever committed to it."""

    files: dict[str, bytes]
    #: With the log, and without it.
    truth: Truth
    truth_of_main: Truth
    #: The lines of each batch.
    committed: set[bytes]


# Making buffers


def text_of(generator: random.Random, size_bytes: int) -> bytes:
    """About so many bytes of lines that hardly compress."""
    lines = []
    while size_bytes > 0:
        pod = generator.choice(["a", "b\\ c"])
        value = generator.random()
        lines.append(
            f"accel_{generator.randrange(9)},pod={pod} value={value!r} {generator.randrange(10**18, 2 * 10**18)}"
        )
        size_bytes -= len(lines[-1])
    return ("\n".join(lines) + "\n").encode()


def pods_of(text: bytes) -> dict[str, int]:
    return dict(Counter("b c" if b"pod=b" in line else "a" for line in text.splitlines()))


class Maker:
    """Fills a buffer at random, and knows what it committed.

    Without an application id it writes as older versions did: with a checksum over the payload alone.
    """

    def __init__(self, path: Path, generator: random.Random, *, application_id: int) -> None:
        self.path = path
        self.generator = generator
        self.buffer = Buffer(path, limit_bytes=2**30, disk=FakeDisk())  # type: ignore[arg-type]
        self.buffer.open()
        self.db = self.buffer.file.if_open.conn  # type: ignore[union-attr]
        self.db.execute("PRAGMA synchronous = OFF")
        self.db.execute("PRAGMA secure_delete = OFF")  # what is deleted stays in its page, as on many systems
        self.db.execute(f"PRAGMA application_id = {application_id}")
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # into the file, where a new one has it at once
        self.is_old = not application_id
        self.committed: set[bytes] = set()

    def append(self, size_bytes: int, **changes: object) -> int:
        text = text_of(self.generator, size_bytes)
        batch: dict[str, object] = {"database": "ods", "pods": pods_of(text), "first_ns": 10**18} | changes
        row_id = self.buffer.append(text, **batch)  # type: ignore[arg-type]
        if self.is_old:
            payload = self.db.execute("SELECT payload FROM batches WHERE id = ?", (row_id,)).fetchone()[0]
            self.db.execute("UPDATE batches SET checksum = ? WHERE id = ?", (zlib.crc32(payload), row_id))
            self.db.commit()
        self.committed.add(text)
        return row_id

    def ids(self) -> list[int]:
        return [row_id for (row_id,) in self.db.execute("SELECT id FROM batches ORDER BY id")]

    def quarantine_some(self) -> None:
        rows = self.buffer.oldest(excluding=(), limit_points=1, limit_bytes=1)
        bad = [
            BadLine("a", n, f"line {n} {self.generator.randbytes(size).hex()}", "because", 1) for n, size in BAD_LINES
        ]
        for oldest in rows:
            self.buffer.quarantine(oldest, bad)

    def step(self) -> None:
        draw = self.generator.random()
        if draw < 0.72:
            self.append(self.generator.choice((60, 300, 300, 1000, 5000, 9000, 60_000)))
        elif draw < 0.76:
            self.append(200, pods={f"pod-{n}": n for n in range(1200)})  # counts that need pages of their own
        elif draw < 0.86:
            ids = self.ids()
            self.buffer.delete(ids[: len(ids) // 2] if self.generator.random() < 0.3 else ids[:5])
        elif draw < 0.91:
            self.quarantine_some()
        elif draw < 0.94:
            self.buffer.mark_rejected(self.ids()[-3:], "because")
        elif draw < 0.96:
            self.buffer.give_back()
        elif draw < 0.99:
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def files(self) -> dict[str, bytes]:
        """Both files as they stand, while they are open."""
        parts = (self.path, self.path.with_name(self.path.name + "-wal"))
        return {part.name: part.read_bytes() for part in parts}

    def snapshot(self, scratch: Path) -> Snapshot:
        files = self.files()
        main_only = files | {"buffer.db-wal": b""}
        return Snapshot(files, truth_of(scratch, files), truth_of(scratch, main_only), set(self.committed))


#: Number and half the size of quarantined lines: of one page, and of many.
BAD_LINES = ((1, 20), (2, 30), (3, 9000), (4, 700))


def made(directory: Path, *, seed: int, steps: int, application_id: int = 0) -> Snapshot:
    """A buffer after so many random steps."""
    directory.mkdir()
    maker = Maker(directory / "buffer.db", random.Random(seed), application_id=application_id)
    if steps > 10:
        checkpoint(maker)
    for _ in range(steps):
        maker.step()
    for _ in range(5):
        maker.append(400)
    try:
        return maker.snapshot(directory / "scratch")
    finally:
        maker.buffer.close()


def write(directory: Path, files: dict[str, bytes]) -> Path:
    """Lay files down; an empty log is none."""
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    for name, content in files.items():
        if content or name == "buffer.db":
            (directory / name).write_bytes(content)
    return directory / "buffer.db"


# What SQLite knows of them


def log_frames(log: bytes) -> list[tuple[int, int, int]]:
    """Page number, commit mark and offset of each frame up to the last commit of an undamaged log."""
    frames = []
    last = 0
    for at in range(32, len(log) - FRAME + 1, FRAME):
        number, commit = struct.unpack_from(">II", log, at)
        if log[at + 8 : at + 16] != log[16:24]:
            break
        frames.append((number, commit, at))
        last = len(frames) if commit else last
    return frames[:last]


def truth_of(scratch: Path, files: dict[str, bytes]) -> Truth:
    path = write(scratch, files)
    places = {number: Span("buffer.db-wal", at, at + FRAME) for number, _, at in log_frames(files["buffer.db-wal"])}
    truth = Truth()
    connection = sqlite3.connect(path)
    with contextlib.closing(connection):
        if not connection.execute("SELECT * FROM sqlite_master").fetchall():
            return truth  # all is in the log still
        truth.batches = {row[0]: row for row in connection.execute("SELECT * FROM batches")}
        truth.lines = {row[0]: row for row in connection.execute("SELECT * FROM quarantine")}
        for table, rows in (("batches", truth.batches), ("quarantine", truth.lines)):
            for row_id, pages in zip(sorted(rows), pages_of_rows(connection, table), strict=True):
                in_main = [Span("buffer.db", (page - 1) * PAGE, page * PAGE) for page in pages]
                spans = [places.get(page, span) for page, span in zip(pages, in_main, strict=True)]
                truth.spans[table, row_id] = spans
    return truth


def pages_of_rows(connection: sqlite3.Connection, table: str) -> Iterator[list[int]]:
    """The pages of each row of a table, in the order of ids: its leaf, and its overflow pages."""
    stat = "SELECT path, pageno, pagetype, ncell FROM dbstat WHERE name = ? ORDER BY path"
    leaves, overflows = [], {}
    for path, number, kind, cells in connection.execute(stat, (table,)):
        if kind == "leaf":
            leaves.append((path, number, cells))
        elif kind == "overflow":
            overflows.setdefault(path.partition("+")[0], []).append(number)
    for path, number, cells in leaves:
        for cell in range(cells):
            yield [number, *overflows.get(f"{path}{cell:03x}", [])]


# What salvage finds


def salvaged(path: Path) -> tuple[list[Saved], Report]:
    salvage = Salvage(path)
    return list(salvage.rows()), salvage.report


def trouble_of(path: Path) -> Trouble | None:
    damage = damage_of(path, schema_version=SCHEMA_VERSION)
    return damage and damage.trouble


def batch_of(row: tuple[object, ...]) -> SavedBatch:
    row_id, database, points, pods, first_ns, rejected, _, payload = row[:8]
    return SavedBatch(row_id, database, points, json.loads(pods), first_ns, rejected, payload)  # type: ignore[arg-type]


def line_of(row: tuple[object, ...]) -> SavedLine:
    return SavedLine(*row[:6])  # type: ignore[arg-type]


def expected(truth: Truth, is_whole: Callable[[list[Span]], bool] = lambda _: True) -> list[Saved]:
    """The rows that must arrive, by id."""
    batches: list[Saved] = [
        batch_of(row) for key, row in truth.batches.items() if is_whole(truth.spans["batches", key])
    ]
    lines: list[Saved] = [line_of(row) for key, row in truth.lines.items() if is_whole(truth.spans["quarantine", key])]
    return sorted(batches + lines, key=lambda row: row.id)


def by_id(rows: list[Saved]) -> list[Saved]:
    return sorted(rows, key=lambda row: (row.id, type(row).__name__))


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> list[Snapshot]:
    """Buffers of several sizes: known by an application id, and not."""
    root = tmp_path_factory.mktemp("snapshots")
    sizes = ((1, 4), (2, 60), (3, 250), (4, 60), (5, 250), (6, 700))
    return [
        made(root / f"{seed}", seed=seed, steps=steps, application_id=seed % 3 and 77 + seed) for seed, steps in sizes
    ]


# Damage


def flip(content: bytes, at: int, bit: int = 0) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def overwritten(content: bytes, at: int, data: bytes) -> bytes:
    return (content[:at] + data + content[at + len(data) :])[: len(content)]


def hurt(content: bytes, generator: random.Random, *, unit: int, head: int) -> bytes:
    """One random damage to a file of which `head` bytes come before the first of its pages or frames."""
    if not content:
        return content
    pages = max(1, (len(content) - head) // unit)
    at = generator.randrange(len(content))
    page = head + unit * generator.randrange(pages)
    match generator.randrange(8):
        case 0:
            for _ in range(generator.choice((1, 1, 3, 30))):
                content = flip(content, generator.randrange(len(content)), generator.randrange(8))
        case 1:
            content = overwritten(content, page, bytes(unit))
        case 2:
            content = overwritten(content, at, bytes(generator.randrange(1, 50_000)))
        case 3:
            page += unit - PAGE  # of a frame, its page
            kind = generator.choice((b"", b"\x05", b"\x0d"))
            content = overwritten(content, page, kind + generator.randbytes(PAGE - len(kind)))
        case 4:
            content = content[:at]
        case 5:
            other = head + unit * generator.randrange(pages)
            one, two = content[page : page + unit], content[other : other + unit]
            content = overwritten(overwritten(content, page, two), other, one)
        case 6:
            content = overwritten(content, 0, generator.choice((bytes(100), generator.randbytes(32), bytes(unit))))
        case 7:
            content = overwritten(content, page + generator.randrange(100), generator.randbytes(3))
    return content


def damaged(snapshot: Snapshot, others: list[Snapshot], generator: random.Random) -> tuple[dict[str, bytes], Truth]:
    """A damaged copy, and what must be found in the parts of it that are whole."""
    files, truth = dict(snapshot.files), snapshot.truth
    fate = generator.random()
    if fate < 0.15:
        files["buffer.db-wal"], truth = b"", snapshot.truth_of_main
    elif fate < 0.3:
        files["buffer.db-wal"], truth = generator.choice(others).files["buffer.db-wal"], snapshot.truth_of_main
    elif fate < 0.33:
        files["buffer.db"] = generator.choice(
            (b"", b"not a database" * 9999, generator.randbytes(99_999), bytes(50_000))
        )
    for _ in range(generator.choice((0, 1, 1, 1, 2, 3))):
        if generator.random() < 0.5 or fate < 0.3:
            files["buffer.db"] = hurt(files["buffer.db"], generator, unit=PAGE, head=0)
        else:
            files["buffer.db-wal"] = hurt(files["buffer.db-wal"], generator, unit=FRAME, head=32)
    return files, truth


def untouched(snapshot: Snapshot, files: dict[str, bytes]) -> Callable[[list[Span]], bool]:
    """Whether bytes are as they were; those of the log also need a commit behind them that is as it was."""
    log = snapshot.files["buffer.db-wal"]
    now = files["buffer.db-wal"]
    whole_commits = [at for _, mark, at in log_frames(log) if mark and log[at : at + FRAME] == now[at : at + FRAME]]

    def is_whole(spans: list[Span]) -> bool:
        return all(
            snapshot.files[span.name][span.begin : span.end] == files[span.name][span.begin : span.end]
            and (span.name == "buffer.db" or span.begin <= max(whole_commits, default=-1))
            for span in spans
        )

    return is_whole


def test_every_row_of_untouched_pages_arrives_from_randomly_damaged_files(
    snapshots: list[Snapshot], tmp_path: Path
) -> None:
    committed = set.union(*(snapshot.committed for snapshot in snapshots))
    until = time.monotonic() + ROUNDS_SECONDS
    rounds = arrived = 0
    for seed in range(ROUNDS):
        generator = random.Random(seed)
        snapshot = generator.choice(snapshots)
        files, truth = damaged(snapshot, [other for other in snapshots if other is not snapshot], generator)
        rows, report = salvaged(write(tmp_path / "copy", files))
        must = expected(truth, untouched(snapshot, files))
        missing = [row for row in must if row not in rows]
        assert not missing, f"seed {seed}: {len(missing)} of {len(must)} rows are missing, the first is {missing[0]}"
        assert len(set(map(repr, rows))) == len(rows) == report.rows_saved, f"seed {seed}: a row was delivered twice"
        strangers = [
            row for row in rows if isinstance(row, SavedBatch) and gzip.decompress(row.payload) not in committed
        ]
        assert not strangers, f"seed {seed}: {strangers[0]} was never committed"
        rounds, arrived = rounds + 1, arrived + len(must)
        if time.monotonic() > until:
            break
    assert rounds > 20
    assert arrived


# What is whole


def test_undamaged_files_give_exactly_their_rows_in_the_order_of_ids(snapshots: list[Snapshot], tmp_path: Path) -> None:
    for snapshot in snapshots:
        for truth, files in (
            (snapshot.truth, snapshot.files),
            (snapshot.truth_of_main, snapshot.files | {"buffer.db-wal": b""}),
        ):
            rows, report = salvaged(write(tmp_path / "copy", files))
            must = expected(truth)
            assert [row.id for row in rows] == sorted(row.id for row in rows)
            assert all(row in rows for row in must)
            assert (report.rows_lost, report.pages_unreadable, report.error) == (0, 0, None)
            is_log_known = snapshot.files["buffer.db"][68:72] != bytes(4) or not files["buffer.db-wal"]
            if is_log_known:
                assert by_id(rows) == by_id(must), "what was drained came back"
                assert report.points_saved == sum(row.points for row in must if isinstance(row, SavedBatch))


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[Maker]:
    maker = Maker(tmp_path / "buffer.db", random.Random(1), application_id=7)
    checkpoint(maker)
    yield maker
    maker.buffer.close()


def checkpoint(maker: Maker) -> None:
    maker.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def drained(maker: Maker) -> tuple[dict[str, bytes], list[Saved]]:
    """The files after most of a backlog was drained, and what is left."""
    ids = [maker.append(1000) for _ in range(300)]
    checkpoint(maker)
    maker.buffer.delete(ids[20:280])
    checkpoint(maker)
    files = maker.files()
    assert maker.db.execute("PRAGMA freelist_count").fetchone()[0] > 20
    return files, expected(truth_of(maker.path.with_name("scratch"), files))


def test_what_was_drained_does_not_come_back_with_a_damage_elsewhere(maker: Maker, tmp_path: Path) -> None:
    files, left = drained(maker)
    files["buffer.db"] = flip(files["buffer.db"], 3 * PAGE + 10)
    rows, _ = salvaged(write(tmp_path / "copy", files))
    assert {row.id for row in rows} <= {row.id for row in left}


def leaves(files: dict[str, bytes], tmp_path: Path) -> list[int]:
    path = write(tmp_path / "stat", files)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        stat = "SELECT pageno FROM dbstat WHERE name = 'batches' AND pagetype = 'leaf'"
        return [number for (number,) in connection.execute(stat)]


@pytest.mark.parametrize("liars", [("map",), ("list",), ("map", "list")])
def test_a_pointer_map_or_a_free_list_that_lies_hides_no_row(maker: Maker, tmp_path: Path, liars: tuple[str]) -> None:
    files, left = drained(maker)
    content = files["buffer.db"]
    trunk = int.from_bytes(content[32:36])
    for at, number in enumerate(leaves(files, tmp_path)):
        if "map" in liars:
            content = overwritten(content, PAGE + 5 * (number - 3), bytes((2, 0, 0, 0, 0)))
        if "list" in liars:
            content = overwritten(content, (trunk - 1) * PAGE + 8 + 4 * at, number.to_bytes(4))
    rows, _ = salvaged(write(tmp_path / "copy", files | {"buffer.db": content}))
    assert all(row in rows for row in left)


def test_a_destroyed_map_brings_drained_rows_back_rather_than_hide_any(maker: Maker, tmp_path: Path) -> None:
    files, left = drained(maker)
    files["buffer.db"] = overwritten(files["buffer.db"], PAGE, random.Random(1).randbytes(PAGE))
    rows, _ = salvaged(write(tmp_path / "copy", files))
    assert all(row in rows for row in left)
    assert len(rows) > len(left)


# The log


def with_log(maker: Maker) -> tuple[dict[str, bytes], list[Saved]]:
    """Files with 30 rows in the main file, and 30 more in the log, each in a commit of its own."""
    for count in range(60):
        if count == 30:
            checkpoint(maker)
        maker.append(6000)
    files = maker.files()
    return files, expected(truth_of(maker.path.with_name("scratch"), files))


def frame_of(files: dict[str, bytes], last: int) -> int:
    """The offset of a frame, counted from the end."""
    return log_frames(files["buffer.db-wal"])[-last][2]


def wal_of(files: dict[str, bytes]) -> Wal:
    log = files["buffer.db-wal"]
    wal = Wal(lambda offset, size: log[offset : offset + size], len(log))
    wal.read_header()
    wal.read_frames(PAGE)
    return wal


@pytest.mark.parametrize(("at", "unsound"), [(0, 1), (4, 1), (8, 0), (12, 0), (16, 0), (20, 0), (24 + 100, 1)])
def test_a_damaged_frame_loses_itself_at_most(maker: Maker, tmp_path: Path, at: int, unsound: int) -> None:
    """Its page number, its commit mark, its salts, its checksum, its page."""
    files, rows = with_log(maker)
    frame, last = frame_of(files, 70), (frame_of(files, 1) - 32) // FRAME
    files["buffer.db-wal"] = flip(files["buffer.db-wal"], frame + at, 5)
    path = write(tmp_path / "copy", files)
    assert trouble_of(path) is Trouble.LOG_BROKEN
    assert wal_of(files).is_sound[: last + 1].count(0) == unsound
    found, _ = salvaged(path)
    assert sum(row not in found for row in rows) <= unsound


def test_only_frames_that_were_swapped_are_called_unsound(maker: Maker) -> None:
    files, _ = with_log(maker)
    log, one, two = files["buffer.db-wal"], frame_of(files, 70), frame_of(files, 31)
    swapped = overwritten(overwritten(log, one, log[two : two + FRAME]), two, log[one : one + FRAME])
    wal = wal_of({"buffer.db-wal": swapped})
    assert [at for at, is_sound in enumerate(wal.is_sound) if not is_sound] == [
        (one - 32) // FRAME,
        (two - 32) // FRAME,
    ]


def test_a_row_whose_page_is_right_in_a_frame_whose_head_is_not_is_saved(maker: Maker, tmp_path: Path) -> None:
    maker.append(20_000)
    files = maker.files()
    truth = truth_of(tmp_path / "scratch", files)
    _, overflow, *_ = truth.spans["batches", 1]
    assert overflow.name == "buffer.db-wal"
    files["buffer.db-wal"] = flip(files["buffer.db-wal"], overflow.begin + 4)
    rows, _ = salvaged(write(tmp_path / "copy", files))
    assert rows == expected(truth)


def test_an_older_page_of_the_log_serves_where_the_newest_is_wiped(maker: Maker, tmp_path: Path) -> None:
    for _ in range(8):
        maker.append(300)
    files = maker.files()
    leaf = truth_of(tmp_path / "scratch", files).spans["batches", 8][0]
    assert leaf.name == "buffer.db-wal"
    files["buffer.db-wal"] = overwritten(files["buffer.db-wal"], leaf.begin + 24, bytes(PAGE))
    rows, _ = salvaged(write(tmp_path / "copy", files))
    assert [row.id for row in rows] == [1, 2, 3, 4, 5, 6, 7]


def test_what_was_drained_within_the_log_does_not_come_back(tmp_path: Path) -> None:
    """Even where it is not known whose log it is."""
    maker = Maker(tmp_path / "buffer.db", random.Random(1), application_id=0)
    checkpoint(maker)
    ids = [maker.append(300) for _ in range(8)]
    maker.buffer.delete(ids[:7])
    files = maker.files()
    maker.buffer.close()
    rows, _ = salvaged(write(tmp_path / "copy", files))
    assert [row.id for row in rows] == ids[7:]


def test_a_log_without_its_header_is_read(maker: Maker, tmp_path: Path) -> None:
    files, rows = with_log(maker)
    for head in (bytes(32), random.Random(1).randbytes(32)):
        files["buffer.db-wal"] = overwritten(files["buffer.db-wal"], 0, head)
        found, _ = salvaged(write(tmp_path / "copy", files))
        assert by_id(found) == by_id(rows)


def test_a_log_alone_gives_its_rows(maker: Maker, tmp_path: Path) -> None:
    files, rows = with_log(maker)
    for main in (b"", bytes(len(files["buffer.db"])), random.Random(1).randbytes(99_999)):
        found, _ = salvaged(write(tmp_path / "copy", files | {"buffer.db": main}))
        assert [row for row in rows if row.id > 31] == [row for row in found if row.id > 31]
    (tmp_path / "copy" / "buffer.db").unlink()
    assert len(salvaged(tmp_path / "copy" / "buffer.db")[0]) == len(found)


def test_a_commit_that_was_wiped_takes_back_no_row_of_another_page(maker: Maker, tmp_path: Path) -> None:
    with_log(maker)
    columns = "database, points, pods, first_ns, rejected, checksum, payload"
    maker.db.execute(f"INSERT INTO batches ({columns}) SELECT {columns} FROM batches WHERE id > 58")
    maker.db.commit()
    files = maker.files()
    truth = truth_of(tmp_path / "scratch", files)
    _, commit, at = log_frames(files["buffer.db-wal"])[-1]
    assert commit
    assert at in [span.begin for span in truth.spans["batches", 62]], "the other row has to have the last page"
    for wreck in (bytes(FRAME), random.Random(1).randbytes(FRAME)):
        files["buffer.db-wal"] = overwritten(files["buffer.db-wal"], at, wreck)
        found, _ = salvaged(write(tmp_path / "copy", files))
        assert found == expected(truth)[:-1]


def test_a_transaction_that_the_crash_ended_is_not_delivered(maker: Maker, tmp_path: Path) -> None:
    """Behind its last frame is the end of the log, or what an older round of it left there."""
    with_log(maker)
    older = maker.files()["buffer.db-wal"]
    maker.db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    maker.append(6000)
    before = truth_of(tmp_path / "scratch", maker.files())
    columns = "database, points, pods, first_ns, rejected, checksum, payload"
    maker.db.execute(f"INSERT INTO batches ({columns}) SELECT {columns} FROM batches WHERE id > 58")
    maker.db.commit()
    files = maker.files()
    log, commit = files["buffer.db-wal"], frame_of(files, 1)
    assert len(log) == len(older) > commit + 10 * FRAME, "the log was not written over"
    for crashed in (log[:commit], overwritten(log, commit, older[commit : commit + FRAME])):
        path = write(tmp_path / "copy", files | {"buffer.db-wal": crashed})
        assert trouble_of(path) is None
        rows, _ = salvaged(path)
        assert rows == expected(before)


def test_a_transaction_that_was_taken_back_is_not_delivered(maker: Maker, tmp_path: Path) -> None:
    """SQLite writes what does not fit into its cache before the commit."""
    with_log(maker)
    maker.db.execute("PRAGMA cache_size = 5")
    maker.db.execute("BEGIN")
    for number in range(20):
        payload = gzip.compress(maker.generator.randbytes(9000))
        values = (number, zlib.crc32(payload), payload)
        maker.db.execute("INSERT INTO batches VALUES (NULL, 'ods', 1, '{\"a\": 1}', ?, NULL, ?, ?)", values)
    during = maker.files()
    maker.db.execute("ROLLBACK")
    maker.append(50)
    for files in (during, maker.files()):
        assert len(files["buffer.db-wal"]) > frame_of(files, 1) + 10 * FRAME, "nothing was written before its time"
        path = write(tmp_path / "copy", files)
        assert trouble_of(path) is None
        rows, _ = salvaged(path)
        assert by_id(rows) == by_id(expected(truth_of(tmp_path / "scratch", files)))


def test_an_older_round_of_the_log_is_not_delivered(maker: Maker, tmp_path: Path) -> None:
    ids = [maker.append(6000) for _ in range(30)]
    maker.db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    maker.buffer.delete(ids[:25])
    files = maker.files()
    path = write(tmp_path / "copy", files)
    assert trouble_of(path) is None
    rows, _ = salvaged(path)
    assert rows == expected(truth_of(tmp_path / "scratch", files))


def test_a_foreign_log_hides_no_row_and_both_rows_of_one_id_arrive(tmp_path: Path) -> None:
    for ids in ((7, 8), (0, 0), (0, 8)):
        ours, theirs = [
            made(tmp_path / f"{'-'.join(map(str, ids))}-{seed}", seed=seed, steps=40, application_id=application_id)
            for seed, application_id in enumerate(ids, 10)
        ]
        files = ours.files | {"buffer.db-wal": theirs.files["buffer.db-wal"]}
        path = write(tmp_path / "copy", files)
        rows, _ = salvaged(path)
        assert all(row in rows for row in expected(ours.truth_of_main))
        in_log = [row for row in expected(theirs.truth) if row not in expected(theirs.truth_of_main)]
        assert all(row in rows for row in in_log)
        if all(ids):
            assert trouble_of(path) is Trouble.LOG_FOREIGN


# Single rows


def files_with(maker: Maker, *statements: tuple[str, tuple[object, ...]]) -> dict[str, bytes]:
    for statement, values in statements:
        maker.db.execute(statement, values)
    maker.db.commit()
    checkpoint(maker)
    return maker.files()


def payload_checksum(maker: Maker) -> int:
    """That of older versions."""
    return zlib.crc32(maker.db.execute("SELECT payload FROM batches").fetchone()[0])


def test_a_checksum_over_the_payload_alone_is_accepted(maker: Maker, tmp_path: Path) -> None:
    maker.append(9000)
    files = files_with(maker, ("UPDATE batches SET checksum = ?", (payload_checksum(maker),)))
    rows, _ = salvaged(write(tmp_path / "copy", files))
    assert rows == expected(truth_of(tmp_path / "scratch", files))


def test_rows_of_every_length_are_read(maker: Maker, tmp_path: Path) -> None:
    """How much of a row stands in its leaf depends on its length, with jumps."""
    lengths = [*range(4000, 4060), *range(4380, 4570, 7), *range(4565, 4600), *range(8000, 8800, 41)]
    for length in lengths:
        payload = maker.generator.randbytes(length)
        statement = "INSERT INTO batches VALUES (NULL, 'ods', 1, '{\"a\": 1}', 1, NULL, ?, ?)"
        maker.db.execute(statement, (zlib.crc32(payload), payload))
    files = files_with(maker)
    rows, _ = salvaged(write(tmp_path / "copy", files))
    assert rows == expected(truth_of(tmp_path / "scratch", files))
    assert len(rows) == len(lengths)


@pytest.mark.parametrize("is_old", [True, False])
@pytest.mark.parametrize(
    "change", ["checksum = 5", "points = 10001", "pods = '{\"x\": 1}'", "pods = '[[['", "pods = '[3]'", "checksum = 0"]
)
def test_a_batch_whose_columns_are_wrong_is_counted_again_from_its_lines(
    maker: Maker, tmp_path: Path, change: str, is_old: bool
) -> None:
    maker.append(9000, rejected="because")
    row = maker.db.execute("SELECT * FROM batches").fetchone()
    files = files_with(
        maker,
        ("UPDATE batches SET checksum = ?", (payload_checksum(maker) if is_old else row[6],)),
        (f"UPDATE batches SET {change}", ()),
    )
    (found,), _ = salvaged(write(tmp_path / "copy", files))
    lines = gzip.decompress(row[7])
    times = [int(line.rpartition(b" ")[2]) for line in lines.splitlines()]
    assert found == SavedBatch(row[0], "", row[2], pods_of(lines), min(times), None, row[7], is_header_sound=False)


def test_ods_own_events_and_health_are_not_counted_as_points(maker: Maker, tmp_path: Path) -> None:
    text = b'ods_event,event=x,pod=a detail="y" 5\nods_health,pod=a received=2.0,torn=0.0 6\naccel,pod=a value=1.0 7\n'
    maker.buffer.append(text, database="ods", pods={"a": 1}, first_ns=5)
    files = files_with(maker, ("UPDATE batches SET checksum = 1", ()))
    (found,), report = salvaged(write(tmp_path / "copy", files))
    assert (found.pods, found.first_ns, report.points_saved) == ({"a": 1}, 5, 1)


def test_a_payload_that_is_not_proved_is_lost_and_counted(maker: Maker, tmp_path: Path) -> None:
    for _ in range(3):
        maker.append(9000)
    payload = maker.db.execute("SELECT payload FROM batches WHERE id = 2").fetchone()[0]
    files = files_with(maker, ("UPDATE batches SET payload = ? WHERE id = 2", (flip(payload, len(payload) // 2),)))
    rows, report = salvaged(write(tmp_path / "copy", files))
    assert [row.id for row in rows] == [1, 3]
    assert (report.rows_saved, report.rows_lost) == (2, 1)
    assert report.points_expected == sum(row.points for row in expected(truth_of(tmp_path / "scratch", files)))


def test_a_newer_schema_with_more_columns_is_read(maker: Maker, tmp_path: Path) -> None:
    maker.append(9000)
    maker.append(50)
    maker.quarantine_some()
    files = files_with(
        maker,
        ("ALTER TABLE batches ADD COLUMN newer TEXT", ()),
        ("ALTER TABLE quarantine ADD COLUMN newer INTEGER", ()),
        ("ALTER TABLE quarantine ADD COLUMN newest BLOB", ()),
        ("UPDATE batches SET newer = 'x'", ()),
        ("UPDATE quarantine SET newer = 5, newest = x'00'", ()),
        ("PRAGMA user_version = 2", ()),
    )
    path = write(tmp_path / "copy", files)
    assert trouble_of(path) is Trouble.VERSION
    rows, _ = salvaged(path)
    must = expected(truth_of(tmp_path / "scratch", files))
    assert len(must) == 5
    assert by_id(rows) == by_id(must)


@pytest.mark.parametrize("page_size", [512, 1024, 8192, 65536])
def test_the_page_size_is_found_without_a_header(tmp_path: Path, page_size: int) -> None:
    connection = sqlite3.connect(tmp_path / "buffer.db")
    connection.execute(f"PRAGMA page_size = {page_size}")
    connection.execute("VACUUM")
    connection.close()
    maker = Maker(tmp_path / "buffer.db", random.Random(1), application_id=0)
    for _ in range(100):
        maker.append(600)
    checkpoint(maker)
    truth = maker.db.execute("SELECT * FROM batches").fetchall()
    files = maker.files()
    maker.buffer.close()
    for head in (files["buffer.db"][:100], bytes(100), bytes(page_size)):
        content = overwritten(files["buffer.db"], 0, head)
        rows, _ = salvaged(write(tmp_path / "copy", {"buffer.db": content}))
        assert rows == [batch_of(row) for row in truth]


@pytest.mark.parametrize("table", ["batches", "quarantine"])
def test_a_row_whose_chain_runs_in_a_circle_or_was_wiped_is_lost_and_counted(
    maker: Maker, tmp_path: Path, table: str
) -> None:
    maker.append(500)
    maker.quarantine_some()
    maker.append(60_000)
    maker.append(50)
    files = files_with(maker)
    truth = truth_of(tmp_path / "scratch", files)
    key = {"batches": 2, "quarantine": 3}[table]
    chain = truth.spans[table, key]
    circle = overwritten(files["buffer.db"], chain[3].begin, (chain[2].begin // PAGE + 1).to_bytes(4))
    wiped = overwritten(files["buffer.db"], chain[4].begin, bytes(PAGE))
    for content in (circle, wiped):
        rows, report = salvaged(write(tmp_path / "copy", {"buffer.db": content}))
        assert rows == expected(truth, lambda spans: spans != chain)
        assert report.rows_lost == 1


def test_a_leaf_whose_cells_run_over_its_end_is_read_as_far_as_it_goes(maker: Maker, tmp_path: Path) -> None:
    for _ in range(100):
        maker.append(500)
    files = files_with(maker)
    truth = truth_of(tmp_path / "scratch", files)
    leaf = truth.spans["batches", 50][0]
    pointers = b"".join(at.to_bytes(2) for at in range(PAGE - 200, PAGE))
    wreck = (b"\x0d\0\0\0\xc8\0\0\0" + pointers).ljust(PAGE, b"\xff")
    files["buffer.db"] = overwritten(files["buffer.db"], leaf.begin, wreck)
    rows, _ = salvaged(write(tmp_path / "copy", files))
    assert rows == expected(truth, lambda spans: spans[0].begin != leaf.begin)


def test_pages_that_are_gone_are_counted(maker: Maker, tmp_path: Path) -> None:
    for _ in range(100):
        maker.append(500)
    files = files_with(maker)
    pages = leaves(files, tmp_path)
    for number in pages[2:5]:
        files["buffer.db"] = overwritten(files["buffer.db"], (number - 1) * PAGE, bytes(PAGE))
    _, report = salvaged(write(tmp_path / "copy", files))
    assert report.pages_unreadable == 3


def test_a_directory_in_its_place_and_files_that_nobody_may_read_end_it_quietly(tmp_path: Path) -> None:
    (tmp_path / "buffer.db").mkdir()
    assert salvaged(tmp_path / "buffer.db")[0] == []
    assert salvaged(tmp_path / "none.db") == ([], Report())


def test_a_disk_that_does_not_give_a_page_takes_only_its_rows(
    maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(100):
        maker.append(500)
    files = files_with(maker)
    truth = truth_of(tmp_path / "scratch", files)
    bad = truth.spans["batches", 50][0]
    read = os.pread

    def failing(fd: int, size: int, offset: int) -> bytes:
        if offset < bad.end and bad.begin < offset + size:
            raise OSError(5, "Input/output error")
        return read(fd, size, offset)

    monkeypatch.setattr("os.pread", failing)
    rows, report = salvaged(write(tmp_path / "copy", files))
    assert rows == expected(truth, lambda spans: spans[0].begin != bad.begin)
    assert report.error is not None
    assert report.pages_unreadable


# Checks before SQLite opens a file


def test_nothing_is_wrong_with_what_is_whole_or_new(snapshots: list[Snapshot], tmp_path: Path) -> None:
    assert trouble_of(tmp_path / "none.db") is None
    for snapshot in snapshots:
        assert trouble_of(write(tmp_path / "copy", snapshot.files)) is None
        assert trouble_of(write(tmp_path / "copy", snapshot.files | {"buffer.db-wal": b""})) in (None, Trouble.CUT)


def test_a_log_that_a_crash_cut_anywhere_is_not_called_damaged(maker: Maker, tmp_path: Path) -> None:
    files, _ = with_log(maker)
    log = files["buffer.db-wal"]
    generator = random.Random(1)
    for end in (0, 31, 32, 33, 100, *(generator.randrange(len(log)) for _ in range(20))):
        assert trouble_of(write(tmp_path / "copy", files | {"buffer.db-wal": log[:end]})) is None


def test_any_flipped_bit_in_the_log_is_found(maker: Maker, tmp_path: Path) -> None:
    files, _ = with_log(maker)
    log = files["buffer.db-wal"]
    end = frame_of(files, 1) + FRAME
    generator = random.Random(1)
    for _ in range(40):
        hurt_log = flip(
            log, generator.choice((generator.randrange(end), generator.randrange(32))), generator.randrange(8)
        )
        path = write(tmp_path / "copy", files | {"buffer.db-wal": hurt_log})
        assert trouble_of(path) in (Trouble.LOG_BROKEN, Trouble.LOG_HEADER)


def test_each_trouble_has_its_name(maker: Maker, tmp_path: Path) -> None:
    for _ in range(100):
        maker.append(500)
    files = files_with(maker)
    main = files["buffer.db"]
    with_log_files, _ = with_log(maker)
    for content, trouble in (
        (b"x" + main[1:], Trouble.NOT_SQLITE),
        (b"not a database", Trouble.NOT_SQLITE),
        (bytes(len(main)), Trouble.NOT_SQLITE),
        (overwritten(main, 16, b"\x10\x01"), Trouble.NOT_SQLITE),
        (main[: len(main) // 2], Trouble.CUT),
        (main[:-1], Trouble.CUT),
        (overwritten(main, 60, b"\0\0\0\x09"), Trouble.VERSION),
        (overwritten(main, 56, b"\0\0\0\x03"), Trouble.HEADER),
        (overwritten(main, 52, b"\0\0\0\0"), Trouble.HEADER),
        (b"", None),
    ):
        assert trouble_of(write(tmp_path / "copy", {"buffer.db": content})) is trouble
    main, log = with_log_files["buffer.db"], with_log_files["buffer.db-wal"]
    for content, logged, trouble in (
        (b"", log, Trouble.ALONE),
        (main[: -5 * PAGE], log, Trouble.CUT),
        (main, bytes(len(log)), Trouble.LOG_HEADER),
        (main, b"garbage" * 1000, Trouble.LOG_HEADER),
    ):
        assert trouble_of(write(tmp_path / "copy", {"buffer.db": content, "buffer.db-wal": logged})) is trouble
