"""How a recording is written: rows of CSV, names of folders and segments. Pure.

    recordings/<pod>/<UTC begin>.data.csv   time_ns,name,value    the value as the pod sent it
    recordings/<pod>/<UTC begin>.log.csv    time_ns,kind,text     kind: log, invalid, torn

Names hold nothing that a FAT card refuses, and sort by time.
"""

import re
import time
from collections.abc import Sequence

from ods.protocol import DataPoints

#: The two kinds of segment, with the first row of each.
HEADERS = {"data": b"time_ns,name,value\n", "log": b"time_ns,kind,text\n"}

_NOT_PLAIN = re.compile(rb"[^a-z0-9_.-]|^\.|\.$")


def data_rows(points: DataPoints, times: Sequence[str]) -> str:
    """A row a data point; `times` in nanoseconds, as text."""
    return "".join(
        [f"{time_ns},{name},{sent}\n" for time_ns, name, sent in zip(times, points.names, points.sent, strict=True)]
    )


def log_row(time_ns: str, kind: str, text: str) -> str:
    """The row of a log message, or of what was no record."""
    quoted = text.replace('"', '""')
    return f'{time_ns},{kind},"{quoted}"\n'


def folder_name(pod: str) -> str:
    """The name of a pod's folder: all but lower-case letters, digits and `-_.` percent-encoded."""
    return _NOT_PLAIN.sub(lambda found: b"%%%02x" % found[0][0], pod.encode()).decode()


def segment_name(first_ns: int, kind: str) -> str:
    """The name of a closed segment that begins at `first_ns`."""
    seconds, nanoseconds = divmod(first_ns, 1_000_000_000)
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(seconds))}.{nanoseconds:09d}.{kind}.csv"
