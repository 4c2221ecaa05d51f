"""The options: their defaults, where they come from, and one clear line for whatever is wrong with them."""

import ipaddress
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ods.errors import SettingsError
from ods.options import build_parser, parse
from ods.sensors import Sensors
from ods.settings import InfluxSettings, ListenerSettings, Settings, default_directory

HOME = {"HOME": "/home/someone"}
CONF = Path(__file__).parents[1] / "conf" / "ods.toml"
SENSORS = CONF.parent / "sensors.toml"
PASSWORD = "hunter2"

#: Section 9 of the contract.
DEFAULTS = Settings(
    listener=ListenerSettings(host="0.0.0.0", port=7778, allow=()),
    influx=InfluxSettings(
        host="localhost", port=8086, user="root", password="root", database="ods", ssl=False, path=""
    ),
    directory=Path("/home/someone/.local/state/ods"),
    pods={},
    max_names=10_000,
    sensors=Sensors.load(SENSORS),
    buffer_limit_bytes=10 * 2**30,
    recordings_limit_bytes=0,
    http_host="127.0.0.1",
    http_port=7777,
    has_keeper=True,
    log_format="plain",
    verbose=False,
    config=None,
    warnings=(),
)

#: Each option with a value, and where in the settings that value is found.
OPTIONS = {
    "port": ("7001", lambda given: given.listener.port, 7001),
    "host": ("127.0.0.1", lambda given: given.listener.host, "127.0.0.1"),
    "allow": ("10.0.0.0/24", lambda given: given.listener.allow, (ipaddress.ip_network("10.0.0.0/24"),)),
    "pod": ("10.0.0.20=pod a", lambda given: given.pods, {"10.0.0.20": "pod a"}),
    "max-names": ("5", lambda given: given.max_names, 5),
    "sensors": (str(SENSORS), lambda given: given.sensors.path, SENSORS),
    "directory": ("/srv/ods", lambda given: given.directory, Path("/srv/ods")),
    "buffer-limit": ("1.5 GiB", lambda given: given.buffer_limit_bytes, 3 * 2**29),
    "recordings-limit": ("20MB", lambda given: given.recordings_limit_bytes, 20_000_000),
    "influx-host": ("10.0.0.5", lambda given: given.influx.host, "10.0.0.5"),
    "influx-port": ("8087", lambda given: given.influx.port, 8087),
    "influx-user": ("someone", lambda given: given.influx.user, "someone"),
    "influx-pass": ("a #b'\"c", lambda given: given.influx.password, "a #b'\"c"),
    "influx-name": ("other", lambda given: given.influx.database, "other"),
    "influx-path": ("influx", lambda given: given.influx.path, "influx"),
    "http-host": ("0.0.0.0", lambda given: given.http_host, "0.0.0.0"),
    "http-port": ("0", lambda given: given.http_port, None),
    "log-format": ("json", lambda given: given.log_format, "json"),
}
SWITCHES = {
    "verbose": lambda given: given.verbose,
    "influx-ssl": lambda given: given.influx.ssl,
    "no-keeper": lambda given: not given.has_keeper,
}


def variable(option: str) -> str:
    return "ODS_" + option.replace("-", "_").upper()


@pytest.fixture
def toml(tmp_path: Path):
    """Write a configuration file; returns the arguments that make ODS read it."""

    def write(text: str | bytes) -> list[str]:
        path = tmp_path / "ods.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["--config", str(path)]

    return write


def in_toml(option: str, value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'[ods]\n{option} = "{quoted}"\n'


def complaint(arguments: list[str], environment: dict[str, str] | None = None) -> str:
    """The one line that these options are answered with."""
    with pytest.raises(SettingsError) as raised:
        parse(arguments, HOME | (environment or {}))
    message = str(raised.value)
    assert message and "\n" not in message
    return message


# -- Defaults and precedence ------------------------------------------------------------------------------------------


def test_without_an_option_everything_is_at_its_default() -> None:
    assert parse([], HOME) == DEFAULTS


def test_these_are_all_options() -> None:
    """A new option needs its line in the tests of where options come from."""
    known = {
        option[2:] for action in build_parser()._actions for option in action.option_strings if option.startswith("--")
    }
    assert known == {*OPTIONS, *SWITCHES, "config", "help", "influx-pass-file", "version"}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_comes_from_a_flag_the_environment_or_the_file(option: str, toml) -> None:
    text, of, value = OPTIONS[option]
    assert of(parse([f"--{option}", text], HOME)) == value
    assert of(parse([f"--{option}={text}"], HOME)) == value
    assert of(parse([], HOME | {variable(option): text})) == value
    assert of(parse(toml(in_toml(option, text)), HOME)) == value


@pytest.mark.parametrize("option", SWITCHES)
def test_a_switch_comes_from_a_flag_the_environment_or_the_file(option: str, toml) -> None:
    of = SWITCHES[option]
    assert of(parse([f"--{option}"], HOME)) is True
    assert of(parse([], HOME | {variable(option): "true"})) is True
    assert of(parse([], HOME | {variable(option): "false"})) is False
    assert of(parse(toml(f"[ods]\n{option} = true\n"), HOME)) is True
    assert of(parse(toml(f"[ods]\n{option} = false\n"), HOME)) is False


@pytest.mark.parametrize("option", OPTIONS)
def test_a_flag_beats_the_environment_and_both_beat_the_file(option: str, toml) -> None:
    text, of, value = OPTIONS[option]
    default = {"pod": "10.9.9.9=other", "allow": "10.9.0.0/16", "directory": "/default", "log-format": "plain"}
    default |= {"sensors": ""}
    other = default.get(option, "9" if option not in ("host", "http-host") else "9.9.9.9")
    file = toml(in_toml(option, other))
    assert of(parse([*file, f"--{option}={text}"], HOME | {variable(option): other})) == value
    assert of(parse(file, HOME | {variable(option): text})) == value
    assert of(parse(file, HOME)) != value


@pytest.mark.parametrize(
    ("arguments", "of", "value"),
    [
        (["-v"], lambda given: given.verbose, True),
        (["-p", "7001"], lambda given: given.listener.port, 7001),
        (["-p7001"], lambda given: given.listener.port, 7001),
        (["-d", "/srv/ods"], lambda given: given.directory, Path("/srv/ods")),
    ],
)
def test_the_short_options_that_users_type_work(arguments: list[str], of, value: object) -> None:
    assert of(parse(arguments, HOME)) == value


def test_repeatable_options_add_up(toml) -> None:
    given = parse(["--pod=10.0.0.1=a", "--pod=10.0.0.2=b", "--allow=10.0.0.0/24", "--allow=::1"], HOME)
    assert given.pods == {"10.0.0.1": "a", "10.0.0.2": "b"}
    assert given.listener.allow == (ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("::1"))
    given = parse(toml('[ods]\npod = ["10.0.0.1=a", "10.0.0.2=b"]\nallow = ["10.0.0.0/24"]\n'), HOME)
    assert given.pods == {"10.0.0.1": "a", "10.0.0.2": "b"}
    given = parse([], HOME | {"ODS_POD": "[10.0.0.1=a, 10.0.0.2=b]"})
    assert given.pods == {"10.0.0.1": "a", "10.0.0.2": "b"}


def test_the_file_that_was_read_is_known(toml) -> None:
    arguments = toml("[ods]\nport = 7001\n")
    assert parse(arguments, HOME).config == Path(arguments[1])


def test_the_configuration_file_comes_from_the_environment_too(toml) -> None:
    """Every option does."""
    _, path = toml("[ods]\nport = 7001\n")
    given = parse([], HOME | {"ODS_CONFIG": path})
    assert (given.listener.port, given.config) == (7001, Path(path))


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({}, "/home/someone/.local/state/ods"),
        ({"XDG_STATE_HOME": "/state"}, "/state/ods"),
        ({"XDG_STATE_HOME": "not/absolute"}, "/home/someone/.local/state/ods"),
        ({"ODS_DIRECTORY": "/srv/ods", "STATE_DIRECTORY": "/var/lib/ods"}, "/srv/ods"),
        ({"STATE_DIRECTORY": "/var/lib/ods"}, "/var/lib/ods"),
        ({"STATE_DIRECTORY": "/var/lib/ods:/var/lib/more", "XDG_STATE_HOME": "/state"}, "/var/lib/ods"),
    ],
)
def test_the_default_directory_is_systemds_else_the_users(
    environment: dict[str, str], directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ods.settings.sys.platform", "linux")
    assert default_directory(HOME | environment) == Path(directory)


def test_systemds_configuration_directory_may_hold_the_options(tmp_path: Path) -> None:
    """Where `ods.toml` is missing there the defaults count; a flag and a variable name another file."""
    given = HOME | {"CONFIGURATION_DIRECTORY": str(tmp_path)}
    assert parse([], given) == DEFAULTS
    (tmp_path / "ods.toml").write_text("[ods]\nport = 1\n")
    (tmp_path / "other.toml").write_text("[ods]\nport = 2\n")
    other = str(tmp_path / "other.toml")
    assert (parse([], given).listener.port, parse([], given).config) == (1, tmp_path / "ods.toml")
    assert parse(["--config", other], given).listener.port == 2
    assert parse([], given | {"ODS_CONFIG": other}).listener.port == 2


def test_a_directory_does_not_depend_on_where_ods_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse([], HOME) == DEFAULTS
    assert parse(["-d", "data"], HOME).directory == tmp_path / "data"


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        *(("0", 0), ("1", 1), ("10GiB", 10 * 2**30), ("10 gib", 10 * 2**30), ("1.5MiB", 3 * 2**19), ("1kb", 1000)),
        *(("2TB", 2 * 10**12), ("2TiB", 2 * 2**40), ("3GB", 3 * 10**9), ("4 MB", 4 * 10**6), ("5KiB", 5 * 1024)),
    ],
)
def test_a_size_has_a_unit(text: str, size_bytes: int) -> None:
    assert parse([f"--buffer-limit={text}"], HOME).buffer_limit_bytes == size_bytes


def test_the_password_may_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("  hunter #2 \n")
    assert parse([f"--influx-pass-file={file}"], HOME).influx.password == "  hunter #2 "


@pytest.mark.parametrize("host", ["[::1]", "::1"])
def test_an_ipv6_address_of_influxdb_may_stand_in_brackets(host: str) -> None:
    assert parse([f"--influx-host={host}"], HOME).influx.host == "::1"


# -- What is wrong is one line ----------------------------------------------------------------------------------------

BAD = {
    "port": ["", "x", "-1", "65536", "7778.0", "0x1e62", "\u0667", " 1", "1e3", "9" * 400],
    "influx-port": ["", "0", "x", "65536"],
    "influx-host": ["", "a b", "10.0.0.5:8086", "http://10.0.0.5", "10.0.0.5/ods", "10.0.0.5?u=a", "u@10.0.0.5"],
    "influx-path": ["ods?u=a", "ods#a"],
    "http-port": ["", "-1", "x", "65536"],
    "max-names": ["", "0", "-1", "x", "1.5", "9" * 400],
    "buffer-limit": ["", "x", "-1", "10 XB", "GiB", "1,5GiB", "nan", "inf", "1e3"],
    "recordings-limit": ["", "x", "-1", "all"],
    "allow": ["", "x", "10.0.0.0/33", "10.0.0", "host.local"],
    "log-format": ["", "xml", "PLAIN"],
    "influx-name": [""],
    "pod": [
        *("", "x", "10.0.0.1", "10.0.0.1=", "=a", "host=a", "10.0.0.1=" + "a" * 64, "10.0.0.1=" + "é" * 32),
        *("10.0.0.1=a\\", "10.0.0.1=a\nb", "10.0.0.1=a\x00", "10.0.0.1= a", "10.0.0.1=a ", "10.0.0.1=ods"),
        *("10.0.0.1=a\u2028", "10.0.0.1=a\u200e", "10.0.0.1=\x7f", "10.0.0.1=\udcff", "10.0.0.1=a\u00a0b"),
    ],
}


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, values in BAD.items() for value in values],
    ids=lambda part: ascii(part[:20]),
)
def test_a_bad_value_is_one_line_that_names_its_option(option: str, value: str) -> None:
    assert f"--{option}" in complaint([f"--{option}={value}"])
    if "\x00" not in value:
        assert f"--{option}" in complaint([], {variable(option): value})


@pytest.mark.parametrize("value", ["9" * 400, "9" * 400 + "GiB", "9" * 300 + "TiB"])
def test_a_size_beyond_all_measure_is_one_line_too(value: str) -> None:
    assert "--buffer-limit" in complaint([f"--buffer-limit={value}"])


@settings(deadline=None, max_examples=80)
@given(st.sampled_from([*OPTIONS, *SWITCHES]), st.text(st.characters(codec="utf-8"), max_size=20))
def test_no_value_of_any_option_is_a_traceback(option: str, value: str) -> None:
    try:
        parse([f"--{option}={value}"], HOME)
    except SettingsError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("port", "true"), ("port", "[7001]"), ("port", '"x"'), ("port", "7778.5"), ("verbose", '"perhaps"')),
        *(("pod", "[1]"), ("pod", '["10.0.0.1=a", "10.0.0.1=b"]'), ("max-names", "1e3"), ("log-format", '"xml"')),
    ],
)
def test_a_bad_value_in_the_file_is_one_line_that_names_its_key(option: str, value: str, toml) -> None:
    assert option in complaint(toml(f"[ods]\n{option} = {value}\n"))


@pytest.mark.parametrize(
    "argument",
    ["--influx-host=root:s3cret@db", "--influx-host=http://root:s3cret@db:8086/", "--influx-path=x?p=s3cret"],
)
def test_a_password_that_stands_where_none_belongs_is_refused_and_not_told(argument: str) -> None:
    """It would be a part of InfluxDB's URL, which is logged and stands on the status page."""
    assert "s3cret" not in complaint([argument])


def test_one_address_with_two_names_is_refused() -> None:
    message = complaint(["--pod=10.0.0.1=a", "--pod=10.0.0.1=b"])
    assert "10.0.0.1" in message and "'a'" in message and "'b'" in message
    assert parse(["--pod=10.0.0.1=a", "--pod=10.0.0.1=a"], HOME).pods == {"10.0.0.1": "a"}


@pytest.mark.parametrize("arguments", [["--prot", "1"], ["--por=1"], ["-x"], ["something"], ["--influx"]])
def test_an_unknown_option_is_named(arguments: list[str]) -> None:
    """Abbreviations are none: `--influx-p` might become another option in the next release."""
    assert complaint(arguments) == f"unknown option {arguments[0].partition('=')[0]}"


@pytest.mark.parametrize("key", ["prot", "influx_host", "p", "influx"])
def test_an_unknown_key_is_named(key: str, toml) -> None:
    assert key in complaint(toml(f"[ods]\n{key} = 1\n"))


@pytest.mark.parametrize(
    "text",
    [
        "port = 7001\n",
        "[odz]\nport = 7001\n",
        "[ods]\nport = 7001\n[influx]\nhost = 'x'\n",
        "[ods.influx]\nhost = 'x'\n",
    ],
)
def test_what_is_not_in_the_table_ods_is_unknown_too(text: str, toml) -> None:
    """An operator who forgot `[ods]` must not run on the defaults without a word."""
    complaint(toml(text))


@pytest.mark.parametrize(
    "text", ["[ods", "[ods]\nport 7001", "[ods]\nport = 1\nport = 2", b"[ods]\nport = '\xff'", "ods = 3"]
)
def test_a_file_that_is_no_configuration_is_one_line(text: str | bytes, toml) -> None:
    complaint(toml(text))


def test_an_empty_file_is_all_defaults(toml) -> None:
    arguments = toml("# nothing\n")
    assert parse(arguments, HOME).listener == DEFAULTS.listener


@pytest.mark.parametrize("option", ["config", "influx-pass-file"])
def test_a_file_that_cannot_be_read_is_named(option: str, tmp_path: Path) -> None:
    assert str(tmp_path / "missing") in complaint([f"--{option}", str(tmp_path / "missing")])
    assert str(tmp_path) in complaint([f"--{option}", str(tmp_path)])


def test_a_password_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xff\xfe")
    assert "--influx-pass-file" in complaint([f"--influx-pass-file={file}"])


def test_an_unknown_variable_is_warned_of_and_its_value_not_told() -> None:
    given = parse([], HOME | {"ODS_INFLUX_PAS": PASSWORD, "ODS_PROT": "1", "ODSX": "1", "PATH": "/bin"})
    assert [warning.split()[0] for warning in given.warnings] == ["ODS_INFLUX_PAS", "ODS_PROT"]
    assert PASSWORD not in "".join(given.warnings)


@pytest.mark.parametrize("option", [*OPTIONS, *SWITCHES, "influx-pass-file", "config"])
def test_a_known_variable_is_not_warned_of(option: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    value = OPTIONS[option][0] if option in OPTIONS else "true" if option in SWITCHES else str(file)
    assert parse([], HOME | {variable(option): value}).warnings == ()


# -- Secrets ----------------------------------------------------------------------------------------------------------

LEAKS_BY_FLAG = [
    ["--influx-pas", PASSWORD],
    [f"--influx-pas={PASSWORD}"],
    [f"--influx-pas={PASSWORD} and more"],
    [f"--influx-pas=more -{PASSWORD}"],
    [f"--influx-pass={PASSWORD}", "--port=x"],
    [f"--influx-pass={PASSWORD}", "--prot=1"],
    [f"--influx-pass={PASSWORD}", "--influx-pass"],
    [f"--influx-password={PASSWORD}"],
    [f"--influx-pass={PASSWORD}", "--influx-name="],
]
LEAKS_BY_FILE = [
    f"influx-pas = '{PASSWORD}'",
    f"influx-pas = '-{PASSWORD}'",
    f"influx-pas = 'more -{PASSWORD}'",
    f"influx-pass = ['{PASSWORD}']",
    f"influx-pass = {PASSWORD}",
    f"influx-pass = '{PASSWORD}",
    f"influx-pass = '{PASSWORD}'\nport = 'x'",
    f"influx-pass = '{PASSWORD}'\nprot = 1",
]


@pytest.mark.parametrize("arguments", LEAKS_BY_FLAG, ids=" ".join)
def test_no_complaint_about_flags_tells_the_password(arguments: list[str]) -> None:
    assert PASSWORD not in complaint(arguments)


@pytest.mark.parametrize("text", LEAKS_BY_FILE)
def test_no_complaint_about_a_file_tells_the_password(text: str, toml) -> None:
    assert PASSWORD not in complaint(toml(f"[ods]\n{text}\n"))


def test_no_complaint_about_the_environment_tells_the_password() -> None:
    assert PASSWORD not in complaint([], {"ODS_INFLUX_PASS": PASSWORD, "ODS_PORT": "x"})


def test_settings_do_not_show_the_password_when_printed() -> None:
    assert PASSWORD not in repr(parse([f"--influx-pass={PASSWORD}"], HOME))


def test_help_does_not_tell_the_password(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse([f"--influx-pass={PASSWORD}", "--help"], HOME | {"ODS_INFLUX_PASS": PASSWORD})
    assert raised.value.code == 0
    assert PASSWORD not in "".join(capsys.readouterr())


# -- Help and conf/ods.toml -------------------------------------------------------------------------------------------


def test_help_lists_the_options_that_users_type_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["-h"], HOME)
    text = capsys.readouterr().out
    assert "OpenLoop Data Shuttle" in text
    listed = re.findall(r"^  (?:-\w(?: \w+)?, )?--([a-z-]+)", text.partition("options:")[2], re.MULTILINE)
    influx = [f"influx-{word}" for word in ("host", "port", "user", "pass", "name")]
    assert listed[:9] == ["help", "verbose", "port", "directory", *influx]
    assert set(listed) == {*OPTIONS, *SWITCHES, "config", "help", "influx-pass-file", "version"}


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse(["--version"], HOME)
    assert raised.value.code == 0
    assert re.fullmatch(r"ods \d+\.\S+\n", capsys.readouterr().out)


def test_the_configuration_that_comes_with_ods_is_exactly_the_defaults() -> None:
    given = parse(["--config", str(CONF)], HOME)
    assert given.config == CONF
    assert {field: getattr(given, field) for field in Settings.__slots__ if field != "config"} == {
        field: getattr(DEFAULTS, field) for field in Settings.__slots__ if field != "config"
    }


def test_the_configuration_that_comes_with_ods_mentions_every_option() -> None:
    """Those whose default is no value, or depends on the machine, in a comment."""
    text = CONF.read_text()
    keys = set(tomllib.loads(text)["ods"])
    commented = set(re.findall(r"^# ([a-z-]+) = ", text, re.MULTILINE))
    assert keys.isdisjoint(commented)
    assert keys | commented == {*OPTIONS, *SWITCHES, "influx-pass-file"}
    assert commented == {"directory", "influx-pass-file", "sensors"}


def test_what_is_commented_in_the_configuration_works_too(toml, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    text = re.sub(r"^# ([a-z-]+ = )", r"\1", CONF.read_text(), flags=re.MULTILINE)
    text = text.replace("/etc/ods/influx-pass", str(password)).replace("/etc/ods/sensors.toml", str(SENSORS))
    given = parse(toml(text), HOME)
    assert (given.directory, given.influx.password) == (Path("/var/lib/ods"), PASSWORD)
