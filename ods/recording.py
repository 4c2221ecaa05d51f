"""How a recording is written, and read back: rows of CSV, names of folders and segments. Pure.

    recordings/<pod>/<UTC begin>.data.csv   time_ns,name,value    the value as the pod sent it
    recordings/<pod>/<UTC begin>.log.csv    time_ns,kind,text     kind: log, invalid, torn, mark

Names hold nothing that a FAT card refuses, and sort by time. Marks, which concern no pod, are in the folder `ods`.
"""

import calendar
import re
import time
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from ods.data_points import NAME, NUMBER, DataPoints
from ods.protocol import LogMessage, MarkText, log_message

#: The two kinds of segment, with the first row of each.
HEADERS = {"data": b"time_ns,name,value\n", "log": b"time_ns,kind,text\n"}

#: A row: its time in nanoseconds, as text, and the two columns that follow.
Row = tuple[str, str, str]

#: A time before about the year 2220, in nanoseconds.
_TIME = "([0-9]{1,18}|[1-7][0-9]{18})"
#: A whole row of each kind. What a power cut may leave in place of one is none: zeros, or bytes that are no UTF-8.
_ROWS = {
    "data": re.compile(rf"^{_TIME},({NAME}),({NUMBER})$", re.MULTILINE),
    "log": re.compile(
        rf'^{_TIME},(log|invalid|torn|mark),"((?:[^"\x00-\x08\x0a-\x1f\x7f\udc80-\udcff]++|"")*+)"$', re.MULTILINE
    ),
}
_SEGMENT = re.compile(
    r"([0-9]{4})([0-9]{2})([0-9]{2})-([0-9]{2})([0-9]{2})([0-9]{2})\.([0-9]{9})\.(data|log)\.csv(?:\.open|\.gz)?\Z"
)
#: What becomes a point again, of the rows of a log segment.
_MADE_OF: dict[str, Callable[[str], LogMessage | MarkText]] = {"log": log_message, "mark": MarkText}
_NOT_PLAIN = re.compile(rb"[^a-z0-9_.-]|^\.|\.$")


def data_rows(points: DataPoints, times: Sequence[str]) -> str:
    """A row a data point; `times` in nanoseconds, as text."""
    return "".join(each_data_row(points, times))


def each_data_row(points: DataPoints, times: Sequence[str]) -> list[str]:
    """The same, one by one."""
    return [f"{time_ns},{name},{sent}\n" for time_ns, name, sent in zip(times, points.names, points.sent, strict=True)]


def log_row(time_ns: str, kind: str, text: str) -> str:
    """The row of a log message, or of what was no record."""
    quoted = text.replace('"', '""')
    return f'{time_ns},{kind},"{quoted}"\n'


def rows_of(kind: str, text: bytes) -> list[Row]:
    """The rows of a segment of this kind in a piece of it that ends a row; what is no whole row is left out.

    The third column is the value as the pod sent it, or the text as `ods.protocol.readable` made it.
    """
    rows: list[Row] = _ROWS[kind].findall(text.decode("utf-8", "surrogateescape"))
    if kind == "log" and b'""' in text:
        return [(time_ns, of_kind, quoted.replace('""', '"')) for time_ns, of_kind, quoted in rows]
    return rows


def points_of(kind: str, rows: Sequence[Row]) -> tuple[list[DataPoints | LogMessage | MarkText], list[str]]:
    """The data points, log messages and marks that these rows were written of, and their times; other rows are none."""
    if kind == "data":
        if not rows:
            return [], []
        times, names, sent = map(list, zip(*rows, strict=True))
        return [DataPoints(names, sent, [repr(float(number)) for number in sent])], times
    made = [(_MADE_OF[of_kind](text), time_ns) for time_ns, of_kind, text in rows if of_kind in _MADE_OF]
    return [record for record, _ in made], [time_ns for _, time_ns in made]


def folder_name(pod: str) -> str:
    """The name of a pod's folder: all but lower-case letters, digits and `-_.` percent-encoded."""
    return _NOT_PLAIN.sub(lambda found: b"%%%02x" % found[0][0], pod.encode()).decode()


def pod_of_folder(folder: str) -> str:
    """The pod whose folder this is. Raises ValueError when it is no pod's."""
    pod = unquote(folder, errors="strict")
    if folder_name(pod) != folder:
        raise ValueError(f"{folder!r} is no pod's folder")
    return pod


def segment_name(first_ns: int, kind: str) -> str:
    """The name of a closed segment that begins at `first_ns`."""
    seconds, nanoseconds = divmod(first_ns, 1_000_000_000)
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(seconds))}.{nanoseconds:09d}.{kind}.csv"


def segment_begin(name: str) -> tuple[int, str]:
    """When the segment of this name begins, and its kind, in any of its states. Raises ValueError for another name."""
    found = _SEGMENT.match(name)
    if found is None:
        raise ValueError(f"{name!r} is no segment")
    *begin, nanoseconds = map(int, found.groups()[:-1])
    return calendar.timegm((*begin, 0, 0, 0)) * 1_000_000_000 + nanoseconds, found[8]
