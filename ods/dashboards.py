"""The sensor file in Grafana: units and limits, as overrides of a dashboard that calls its series by names. Pure.

Only what was made here before is replaced; whatever else somebody has put into the dashboard stays as it is, and the
text keeps its shape, so that a difference shows what has changed.
"""

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ods.sensors import Sensor, Sensors

#: A line of the text is no longer than this, where it can be broken. Characters.
LINE_CHARACTERS = 119
#: What the series of lowest and highest values are called, before their name.
_PREFIX = "(lowest |highest )?"
#: The matchers of this module: `(?:` is what nobody else begins with.
_MADE = re.compile(r"/\^(?:\(lowest \|highest \)\?)?\(\?:\S+\) /")
_SPECIAL = re.compile(r"[./]")
_COLOURS = ("green", "orange", "red")

_Json = dict[str, Any]


def with_sensors(dashboard: Mapping[str, Any], sensors: Sensors) -> _Json:
    """The dashboard with the units of the sensor file, and its limits where each name has a panel of its own."""
    made = copy.deepcopy(dict(dashboard))
    for panel in _panels(made["panels"]):
        if not any("$m " in target.get("alias", "") for target in panel.get("targets", [])):
            continue
        if panel["type"] != "timeseries":
            continue
        settings = panel["fieldConfig"]
        kept = [one for one in settings["overrides"] if not _MADE.fullmatch(str(one["matcher"].get("options")))]
        limits = _limits(sensors) if "repeat" in panel else []
        settings["overrides"] = [*kept, *_units(sensors), *limits]
    return made


def written(part: Any, indent: int = 0, before: int = 0) -> str:
    """JSON as the dashboards have it: on one line what fits there, but for the whole."""
    line = json.dumps(part, ensure_ascii=False)
    is_flat = not isinstance(part, dict | list) or not part
    if is_flat or (indent and indent + before + len(line) < LINE_CHARACTERS):
        return line
    space = " " * (indent + 2)
    if isinstance(part, list):
        rows, ends = [written(child, indent + 2) for child in part], "[]"
    else:
        keys = {json.dumps(key, ensure_ascii=False): child for key, child in part.items()}
        rows, ends = [f"{key}: {written(child, indent + 2, len(key) + 2)}" for key, child in keys.items()], "{}"
    inside = ",\n".join(f"{space}{row}" for row in rows)
    return f"{ends[0]}\n{inside}\n{' ' * indent}{ends[1]}"


def _panels(panels: Iterable[_Json]) -> Iterator[_Json]:
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels", []))


def _units(sensors: Sensors) -> Iterator[_Json]:
    names: dict[str, list[str]] = {}
    for name, sensor in sensors.by_name.items():
        if sensor.unit:
            names.setdefault(sensor.unit, []).append(name)
    for unit, measured in names.items():
        yield _override(_PREFIX, measured, [{"id": "unit", "value": f"suffix: {unit}"}])


def _limits(sensors: Sensors) -> Iterator[_Json]:
    """As lines; those of one name alone, and of its mean alone, or each would be drawn three times."""
    names: dict[tuple[float | None, ...], list[str]] = {}
    for name, sensor in sensors.by_name.items():
        if sensor.has_limits:
            limits = (sensor.danger_low, sensor.warning_low, sensor.warning_high, sensor.danger_high)
            names.setdefault(limits, []).append(name)
    for limited in names.values():
        steps = _steps(sensors.by_name[limited[0]])
        properties = [
            {"id": "custom.thresholdsStyle", "value": {"mode": "line"}},
            {"id": "thresholds", "value": {"mode": "absolute", "steps": steps}},
        ]
        yield _override("", limited, properties)


def _steps(sensor: Sensor) -> list[_Json]:
    """From below to above: each colour with the value at which it begins, the first one with none."""
    low = [(sensor.danger_low, 2), (sensor.warning_low, 1)]
    high = [(sensor.warning_high, 1), (sensor.danger_high, 2)]
    steps: list[_Json] = [{"color": _COLOURS[0], "value": None}]
    for limit, severity in reversed(low):
        if limit is not None:
            steps[0]["value"] = limit
            steps.insert(0, {"color": _COLOURS[severity], "value": None})
    return [*steps, *({"color": _COLOURS[severity], "value": limit} for limit, severity in high if limit is not None)]


def _override(prefix: str, names: Iterable[str], properties: list[_Json]) -> _Json:
    known = "|".join(_SPECIAL.sub(r"\\\g<0>", name) for name in names)
    return {"matcher": {"id": "byRegexp", "options": f"/^{prefix}(?:{known}) /"}, "properties": properties}
