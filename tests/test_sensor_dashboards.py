"""The sensor file in Grafana's dashboard of values: the one that comes with ODS is made from it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness.grafana import DASHBOARDS, load, panels

from ods.commands import dashboards as command
from ods.dashboards import with_sensors, written
from ods.sensors import Sensor, Sensors

ROOT = Path(__file__).parents[1]
VALUES = ROOT / "conf" / "grafana" / "dashboards" / "pod-values.json"
SENSORS = Sensors.load(ROOT / "conf" / "sensors.toml")


def overrides(dashboard: dict[str, Any], title: str) -> list[dict[str, Any]]:
    (panel,) = [panel for panel in panels(dashboard) if panel["title"] == title and panel["type"] != "row"]
    return panel["fieldConfig"]["overrides"]


def properties(dashboard: dict[str, Any], title: str, series: str) -> dict[str, Any]:
    """What a series of this display name gets, as Grafana finds it: of several the last one wins."""
    found: dict[str, Any] = {}
    for override in overrides(dashboard, title):
        if re.search(override["matcher"]["options"][1:-1], series):
            found |= {each["id"]: each["value"] for each in override["properties"]}
    return found


def test_the_dashboard_that_comes_with_ods_agrees_with_the_sensor_file_that_does() -> None:
    """`make dashboards` brings it up to date."""
    assert written(with_sensors(load(VALUES), SENSORS)) + "\n" == VALUES.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_written_as_it_was_read(path: Path) -> None:
    assert written(load(path)) + "\n" == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SENSORS.by_name)
@pytest.mark.parametrize("prefix", ["", "lowest ", "highest "])
def test_each_name_has_its_unit_in_every_panel_of_curves_and_its_limits_in_its_own(name: str, prefix: str) -> None:
    sensor, dashboard = SENSORS.by_name[name], load(VALUES)
    unit = f"suffix: {sensor.unit}" if sensor.unit else None
    series = f"{prefix}{name} 10.0.0.20"
    for title in ("Chosen names", "Every point", "$name"):
        assert properties(dashboard, title, series).get("unit") == unit
    thresholds = properties(dashboard, "$name", series).get("thresholds")
    assert (thresholds is not None) == (sensor.has_limits and not prefix)
    if thresholds is not None:
        told = {sensor.warning_low, sensor.warning_high, sensor.danger_low, sensor.danger_high} - {None}
        assert {step["value"] for step in thresholds["steps"]} - {None} == told


@pytest.mark.parametrize(
    ("sensor", "steps"),
    [
        (Sensor(warning_high=1), [("green", None), ("orange", 1)]),
        (Sensor(danger_high=1), [("green", None), ("red", 1)]),
        (Sensor(warning_low=1), [("orange", None), ("green", 1)]),
        (Sensor(danger_low=1), [("red", None), ("green", 1)]),
        (
            Sensor(danger_low=-2, warning_low=-1, warning_high=1, danger_high=2),
            [("red", None), ("orange", -2), ("green", -1), ("orange", 1), ("red", 2)],
        ),
    ],
)
def test_the_colours_begin_at_the_limits_from_below_to_above(sensor: Sensor, steps: list[tuple[str, Any]]) -> None:
    made = with_sensors(load(VALUES), Sensors({"a": sensor}))
    found = properties(made, "$name", "a pod")["thresholds"]["steps"]
    assert [(step["color"], step["value"]) for step in found] == steps


def test_a_name_matches_itself_alone_whatever_it_holds() -> None:
    made = with_sensors(load(VALUES), Sensors({"imu.x/1": Sensor(unit="V"), "imu": Sensor(unit="A")}))
    units = [properties(made, "$name", f"{name} pod").get("unit") for name in ("imu.x/1", "imu", "imu_x/1", "my imu")]
    assert units == ["suffix: V", "suffix: A", None, None]


def test_only_what_was_made_from_the_file_is_replaced() -> None:
    before = load(VALUES)
    own = {"matcher": {"id": "byName", "options": "x"}, "properties": []}
    overrides(before, "$name").append(own)
    none = with_sensors(before, Sensors())
    assert overrides(none, "$name") == [overrides(before, "$name")[0], own]
    assert overrides(none, "Last values") == overrides(before, "Last values")
    again = with_sensors(with_sensors(before, SENSORS), SENSORS)
    assert again == with_sensors(before, SENSORS)


# -- The command ------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ods", "dashboards", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_dashboard_is_brought_up_to_date_in_its_place(tmp_path: Path) -> None:
    file, sensors = tmp_path / "values.json", tmp_path / "sensors.toml"
    file.write_text(VALUES.read_text())
    sensors.write_text("[accel_x]\nunit = 'g'\n")
    done = run("--sensors", str(sensors), str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: written, 1 names\n", "")
    assert properties(load(file), "$name", "accel_x pod") == {"unit": "suffix: g"}
    assert run("--sensors", str(sensors), str(file)).stdout == f"{file}: up to date, 1 names\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sensors.toml", "values.json"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--sensors", "/nowhere/s.toml"], 2, "--sensors /nowhere/s.toml: No such file"),
        (["/nowhere/d.json"], 1, "/nowhere/d.json: No such file"),
        ([str(ROOT / "README.md")], 1, "README.md is no dashboard"),
        (["--nonsense"], 2, "--nonsense"),
    ],
)
def test_what_is_wrong_is_told_without_a_traceback(arguments: list[str], status: int, says: str) -> None:
    done = run(*arguments)
    assert (done.returncode, "Traceback" in done.stderr, says in done.stderr) == (status, False, True), done.stderr


@pytest.mark.parametrize("text", ["[]", "{}", '{"panels": 3}', '{"panels": [{"title": "x"}]}', "3"])
def test_what_is_no_dashboard_is_left_as_it_is(text: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    command.main([str(file)])
    assert json.loads(file.read_text()) == json.loads(text)
