"""The dashboards of `conf/grafana`, and what Grafana makes of their queries before it sends them to InfluxDB.

How it does that is told in its documentation: dashboard variables ("Variable syntax", "Global variables") and the
InfluxDB data source ("InfluxQL query editor", "Template variables").
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.ods_process import REPOSITORY

FOLDER = REPOSITORY / "conf" / "grafana"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
ALL = "$__all"

#: A variable in a query, with the format that its value is to have; Grafana's own have none.
VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)")
GRAFANAS_OWN = {"timeFilter", "__interval"}
_SPECIAL_IN_REGEX = re.compile(r"[\\^$*+?.()|\[\]{}/]")

Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """One query of a dashboard, and where it stands."""

    dashboard: str
    place: str
    text: str
    interval: str
    result_format: str
    alias: str = ""

    def __str__(self) -> str:
        return f"{self.dashboard}-{self.place}".replace(" ", "_")


def load(path: Path) -> Json:
    dashboard: Json = json.loads(path.read_text(encoding="utf-8"))
    return dashboard


def panels(dashboard: Json) -> Iterator[Json]:
    """All of them, rows too, and those in collapsed rows."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def variables(dashboard: Json) -> dict[str, Json]:
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def queries(path: Path) -> Iterator[Query]:
    """Of every panel and annotation."""
    dashboard = load(path)
    for panel in panels(dashboard):
        for target in panel.get("targets", []):
            place = f"{panel['id']} {panel['title']} {target['refId']}"
            text, result_format = target["query"], target["resultFormat"]
            yield Query(path.stem, place, text, panel["interval"], result_format, target.get("alias", ""))
    for annotation in dashboard["annotations"]["list"]:
        yield Query(path.stem, annotation["name"], annotation["target"]["query"], "", "annotation")


def expanded(
    text: str,
    *,
    dashboard: Json,
    chosen: Mapping[str, Sequence[str]],
    options: Mapping[str, Sequence[str]],
    span_ms: tuple[int, int] = (0, 0),
    interval: str = "",
) -> str:
    """The query as InfluxDB gets it. `chosen` is `[ALL]` or some of the `options` of each variable."""

    def value(found: re.Match[str]) -> str:
        name, form = found[1] or found[3], found[2]
        if name in GRAFANAS_OWN:
            return {"timeFilter": f"time >= {span_ms[0]}ms and time <= {span_ms[1]}ms", "__interval": interval}[name]
        variable = variables(dashboard)[name]
        assert form == "regex", f"{found[0]}: without a format each version of Grafana has its own"
        if list(chosen[name]) == [ALL]:
            return variable["allValue"] if "allValue" in variable else as_regex(options[name])
        return as_regex(chosen[name])

    return VARIABLE.sub(value, text)


def as_regex(values: Sequence[str]) -> str:
    """The format `regex`: each value with what is special in it escaped; of several, in parentheses, any."""
    escaped = [_SPECIAL_IN_REGEX.sub(r"\\\g<0>", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def named(alias: str, *, measurement: str, tags: Mapping[str, str], column: str) -> str:
    """What a series is called by its alias."""
    words = {"m": measurement, "col": column, **{f"tag_{key}": value for key, value in tags.items()}}
    return re.sub(r"\$(\w+)", lambda found: words[found[1]], alias)
