"""What finds and reads recordings after a run: whatever state they are in, whoever writes them, and in order."""

import gzip
from pathlib import Path

import pytest

from ods.errors import SettingsError
from ods.playback import PIECE_BYTES
from ods.recorded import DISORDER_NS, Segment, Tally, find, in_order, read, rows
from ods.recording import HEADERS, Row, folder_name, segment_name
from ods.selection import Selection

BEGIN_NS = 1_790_000_000_000_000_000
HOUR_NS = 3_600_000_000_000
ALL = Selection()


def write(
    directory: Path,
    pod: str,
    begin_ns: int,
    *,
    kind: str = "data",
    count: int = 3,
    state: str = ".gz",
    step_ns: int = 1,
) -> Path:
    """A segment below a data directory."""
    folder = directory / "recordings" / folder_name(pod)
    folder.mkdir(parents=True, exist_ok=True)
    columns = "accel_x,%d" if kind == "data" else 'log,"message %d"'
    lines = [f"{begin_ns + number * step_ns},{columns % number}\n" for number in range(count)]
    text = HEADERS[kind] + "".join(lines).encode()
    path = folder / (segment_name(begin_ns, kind) + state)
    path.write_bytes(gzip.compress(text) if state == ".gz" else text)
    return path


def found(where: Path | list[Path], selection: Selection = ALL) -> list[tuple[str, str, int]]:
    return [(one.pod, one.kind, (one.begin_ns - BEGIN_NS) // HOUR_NS) for one in find(where, selection)]


def times(segments: list[Segment], selection: Selection = ALL, tally: Tally | None = None) -> list[int]:
    parts = rows(segments, selection, tally or Tally())
    return [int(row[0]) - BEGIN_NS for part in parts for row in part.rows]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two pods, one of them with a name that is encoded on the disk, and three segments of each state."""
    for hour, state in enumerate((".gz", "", ".open")):
        write(tmp_path, "Pod 1", BEGIN_NS + hour * HOUR_NS, state=state)
    write(tmp_path, "Pod 1", BEGIN_NS, kind="log")
    write(tmp_path, "127.0.0.2", BEGIN_NS + HOUR_NS)
    return tmp_path


def test_segments_are_found_from_wherever_one_points(directory: Path) -> None:
    everything = [
        ("Pod 1", "data", 0),
        ("Pod 1", "log", 0),
        ("127.0.0.2", "data", 1),
        ("Pod 1", "data", 1),
        ("Pod 1", "data", 2),
    ]
    folder = directory / "recordings" / "%50od%201"
    assert found(directory) == found(directory / "recordings") == everything
    assert found(folder) == [one for one in everything if one[0] == "Pod 1"]
    (gz,) = folder.glob("*.data.csv.gz")
    assert found([gz]) == [("Pod 1", "data", 0)]
    assert found([directory, folder, gz]) == everything, "what is named twice is found once"


def test_what_is_no_segment_is_passed_over_in_a_folder_and_refused_where_it_is_named(directory: Path) -> None:
    folder = directory / "recordings" / "127.0.0.2"
    (folder / "notes.txt").write_text("mine")
    (folder / (segment_name(BEGIN_NS, "data") + ".gz.part")).write_bytes(b"half")
    assert len(find(folder, ALL)) == 1
    with pytest.raises(SettingsError, match=r"notes.txt is no recording"):
        find([folder / "notes.txt"], ALL)
    with pytest.raises(SettingsError, match="nothing: no such file or folder"):
        find(directory / "nothing", ALL)


def test_pods_names_and_times_leave_segments_unread(directory: Path) -> None:
    assert found(directory, Selection(pods=("127.0.0.2",))) == [("127.0.0.2", "data", 1)]
    assert ("Pod 1", "log", 0) not in found(directory, Selection(names=("*",)))
    assert found(directory, Selection(to_ns=BEGIN_NS + 1)) == [("Pod 1", "data", 0), ("Pod 1", "log", 0)]
    late = found(directory, Selection(from_ns=BEGIN_NS + 2 * HOUR_NS + DISORDER_NS, names=("*",)))
    assert late == [("127.0.0.2", "data", 1), ("Pod 1", "data", 2)], "the last of a pod may last until now"


def test_rows_come_by_pod_and_kind_in_the_order_of_time(directory: Path) -> None:
    tally = Tally()
    parts = list(rows(find(directory, ALL), ALL, tally))
    assert [(part.pod, part.kind) for part in parts] == [
        ("127.0.0.2", "data"),
        *[("Pod 1", "data")] * 3,
        ("Pod 1", "log"),
    ]
    assert (tally.read, tally.selected, tally.unreadable_rows, tally.unreadable_files) == (15, 15, 0, 0)
    spanned = Selection(from_ns=BEGIN_NS + 2, to_ns=BEGIN_NS + HOUR_NS + 1)
    assert times(find(directory, spanned), spanned, tally) == [HOUR_NS, 2, HOUR_NS, 2]


def test_a_segment_that_is_closed_and_compressed_after_it_was_found_is_read(directory: Path) -> None:
    segments = find(directory, Selection(pods=("Pod 1",), names=("*",)))
    left_open = segments[-1].path
    closed = left_open.with_suffix("")
    left_open.rename(closed)
    assert len(times(segments)) == 9
    closed.with_name(closed.name + ".gz").write_bytes(gzip.compress(closed.read_bytes()))
    assert len(find(directory, Selection(names=("*",)))) == 4, "a crash may leave it in both states"
    closed.unlink()
    assert len(times(segments)) == 9


def test_what_an_ods_is_writing_is_read_up_to_its_last_whole_row(tmp_path: Path) -> None:
    path = write(tmp_path, "a", BEGIN_NS, state=".open")
    with path.open("ab") as file:
        file.write(b"%d,accel_x,1" % (BEGIN_NS + 3))
    tally = Tally()
    assert times(find(tmp_path, ALL), tally=tally) == [0, 1, 2]
    assert not tally.unreadable_rows


def test_a_damaged_segment_is_told_of_once_and_the_others_are_read(directory: Path) -> None:
    (damaged,) = directory.glob("recordings/%50od%201/*.data.csv.gz")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    (other,) = directory.glob("recordings/%50od%201/*.data.csv")
    other.write_bytes(other.read_bytes() + b"\0\0\0\n")
    warnings: list[str] = []
    tally = Tally(warnings.append)
    assert len(times(find(directory, ALL), tally=tally)) == 12
    assert (tally.unreadable_files, tally.unreadable_rows) == (1, 1)
    (warning,) = warnings
    assert warning.startswith(f"{damaged} cannot be read to its end: ") and warning.count(str(damaged)) == 1


def test_one_that_is_deleted_meanwhile_is_told_of(directory: Path) -> None:
    segments = find(directory, ALL)
    segments[0].path.unlink()
    warnings: list[str] = []
    assert times(segments, tally=Tally(warnings.append))
    assert len(warnings) == 1 and "No such file" in warnings[0]


def test_a_large_segment_comes_in_pieces(tmp_path: Path) -> None:
    path = write(tmp_path, "a", BEGIN_NS, count=50_000)
    pieces = list(read(find(path, ALL)[0], ALL, Tally()))
    assert sum(map(len, pieces)) == 50_000
    assert max(map(len, pieces)) < PIECE_BYTES / 20


def test_rows_a_little_out_of_order_are_put_in_order() -> None:
    """Those for which there was no memory stand before earlier ones; a crash and its successor overlap a little."""

    def row(time_ns: int) -> Row:
        return (str(time_ns), "x", "1")

    pieces = [[5, 6, 7], [1, 2, 8], [9, 10, 11], [], [10, 12]]
    ordered = list(in_order([[row(time_ns) for time_ns in piece] for piece in pieces]))
    assert [int(each[0]) for piece in ordered for each in piece] == [1, 2, 5, 6, 7, 8, 9, 10, 10, 11, 12]
    assert list(in_order([])) == []
