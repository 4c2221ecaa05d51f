"""Commands find InfluxDB where `serve` finds it, and tell no password either."""

import argparse
from pathlib import Path

import pytest

from ods.command_options import CommandParser, add_influx_arguments, influx_settings, settings_of
from ods.errors import SettingsError
from ods.options import parse

HOME = {"HOME": "/home/someone"}
PASSWORD = "hunter2"

FLAGS = [
    *("--influx-host=[::1]", "--influx-port=8087", "--influx-user=-someone", "--influx-pass=a #b'\"c"),
    *("--influx-name=other", "--influx-ssl", "--influx-path=influx"),
]


def parsed(*arguments: str) -> argparse.Namespace:
    """With the options of a command of its own that `serve` has too, in another meaning."""
    parser = CommandParser(prog="ods something")
    add_influx_arguments(parser)
    parser.add_argument("-d", "--directory", type=Path)
    parser.add_argument("--pod", action="append")
    return parser.parse_args(arguments)


def test_without_a_flag_a_command_finds_influxdb_at_its_defaults() -> None:
    assert influx_settings(parsed(), HOME) == parse([], HOME).influx


def test_the_flags_of_influxdb_mean_the_same_as_those_of_serve() -> None:
    assert influx_settings(parsed(*FLAGS), HOME) == parse(FLAGS, HOME).influx


def test_every_option_of_influxdb_is_one_of_the_command(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    assert influx_settings(parsed(f"--influx-pass-file={file}"), HOME).password == PASSWORD
    assert {flag.partition("=")[0] for flag in FLAGS} | {"--influx-pass-file"} == {
        f"--{name.replace('_', '-')}" for name in vars(parsed()) if name.startswith("influx")
    }


def test_a_flag_beats_the_environment_and_that_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ods.toml"
    file.write_text(
        f'[ods]\ninflux-host = "a"\ninflux-user = "a"\ninflux-name = "a"\nport = 1\ndirectory = "{tmp_path}"\n'
    )
    environment = HOME | {"ODS_INFLUX_HOST": "b", "ODS_INFLUX_USER": "b"}
    settings = settings_of(parsed("--config", str(file), "--influx-host=c", "--pod=mine"), environment)
    assert (settings.influx.host, settings.influx.user, settings.influx.database) == ("c", "b", "a")
    assert (settings.directory, settings.pods) == (tmp_path, {})
    assert settings_of(parsed("-c", str(file), "-d", "/other"), environment).directory == Path("/other")


def test_a_wrong_value_in_the_environment_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--influx-port"):
        influx_settings(parsed(), HOME | {"ODS_INFLUX_PORT": "x"})


@pytest.mark.parametrize(
    "arguments",
    [
        [f"--influx-pas={PASSWORD}"],
        ["--influx-port=x", f"--influx-pass={PASSWORD}"],
        ["--influx-host", f"u:{PASSWORD}@h"],
    ],
)
def test_a_wrong_flag_is_one_line_without_the_password_and_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        parsed(*arguments)
    message = capsys.readouterr().err
    assert raised.value.code == 2
    assert message.startswith("ods something: ") and message.count("\n") == 1
    assert PASSWORD not in message
