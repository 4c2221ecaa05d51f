"""What a crash leaves of the recordings: found without reading it, closed where its last whole row ends."""

import gzip
import os
from pathlib import Path

import pytest

from ods import left_segments
from ods.left_segments import FAT_NS, LASTS_NS, close_left, find_recorded_times, left_behind
from ods.recording import segment_name
from ods.segment_files import left_to_compress

SECOND_NS = 1_000_000_000
NOW_NS = 1_790_000_000 * SECOND_NS
HEADER = b"time_ns,name,value\n"


def made(folder: Path, begin_ns: int, state: str, *, last_ns: int = 0, data: bytes = HEADER) -> Path:
    path = folder / "a" / (segment_name(begin_ns, "data") + state)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(last_ns or begin_ns, last_ns or begin_ns))
    return path


def test_every_segment_that_was_left_open_is_found(tmp_path: Path) -> None:
    """Whatever its name says: the clock may have gone back."""
    left = [made(tmp_path, NOW_NS + hours * 3600 * SECOND_NS, ".open") for hours in (-1000, 0, 1000)]
    assert left_behind(tmp_path, NOW_NS, NOW_NS) == left
    assert left_behind(tmp_path, 0, NOW_NS) == left


@pytest.mark.parametrize("state", ["", ".gz"])
def test_a_closed_segment_is_found_where_its_last_row_may_be_unsettled(tmp_path: Path, state: str) -> None:
    settled_ns = NOW_NS - 60 * SECOND_NS
    made(tmp_path, settled_ns - 100 * SECOND_NS, state, last_ns=settled_ns - FAT_NS)
    late = made(tmp_path, settled_ns - 99 * SECOND_NS, state, last_ns=settled_ns)
    made(tmp_path, NOW_NS, state, last_ns=NOW_NS + 1)  # of this run
    assert left_behind(tmp_path, settled_ns, NOW_NS) == [late]
    assert left_behind(tmp_path, 0, NOW_NS) == [], "without a note all of history would be put through again"


def test_of_days_of_recordings_few_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names tell enough."""
    for hour in range(3, 30):
        made(tmp_path, NOW_NS - hour * 3600 * SECOND_NS, ".gz", last_ns=NOW_NS + 1)
    assert left_behind(tmp_path, NOW_NS, NOW_NS + 1) == []


@pytest.mark.parametrize("state", ["", ".open", ".gz"])
def test_what_has_no_end_is_no_segment(tmp_path: Path, state: str) -> None:
    path = made(tmp_path, NOW_NS - SECOND_NS, state)
    path.unlink()
    os.mkfifo(path)
    assert left_behind(tmp_path, NOW_NS - 2 * SECOND_NS, NOW_NS) == []
    assert left_to_compress(tmp_path) == []


def test_what_is_no_segment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("notes.csv", "x.csv.gz", "a.csv.gz.part"):
        (tmp_path / "a" / name).touch()
    assert left_behind(tmp_path, 1, NOW_NS) == []
    assert left_behind(tmp_path / "missing", 1, NOW_NS) == []


@pytest.mark.parametrize("block_bytes", [1, 7, 64 * 1024])
@pytest.mark.parametrize("torn", [b"", b"2,x", b"\0" * 100])
def test_a_segment_is_closed_after_its_last_whole_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bytes, block_bytes: int
) -> None:
    monkeypatch.setattr(left_segments, "BLOCK_BYTES", block_bytes)
    path = made(tmp_path, NOW_NS, ".open", data=HEADER + b"1,x,1\n" + torn)
    closed = close_left(path, NOW_NS + 5)
    assert closed == path.with_suffix("") and not path.exists()
    assert closed.read_bytes() == HEADER + b"1,x,1\n"
    assert closed.stat().st_mtime_ns == NOW_NS + 5


@pytest.mark.parametrize("data", [b"", b"time_ns,na"])
def test_one_that_was_only_begun_is_taken_away(tmp_path: Path, data: bytes) -> None:
    """Nothing was recorded in it, and no reader of CSV takes it."""
    path = made(tmp_path, NOW_NS, ".open", data=data)
    assert close_left(path, NOW_NS) is None
    assert not list(path.parent.iterdir())


def test_one_that_holds_nothing_readable_is_left_as_it_is(tmp_path: Path) -> None:
    path = made(tmp_path, NOW_NS, ".open", data=bytes(10_000))
    with pytest.raises(OSError, match="holds no row"):
        close_left(path, NOW_NS)
    assert path.read_bytes() == bytes(10_000)


# -- Which times are recorded


def recorded_times(folder: Path, since: dict[str, int]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    find_recorded_times(folder, since, found)
    return found


def rows(*times_ns: int) -> bytes:
    return HEADER + b"".join(b"%d,x,1\n" % time_ns for time_ns in times_ns)


def test_the_times_of_all_rows_since_then_are_found(tmp_path: Path) -> None:
    made(tmp_path, NOW_NS, ".open", data=rows(NOW_NS, NOW_NS + 1, NOW_NS + 5) + b"%d,x,1" % (NOW_NS + 6))
    log = tmp_path / "a" / (segment_name(NOW_NS, "log") + ".open")
    log.write_bytes(b'time_ns,kind,text\n%d,log,"one ""quoted"""\n%d,torn,"POD2x 1"\n' % (NOW_NS + 2, NOW_NS + 3))
    expected = {NOW_NS + 1, NOW_NS + 2, NOW_NS + 3, NOW_NS + 5}
    assert recorded_times(tmp_path, {"a": NOW_NS + 1, "b": 0}) == {"a": expected, "b": set()}


def test_those_of_a_segment_that_was_just_closed_too(tmp_path: Path) -> None:
    made(tmp_path, NOW_NS, "", data=rows(NOW_NS), last_ns=NOW_NS)
    made(tmp_path, NOW_NS + 5, ".gz", data=gzip.compress(rows(NOW_NS + 5)), last_ns=NOW_NS + 5)
    assert recorded_times(tmp_path, {"a": NOW_NS}) == {"a": {NOW_NS, NOW_NS + 5}}


def test_of_segments_that_were_closed_before_none_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of one that was left open, the time of the file says nothing."""
    since_ns = NOW_NS + 11 + FAT_NS
    made(tmp_path, NOW_NS, ".gz", data=b"no gzip", last_ns=NOW_NS + 10)
    made(tmp_path, NOW_NS - LASTS_NS, ".gz", data=b"no gzip", last_ns=since_ns)  # the file was touched later
    made(tmp_path, NOW_NS, ".open", data=rows(since_ns), last_ns=NOW_NS)
    assert recorded_times(tmp_path, {"a": since_ns}) == {"a": {since_ns}}
    assert not caplog.text


def test_a_segment_that_cannot_be_read_hides_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, NOW_NS, ".gz", data=b"no gzip")
    made(tmp_path, NOW_NS + 5, ".open", data=rows(NOW_NS + 5))
    assert recorded_times(tmp_path, {"a": NOW_NS}) == {"a": {NOW_NS + 5}}
    assert "is not looked at" in caplog.text


def test_what_is_no_segment_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.csv.open").write_bytes(rows(NOW_NS))
    os.mkfifo(tmp_path / "a" / (segment_name(NOW_NS, "data") + ".open"))
    (tmp_path / "a" / (segment_name(NOW_NS, "data") + ".gz.part")).write_bytes(rows(NOW_NS))
    assert recorded_times(tmp_path, {"a": 0}) == {"a": set()}
