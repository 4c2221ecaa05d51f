"""Line protocol as a server reads it: enough of it for what ODS writes, and strict about everything else."""

import re
from typing import NamedTuple

_NAME = r"(?:\\.|[^,\s\\])+"
_KEY = r"(?:\\.|[^,=\s\\])+"
_VALUE = r'(?:"(?:\\.|[^"\\])*"|[^,\s"]+)'
_LINE = re.compile(
    rf"(?P<name>{_NAME})(?P<tags>(?:,{_KEY}={_KEY})*) (?P<fields>{_KEY}={_VALUE}(?:,{_KEY}={_VALUE})*)"
    r"(?: (?P<time>-?\d+))?"
)
_TAG = re.compile(rf",({_KEY})=({_KEY})")
_FIELD = re.compile(rf"({_KEY})=({_VALUE})")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")

Value = float | int | bool | str


class Point(NamedTuple):
    """One line, read."""

    name: str
    tags: tuple[tuple[str, str], ...]
    fields: dict[str, Value]
    time_ns: int | None


class BadLine(ValueError):
    """It is no line protocol; says what is wrong as InfluxDB 2.x does."""


def significant_lines(body: str) -> list[str]:
    """The lines that are neither empty nor a comment."""
    return [line for line in body.split("\n") if line.strip() and not line.lstrip().startswith("#")]


def parse_line(line: str) -> Point:
    """Read one line. Raises BadLine."""
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise BadLine("missing fields" if " " not in line.strip() else "invalid field format")
    return Point(
        name=_unescape(match["name"]),
        tags=tuple(sorted((_unescape(key), _unescape(value)) for key, value in _TAG.findall(match["tags"]))),
        fields={_unescape(key): _value(value) for key, value in _FIELD.findall(match["fields"])},
        time_ns=int(match["time"]) if match["time"] else None,
    )


def type_of(value: Value) -> str:
    """The type of a field, as InfluxDB names it."""
    return {float: "float", int: "integer", bool: "boolean", str: "string"}[type(value)]


def _value(text: str) -> Value:
    if text.startswith('"'):
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    if text in ("t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE"):
        return text[0] in "tT"
    if re.fullmatch(r"-?\d+i", text):
        return int(text[:-1])
    if _NUMBER.fullmatch(text):
        return float(text)
    raise BadLine("invalid number")


def _unescape(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)
