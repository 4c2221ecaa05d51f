"""The buffer: whether it is sound, and how much is in it. Through the ODS that runs, else by reading the file.

Nothing is mended here: ODS does that at its start, and saves what it can.
"""

from pathlib import Path
from typing import Any

from ods.buffer_inspection import inspect
from ods.check.finding import Finding, failed, ok, warning
from ods.check.running import Running
from ods.directory import DataDirectory, kept
from ods.errors import BufferUnavailable

#: For so long at most the pages of the file are looked through: an ODS that starts waits for longer. Seconds.
LOOK_THROUGH_SECONDS = 2.0

_WHAT = "buffer"
_SAVED_AT_START = "nothing to do: ODS saves every row that can be read when it starts. Look after the disk"


def look(directory: Path, running: Running) -> Finding:
    """Whether it is sound, and what waits in it."""
    if running.status is not None:
        return _of_status(running.status)
    path = DataDirectory(directory).buffer
    if running.holder is not None:
        return warning(_WHAT, "not looked at: the ODS that uses it does not answer", "see above")
    try:
        if not any(part.exists() and part.stat().st_size for part in (path, path.with_name(f"{path.name}-wal"))):
            return ok(_WHAT, "there is none yet; nothing waits")
        with kept(directory) as holder:
            if holder is not None:
                return warning(_WHAT, "not looked at: an ODS starts just now", "try again")
            return _of_file(path)
    except OSError as error:
        return failed(_WHAT, f"{path}: {error.strerror or error}", "give the directory to the user that ODS runs as")


def _of_file(path: Path) -> Finding:
    try:
        inspected = inspect(path, seconds=LOOK_THROUGH_SECONDS)
    except BufferUnavailable as error:
        return failed(_WHAT, error.reason, _SAVED_AT_START)
    pending, quarantined = (sum(inspected.totals[fate].values()) for fate in ("pending", "quarantined"))
    sound = "sound" if inspected.is_whole else "sound as far as there was time to look"
    found = f"{sound}; {_waits(pending, quarantined)}"
    if inspected.to_rescue:
        found += f"; {inspected.to_rescue} damaged files are still to be saved"
        return warning(_WHAT, found, "ODS does it when it starts")
    return _with_quarantine(found, quarantined)


def _of_status(status: dict[str, Any]) -> Finding:
    pending, quarantined = status["totals"]["pending"], status["totals"]["quarantined"]
    found = f"in use by the ODS that runs; {_waits(pending, quarantined)}"
    if not status["buffer"]["usable"]:
        return failed(_WHAT, f"{found}; it takes nothing now", "look after the disk; the log says why")
    return _with_quarantine(found, quarantined)


def _with_quarantine(found: str, quarantined: int) -> Finding:
    return warning(_WHAT, found, "`ods quarantine list` tells why") if quarantined else ok(_WHAT, found)


def _waits(pending: int, quarantined: int) -> str:
    return f"{pending} points wait, {quarantined} are quarantined"
