r"""Points as InfluxDB's line protocol, ready to be posted. Pure.

Escaping follows the line protocol reference of InfluxDB 1.x: a tag value escapes comma, equals sign and space; a string
field escapes the double quote and the backslash. A tag value cannot end in a backslash (it would eat the separator),
so pods' names hold none (`ods.settings`). The names of data points hold nothing that needs escaping (`ods.protocol`).
Values are Python's `repr` of the float: InfluxDB 1.6 refuses `+5`, and reads back each `repr` as the same float.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat

from ods.data_points import DataPoints
from ods.protocol import LogMessage

LOG_MEASUREMENT = "pod_log"
EVENT_MEASUREMENT = "ods_event"
HEALTH_MEASUREMENT = "ods_health"
#: The event that a mark is, and its kind in a recording.
MARK_EVENT = "mark"

_TAG = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ "})
_STRING = str.maketrans({'"': '\\"', "\\": "\\\\"})
_LINE = re.compile(
    r"""
    (?: [^ ,\n]+ , (?: \\[ ] | [^ \n] )*+ [ ]
        (?: value= [^ ,"\n]+ | (?:message|detail)= " (?: \\. | [^"\\\n] )* " )
    |   ods_health,pod= (?: \\[ ] | [^ \n] )*+ [ ]
        [a-z_]+= [^ ,="\n]+ (?: , [a-z_]+= [^ ,="\n]+ )*
    ) [ ]
    -?\d+
    """,
    re.VERBOSE,
)
#: A pod may call a data point by the name of that measurement, and its field is `value`.
_HEALTH = re.compile(r"ods_health,pod=(?:\\ |[^ \n])*+ (?!value=)")
_ESCAPED_IN_STRING = re.compile(r'\\(["\\])')


def pod_tag(pod: str) -> str:
    """The tag of a pod, with the comma that separates it from the measurement."""
    return f",pod={pod.translate(_TAG)}"


def data_lines(points: DataPoints, tag: str, times: Sequence[str]) -> str:
    """A line a data point; `times` in nanoseconds, as text."""
    return "".join(each_data_line(points, repeat(tag, len(points)), times))


def each_data_line(points: DataPoints, tags: Iterable[str], times: Sequence[str]) -> list[str]:
    """The same, one by one, of data points that have each a tag of its own."""
    return [
        f"{name}{tag} value={value} {time_ns}\n"
        for name, tag, value, time_ns in zip(points.names, tags, points.values, times, strict=True)
    ]


def log_line(message: LogMessage, tag: str, time_ns: str) -> str:
    """The line of a log message."""
    level = f",level={message.level}" if message.level else ""
    return f'{LOG_MEASUREMENT}{level}{tag} message="{message.message.translate(_STRING)}" {time_ns}\n'


def event_line(event: str, detail: str, tag: str, time_ns: int) -> str:
    """The line of one of ODS's own events; `event` is a word of ODS's own."""
    return f'{EVENT_MEASUREMENT},event={event}{tag} detail="{detail.translate(_STRING)}" {time_ns}\n'


def health_line(fields: Mapping[str, float], tag: str, time_ns: int) -> str:
    """The line of ODS's own health; no field may be called `value`."""
    written = ",".join([f"{name}={float(value)!r}" for name, value in fields.items()])
    return f"{HEALTH_MEASUREMENT}{tag} {written} {time_ns}\n"


def is_event(line: str) -> bool:
    """Whether a line is one of ODS's own, an event or its health, which the ledger does not count."""
    return line.startswith(f"{EVENT_MEASUREMENT},event=") or _HEALTH.match(line) is not None


def series_of(line: str) -> str:
    """Measurement and tags of a line that this module wrote."""
    end = 0
    while (end := line.index(" ", end)) and line[end - 1] == "\\":
        end += 1
    return line[:end]


def pod_of(line: str) -> str:
    """The pod of a line that this module wrote."""
    value = series_of(line).partition(",pod=")[2]
    return value.replace("\\,", ",").replace("\\=", "=").replace("\\ ", " ")


def time_of(line: str) -> int:
    """The time of a line that this module wrote, in nanoseconds."""
    return int(line.rpartition(" ")[2])


def is_own(line: str) -> bool:
    """Whether a line, without its newline, is as this module writes them; one from a damaged file need not be."""
    return _LINE.fullmatch(line) is not None


def name_of(line: str) -> str:
    """The measurement of a line that this module wrote."""
    return line.partition(",")[0]


def value_of(line: str) -> str:
    """The field of a line that this module wrote: a number as it stands, a string as it was before; all of a health's.

    Those stand as they are written.
    """
    fields = line[len(series_of(line)) + 1 :].rpartition(" ")[0]
    if _HEALTH.match(line):
        return fields
    value = fields.partition("=")[2]
    return _ESCAPED_IN_STRING.sub(r"\1", value[1:-1]) if value.startswith('"') else value
