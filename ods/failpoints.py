"""Named points at which ODS kills itself, so that `make faults` can end it exactly where it hurts most.

`ODS_FAILPOINT=NAME[:COUNT]` in the environment: SIGKILL, as by `kill -9`, the COUNT-th time (the first) that the
process reaches the point NAME. Without it a point is the call of a function that returns at once, a few times a batch.
"""

import os
import signal

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
    if not given:
        return
    name, _, count = given.partition(":")
    if name not in POINTS or not (count or "1").isdecimal() or not int(count or 1):
        raise SettingsError(f"{VARIABLE}: {given!r} is not NAME[:COUNT] with one of {', '.join(POINTS)}")
    _armed, _left = name, int(count or 1)


def reach(name: str) -> None:
    """Note that this point is reached; where it is armed and its time has come, this is the end of the process."""
    global _left
    if name != _armed:
        return
    _left -= 1
    if not _left:
        os.kill(os.getpid(), signal.SIGKILL)
