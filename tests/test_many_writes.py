"""Many writes at once: the same as one by one, whatever becomes of each."""

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ods import many_writes
from ods.many_writes import FEW, MOST_AT_ONCE, ManyWrites

#: More than are given to the kernel at once.
COUNT = MOST_AT_ONCE + 20


@pytest.fixture(params=[True, False], ids=["aio", "one by one"])
def writes(request: pytest.FixtureRequest) -> Iterator[ManyWrites]:
    writes = ManyWrites(has_aio=request.param)
    yield writes
    writes.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator["Folder"]:
    folder = Folder(tmp_path)
    yield folder
    folder.close()


class Folder:
    """Files that are open for appending."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: list[int] = []

    def open(self, count: int) -> list[int]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.files += [os.open(self.path / str(number), flags) for number in range(count)]
        return self.files

    def texts(self) -> list[bytes]:
        return [(self.path / str(number)).read_bytes() for number in range(len(self.files))]

    def close(self) -> None:
        for file in self.files:
            os.close(file)


@pytest.mark.parametrize("count", [0, 1, FEW, FEW + 1, MOST_AT_ONCE, MOST_AT_ONCE + 1, 2 * MOST_AT_ONCE + 3])
def test_each_file_has_its_texts(writes: ManyWrites, folder: Folder, count: int) -> None:
    """Any bytes, of any length, one behind the other."""
    files = folder.open(count)
    expected = [b""] * count
    for turn in range(3):
        texts = [bytes([number % 256, 0, turn]) * (number % 7 * 500 + 1) for number in range(count)]
        assert writes.write(files, texts) == list(map(len, texts))
        expected = [before + text for before, text in zip(expected, texts, strict=True)]
    assert folder.texts() == expected


def test_one_that_fails_is_told_of_and_the_others_are_written(
    writes: ManyWrites, folder: Folder, tmp_path: Path
) -> None:
    """One that is not open, one that cannot be written to, one on a disk that is full."""
    files = list(folder.open(COUNT))
    closed = os.open(tmp_path, os.O_RDONLY)
    os.close(closed)
    read_only, full = os.open(tmp_path / "3", os.O_RDONLY), os.open("/dev/full", os.O_WRONLY)
    files[3], files[7], files[11] = read_only, closed, full
    written = writes.write(files, [b"text\n"] * COUNT)
    expected = [5] * COUNT
    expected[3], expected[7], expected[11] = -errno.EBADF, -errno.EBADF, -errno.ENOSPC
    assert written == expected
    assert [len(text) for text in folder.texts()] == [0 if number in (3, 7, 11) else 5 for number in range(COUNT)]
    os.close(read_only)
    os.close(full)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no such call")
def test_the_kernels_call_is_used_where_there_is_one(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else the tests above would show nothing; for few it is not, for the one by one is as quick."""
    alone: list[int] = []
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda file, text: alone.append(file) or real_write(file, text))
    writes = ManyWrites()
    files = folder.open(FEW + 1)
    assert writes.write(files, [b"x"] * len(files)) == [1] * len(files)
    assert alone == []
    assert writes.write(files[:FEW], [b"x"] * FEW) == [1] * FEW
    assert alone == files[:FEW]
    writes.close()


@pytest.mark.parametrize("refusing", ["_CALLS", "setup", "submit"])
def test_where_it_is_refused_all_is_written_all_the_same(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, refusing: str
) -> None:
    """On an unknown processor, and where a sandbox lets no such call through."""
    if refusing == "_CALLS":
        monkeypatch.setattr(many_writes, "_CALLS", {})
    else:
        no_call = 100_000
        of = list(next(iter(many_writes._CALLS.values())))
        of[0 if refusing == "setup" else 3] = no_call
        monkeypatch.setattr(many_writes, "_CALLS", dict.fromkeys(many_writes._CALLS, tuple(of)))
    writes = ManyWrites()
    files = folder.open(20)
    for _ in range(2):
        assert writes.write(files, [b"text\n"] * 20) == [5] * 20
    assert folder.texts() == [b"text\n" * 2] * 20
    writes.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel holds nothing")
def test_what_the_kernel_holds_is_given_back(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be only so many on a machine (`aio-max-nr`); without one, all would be written one by one."""
    monkeypatch.setattr(os, "write", lambda file, text: pytest.fail("written one by one"))
    most = int(Path("/proc/sys/fs/aio-max-nr").read_text()) // MOST_AT_ONCE
    if most > 1000:
        pytest.skip(f"{most} may be held here")
    writes = ManyWrites()
    files = folder.open(20)
    for _ in range(most + 1):
        writes.write(files, [b"text\n"] * 20)
        writes.close()
    writes.close()
