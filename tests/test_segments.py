"""The files of the recordings: their states, whole rows or none, and what may be deleted."""

import errno
import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ods import segments
from ods.segment_files import compress, left_to_compress, prune
from ods.segments import Rows, Segments

SECOND_NS = 1_000_000_000
BEGIN_NS = 1_790_000_000 * SECOND_NS
DATA_HEADER, LOG_HEADER = b"time_ns,name,value\n", b"time_ns,kind,text\n"
BEGIN = "20260921-141320.000000000"


def rows(text: bytes = b"", *, pod: str = "a", log: bytes = b"", second: int = 0) -> Rows:
    first_ns = BEGIN_NS + second * SECOND_NS
    return Rows(pod, text, log, first_ns, first_ns + 5)


def append(writer: Segments, rows: Rows, now: float) -> None:
    """Rows of one pod; the disk takes them, or OSError is raised."""
    for _, error in writer.append([rows], now):
        raise error


def files(directory: Path) -> dict[str, bytes]:
    """All files below a directory, with what they hold, compressed or not."""
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): gzip.decompress(path.read_bytes())
        if path.suffix == ".gz"
        else path.read_bytes()
        for path in found
    }


# -- The states of a segment ------------------------------------------------------------------------------------------


def test_an_open_segment_says_so_in_its_name(tmp_path: Path) -> None:
    append(Segments(tmp_path), rows(b"1,x,1\n"), now=0.0)
    assert files(tmp_path) == {f"a/{BEGIN}.data.csv.open": DATA_HEADER + b"1,x,1\n"}


@pytest.mark.parametrize("state", [".open", "", ".gz"])
def test_a_segment_that_a_run_before_has_left_is_not_appended_to(tmp_path: Path, state: str) -> None:
    """A run that goes on where another died may begin a segment at the same time as that one did."""
    left = tmp_path / "a" / f"{BEGIN}.data.csv{state}"
    left.parent.mkdir()
    left.write_bytes(gzip.compress(b"left") if state == ".gz" else b"left")
    append(Segments(tmp_path), rows(b"1,x,1\n"), now=0.0)
    just_before = "20260921-141319.999999999"
    assert files(tmp_path) == {
        f"a/{just_before}.data.csv.open": DATA_HEADER + b"1,x,1\n",
        f"a/{BEGIN}.data.csv{state}": b"left",
    }


def test_data_and_messages_have_segments_of_their_own(tmp_path: Path) -> None:
    append(Segments(tmp_path), rows(b"1,x,1\n", log=b'2,log,"m"\n'), now=0.0)
    assert files(tmp_path) == {
        f"a/{BEGIN}.data.csv.open": DATA_HEADER + b"1,x,1\n",
        f"a/{BEGIN}.log.csv.open": LOG_HEADER + b'2,log,"m"\n',
    }


def test_rows_of_a_pod_go_on_in_its_open_segment(tmp_path: Path) -> None:
    writer = Segments(tmp_path)
    for second in range(3):
        append(writer, rows(b"%d,x,1\n" % second, second=second), now=float(second))
    assert files(tmp_path) == {f"a/{BEGIN}.data.csv.open": DATA_HEADER + b"0,x,1\n1,x,1\n2,x,1\n"}


def test_pods_have_folders_of_their_own(tmp_path: Path) -> None:
    writer = Segments(tmp_path)
    append(writer, rows(b"1,x,1\n", pod="Pod A"), now=0.0)
    append(writer, rows(b"2,x,2\n", pod="b"), now=0.0)
    assert list(files(tmp_path)) == [f"%50od%20%41/{BEGIN}.data.csv.open", f"b/{BEGIN}.data.csv.open"]


def test_a_closed_segment_has_its_last_time_as_the_files_time(tmp_path: Path) -> None:
    """`prune` goes by it: a segment is confirmed when its last record is."""
    writer = Segments(tmp_path)
    append(writer, rows(b"1,x,1\n"), now=0.0)
    append(writer, rows(b"2,x,1\n", second=9), now=0.0)
    (closed,) = writer.close_all()
    assert closed == tmp_path / "a" / f"{BEGIN}.data.csv"
    assert closed.stat().st_mtime_ns == BEGIN_NS + 9 * SECOND_NS + 5
    assert files(tmp_path) == {f"a/{BEGIN}.data.csv": DATA_HEADER + b"1,x,1\n2,x,1\n"}


def test_closing_twice_closes_once(tmp_path: Path) -> None:
    writer = Segments(tmp_path)
    append(writer, rows(b"1,x,1\n", log=b"m\n"), now=0.0)
    assert len(writer.close_all()) == 2
    assert writer.close_all() == []


def test_after_a_close_the_next_rows_begin_a_segment(tmp_path: Path) -> None:
    writer = Segments(tmp_path)
    append(writer, rows(b"1,x,1\n"), now=0.0)
    writer.close_all()
    append(writer, rows(b"2,x,1\n", second=1), now=1.0)
    assert files(tmp_path) == {
        "a/20260921-141320.000000000.data.csv": DATA_HEADER + b"1,x,1\n",
        "a/20260921-141321.000000000.data.csv.open": DATA_HEADER + b"2,x,1\n",
    }


def test_a_compressed_segment_holds_the_same_and_keeps_its_time(tmp_path: Path) -> None:
    writer = Segments(tmp_path)
    append(writer, rows(b"1,x,1\n" * 1000), now=0.0)
    (closed,) = writer.close_all()
    finished = compress(closed)
    assert files(tmp_path) == {f"a/{BEGIN}.data.csv.gz": DATA_HEADER + b"1,x,1\n" * 1000}
    assert finished == tmp_path / "a" / f"{BEGIN}.data.csv.gz"
    assert finished.stat().st_mtime_ns == BEGIN_NS + 5


def test_a_segment_that_cannot_be_compressed_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Segments(tmp_path)
    append(writer, rows(b"1,x,1\n"), now=0.0)
    (closed,) = writer.close_all()
    with monkeypatch.context() as disk, pytest.raises(OSError, match="full"):
        disk.setattr("ods.segment_files.os.fsync", full_disk)
        compress(closed)
    assert closed.read_bytes() == DATA_HEADER + b"1,x,1\n"
    assert left_to_compress(tmp_path) == [closed]
    compress(closed)
    assert files(tmp_path) == {f"a/{BEGIN}.data.csv.gz": DATA_HEADER + b"1,x,1\n"}


def test_what_a_crash_left_uncompressed_is_found_and_open_segments_are_left_alone(tmp_path: Path) -> None:
    before = Segments(tmp_path)
    for pod in ("b", "a"):
        append(before, rows(b"1,x,1\n", pod=pod), now=0.0)
    closed = before.close_all()
    compress(closed.pop())
    append(before, rows(b"2,x,1\n", pod="c"), now=0.0)
    assert left_to_compress(tmp_path) == closed
    assert left_to_compress(tmp_path / "missing") == []


# -- When a segment is closed -----------------------------------------------------------------------------------------


def test_a_segment_is_closed_when_idle(tmp_path: Path) -> None:
    writer = Segments(tmp_path)
    append(writer, rows(b"1,x,1\n", pod="idle"), now=0.0)
    append(writer, rows(b"1,x,1\n", pod="busy"), now=0.0)
    append(writer, rows(b"2,x,1\n", pod="busy"), now=segments.IDLE_SECONDS / 2)
    assert writer.close_old(segments.IDLE_SECONDS - 1) == []
    assert [path.parent.name for path in writer.close_old(segments.IDLE_SECONDS)] == ["idle"]


def test_a_segment_is_closed_when_old_however_busy(tmp_path: Path) -> None:
    writer = Segments(tmp_path)
    append(writer, rows(b"1,x,1\n"), now=0.0)
    append(writer, rows(b"2,x,1\n"), now=segments.SEGMENT_SECONDS - 1)
    assert writer.close_old(segments.SEGMENT_SECONDS - 1) == []
    assert len(writer.close_old(segments.SEGMENT_SECONDS)) == 1


def test_a_segment_is_closed_when_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", len(DATA_HEADER) + 12)
    writer = Segments(tmp_path)
    append(writer, rows(b"1,x,1\n"), now=0.0)
    assert writer.close_old(0.0) == []
    append(writer, rows(b"2,x,1\n"), now=0.0)
    assert len(writer.close_old(0.0)) == 1


def test_many_pods_do_not_hold_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file opened longest ago is let go, and opened again for its next rows."""
    monkeypatch.setattr(segments, "MOST_OPEN_FILES", 3)
    opened: set[int] = set()
    real_open, real_close = os.open, os.close
    monkeypatch.setattr("ods.segments.os.open", lambda *args: opened.add(file := real_open(*args)) or file)
    monkeypatch.setattr("ods.segments.os.close", lambda file: opened.discard(file) or real_close(file))
    writer = Segments(tmp_path)
    for second in range(3):
        for pod in range(10):
            append(writer, rows(b"%d,x,1\n" % second, pod=f"pod{pod}"), now=0.0)
            assert len(opened) <= 3
    assert len(writer.close_all()) == 10
    assert opened == set()
    expected = DATA_HEADER + b"0,x,1\n1,x,1\n2,x,1\n"
    assert files(tmp_path) == {f"pod{pod}/{BEGIN}.data.csv": expected for pod in range(10)}


def test_rows_of_many_pods_are_written_at_once(tmp_path: Path) -> None:
    """However few files may be open, each has all of its rows, and in their order."""
    texts = [(b"%d,x,1\n" % second, b'%d,log,"m"\n' % second) for second in range(3)]
    for most, directory in ((600, tmp_path / "many"), (7, tmp_path / "few")):
        writer = Segments(directory)
        writer._most_files = most
        for second, (data, log) in enumerate(texts):
            pods = [rows(data, pod=f"pod{pod}", log=log if pod % 3 == 0 else b"", second=second) for pod in range(600)]
            assert writer.append(pods, now=0.0) == []
            assert len(writer._with_files) <= most
        writer.close_all()
        data, log = map(b"".join, zip(*texts, strict=True))
        assert files(directory) == {
            **{f"pod{pod}/{BEGIN}.data.csv": DATA_HEADER + data for pod in range(600)},
            **{f"pod{pod}/{BEGIN}.log.csv": LOG_HEADER + log for pod in range(0, 600, 3)},
        }


# -- A disk that does not take it -------------------------------------------------------------------------------------


def full_disk(*arguments: object) -> int:
    raise OSError(errno.ENOSPC, "the disk is full")


def half_a_write(file: int, text: bytes) -> int:
    return REAL_WRITE(file, text[: len(text) // 2])


REAL_WRITE = os.write


@pytest.mark.parametrize("write", [full_disk, half_a_write])
def test_a_row_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write) -> None:
    writer = Segments(tmp_path)
    append(writer, rows(b"1,x,1\n"), now=0.0)
    with monkeypatch.context() as disk, pytest.raises(OSError):
        disk.setattr("ods.segments.os.write", write)
        append(writer, rows(b"2,long_name,123456789\n" * 9), now=1.0)
    assert files(tmp_path) == {f"a/{BEGIN}.data.csv.open": DATA_HEADER + b"1,x,1\n"}
    append(writer, rows(b"3,x,1\n"), now=2.0)
    writer.close_all()
    assert files(tmp_path) == {f"a/{BEGIN}.data.csv": DATA_HEADER + b"1,x,1\n3,x,1\n"}


@pytest.mark.parametrize("write", [full_disk, half_a_write])
def test_a_segment_that_could_not_be_begun_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write
) -> None:
    """A full disk is tried again with every batch: it must not fill with empty segments that nobody closes."""
    writer = Segments(tmp_path)
    with monkeypatch.context() as disk:
        disk.setattr("ods.segments.os.write", write)
        for second in range(5):
            with pytest.raises(OSError):
                append(writer, rows(b"1,x,1\n", second=second), now=0.0)
    append(writer, rows(b"2,x,1\n", second=7), now=0.0)
    writer.close_all()
    assert files(tmp_path) == {"a/20260921-141327.000000000.data.csv": DATA_HEADER + b"2,x,1\n"}


AT_THE_LIMIT = """
import resource, signal, sys
from pathlib import Path
from ods.segments import Rows, Segments

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
writer = Segments(Path(sys.argv[1]))
kept = refused = 0
for number in range(100):
    if writer.append([Rows("a", b"%d,accel_x,1.500000\\n" % number, b"", number, number)], 0.0):
        refused += 1
    else:
        kept += 1
print(kept, refused)
"""


def test_a_disk_that_takes_no_new_segment_is_not_asked_for_each_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand attempts in each batch would keep the thread from all else; what is open is written to as ever."""
    writer = Segments(tmp_path)
    assert writer.append([rows(b"1,x,1\n", pod=f"pod{pod}") for pod in range(500)], now=0.0) == []
    asked: list[Path] = []
    with monkeypatch.context() as disk:
        disk.setattr(Path, "mkdir", lambda path, **_: asked.append(path) or full_disk())
        refused = writer.append([rows(b"2,x,1\n", pod=f"pod{pod}") for pod in range(1000)], now=0.0)
    assert [of.pod for of, _ in refused] == [f"pod{pod}" for pod in range(500, 1000)]
    assert all(error.errno == errno.ENOSPC for _, error in refused)
    assert len(asked) < 10
    assert writer.append([rows(b"3,x,1\n", pod=f"pod{pod}") for pod in range(1000)], now=0.0) == []
    expected = DATA_HEADER + b"1,x,1\n2,x,1\n3,x,1\n"
    assert files(tmp_path)[f"pod7/{BEGIN}.data.csv.open"] == expected
    assert files(tmp_path)[f"pod777/{BEGIN}.data.csv.open"] == DATA_HEADER + b"3,x,1\n"


SOME_AT_THE_LIMIT = """
import resource, signal, sys
from pathlib import Path
from ods.many_writes import ManyWrites
from ods.segments import Rows, Segments

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
writer = Segments(Path(sys.argv[1]))
writer._many_writes = ManyWrites(has_aio=sys.argv[2] == "aio")
for number in range(20):
    rows = [Rows(str(pod), b"%d,%s\\n" % (number, b"x" * pod), b"%d\\n" % number, 0, 0) for pod in range(100)]
    refused = writer.append(rows, 0.0)
    print(*[f"{rows.pod}:{rows.log.decode().strip()}" for rows, _ in refused])
"""


@pytest.mark.parametrize("kind", ["aio", "one by one"])
def test_where_some_files_are_at_their_limit_the_others_have_their_rows(tmp_path: Path, kind: str) -> None:
    """What is not taken is told of, and is not there in part."""
    root = Path(segments.__file__).parents[1]
    command = [sys.executable, "-c", SOME_AT_THE_LIMIT, str(tmp_path), kind]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=60)
    told = done.stdout.splitlines()
    expected = []
    for number in range(20):
        row_bytes = len(f"{number},") + 1
        before = [len(f"{earlier},") + 1 for earlier in range(number)]
        expected.append(
            " ".join(
                f"{pod}:"
                for pod in range(100)
                if len(DATA_HEADER) + sum(before) + number * pod + row_bytes + pod > 1000
            )
        )
    assert expected[0] == ""
    assert 20 < len(expected[-1].split()) < 100
    assert told == expected
    for name, text in files(tmp_path).items():
        assert text.endswith(b"\n"), name
        if name.endswith("log.csv.open"):
            assert text == LOG_HEADER + b"".join([b"%d\n" % number for number in range(20)])


def test_a_real_file_at_its_limit_holds_whole_rows_only(tmp_path: Path) -> None:
    """The kernel takes a part of the row that reaches the limit, then nothing."""
    root = Path(segments.__file__).parents[1]
    command = [sys.executable, "-c", AT_THE_LIMIT, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=60)
    kept, refused = map(int, done.stdout.split())
    assert kept > 10
    assert kept + refused == 100
    (text,) = files(tmp_path).values()
    assert text == DATA_HEADER + b"".join([b"%d,accel_x,1.500000\n" % number for number in range(kept)])


# -- Room -------------------------------------------------------------------------------------------------------------

ROW = b"1,x,1\n"


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    """Four compressed segments of two pods, a second apart, oldest first."""
    writer = Segments(tmp_path)
    finished = []
    for second, pod in enumerate(["b", "a", "b", "a"]):
        append(writer, rows(ROW, pod=pod, second=second), now=0.0)
        finished += [compress(closed) for closed in writer.close_all()]
    return finished


ALL_CONFIRMED_NS = BEGIN_NS + 3600 * SECOND_NS


def size(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def test_recordings_within_their_limit_are_kept(tmp_path: Path, recordings: list[Path]) -> None:
    assert prune(tmp_path, limit_bytes=size(recordings), confirmed_before_ns=ALL_CONFIRMED_NS) == []
    assert all(path.exists() for path in recordings)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_oldest_of_all_pods_go_until_the_rest_fits(tmp_path: Path, recordings: list[Path], count: int) -> None:
    limit_bytes = size(recordings[count:])
    assert prune(tmp_path, limit_bytes=limit_bytes, confirmed_before_ns=ALL_CONFIRMED_NS) == recordings[:count]
    assert [path.exists() for path in recordings] == [False] * count + [True] * (4 - count)


def test_unconfirmed_recordings_are_never_deleted(tmp_path: Path, recordings: list[Path]) -> None:
    """A segment goes only when its last record is older than the oldest one that is not yet in InfluxDB."""
    last_ns_of_second = BEGIN_NS + SECOND_NS + 5
    assert prune(tmp_path, limit_bytes=0, confirmed_before_ns=last_ns_of_second) == recordings[:1]
    assert prune(tmp_path, limit_bytes=0, confirmed_before_ns=last_ns_of_second + 1) == recordings[1:2]
    assert [path.exists() for path in recordings] == [False, False, True, True]


def test_open_and_uncompressed_segments_are_never_deleted(tmp_path: Path) -> None:
    writer = Segments(tmp_path)
    append(writer, rows(ROW, pod="closed"), now=0.0)
    (closed,) = writer.close_all()
    append(writer, rows(ROW, pod="open"), now=0.0)
    assert prune(tmp_path, limit_bytes=0, confirmed_before_ns=ALL_CONFIRMED_NS) == []
    assert closed.exists()
    assert (tmp_path / "open" / f"{BEGIN}.data.csv.open").exists()


def test_open_segments_count_towards_the_limit(tmp_path: Path, recordings: list[Path]) -> None:
    limit_bytes = size(recordings)
    append(Segments(tmp_path), rows(ROW, pod="open"), now=0.0)
    assert prune(tmp_path, limit_bytes=limit_bytes, confirmed_before_ns=ALL_CONFIRMED_NS) == recordings[:1]


def test_a_late_row_does_not_make_a_segment_look_older(tmp_path: Path) -> None:
    """Rows of a refused chunk may be written before those of an earlier one: the last time is the latest."""
    writer = Segments(tmp_path)
    append(writer, rows(ROW, second=9), now=0.0)
    append(writer, rows(ROW, second=1), now=0.0)
    (closed,) = writer.close_all()
    assert closed.stat().st_mtime_ns == BEGIN_NS + 9 * SECOND_NS + 5


def test_without_a_directory_there_is_nothing_to_delete(tmp_path: Path) -> None:
    assert prune(tmp_path / "missing", limit_bytes=0, confirmed_before_ns=ALL_CONFIRMED_NS) == []
