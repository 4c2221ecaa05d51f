"""The sensor file: what it says of each name, and one clear line, with its number, for whatever is wrong in it."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ods.errors import SettingsError
from ods.options import parse
from ods.sensors import Sensor, Sensors
from ods.settings import default_sensors
from ods.simulator.records import DataPoint, RunPlan, records_of_pod

CONF = Path(__file__).parents[1] / "conf" / "sensors.toml"


@pytest.fixture
def load(tmp_path: Path):
    """Write a sensor file and read it."""

    def write_and_load(text: str | bytes) -> Sensors:
        path = tmp_path / "sensors.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Sensors.load(path)

    return write_and_load


def complaint(load, text: str | bytes) -> tuple[int, str]:
    """The number of the line, and the reason, of the one line that the file is answered with."""
    with pytest.raises(SettingsError) as raised:
        load(text)
    found = re.fullmatch(r"--sensors \S+/sensors\.toml, line (\d+): (.+)", str(raised.value))
    assert found is not None, str(raised.value)
    return int(found[1]), found[2]


def test_a_sensor_is_all_that_the_file_says_of_a_name(load) -> None:
    sensors = load(
        """
        [accel_x]
        label = "Acceleration, forward"
        unit = "m/s²"
        warning = {low = -12, high = 12.5}
        danger = {low = -20, high = 20}
        hysteresis = 0.5
        ["nav/imu:1.x-y"]
        danger.high = 3
        [empty]
        """
    )
    assert sensors.of("accel_x") == Sensor(
        label="Acceleration, forward",
        unit="m/s²",
        warning_low=-12.0,
        warning_high=12.5,
        danger_low=-20.0,
        danger_high=20.0,
        hysteresis=0.5,
    )
    assert sensors.of("nav/imu:1.x-y") == Sensor(danger_high=3.0)
    assert sensors.of("empty") == Sensor()
    assert [name for name, sensor in sensors.by_name.items() if sensor.has_limits] == ["accel_x", "nav/imu:1.x-y"]


def test_a_name_that_the_file_does_not_have_is_no_error(load) -> None:
    assert load("[a]\n").of("b") is None
    assert Sensors().of("a") is None


@pytest.mark.parametrize("text", ["", "# nothing\n", "\ufeff[a]\nunit = 'V'\n", "[a]\r\nunit = 'V'\r\n"])
def test_a_file_may_be_empty_or_come_from_another_system(text: str, load) -> None:
    assert load(text).by_name in ({}, {"a": Sensor(unit="V")})


WRONG = {
    "no TOML": ("[a]\nlabel = 'x'\nunit m\n", 3, "Expected '='"),
    "no TOML at the end": ("[a]\nlabel = {low = 1", 2, ""),
    "a table twice": ("[a]\nunit='m'\n\n[a]\nunit='s'\n", 4, "Cannot declare"),
    "no UTF-8": (b"[a]\nunit = 'm'\nlabel = '\xff'\n", 3, "UTF-8"),
    "no name of a pod's": ('[a]\n\n["a b"]\n', 3, "'a b' is no name"),
    "an empty name": ('[""]\n', 1, "'' is no name"),
    "a name that is too long": (f"[{'a' * 64}]\n", 1, "is no name"),
    "no table": ("# x\naccel_x = 3\n", 2, "accel_x stands in no table"),
    "an array of tables": ("[[a]]\nunit = 'm'\n", 1, "a stands in no table"),
    "a dot without quotes": ("[b]\n[imu.accel]\nunit = 'm'\n", 2, 'as in ["imu.accel"]'),
    "an unknown key": ("[a]\nunit = 'm'\n# c\nlable = 'x'\n", 4, "did you mean label?"),
    "a key like no other": ("[a]\nqqq = 'x'\n", 2, "there are label, unit, warning, danger and hysteresis"),
    "a unit that is no text": ("[a]\nunit = 3\n", 2, "unit is a text"),
    "a label of two lines": ("[a]\nlabel = 'x\\n'\nunit = \"a\\nb\"\n", 3, "unit is a text"),
    "a label that is too long": (f"[a]\nlabel = '{'x' * 65}'\n", 2, "at most 64"),
    "limits that are no table": ("[a]\n\nwarning = 3\n", 3, "warning is like {low = 1, high = 2}"),
    "limits that are a list": ("[a]\nwarning = [1, 2]\n", 2, "warning is like {low = 1, high = 2}"),
    "limits without a side": ("[a]\ndanger = {}\n", 2, "danger is like"),
    "an unknown side": ("[a]\ndanger = {min = 1}\n", 2, "no 'min'"),
    "an unknown side with a dot": ("[a]\ndanger.high = 1\ndanger.lo = 1\n", 3, "no 'lo'"),
    "a limit that is a text": ("[a]\ndanger = {low = '1'}\n", 2, "danger.low is no number"),
    "a limit that is a truth": ("[a]\ndanger = {low = true}\n", 2, "danger.low is no number"),
    "a limit that is no number": ("[a]\ndanger = {low = nan}\n", 2, "danger.low is no number"),
    "a limit beyond all values": (f"[a]\ndanger = {{low = 1{'0' * 400}}}\n", 2, "danger.low is no number"),
    "a limit that is infinite": ("[a]\ndanger = {high = inf}\n", 2, "danger.high is no number"),
    "sides that are swapped": ("[a]\nwarning = {low = 2, high = 1}\n", 2, "warning.low is not below warning.high"),
    "danger before warning, above": (
        "[a]\nwarning = {high = 5}\nunit = 'm'\ndanger = {high = 4}\n",
        4,
        "danger.high is below warning.high (5)",
    ),
    "danger before warning, below": (
        "[a]\nwarning.low = 1\ndanger.low = 2\n",
        3,
        "danger.low is above warning.low (1)",
    ),
    "no room between the limits": ("[a]\nwarning.low = 3\ndanger.high = 2\n", 2, "there is no room"),
    "a hysteresis below 0": ("[a]\nhysteresis = -1\n", 2, "hysteresis is below 0"),
    "a hysteresis without room": ("[a]\nwarning={low=0,high=2}\nhysteresis = 1\n", 3, "less than half"),
    "a value of several lines": ("[a]\nlabel = '''x\ny\nz'''\n[b]\nunit = 'm'\n", 4, "label is a text"),
}


@pytest.mark.parametrize("text, line, reason", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line_with_its_number(text: str | bytes, line: int, reason: str, load) -> None:
    told_line, told_reason = complaint(load, text)
    assert told_line == line
    assert reason in told_reason


def test_a_fault_in_a_long_file_is_found_at_once(load) -> None:
    """It is looked for by halves."""
    text = "".join(f"[name_{number}]\nunit = 'm'\n\n" for number in range(3000))
    assert complaint(load, text + "[last]\nunit = 'm'\nlimits = 3\n[more]\n") == (
        9003,
        "last: 'limits' is no key of a sensor; there are label, unit, warning, danger and hysteresis",
    )


def test_a_file_that_is_missing_or_too_large_is_named(tmp_path: Path, load) -> None:
    with pytest.raises(SettingsError, match=f"--sensors {tmp_path}/none.toml: No such file"):
        Sensors.load(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match=f"--sensors {tmp_path}: Is a directory"):
        Sensors.load(tmp_path)
    with pytest.raises(SettingsError, match="it has more than 4 MiB"):
        load("#" * (4 * 1024 * 1024 + 1))


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from(
                [
                    "[a]",
                    "[b.c]",
                    "unit = 'V'",
                    "label = 3",
                    "warning = {low = 1}",
                    "danger.high = 2",
                    "x = [",
                    "]",
                    '"""',
                ]
            ),
            max_size=8,
        ).map(lambda lines: "\n".join(lines).encode()),
    )
)
def test_no_file_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    try:
        Sensors.load(path)
    except SettingsError as error:
        assert "\n" not in str(error)
        assert re.search(r", line \d+: ", str(error))


# -- Which file -------------------------------------------------------------------------------------------------------


def test_the_option_names_the_file_and_an_empty_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[a]\nunit = 'V'\n")
    assert parse([f"--sensors={path}"], {}).sensors.by_name == {"a": Sensor(unit="V")}
    for none in (parse(["--sensors="], {}), parse(["--sensors", ""], {}), parse([], {"ODS_SENSORS": ""})):
        assert none.sensors == Sensors()


def test_the_default_is_systemds_file_else_that_of_the_checkout(tmp_path: Path) -> None:
    environment = {"CONFIGURATION_DIRECTORY": str(tmp_path)}
    assert default_sensors({}) == default_sensors(environment) == CONF
    (tmp_path / "sensors.toml").write_text("")
    assert default_sensors(environment) == tmp_path / "sensors.toml"


def test_a_wrong_file_is_a_wrong_option(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[a]\nunit = 3\n")
    with pytest.raises(SettingsError, match=re.escape(f"--sensors {path}, line 2: a: unit is a text")):
        parse([f"--sensors={path}"], {})


# -- conf/sensors.toml ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [2, 20, 42, 300])
def test_the_file_that_comes_with_ods_knows_the_simulators_names_and_no_run_crosses_a_limit(seconds: float) -> None:
    """Whoever tries ODS must not begin with alarms."""
    sensors, seen = Sensors.load(CONF), set()
    plan = RunPlan(target="ods", rate=4000 / seconds, seconds=seconds)
    for record in records_of_pod(plan, 0):
        if not isinstance(record, DataPoint):
            continue
        sensor = sensors.of(record.name)
        assert sensor is not None and sensor.label
        seen.add(record.name)
        for low, high in ((sensor.warning_low, sensor.warning_high), (sensor.danger_low, sensor.danger_high)):
            assert (low is None or low < record.value) and (high is None or record.value < high), record
    assert seen == set(sensors.by_name), "names that the simulator does not send"
