"""The data directory's note of the last reception time: trusted as far as it can be true."""

from pathlib import Path

import pytest

from ods.directory import DataDirectory

YEAR_2026_NS = 1_790_000_000_000_000_000
YEAR_2200_NS = 7_258_118_400_000_000_000


def noted(folder: Path, text: bytes) -> int:
    """What is made of such a note."""
    (folder / "clock").write_bytes(text)
    return DataDirectory(folder).latest_ns()


def test_the_last_reception_time_is_found_by_the_next_run(tmp_path: Path) -> None:
    """So that times go on increasing though the clock was set back meanwhile."""
    assert DataDirectory(tmp_path).latest_ns() == 0
    DataDirectory(tmp_path).note_times(YEAR_2026_NS, 1)
    assert DataDirectory(tmp_path).latest_ns() == YEAR_2026_NS


@pytest.mark.parametrize("later_ns", [0, 1, 2**63 - 1 - YEAR_2200_NS, 10**40])
def test_a_note_of_a_time_beyond_the_year_2200_is_ignored(tmp_path: Path, later_ns: int) -> None:
    """A damaged one: points would get times that no InfluxDB takes, for ever."""
    assert noted(tmp_path, str(YEAR_2200_NS - 1).encode()) == YEAR_2200_NS - 1
    assert noted(tmp_path, str(YEAR_2200_NS + later_ns).encode()) == 0


@pytest.mark.parametrize("text", [b"", b"\0" * 19, b"17900000x", b"\xff", b"1" * 10_000])
def test_a_note_that_is_no_time_is_ignored(tmp_path: Path, text: bytes) -> None:
    """What a power cut may leave."""
    assert noted(tmp_path, text) == 0


def test_what_was_settled_is_found_by_the_next_run(tmp_path: Path) -> None:
    assert DataDirectory(tmp_path).settled_ns() == 0
    DataDirectory(tmp_path).note_times(YEAR_2026_NS + 9, YEAR_2026_NS)
    assert (DataDirectory(tmp_path).latest_ns(), DataDirectory(tmp_path).settled_ns()) == (
        YEAR_2026_NS + 9,
        YEAR_2026_NS,
    )


@pytest.mark.parametrize("text", [b"", b"\0" * 19, b"-5", str(YEAR_2200_NS).encode(), b"1" * 10_000])
def test_a_damaged_note_of_what_was_settled_says_that_nothing_was(tmp_path: Path, text: bytes) -> None:
    """Then all that a crash left open is put through the store again: too much is harmless, too little is a loss."""
    (tmp_path / "settled").write_bytes(text)
    assert DataDirectory(tmp_path).settled_ns() == 0


@pytest.mark.parametrize("at", range(len(str(YEAR_2026_NS))))
def test_a_note_with_a_wrong_digit_is_ignored(tmp_path: Path, at: int) -> None:
    """It would hold the clock in another century for good, or hide what a crash has left."""
    DataDirectory(tmp_path).note_times(YEAR_2026_NS, YEAR_2026_NS)
    for name in ("clock", "settled"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    assert (DataDirectory(tmp_path).latest_ns(), DataDirectory(tmp_path).settled_ns()) == (0, 0)


def test_a_note_of_an_earlier_version_is_understood(tmp_path: Path) -> None:
    assert noted(tmp_path, f"{YEAR_2026_NS}\n".encode()) == YEAR_2026_NS
