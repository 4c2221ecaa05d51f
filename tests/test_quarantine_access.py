"""How a command reaches the quarantine where no ODS runs, and what it says where it cannot."""

import fcntl
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import ods.buffer_access
import ods.directory
import ods.quarantine
import ods.quarantine_access
from ods.buffer import Buffer
from ods.directory import DataDirectory
from ods.disk import Disk
from ods.errors import SettingsError, Unreachable
from ods.quarantine import Page, Selection
from ods.quarantine_access import QuarantineAccess
from ods.rows import BadLine


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ods.directory, "LOCK_SECONDS", 0.02)
    monkeypatch.setattr(ods.buffer_access, "ANSWER_SECONDS", 0.1)


def fill(folder: Path, count: int = 5) -> None:
    """A data directory as a run of ODS leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = Buffer(folder / "buffer.db", limit_bytes=2**30, disk=Disk(folder))
    buffer.append(b"x", database="ods", pods={"a": count}, first_ns=1, rejected="HTTP 400")
    row = buffer.rejected()
    assert row is not None
    buffer.quarantine(row, [BadLine("a", n, f"x,pod=a value={n}.0 {n}", "conflict", 1) for n in range(count)])
    buffer.close()


def totals(folder: Path) -> dict[str, dict[str, int]]:
    buffer = Buffer(folder / "buffer.db", limit_bytes=2**30, disk=Disk(folder))
    try:
        return buffer.open()
    finally:
        buffer.close()


def all_pages(folder: Path, action: str, selection: Selection | None = None) -> list[Page]:
    access = QuarantineAccess(folder)
    pages = list(access.pages(action, selection or Selection()))
    assert not access.is_running
    return pages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "data")
    return tmp_path / "data"


def test_without_an_ods_the_file_itself_is_worked_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ods.quarantine, "PAGE_LINES", 2)
    assert [page.lines for page in all_pages(folder, "lines")] == [2, 2, 1]
    assert sum(page.lines for page in all_pages(folder, "retry", Selection(ids=(1, 3)))) == 2
    assert sum(page.lines for page in all_pages(folder, "drop", Selection(ids=(2,)))) == 1
    assert totals(folder) == {"pending": {"a": 2}, "quarantined": {"a": 2}}


def test_what_is_quarantined_between_two_pages_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else a retry of what InfluxDB refuses again would have no end."""
    monkeypatch.setattr(ods.quarantine, "PAGE_LINES", 2)
    retried = []
    for page in QuarantineAccess(folder).pages("retry", Selection()):
        retried.append(page.lines)
        fill(folder, page.lines)
        assert len(retried) < 10
    assert retried == [2, 2, 1]
    assert totals(folder) == {"pending": {"a": 5}, "quarantined": {"a": 5}}


def test_the_lock_is_held_for_a_page_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else whoever reads the command's output slowly would keep ODS from starting."""
    monkeypatch.setattr(ods.quarantine, "PAGE_LINES", 2)
    for _ in QuarantineAccess(folder).pages("lines", Selection()):
        directory = DataDirectory(folder)
        directory.lock()
        directory.close()


def test_much_free_space_does_not_keep_the_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take minutes, and an ODS that is started meanwhile would be refused: what is left waits for it."""
    steps = itertools.count()
    monkeypatch.setattr(ods.quarantine_access, "GIVE_BACK_SECONDS", 0.0)
    monkeypatch.setattr(Buffer, "give_back", lambda self: next(steps) < 1000)
    all_pages(folder, "drop")
    assert next(steps) == 1


def test_an_ods_waits_a_moment_for_the_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that holds it for a page must not keep ODS from starting."""
    holder, waiting = DataDirectory(folder), DataDirectory(folder)
    holder.lock()
    with pytest.raises(SettingsError, match=f"process {os.getpid()}"):
        waiting.lock()
    monkeypatch.setattr(ods.directory, "LOCK_SECONDS", 60.0)
    monkeypatch.setattr(ods.directory.time, "sleep", lambda _: holder.close())
    waiting.lock()
    waiting.close()


def test_a_socket_that_a_killed_ods_has_left_is_none(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "control.sock"))
    assert sum(page.lines for page in all_pages(folder, "summary")) == 5


@pytest.fixture
def locked(folder: Path) -> Iterator[Path]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def test_an_ods_that_runs_and_has_no_control_socket_is_told(locked: Path) -> None:
    with pytest.raises(Unreachable, match=r"another ODS uses .* does not answer"):
        all_pages(locked, "lines")


def test_an_ods_that_does_not_answer_is_told(locked: Path) -> None:
    """The file is not touched: that ODS has it."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(locked / "control.sock"))
        silent.listen()
        with pytest.raises(Unreachable, match="does not answer: timed out"):
            all_pages(locked, "retry")


def test_a_directory_that_is_none_of_ods_is_left_as_it_is(tmp_path: Path) -> None:
    """No directory, no buffer and no lock is made."""
    for missing in (tmp_path / "nothing", tmp_path):
        with pytest.raises(Unreachable, match="no buffer"):
            all_pages(missing, "lines")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("action", ["lines", "summary", "retry", "drop"])
def test_a_damaged_buffer_is_told_and_left_to_ods(folder: Path, action: str) -> None:
    """ODS saves what it can when it starts: a command must not move the file out of its way."""
    (folder / "buffer.db").write_bytes(b"this is not a database " * 1000)
    with pytest.raises(Unreachable, match=r"buffer\.db cannot be read"):
        all_pages(folder, action)
    assert sorted(path.name for path in folder.glob("buffer.db*")) == ["buffer.db"]
    assert (folder / "buffer.db").read_bytes().startswith(b"this is not")
    DataDirectory(folder).lock()
