"""Tables as CSV: a line a row, in UTF-8, with times that are read back to the nanosecond.

A time is `2026-09-21T14:13:20.000000001Z`: pandas reads it as a time of UTC when told that the column is one
(`parse_dates=["time"]`), and it sorts as text. A value is Python's `repr` of the float, as in InfluxDB, whatever the
pod had sent: the same point is the same line from each source. A cell without a value is empty.
"""

import time
from collections.abc import Callable, Sequence

from ods.export.tables import Block, Messages, Points

#: What takes bytes of a file.
Write = Callable[[bytes], object]

#: Columns that each table begins with.
TIME, POD = "time", "pod"


class _Seconds(dict[str, str]):
    """By the seconds since 1970, as text: how a time of that second begins. There are few of them in a block."""

    #: More are forgotten.
    LIMIT = 10_000

    def __missing__(self, seconds: str) -> str:
        if len(self) >= self.LIMIT:
            self.clear()
        self[seconds] = begin = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(int(seconds)))
        return begin


class _Csv:
    """What the tables have in common: the first line, and how times are written."""

    def __init__(self, write: Write, columns: Sequence[str]) -> None:
        self.columns = columns
        self._write = write
        self._seconds = _Seconds()
        write((",".join(map(cell, columns)) + "\n").encode())

    def close(self) -> None:
        """A CSV file has no end of its own."""

    def _times(self, block: Block) -> Sequence[str]:
        """The times with as many digits as can be cut into seconds and nanoseconds: others are of January 1970."""
        times = block.times
        return times if len(min(times, key=len, default="")) > 9 else [time_ns.zfill(10) for time_ns in times]


class LongCsv(_Csv):
    """A line a data point: `time,pod,name,value`."""

    def __init__(self, write: Write) -> None:
        super().__init__(write, (TIME, POD, "name", "value"))

    def write(self, block: Block) -> int:
        """Write a block of points."""
        assert isinstance(block, Points)
        begins, pod = self._seconds, cell(block.pod)
        lines = [
            f"{begins[time_ns[:-9]]}{time_ns[-9:]}Z,{pod},{name},{value!r}\n"
            for time_ns, name, value in zip(self._times(block), block.names, block.values, strict=True)
        ]
        self._write("".join(lines).encode())
        return len(lines)


class WideCsv(_Csv):
    """A line a data point, and a column a name: `time,pod,accel_x,...`, of which one is filled."""

    def __init__(self, write: Write, names: Sequence[str]) -> None:
        super().__init__(write, (TIME, POD, *map(column, names)))
        last = len(names) - 1
        #: By name: the commas before and after its value.
        self._commas = {name: ("," * at, "," * (last - at)) for at, name in enumerate(names)}

    def write(self, block: Block) -> int:
        """Write a block of points, all of names that have a column."""
        assert isinstance(block, Points)
        begins, pod = self._seconds, cell(block.pod)
        commas = map(self._commas.__getitem__, block.names)
        lines = [
            f"{begins[time_ns[:-9]]}{time_ns[-9:]}Z,{pod},{before}{value!r}{after}\n"
            for time_ns, value, (before, after) in zip(self._times(block), block.values, commas, strict=True)
        ]
        self._write("".join(lines).encode())
        return len(lines)


class LogsCsv(_Csv):
    """A line a log message: `time,pod,level,message`."""

    def __init__(self, write: Write) -> None:
        super().__init__(write, (TIME, POD, "level", "message"))

    def write(self, block: Block) -> int:
        """Write a block of messages."""
        assert isinstance(block, Messages)
        begins, pod = self._seconds, cell(block.pod)
        lines = [
            f"{begins[time_ns[:-9]]}{time_ns[-9:]}Z,{pod},{level},{quoted(message)}\n"
            for time_ns, level, message in zip(self._times(block), block.levels, block.messages, strict=True)
        ]
        self._write("".join(lines).encode())
        return len(lines)


def column(name: str) -> str:
    """What the column of a data point's name is called: one that is called like a column of every table gives way."""
    return f"{name} (name)" if name in (TIME, POD) else name


def cell(text: str) -> str:
    """A text as a cell, quoted where it has to be."""
    return quoted(text) if any(character in text for character in ',"\r\n') else text


def quoted(text: str) -> str:
    """A text as a quoted cell."""
    return '"' + text.replace('"', '""') + '"'
