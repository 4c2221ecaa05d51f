"""What reads a segment back: every whole row, and of a large one no more than is asked for."""

import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ods.playback
from ods.playback import PIECE_BYTES, ROW_BYTES, play
from ods.recording import Row

HEADER = b"time_ns,name,value\n"
BEGIN_NS = 1_790_000_000_000_000_000
NAME = "20260921-141320.000000000.data.csv"


def segment(folder: Path, data: bytes, name: str = NAME + ".open") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def data_of(count: int) -> bytes:
    """A row each microsecond."""
    return b"".join(b"%d,accel_x,%d.5\n" % (BEGIN_NS + number * 1000, number) for number in range(count))


def rows_of(path: Path, **options: int) -> list[Row]:
    return [row for piece in play(path, **options) for row in piece.rows]


def expected(first: int, end: int) -> list[Row]:
    return [(str(BEGIN_NS + number * 1000), "accel_x", f"{number}.5") for number in range(first, end)]


@pytest.mark.parametrize("state", [".open", "", ".gz"])
def test_a_segment_is_read_in_whatever_state_it_is(tmp_path: Path, state: str) -> None:
    path = segment(tmp_path, HEADER + data_of(20_000), NAME + state)
    assert rows_of(path) == expected(0, 20_000)
    assert rows_of(path, after_ns=BEGIN_NS + 19_989_000) == expected(19_990, 20_000)
    pieces = list(play(path))
    assert len(pieces) > 2, "no piece is large"
    assert pieces[-1].latest_ns == BEGIN_NS + 19_999_000
    assert not any(piece.unreadable for piece in pieces)


def test_one_that_is_compressed_meanwhile_is_read_all_the_same(tmp_path: Path) -> None:
    """The recorder's thread does that at the start, too."""
    segment(tmp_path, HEADER + data_of(5), NAME + ".gz")
    assert rows_of(tmp_path / NAME) == expected(0, 5)


@pytest.mark.parametrize("kind", ["data", "log"])
def test_a_last_row_without_its_newline_is_none(tmp_path: Path, kind: str) -> None:
    row = b"1,x,12" if kind == "data" else b'1,log,"a"'
    assert rows_of(segment(tmp_path, row + b"\n" + row, NAME.replace("data", kind))) == [("1", *row_of(row))]


def row_of(row: bytes) -> tuple[str, str]:
    _, second, third = row.decode().split(",")
    return second, third.strip('"')


@pytest.mark.parametrize("data", [b"", b"time", HEADER, HEADER[:-1]])
def test_a_segment_without_a_row_has_none(tmp_path: Path, data: bytes) -> None:
    for after_ns in (-1, BEGIN_NS + 1):
        pieces = list(play(segment(tmp_path, data), after_ns=after_ns))
        assert [(piece.rows, piece.unreadable) for piece in pieces] in ([], [([], 0)])


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    rows = data_of(3).splitlines(keepends=True)
    path = segment(tmp_path, HEADER + rows[0] + b"\0\0\0\n" + rows[1] + b"x\n\n" + rows[2])
    (piece,) = play(path)
    assert (piece.rows, piece.unreadable) == (expected(0, 3), 3)


@pytest.mark.parametrize("hole_bytes", [100, ROW_BYTES, 4 * ROW_BYTES + 7])
def test_zeros_in_the_middle_hide_no_row_after_them(tmp_path: Path, hole_bytes: int) -> None:
    """As a power cut may leave them; the row that they end in is lost."""
    data = data_of(10_000)
    middle = data.index(b"\n", len(data) // 2) + 1
    path = segment(tmp_path, HEADER + data[:middle] + bytes(hole_bytes) + data[middle:])
    before = data[:middle].count(b"\n")
    assert rows_of(path) == expected(0, before) + expected(before + 1, 10_000)
    for number in (0, before - 2, before, before + 1, before + 2, 9_998):
        found = rows_of(path, after_ns=BEGIN_NS + number * 1000)
        assert found == [row for row in rows_of(path) if int(row[0]) > BEGIN_NS + number * 1000]
    assert sum(piece.unreadable for piece in play(path)) == 1


@pytest.mark.parametrize("data", [b"\x1f\x8b no gzip", gzip.compress(HEADER + data_of(100_000))[:-2000]])
def test_a_damaged_compressed_segment_is_an_error_of_the_disk(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / (NAME + ".gz")
    path.write_bytes(data)
    with pytest.raises(OSError):
        rows_of(path)


def test_one_that_is_not_there_is_an_error_of_the_disk(tmp_path: Path) -> None:
    for state in (".open", "", ".gz"):
        with pytest.raises(FileNotFoundError):
            rows_of(tmp_path / (NAME + state))


class CountingFile(io.FileIO):
    """A file that knows how much was read from it."""

    read_bytes = 0

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer) or 0
        CountingFile.read_bytes += count
        return count


def test_of_a_large_segment_the_end_alone_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million rows, of which the last hundred are asked for."""
    path = segment(tmp_path, HEADER + data_of(1_000_000))
    monkeypatch.setattr(ods.playback, "_opened", lambda path: io.BufferedReader(CountingFile(path)))
    assert rows_of(path, after_ns=BEGIN_NS + 999_899_000) == expected(999_900, 1_000_000)
    assert CountingFile.read_bytes < 2 * PIECE_BYTES < path.stat().st_size / 50


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=40), st.integers(-1, 70))
def test_halving_misses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[int, bool]], after_ns: int
) -> None:
    """In the order of time but for those that there was no memory for, which come before earlier ones."""
    monkeypatch.setattr(ods.playback, "NEAR_BYTES", 8)
    monkeypatch.setattr(ods.playback, "PIECE_BYTES", 30)
    admitted = sorted({time_ns for time_ns, is_refused in rows if not is_refused})
    times: list[int] = []
    refused = sorted({time_ns for time_ns, is_refused in rows if is_refused} - set(admitted))
    for time_ns in admitted:
        while refused and refused[0] < time_ns + 5:
            times.append(refused.pop(0))
        times.append(time_ns)
    path = segment(tmp_path, HEADER + b"".join(b"%d,x,1\n" % time_ns for time_ns in times), name=f"{EARLY}.data.csv")
    pieces = list(play(path, after_ns=after_ns))
    assert not any(piece.unreadable for piece in pieces), "it began in the middle of a row"
    found = [int(time_ns) for piece in pieces for time_ns, _, _ in piece.rows]
    assert set(admitted) & set(found) == {time_ns for time_ns in admitted if time_ns > after_ns}
    assert len(found) == len(set(found)) and min(found, default=100) > after_ns


#: The begin of a segment of 1970.
EARLY = "19700101-000000.000000000"
