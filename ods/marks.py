"""Marks: moments that an operator has noted ("pressure test 3"), read back from the recordings.

A mark is an event of ODS in InfluxDB and a row of the recordings of the pod `ods`. Those rows are what the commands go
by, so that they find the marks without InfluxDB and without a running ODS. Every call may wait for the disk.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ods.line_protocol import MARK_EVENT
from ods.playback import play
from ods.pods import ODS
from ods.recording import folder_name, segment_begin
from ods.segment_files import COMPRESSED, OPEN, has_end

#: The longest text. Bytes of UTF-8.
MAX_TEXT_BYTES = 512

#: What would break a line, or a terminal: control characters, lone surrogates, separators of lines and paragraphs.
_REFUSED_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}


@dataclass(frozen=True, slots=True)
class Mark:
    """A noted moment; `number` counts from 1, in the order of time, through all marks that the recordings hold."""

    number: int
    time_ns: int
    text: str


def mark_text(text: str) -> str:
    """The text of a mark as it is kept, without spaces around it. Raises ValueError, with a line for a person."""
    text = text.strip(" ")
    if not text:
        raise ValueError("a mark needs a text")
    if any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in text):
        raise ValueError("a mark is one line of text, without control characters")
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise ValueError(f"a mark has at most {MAX_TEXT_BYTES} bytes; this one has {len(text.encode())}")
    return text


def marks(recordings: Path, *, on_unreadable: Callable[[str], None] = lambda reason: None) -> list[Mark]:
    """All marks in this folder of recordings, in the order of time, also those that a running ODS has just noted.

    What cannot be read is told, in one line each, and left out.
    """
    found: set[tuple[int, str]] = set()  # a crash may leave a segment both as it was and compressed
    for path in _segments(recordings / folder_name(ODS), on_unreadable):
        try:
            for piece in play(path):
                found |= {(int(time_ns), text) for time_ns, kind, text in piece.rows if kind == MARK_EVENT}
        except OSError as error:
            on_unreadable(f"{path}: {error.strerror or error}")
    return [Mark(number, time_ns, text) for number, (time_ns, text) in enumerate(sorted(found), 1)]


def _segments(folder: Path, on_unreadable: Callable[[str], None]) -> list[Path]:
    """The log segments of a folder, in whatever state they are; none where there is no such folder."""
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        on_unreadable(f"{folder}: {error.strerror or error}")
        return []
    return [path for path in paths if path.name.endswith((".csv", OPEN, COMPRESSED)) and _is_log(path)]


def _is_log(path: Path) -> bool:
    try:
        return segment_begin(path.name)[1] == "log" and has_end(path)
    except ValueError:
        return False
