"""Data points a chunk at a time: lines that are all well formed, to columns. Pure.

Two ways to the same columns. The quick one takes lines whose numbers are plain decimals, as C's `%f` and `%d` print
them, and makes neither a float nor its text of any: a decimal of at most 15 digits survives the way through a double
(DBL_DIG of IEEE 754), so that Python's `repr` of the float is that decimal without the zeros at its end. `repr` prints
an exponent below 0.0001; such numbers, and all others, go the other way.
"""

import math
import re
from dataclasses import dataclass

#: The longest name of a data point. Bytes.
MAX_NAME_BYTES = 63

#: What a name and a number look like, as regular expressions.
NAME = rf"[A-Za-z0-9_.:/-]{{1,{MAX_NAME_BYTES}}}"
NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
#: A number of at most 9 digits before the point and, where it has one, 1 to 6 behind it; but none below 0.0001 that is
#: not zero.
_PLAIN = r"-?(?:[1-9][0-9]{0,8}+|0(?!\.00000?[1-9]))(?:\.[0-9]{1,6}+)?"

_LINES = re.compile(rf"^POD2({NAME}) ({NUMBER})$", re.MULTILINE)
_PLAIN_LINES = re.compile(rf"(?:POD2{NAME}+ {_PLAIN}\n)++")


@dataclass(slots=True)
class DataPoints:
    """Consecutive data points, column by column: names, numbers as sent, and values as Python's `repr` of the float."""

    names: list[str]
    sent: list[str]
    values: list[str]

    def part(self, begin: int, end: int) -> "DataPoints":
        """Those from one place to another."""
        return DataPoints(self.names[begin:end], self.sent[begin:end], self.values[begin:end])

    def __len__(self) -> int:
        return len(self.names)


def data_points(lines: bytes) -> DataPoints | None:
    """Those of some lines, each with its newline; None where any of them is anything but a good data point."""
    try:
        text = lines.decode("ascii")
    except UnicodeDecodeError:
        return None
    if _PLAIN_LINES.fullmatch(text):
        columns = text[4:-1].replace("\nPOD2", " ").split(" ")
        sent = columns[1::2]
        values = [
            (short + "0" if (short := number.rstrip("0"))[-1] == "." else short) if "." in number else number + ".0"
            for number in sent
        ]
        return DataPoints(columns[::2], sent, values)
    matches = _LINES.findall(text)
    if len(matches) != text.count("\n"):
        return None
    names, sent = map(list, zip(*matches, strict=True))
    numbers = list(map(float, sent))
    return DataPoints(names, sent, list(map(repr, numbers))) if math.isfinite(sum(numbers)) else None
