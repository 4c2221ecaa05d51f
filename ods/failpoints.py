"""Named points at which ODS kills itself, so that `make faults` can end it exactly where it hurts most.

`ODS_FAILPOINT=NAME[:COUNT]` in the environment: SIGKILL, as by `kill -9`, the COUNT-th time (the first) that the
process reaches the point NAME. Without it a point is the call of a function that returns at once, a few times a batch.

Of the workers that a keeper starts, the first alone is armed so. `ODS_FAILPOINT=@FILE` arms the next one that starts
when FILE is there and holds `NAME[:COUNT]`; the file is gone then.
"""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from ods.errors import SettingsError

#: The variable that arms a point.
VARIABLE = "ODS_FAILPOINT"

#: Every point, with the moment that it stands for.
POINTS = {
    "read": "bytes were read from a pod's socket, and nothing was done with them",
    "recorded": "a batch is in the recordings, and was given to no store",
    "committing": "a batch is written into the buffer's transaction, which is not committed",
    "committed": "a batch is committed to the buffer, and not answered",
    "requested": "a batch was sent to InfluxDB, which has not answered",
    "confirmed": "InfluxDB has confirmed rows of the backlog, and they are not deleted",
}

_armed = ""
_left = 0


def arm(given: str | None) -> None:
    """Arm the point that the variable names. Raises SettingsError where there is no such point."""
    global _armed, _left
    if given and given.startswith("@"):
        given = _taken(Path(given[1:]))
    _armed, _left = check(given)


def check(given: str | None) -> tuple[str, int]:
    """The point and the count that the variable names. Raises SettingsError where there is no such point."""
    if not given or given.startswith("@"):
        return "", 0
    name, _, count = given.partition(":")
    if name not in POINTS or not (count or "1").isdecimal() or not int(count or 1):
        raise SettingsError(f"{VARIABLE}: {given!r} is not NAME[:COUNT] with one of {', '.join(POINTS)}")
    return name, int(count or 1)


def of_worker(environment: Mapping[str, str], *, is_first: bool) -> str | None:
    """What arms a worker: what armed the first one must not end every one that follows it."""
    given = environment.get(VARIABLE, "")
    return given if is_first or given.startswith("@") else None


def _taken(file: Path) -> str | None:
    """What the file holds, which no other process will find there."""
    mine = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.rename(mine)
        given = mine.read_text(encoding="ascii").strip()
        mine.unlink()
    except OSError:
        return None
    return given


def reach(name: str) -> None:
    """Note that this point is reached; where it is armed and its time has come, this is the end of the process."""
    global _left
    if name != _armed:
        return
    _left -= 1
    if not _left:
        os.kill(os.getpid(), signal.SIGKILL)
