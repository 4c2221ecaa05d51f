"""Bad lines of every kind that a pod could send, each with the reply that it is owed and what it counts as.

Written down by hand after the description of the wire, so that a simulation tells whether ODS keeps to it.
"""

from __future__ import annotations

from ods.simulator.records import DataPoint, OddLine, Record

#: A line longer than this is not understood, and its first bytes are told back.
LONGEST_LINE_BYTES = 64 * 1024
TOLD_BACK_BYTES = 64
#: What stands in place of the number: words of C's printf, and what only other languages read as a number.
_NO_NUMBERS = ("nan", "-nan", "inf", "-inf", "abc", "0x1A", "1_000", "1e999", "1,5", "12 34", "")


def _bad_value(text: str) -> OddLine:
    return OddLine(f"POD2accel_x {text}\n".encode(), f"ERROR: Bad Value '{text}'".encode(), invalid=1)


def _not_understood(line: bytes) -> OddLine:
    return OddLine(line + b"\n", b"FAIL: " + line[:TOLD_BACK_BYTES], invalid=1)


ODD_LINES = (
    *map(_bad_value, _NO_NUMBERS),
    OddLine(b"POD2accel_x\n", b"ERROR: Bad Value ''", invalid=1),
    _not_understood(b""),
    _not_understood(b"hello"),
    _not_understood(b"POD3accel_x 0.5"),
    _not_understood(b"pod2accel_x 0.5"),
    _not_understood(b"POD2 0.5"),
    _not_understood(b"POD2accel!x 0.5"),
    OddLine(b"POD2" + b"n" * 64 + b" 1\n", b"FAIL: POD2" + b"n" * 64 + b" 1", invalid=1),
    _not_understood(b"\x00\x1b[2J\xff"),
    _not_understood(b"x" * (LONGEST_LINE_BYTES + 1)),
    # A message that held a newline, and its second half, once alone and once with a data point glued to it.
    OddLine(b"POD1[WARN]  skate 2 says:\n", b"OK: LOGGED", log_messages=1),
    _not_understood(b"ride height unsteady"),
    OddLine(b"ride height unsteadyPOD2accel_x 0.500000\n", b"OK: (accel_x,0.5)", data_points=1, invalid=1),
    # Messages without a newline, and what follows them.
    OddLine(b"POD1[INFO]  onePOD1[INFO]  twoPOD2accel_x -nan\n", b"ERROR: Bad Value '-nan'", log_messages=2, invalid=1),
    OddLine(b"POD1[ERROR] \xff\x00 no UTF-8, no text\n", b"OK: LOGGED", log_messages=1),
    # What looks odd and is right.
    OddLine(b"  POD2accel_x +.5e0\r\n", b"OK: (accel_x,0.5)", data_points=1),
)

#: The last words of a pod that dies in the middle of a data line: what the number was to be nobody knows.
TORN = b"POD2accel_x 12"


def bad_run() -> list[Record]:
    """Each odd line, with a good data point behind it, which must not suffer."""
    return [record for line in ODD_LINES for record in (line, DataPoint("accel_y", "0.250000"))]
