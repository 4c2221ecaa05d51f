"""Numbers and times as a person reads them. None, for what is not known, is a question mark."""

from datetime import datetime

from ods.report import duration
from ods.sentence import grouped

UNKNOWN = "?"

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def count(number: float | None) -> str:
    """With a space between thousands."""
    return UNKNOWN if number is None else grouped(round(number))


def size(number: float | None) -> str:
    """Bytes, in the unit that makes them short."""
    if number is None:
        return UNKNOWN
    exponent = 0
    while abs(number) >= 1000 and exponent < len(_UNITS) - 1:
        number, exponent = number / 1000, exponent + 1
    return f"{number:.{1 if exponent else 0}f} {_UNITS[exponent]}"


def span(seconds: float | None) -> str:
    """How long something lasts: hours, minutes and seconds."""
    return UNKNOWN if seconds is None else duration(max(seconds, 0))


def age(seconds: float | None) -> str:
    """How long ago something was, short; what is young shows its tenths."""
    if seconds is None:
        return UNKNOWN
    return f"{max(seconds, 0):.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 100 else span(seconds)


def clock_time(time_ns: float | None, now_ns: float | None = None) -> str:
    """A time of day on this machine's clock, with the date where it is not the day of `now_ns`."""
    then, now = _local(time_ns), _local(now_ns)
    if then is None:
        return UNKNOWN
    is_today = now is not None and then.date() == now.date()
    return f"{then:%H:%M:%S}" if is_today else f"{then:%Y-%m-%d %H:%M:%S}"


def full_time(time_ns: float | None) -> str | None:
    """The time with its date and its distance from UTC, for programs."""
    then = _local(time_ns)
    return None if then is None else then.isoformat(timespec="milliseconds")


def _local(time_ns: float | None) -> datetime | None:
    if time_ns is None:
        return None
    try:
        return datetime.fromtimestamp(int(time_ns) / 1e9).astimezone()
    except (OverflowError, ValueError, OSError):
        return None
