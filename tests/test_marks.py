"""Marks as the recordings hold them: found in every state of a segment, numbered by time, and never a line's end."""

import gzip
from pathlib import Path

import pytest

from ods.marks import MAX_TEXT_BYTES, Mark, mark_text, marks
from ods.recording import HEADERS, log_row, segment_name

BEGIN_NS = 1_790_000_000_000_000_000


def segment(recordings: Path, begin_ns: int, *rows: str, state: str = ".gz", pod: str = "ods") -> Path:
    path = recordings / pod / (segment_name(begin_ns, "log") + state)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = HEADERS["log"] + "".join(rows).encode()
    path.write_bytes(gzip.compress(data) if state == ".gz" else data)
    return path


def row(number: int, text: str, kind: str = "mark") -> str:
    return log_row(str(BEGIN_NS + number), kind, text)


def test_marks_are_numbered_in_the_order_of_time_through_all_segments(tmp_path: Path) -> None:
    segment(tmp_path, BEGIN_NS + 5, row(5, "third"), state=".open")
    segment(tmp_path, BEGIN_NS, row(1, "first"), row(2, 'second: "soft", again'))
    segment(tmp_path, BEGIN_NS + 7, row(7, "fourth"), state="")
    texts = ["first", 'second: "soft", again', "third", "fourth"]
    times_ns = [BEGIN_NS + number for number in (1, 2, 5, 7)]
    assert marks(tmp_path) == [
        Mark(number, *found) for number, found in enumerate(zip(times_ns, texts, strict=True), 1)
    ]


def test_a_segment_that_a_crash_has_left_both_ways_tells_each_mark_once(tmp_path: Path) -> None:
    for state in ("", ".gz"):
        segment(tmp_path, BEGIN_NS, row(1, "once"), state=state)
    assert marks(tmp_path) == [Mark(1, BEGIN_NS + 1, "once")]


def test_only_marks_of_ods_are_marks(tmp_path: Path) -> None:
    """What a pod says is none, whatever it says; nor is a row that is not whole."""
    segment(tmp_path, BEGIN_NS, row(1, "mark", "log"), row(2, "half")[:-2], state=".open")
    segment(tmp_path, BEGIN_NS, row(3, "of a pod"), pod="10.0.0.7")
    (tmp_path / "ods" / "notes.csv").write_text(row(4, "no segment"))
    assert marks(tmp_path) == []


def test_without_recordings_there_are_none(tmp_path: Path) -> None:
    assert marks(tmp_path / "missing") == []


def test_a_segment_that_cannot_be_read_is_told_and_hides_no_other(tmp_path: Path) -> None:
    segment(tmp_path, BEGIN_NS, row(1, "lost")).write_bytes(b"no gzip")
    segment(tmp_path, BEGIN_NS + 5, row(5, "found"))
    reasons: list[str] = []
    assert marks(tmp_path, on_unreadable=reasons.append) == [Mark(1, BEGIN_NS + 5, "found")]
    assert len(reasons) == 1
    assert segment_name(BEGIN_NS, "log") in reasons[0]


@pytest.mark.parametrize(
    "text", ["", "  ", "a\nb", "a\rb", "a\tb", "a\x85b", "a\u2028b", "\udc80", "a" * 513, "ü" * 257]
)
def test_what_is_no_line_of_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="mark"):
        mark_text(text)


def test_any_other_text_is_kept_without_the_spaces_around_it() -> None:
    assert mark_text("  pressure test 3 ") == "pressure test 3"
    for text in ('a, "b" \\ ü', "ü" * (MAX_TEXT_BYTES // 2), "\N{WOMAN}\u200d\N{ROCKET}", "a\N{NO-BREAK SPACE}b"):
        assert mark_text(text) == text
