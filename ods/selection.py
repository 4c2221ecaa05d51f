"""Which part of what was kept a command works on: pods, names of data points, and a span of time.

The same four options for every command, `--pod`, `--name`, `--from` and `--to`, and one way to say when: as a date, as
nanoseconds, as so long ago, or by a mark that was set in the run (`ods mark`).
"""

import argparse
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from fnmatch import translate
from functools import lru_cache
from typing import Protocol

from ods.errors import SettingsError
from ods.recording import Row

#: No time is later: InfluxDB's times end in 2262.
MAX_NS = 2**63 - 1
#: So many names are remembered as chosen or not.
REMEMBERED_NAMES = 65_536

#: What `--from` and `--to` understand, for the help of a command.
WHEN_HELP = """WHEN is a date, with a time or without (2026-09-21, 2026-09-21T14:13:20.5, 20260921-141320), of UTC
unless a zone follows (Z, +02:00), nanoseconds since 1970, so long ago (-10m, -2h), or a mark (mark:TEXT, the last one
of just that text, or mark:#3, by its number in `ods mark --list`).
"""

_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)-(\d\d)|(\d\d)(\d\d))"
    r"(?:[T -](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?)?"
    r"\s*(Z|z|[+-]\d\d(?::?\d\d)?)?"
)
_AGO = re.compile(r"-(\d{1,9}(?:\.\d{1,9})?)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Marked(Protocol):
    """A mark, as `ods.marks` has it."""

    @property
    def number(self) -> int:
        """By which it is listed."""

    @property
    def time_ns(self) -> int:
        """When it was set."""

    @property
    def text(self) -> str:
        """What it says."""


#: Finds the marks; called only where one is asked for, since that reads recordings.
ListMarks = Callable[[], Sequence[Marked]]


@dataclass(frozen=True, slots=True)
class Selection:
    """Of these pods and these names (shell patterns), from one time to before another; what is empty is everything."""

    pods: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    from_ns: int = 0
    to_ns: int = MAX_NS
    _matches: Callable[[str], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_matches", _matcher(self.names))

    @property
    def has_logs(self) -> bool:
        """Whether log messages, marks and what was no record belong to it: they have no name."""
        return not self.names

    def has_pod(self, pod: str) -> bool:
        """Whether this pod belongs to it."""
        return not self.pods or pod in self.pods

    def has_name(self, name: str) -> bool:
        """Whether data points of this name belong to it."""
        return self._matches(name)

    def has_time(self, time_ns: int) -> bool:
        """Whether this time belongs to it."""
        return self.from_ns <= time_ns < self.to_ns

    def of(self, kind: str, rows: list[Row]) -> list[Row]:
        """Those rows of a segment of this kind (`data`, `log`) that belong to it; the pod is not looked at."""
        if self.names and kind == "data":
            matches = self._matches
            rows = [row for row in rows if matches(row[1])]
        elif self.names:
            return []
        if self.from_ns > 0 or self.to_ns < MAX_NS:
            rows = [row for row in rows if self.from_ns <= int(row[0]) < self.to_ns]
        return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that make a selection; `WHEN_HELP` belongs in the parser's epilog."""
    # So that `--from -10m` is an option with its value: a word that may be a negative number is no option to argparse.
    parser._negative_number_matcher = re.compile(r"-\d")
    group = parser.add_argument_group("what")
    add = group.add_argument
    add("--pod", action="append", default=[], metavar="POD", help="only this pod (repeatable; all)")
    add("--name", action="append", default=[], metavar="GLOB", help="only data of such names: 'accel_*' (repeatable)")
    add("--from", dest="from_when", metavar="WHEN", help="only what was received then or later (the beginning)")
    add("--to", dest="to_when", metavar="WHEN", help="only what was received before then (the end)")


def read(given: argparse.Namespace, marks: ListMarks, *, now_ns: int | None = None) -> Selection:
    """The selection that the options make. Raises SettingsError."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    from_ns = 0 if given.from_when is None else when("--from", given.from_when, marks, now_ns)
    to_ns = MAX_NS if given.to_when is None else when("--to", given.to_when, marks, now_ns)
    if from_ns >= to_ns:
        raise SettingsError(f"--from {given.from_when} is not before --to {given.to_when}")
    return Selection(tuple(given.pod), tuple(given.name), from_ns, to_ns)


def when(option: str, text: str, marks: ListMarks, now_ns: int) -> int:
    """The time that an option says, in nanoseconds since 1970. Raises SettingsError."""
    text = text.strip()
    if text.startswith("mark:"):
        return _of_mark(option, text.removeprefix("mark:"), marks())
    if re.fullmatch(r"\d{16,19}", text):
        time_ns: int | None = int(text)
    elif ago := _AGO.fullmatch(text):
        time_ns = max(0, now_ns - int(float(ago[1]) * _SECONDS[ago[2]] * 1_000_000_000))
    else:
        time_ns = _of_date(text)
    if time_ns is None or not 0 <= time_ns <= MAX_NS:
        raise SettingsError(
            f"{option}: {text!r} is no time: try 2026-09-21T14:13:20, -10m, mark:TEXT or nanoseconds since 1970"
        )
    return time_ns


def _of_date(text: str) -> int | None:
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    year, month, day, month_too, day_too, hour, minute, second, fraction, zone = found.groups()
    try:
        date = datetime(
            int(year), int(month or month_too), int(day or day_too), int(hour or 0), int(minute or 0), int(second or 0)
        )
        since = date.replace(tzinfo=_zone(zone)) - _EPOCH
    except (ValueError, OverflowError):
        return None
    seconds = since.days * 86_400 + since.seconds
    return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


def _zone(text: str | None) -> timezone:
    """Raises ValueError where no place on earth is so far off."""
    if text is None or text in "Zz":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    if int(digits[:2]) > 14 or int(digits[2:]) > 59:
        raise ValueError(text)
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)


def _of_mark(option: str, wanted: str, marks: Sequence[Marked]) -> int:
    number = re.fullmatch(r"#(\d+)", wanted)
    found = [mark.time_ns for mark in marks if mark.text == wanted]
    if not found and number is not None:
        found = [mark.time_ns for mark in marks if mark.number == int(number[1])]
    if found:
        return max(found)
    told = f"there are {len(marks)}" if marks else "there is none"
    raise SettingsError(f"{option}: no mark {wanted!r} in the recordings ({told}; `ods mark --list` shows them)")


def _matcher(names: Sequence[str]) -> Callable[[str], bool]:
    """Whether a name is one of these; asked for every row, so what it said is remembered."""
    if not names:
        return lambda name: True
    pattern = re.compile("|".join(map(translate, names)))
    return lru_cache(REMEMBERED_NAMES)(lambda name: pattern.match(name) is not None)
