"""What `ods quarantine` prints: everything that was asked for, and nothing that a terminal could take for an order."""

import csv
import io
import json
from pathlib import Path

import pytest

import ods.commands.quarantine
import ods.quarantine
from ods.buffer import Buffer
from ods.commands.quarantine import main
from ods.disk import Disk
from ods.line_protocol import log_line, pod_tag
from ods.protocol import LogMessage
from ods.rows import BadLine

CONFLICT = "HTTP 400 partial write: field type conflict dropped={}"
TIME_NS = 1_790_000_000_123_456_789
MESSAGE = 'a, "b" \x1b[2J\x07 \\ ü'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with lines of two pods, one of them nasty, and a damaged batch in its quarantine."""
    buffer = Buffer(tmp_path / "buffer.db", limit_bytes=2**30, disk=Disk(tmp_path))
    for number in range(5):
        message = log_line(LogMessage(None, MESSAGE, ""), pod_tag("b"), str(TIME_NS + number)).rstrip("\n")
        for pod, line in (("a", f"x,pod=a value={number}.0 {TIME_NS + number}"), ("b", message)):
            buffer.append(b"x", database="ods", pods={pod: 1}, first_ns=1, rejected="HTTP 400")
            row = buffer.rejected()
            assert row is not None
            buffer.quarantine(row, [BadLine(pod, TIME_NS + number, line, CONFLICT.format(number), 1)])
    buffer.append(b"x", database="ods", pods={"a": 3}, first_ns=TIME_NS)
    (row,) = buffer.oldest(excluding=(), limit_points=1, limit_bytes=1)
    buffer.set_aside(row)
    buffer.close()
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], folder: Path, command: str, *arguments: str) -> str:
    assert main([command, "--directory", str(folder), *arguments]) == 0
    return capsys.readouterr().out


def test_a_summary_joins_the_groups_of_all_pages(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ods.quarantine, "PAGE_LINES", 3)
    groups = [json.loads(line) for line in run(capsys, folder, "list", "--json").splitlines()]
    assert [(group["pod"], group["name"], group["lines"], group["points"]) for group in groups] == [
        ("a", "x", 5, 5),
        ("b", "pod_log", 5, 5),
        ("a", None, 1, 3),
    ]
    assert (groups[0]["first_ns"], groups[0]["last_ns"]) == (TIME_NS, TIME_NS + 4)
    printed = run(capsys, folder, "list")
    assert "2026-09-21T14:13:20.123Z" in printed
    assert "11 lines (13 points) in 3 groups" in printed


def test_a_summary_of_very_many_groups_stays_small(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ods.commands.quarantine, "MAX_GROUPS", 1)
    groups = [json.loads(line) for line in run(capsys, folder, "list", "--json").splitlines()]
    assert len(groups) == 2
    assert sum(group["lines"] for group in groups) == 11
    assert "(others)" in {group["pod"] for group in groups}


def test_what_a_pod_sent_is_no_order_to_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run(capsys, folder, "list", "--all")
    assert all(character.isprintable() for line in printed.splitlines() for character in line)
    assert "\\x1b[2J" in printed
    assert "damaged" in printed


def test_an_export_holds_every_line_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(run(capsys, folder, "export"), newline="")))
    assert len(rows) == 11
    assert {row["value"] for row in rows if row["name"] == "pod_log"} == {MESSAGE}
    assert {int(row["time_ns"]) for row in rows if row["name"] == "x"} == {TIME_NS + number for number in range(5)}
    assert main(["export", "--directory", str(folder), "--format", "lines"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 10
    assert "1 that are damaged" in printed.err


def test_what_is_damaged_stays_when_all_is_retried(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retry", "--directory", str(folder)]) == 0
    printed = capsys.readouterr()
    assert ("10 lines (10 points)" in printed.out, "1 that are damaged" in printed.err) == (True, True)
    assert main(["retry", "--directory", str(folder)]) == 1
    assert "1 lines (3 points)" in run(capsys, folder, "drop", "--yes")


def test_more_ids_than_a_request_takes_are_refused(folder: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["list", "--directory", str(folder), "--id", *map(str, range(201))])
