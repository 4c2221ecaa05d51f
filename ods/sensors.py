"""What is known of each name that pods send: its label, its unit, its limits; from a TOML file, `conf/sensors.toml`.

A name that the file does not have is stored, recorded and shown all the same. Whatever is wrong in the file is one
clear line with the number of the line at fault (`SettingsError`), before anything has started: a limit that silently
is not watched would be worse than none.
"""

import difflib
import math
import re
import tomllib
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ods.data_points import NAME
from ods.errors import SettingsError

#: The longest label and the longest unit: they stand on a tile of the page. Characters.
MAX_LABEL_CHARACTERS, MAX_UNIT_CHARACTERS = 64, 16
#: The largest file: ten thousand names take less. Bytes.
MAX_FILE_BYTES = 4 * 1024 * 1024
#: A value counts as inside again once it is this part of the limits' span inside, where the file says nothing else.
HYSTERESIS_SHARE = 0.02

_KEYS = ("label", "unit", "warning", "danger", "hysteresis")
_SIDES = ("low", "high")
_AT_LINE = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)\Z")

#: Where in the file something stands: the name, and the keys below it.
_Place = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """One name. A limit that is None is none; `hysteresis` (in the unit) is None where the file leaves it to ODS."""

    label: str = ""
    unit: str = ""
    warning_low: float | None = None
    warning_high: float | None = None
    danger_low: float | None = None
    danger_high: float | None = None
    hysteresis: float | None = None

    @property
    def has_limits(self) -> bool:
        """Whether there is anything to be watched."""
        limits = (self.warning_low, self.warning_high, self.danger_low, self.danger_high)
        return any(limit is not None for limit in limits)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `warning` and `danger` are `[low, high]`, null where there is none."""
        return {
            "label": self.label,
            "unit": self.unit,
            "warning": [self.warning_low, self.warning_high],
            "danger": [self.danger_low, self.danger_high],
        }


@dataclass(frozen=True, slots=True)
class Sensors:
    """All names of a file, in its order; none where there is no file."""

    by_name: Mapping[str, Sensor] = field(default_factory=dict)
    path: Path | None = None

    @staticmethod
    def load(path: Path) -> "Sensors":
        """Read a file. Raises SettingsError, with the file, the line and the reason."""
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_FILE_BYTES + 1)
            text = raw.decode("utf-8-sig")
        except OSError as error:
            raise SettingsError(f"--sensors {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise SettingsError(f"--sensors {path}, line {line}: it is no UTF-8") from error
        except ValueError as error:  # a path that no file can have
            raise SettingsError(f"--sensors {str(path)!r}: {error}") from error
        if len(raw) > MAX_FILE_BYTES:
            raise SettingsError(f"--sensors {path}: it has more than {MAX_FILE_BYTES // 2**20} MiB")
        return Sensors(dict(_parse(text, path)), path)

    def of(self, name: str) -> Sensor | None:
        """What the file says of a name; None where it does not know it."""
        return self.by_name.get(name)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, by name."""
        return {name: sensor.as_dict() for name, sensor in self.by_name.items()}


class _Wrong(Exception):
    """The reason, and where in the file it is."""

    def __init__(self, reason: str, *place: str) -> None:
        super().__init__(reason)
        self.place: _Place = place


def _parse(text: str, path: Path) -> Iterator[tuple[str, Sensor]]:
    try:
        for name, table in tomllib.loads(text).items():
            yield name, _sensor(name, table)
    except tomllib.TOMLDecodeError as error:
        reason = str(error)
        found = _AT_LINE.search(reason)
        line = found[1] if found is not None and found[1] else text.count("\n") + 1
        raise SettingsError(f"--sensors {path}, line {line}: {_AT_LINE.sub('', reason)}") from error
    except RecursionError as error:
        raise SettingsError(f"--sensors {path}: it is nested too deep") from error
    except _Wrong as error:
        raise SettingsError(f"--sensors {path}, line {_line_of(text, error.place)}: {error}") from error


def _sensor(name: str, table: object) -> Sensor:
    if not re.fullmatch(NAME, name):
        reason = f"{name!r} is no name that a pod can send (1 to 63 of letters, digits and _.:/-)"
        raise _Wrong(reason, name)
    if not isinstance(table, dict):
        raise _Wrong(f"{name} stands in no table; a sensor begins with [NAME] on a line of its own", name)
    for key, value in table.items():
        if key not in _KEYS:
            raise _Wrong(_unknown(name, key, value), name, key)
    warning_low, warning_high = _limits(name, table, "warning")
    danger_low, danger_high = _limits(name, table, "danger")
    if warning_low is not None and danger_low is not None and danger_low > warning_low:
        raise _Wrong(f"{name}: danger.low is above warning.low ({warning_low:g})", name, "danger")
    if warning_high is not None and danger_high is not None and danger_high < warning_high:
        raise _Wrong(f"{name}: danger.high is below warning.high ({warning_high:g})", name, "danger")
    sensor = Sensor(
        label=_text(name, table, "label", MAX_LABEL_CHARACTERS),
        unit=_text(name, table, "unit", MAX_UNIT_CHARACTERS),
        warning_low=warning_low,
        warning_high=warning_high,
        danger_low=danger_low,
        danger_high=danger_high,
        hysteresis=_number(name, table["hysteresis"], "hysteresis") if "hysteresis" in table else None,
    )
    _check_room(name, sensor)
    return sensor


def _check_room(name: str, sensor: Sensor) -> None:
    """Between the limits there must be values at which nothing is wrong, and room to come back to them."""
    lows = [low for low in (sensor.warning_low, sensor.danger_low) if low is not None]
    highs = [high for high in (sensor.warning_high, sensor.danger_high) if high is not None]
    if lows and highs and max(lows) >= min(highs):
        key = "danger" if None not in (sensor.danger_low, sensor.danger_high) else "warning"
        raise _Wrong(f"{name}: between its low and its high limit there is no room", name, key)
    if sensor.hysteresis is None:
        return
    if sensor.hysteresis < 0:
        raise _Wrong(f"{name}: hysteresis is below 0", name, "hysteresis")
    if lows and highs and sensor.hysteresis * 2 >= min(highs) - max(lows):
        raise _Wrong(f"{name}: hysteresis must be less than half of what is between the limits", name, "hysteresis")


def _limits(name: str, table: Mapping[str, object], key: str) -> tuple[float | None, float | None]:
    if key not in table:
        return None, None
    sides = table[key]
    if not isinstance(sides, dict) or not sides:
        raise _Wrong(f"{name}: {key} is like {{low = 1, high = 2}}; one of the two may be missing", name, key)
    for side in sides:
        if side not in _SIDES:
            raise _Wrong(f"{name}: {key} has low and high, and no {side!r}", name, key, side)
    low, high = (_number(name, sides[side], key, side) if side in sides else None for side in _SIDES)
    if low is not None and high is not None and low >= high:
        raise _Wrong(f"{name}: {key}.low is not below {key}.high", name, key)
    return low, high


def _number(name: str, value: object, *keys: str) -> float:
    try:
        number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _Wrong(f"{name}: {'.'.join(keys)} is no number that a value can have", name, *keys)
    return number


def _text(name: str, table: Mapping[str, object], key: str, longest: int) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or not value.isprintable() or len(value) > longest or value != value.strip():
        raise _Wrong(f"{name}: {key} is a text of at most {longest} characters, on one line", name, key)
    return value


def _unknown(name: str, key: str, value: object) -> str:
    if isinstance(value, dict) and key not in _SIDES:
        return f'{name}.{key}: a name with a dot needs quotes, as in ["{name}.{key}"]'
    near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.75)
    known = f"did you mean {near[0]}?" if near else f"there are {', '.join(_KEYS[:-1])} and {_KEYS[-1]}"
    return f"{name}: {key!r} is no key of a sensor; {known}"


def _line_of(text: str, place: _Place) -> int:
    """The number of the line on which this stands: the first with which the file, cut off after it, has it."""
    lines = text.split("\n")

    def has(count: int) -> bool:
        here: object = _beginning(lines, count)
        for key in place:
            if not isinstance(here, dict) or key not in here:
                return False
            here = here[key]
        return True

    return min(bisect_left(range(1, len(lines) + 1), True, key=has) + 1, len(lines))


def _beginning(lines: list[str], count: int) -> dict[str, Any]:
    """What the first lines say; where they end within a value, those before it."""
    while count > 0:
        try:
            return tomllib.loads("\n".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            count -= 1
    return {}
