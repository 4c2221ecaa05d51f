"""`ods export` from recordings: what is in the file, what the manifest says, and what becomes of one that fails."""

import fcntl
import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest

from ods.commands import export
from ods.recording import folder_name, log_row

BEGIN_NS = 1_790_000_000_000_000_000
BEGIN = "20260921-141320.000000000"
NAMES = ("accel_x", "accel_y", "pod")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ODS_")]:
        monkeypatch.delenv(name)


def data_of(count: int, *, offset_ns: int = 0) -> bytes:
    rows = [f"{BEGIN_NS + number * 1000 + offset_ns},{NAMES[number % 3]},{number * 0.5:f}\n" for number in range(count)]
    return b"time_ns,name,value\n" + "".join(rows).encode()


def record(directory: Path, pod: str, data: bytes, *, kind: str = "data", state: str = "") -> Path:
    path = directory / "recordings" / folder_name(pod) / f"{BEGIN}.{kind}.csv{state}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if state == ".gz" else data)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two pods, one compressed and one still being written, with messages and marks."""
    folder = tmp_path / "data"
    record(folder, "10.0.0.2", data_of(20_000, offset_ns=1), state=".gz")
    record(folder, "10.0.0.1", data_of(1000) + b"179000000000000", state=".open")
    logs = [("log", "[NOTE]  up"), ("invalid", "POD2?"), ("log", 'a "word"'), ("torn", "POD2a")]
    rows = [log_row(str(BEGIN_NS + number), kind, text) for number, (kind, text) in enumerate(logs)]
    record(folder, "10.0.0.1", b"time_ns,kind,text\n" + "".join(rows).encode(), kind="log", state=".open")
    marked = log_row(str(BEGIN_NS + 500_000), "mark", "half") + log_row(str(BEGIN_NS + 600_000), "mark", "later")
    record(folder, "ods", b"time_ns,kind,text\n" + marked.encode(), kind="log")
    return folder


def run(directory: Path, *words: str | Path) -> int:
    return export.main([str(word) for word in ("-d", directory, *words)])


def frame_of(path: Path) -> pandas.DataFrame:
    return pandas.read_csv(path, parse_dates=["time"]) if "csv" in path.name else pandas.read_parquet(path)


def manifest_of(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.with_name(path.name + ".manifest.json").read_text())
    return told


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_all_that_is_recorded_is_in_the_file(directory: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    assert run(directory, "-o", file) == 0
    frame, told = frame_of(file), manifest_of(file)
    assert len(frame) == 21_000 == told["rows"]
    assert list(frame["pod"].unique()) == ["10.0.0.1", "10.0.0.2"], "pod by pod, in the order of their names"
    assert all(of_pod["time"].is_monotonic_increasing for _, of_pod in frame.groupby("pod", observed=True))
    assert frame["value"].sum() == sum(number * 0.5 for count in (1000, 20_000) for number in range(count))
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (told["bytes"], told["file"]) == (file.stat().st_size, name)
    assert told["first_ns"] == BEGIN_NS == frame["time"].min().value
    assert told["last_ns"] == frame["time"].max().value
    assert told["pods"]["10.0.0.1"]["rows"] == 1000
    assert sum(told["names"].values()) == 21_000
    assert {mark["text"] for mark in told["marks"]} == {"half", "later"}
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [name, f"{name}.manifest.json"]


def test_the_same_rows_make_the_same_file(directory: Path, tmp_path: Path) -> None:
    for name in ("a.csv.gz", "b.csv.gz", "a.parquet", "b.parquet"):
        run(directory, "-o", tmp_path / name)
    for ending in ("csv.gz", "parquet"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_a_part_is_chosen_by_pod_name_and_mark(directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    words = ("--pod", "10.0.0.2", "--name", "accel_*", "--from", "mark:half", "--to", "mark:#2")
    assert run(directory, *words, "-o", file) == 0
    frame = frame_of(file)
    assert set(frame["name"]) == {"accel_x", "accel_y"}
    assert list(frame["value"]) == [number * 0.5 for number in range(500, 600) if number % 3 < 2]
    told = manifest_of(file)
    assert told["asked"]["names"] == ["accel_*"]
    assert [mark["text"] for mark in told["marks"]] == ["half"]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_wide_has_a_column_a_name(directory: Path, tmp_path: Path, name: str) -> None:
    assert run(directory, "--wide", "--pod", "10.0.0.1", "-o", tmp_path / name) == 0
    frame = frame_of(tmp_path / name)
    assert list(frame.columns) == ["time", "pod", "accel_x", "accel_y", "pod (name)"]
    assert frame["accel_y"].dropna().tolist() == [number * 0.5 for number in range(1, 1000, 3)]


def test_log_messages_are_a_table_of_their_own(directory: Path, tmp_path: Path) -> None:
    assert run(directory, "--logs", "-o", tmp_path / "a.csv") == 0
    frame = frame_of(tmp_path / "a.csv")
    assert list(frame["message"]) == ["up", 'a "word"']
    assert frame["level"][0] == "note"


def test_what_stands_there_twice_is_one_row(tmp_path: Path) -> None:
    rows = data_of(10).splitlines(keepends=True)
    record(tmp_path, "a", b"".join([*rows, rows[-1], rows[1]]))
    assert run(tmp_path, "-o", tmp_path / "a.csv") == 0
    assert len(frame_of(tmp_path / "a.csv")) == 10
    assert manifest_of(tmp_path / "a.csv")["source"]["repeated_rows"] == 2


def test_a_row_that_two_segments_have_is_one_row(tmp_path: Path) -> None:
    rows = data_of(10).splitlines(keepends=True)
    path = record(tmp_path, "a", b"".join(rows[:6]))
    path.with_name(BEGIN.replace("20.0", "21.0") + ".data.csv").write_bytes(b"".join([rows[0], *rows[5:]]))
    assert run(tmp_path, "-o", tmp_path / "a.csv") == 0
    assert len(frame_of(tmp_path / "a.csv")) == 10


def test_what_cannot_be_read_is_told_once_and_the_rest_is_exported(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(directory, "10.0.0.3", b"", state=".gz").write_bytes(b"no gzip")
    assert run(directory, "--wide", "-o", tmp_path / "a.csv") == export.NOT_WHOLE
    assert capsys.readouterr().err.count("10.0.0.3") == 1, "though a wide table is read twice"
    told = manifest_of(tmp_path / "a.csv")
    assert (told["rows"], told["source"]["unreadable_segments"], told["source"]["is_whole"]) == (21_000, 1, False)


def test_where_nothing_matches_the_file_that_was_there_stays(directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("as it was")
    assert run(directory, "--name", "nothing", "-o", file) == export.NOTHING
    assert file.read_text() == "as it was"
    assert not list(tmp_path.glob("*.part"))


def test_a_file_that_cannot_be_written_is_one_line(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(directory, "-o", tmp_path / "no" / "folder.csv") == export.FAILED
    assert run(directory, "-o", Path("/dev/full")) == export.FAILED
    first, second = capsys.readouterr().err.splitlines()
    assert "No such file" in first and "No space left" in second


def test_one_that_breaks_at_its_end_leaves_nothing(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("as it was")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    assert run(directory, "-o", file) == export.FAILED
    assert file.read_text() == "as it was"
    assert not list(tmp_path.glob("*.part"))


def test_two_exports_do_not_write_the_same_file(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "a.csv.part").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert run(directory, "-o", tmp_path / "a.csv") == export.FAILED
    assert "another process writes this file" in capsys.readouterr().err
    assert run(directory, "-o", tmp_path / "a.csv") == 0, "what a killed one has left is no matter"


def test_a_reader_that_goes_away_is_no_failure(directory: Path) -> None:
    command = f"{sys.executable} -m ods export -d {directory} | head -n 2"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "time,pod,name,value\n2026-09-21T14:13:20.000000000Z,10.0.0.1,accel_x,0.0\n"
    assert done.stderr == ""


def test_comments_tell_labels_and_units(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "sensors.toml").write_text('[accel_x]\nlabel = "Forward"\nunit = "m/s²"\nwarning = {high = 9}\n')
    words = ("--sensors", tmp_path / "sensors.toml", "--comments", "-o", tmp_path / "a.csv")
    assert run(directory, *words) == 0
    assert (tmp_path / "a.csv").read_text().startswith("# accel_x: Forward [m/s²]\ntime,pod")
    assert len(pandas.read_csv(tmp_path / "a.csv", comment="#")) == 21_000
    assert manifest_of(tmp_path / "a.csv")["sensors"]["accel_x"]["warning"] == [None, 9.0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--from", "x"], "no time"),
        (["--from", "mark:none"], "no mark"),
        (["--logs", "--wide"], "--logs"),
        (["--format", "parquet", "-o", "a.csv"], "does not go with"),
        (["no/such/path"], "no such file"),
        (["somewhere", "--source", "influx"], "recordings are named"),
    ],
)
def test_what_is_wrongly_asked_for_is_one_line(
    directory: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(directory, *words) == export.WRONG_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_without_pyarrow_it_says_what_to_install(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(directory, "-o", tmp_path / "a.parquet") == export.WRONG_USAGE
    assert "pip install" in capsys.readouterr().err
