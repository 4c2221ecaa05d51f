"""The clock: whether the time can be right, and whether something keeps it right.

ODS gives every record the time of its reception, for good. A start with a wrong clock is a run with wrong times.
"""

import ctypes
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from ods.check.finding import Finding, failed, ok, warning
from ods.directory import DataDirectory

#: No clock that is right shows a time before this release of ODS: the begin of its year, 2026. Nanoseconds.
RELEASED_NS = 1_767_225_600_000_000_000
#: A clock that is behind the last reception time by less than this was set, more is lost. Nanoseconds.
SET_BACK_NS = 60_000_000_000
#: What is noted may be this much ahead of the clock of a running ODS. Nanoseconds.
TOLERANCE_NS = 2_000_000_000

_TIME, _SYNCHRONISED = "clock", "clock's source"
_SET_IT = "set it, or let it get its time (`timedatectl`), before a pod connects"

#: Of adjtimex(2): the status bit and the state of a clock that nothing keeps right.
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


def look_at_time(directory: Path, *, now_ns: int) -> Finding:
    """Whether it can be this time."""
    shown = _utc(now_ns)
    if now_ns < RELEASED_NS:
        return failed(_TIME, f"it shows {shown}, which is before ODS was made", _SET_IT)
    data = DataDirectory(directory)
    behind_ns = max(data.latest_ns(), data.settled_ns()) - now_ns
    if behind_ns <= TOLERANCE_NS:
        return ok(_TIME, f"it shows {shown}")
    found = f"it shows {shown}, {behind_ns / 1e9:.0f} s before the last reception time of the run before"
    if behind_ns < SET_BACK_NS:
        return warning(_TIME, found, "wait: until then ODS continues from that time")
    return failed(_TIME, found, _SET_IT)


def look_at_source() -> Finding:
    """Whether the kernel's clock is kept right, as it says itself. Linux."""
    timex = _timex() if sys.platform == "linux" else None
    if timex is None:
        return warning(_SYNCHRONISED, "not known on this system", "compare the time with a watch")
    state, status, most_microseconds = timex
    if state == _TIME_ERROR or status & _STA_UNSYNC:
        return warning(
            _SYNCHRONISED,
            "nothing keeps the clock right (no NTP)",
            "`sudo timedatectl set-ntp true`, or give the network a time server",
        )
    return ok(_SYNCHRONISED, f"synchronised, to within {most_microseconds / 1000:.0f} ms")


class _Timex(ctypes.Structure):
    """The begin of `struct timex`; the rest of it is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def _timex() -> tuple[int, int, int] | None:
    """State, status, and the largest error in microseconds, by adjtimex(2), which changes nothing so."""
    try:
        timex = _Timex()
        state: int = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else (state, timex.status, timex.maxerror)


def now_ns() -> int:
    """What the wall clock shows."""
    return time.time_ns()


def _utc(time_ns: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{time_ns} ns since 1970"
