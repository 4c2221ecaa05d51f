"""The options of `ods serve`: from flags, the environment and a TOML file, parsed once into `ods.settings`.

A flag beats the environment beats the file. Whatever is wrong is one clear line (`SettingsError`), before anything
has started.
"""

import argparse
import ipaddress
import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import configargparse

from ods import __version__, failpoints
from ods.errors import SettingsError
from ods.pods import ODS
from ods.sensors import Sensors
from ods.settings import (
    InfluxSettings,
    ListenerSettings,
    Settings,
    default_config,
    default_directory,
    default_sensors,
)

ENVIRONMENT_PREFIX = "ODS_"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_MAX_POD_NAME_BYTES = 63
#: What is wrong with a configuration file.
FileError = configargparse.ConfigFileParserException
#: Options that may be given more than once.
_LISTS = ("pod", "allow")
#: They have no meaning in a file.
ON_THE_COMMAND_LINE = frozenset(("config", "help", "version"))

_EXAMPLES = """examples:
  ./server.py
  ./server.py --influx-host 10.0.0.5 --pod 10.0.0.20=pod-a --pod 10.0.0.21=pod-b
  ./server.py --config conf/ods.toml
"""


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings. Raises SettingsError; `--help` and `--version` print and raise SystemExit."""
    parser = build_parser()
    in_environment = environment.get(f"{ENVIRONMENT_PREFIX}CONFIG") or default_config(environment)
    if in_environment and not any(re.match(r"-c|--config(=|$)", argument) for argument in arguments):
        arguments = ["--config", in_environment, *arguments]  # the parser looks for the file among the flags only
    try:
        given = parser.parse_args(list(arguments), env_vars=dict(environment))
    except FileError as error:
        raise SettingsError(_one_line(str(error))) from error
    except OSError as error:
        raise SettingsError(f"--config: {error}") from error
    unknown = unknown_variables(environment, known_variables(parser))
    warnings = [f"{name} in the environment is no option of ODS; it is ignored" for name in unknown]
    return settings_from(given, environment, warnings=warnings)


def settings_from(
    given: argparse.Namespace, environment: Mapping[str, str], *, warnings: Sequence[str] = ()
) -> Settings:
    """What was parsed, as settings. Raises SettingsError for what only shows then."""
    return Settings(
        listener=ListenerSettings(host=given.host, port=given.port, allow=tuple(given.allow)),
        influx=_influx(given),
        directory=given.directory or default_directory(environment),
        pods=_pods(given.pod),
        max_names=given.max_names,
        sensors=read_sensors(given.sensors, environment),
        buffer_limit_bytes=given.buffer_limit,
        recordings_limit_bytes=given.recordings_limit,
        http_host=given.http_host,
        http_port=given.http_port or None,
        has_keeper=not given.no_keeper,
        log_format=given.log_format,
        verbose=given.verbose,
        config=given.config,
        warnings=tuple(warnings),
    )


class _TomlTable(configargparse.ConfigFileParser):  # type: ignore[misc]
    """The table `[ods]` of a TOML file; a key or a table beside it is an error, and no error tells a value."""

    def parse(self, stream: Any) -> dict[str, str | list[str]]:
        try:
            tables = tomllib.loads(stream.read())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FileError(f"--config {stream.name}: {error}") from error
        for key, table in tables.items():
            if key != "ods" or not isinstance(table, dict):
                raise FileError(f"--config {stream.name}: {key!r} is not in [ods]")
        for key in ON_THE_COMMAND_LINE.intersection(tables.get("ods", {})):
            raise FileError(f"--config: {key!r} is no option for a file")
        return {key: as_text(key, value) for key, value in tables.get("ods", {}).items()}

    def get_syntax_description(self) -> str:
        return "TOML, in the table [ods]"


def as_text(key: str, value: object) -> str | list[str]:
    """A value of the file as a flag would have it. Raises FileError."""
    if isinstance(value, list) and key in _LISTS and all(isinstance(item, str) for item in value):
        return list(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int)):
        return str(value)
    kind = "strings" if key in _LISTS else "one value"
    raise FileError(f"--config: {key} takes {kind}")


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc]
    def error(self, message: str) -> NoReturn:
        raise SettingsError(told(message))


def build_parser() -> configargparse.ArgumentParser:
    """The parser of all options; those that ODS's users have always typed come first."""
    parser = _Parser(
        prog="ods serve",
        description="OpenLoop Data Shuttle: receives the telemetry of all pods, writes it to InfluxDB, "
        "keeps it while InfluxDB is away.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        config_file_parser_class=_TomlTable,
        auto_env_var_prefix=ENVIRONMENT_PREFIX,
        add_env_var_help=False,
        add_config_file_help=False,
        allow_abbrev=False,
        add_help=False,
    )
    add = parser.add_argument
    add("-h", "--help", action="help", help="show this help and exit")
    add("-v", "--verbose", action="store_true", help="log more")
    add("-p", "--port", type=_port, default=7778, metavar="PORT", help="where pods connect (7778)")
    add("-d", "--directory", type=_path, metavar="DIR", help="data directory (the user's state directory)")
    add("--influx-host", type=_host, default="localhost", metavar="HOST", help="InfluxDB's host (localhost)")
    add("--influx-port", type=_nonzero_port, default=8086, metavar="PORT", help="InfluxDB's port (8086)")
    add("--influx-user", default="root", metavar="USER", help="InfluxDB's user (root)")
    add("--influx-pass", default="root", metavar="PASSWORD", help="the user's password, or a token (root)")
    add("--influx-name", default="ods", metavar="DATABASE", help="database to write to (ods)")
    add("--version", action="version", version=f"ods {__version__}", help="show the version and exit")
    add("-c", "--config", is_config_file_arg=True, type=_path, metavar="FILE", help="TOML file with options, in [ods]")
    add("--host", default="0.0.0.0", metavar="ADDRESS", help="address to listen on (0.0.0.0: all)")
    add("--influx-pass-file", type=_path, metavar="FILE", help="file that holds the password, or the token")
    add("--influx-ssl", action="store_true", help="speak HTTPS to InfluxDB")
    add("--influx-path", type=_url_path, default="", metavar="PATH", help="prefix of InfluxDB's URLs, behind a proxy")
    add("--buffer-limit", type=_size, default="10GiB", metavar="SIZE", help="largest buffer on disk (10GiB)")
    add("--recordings-limit", type=_size, default="0", metavar="SIZE", help="largest recordings (0: keep all)")
    add("--pod", action="append", type=_pod, default=[], metavar="ADDRESS=NAME", help="name a pod (repeatable)")
    add("--allow", action="append", type=_network, default=[], metavar="NETWORK", help="only from here (repeatable)")
    add("--max-names", type=_count, default=10_000, metavar="N", help="distinct data names a pod may use (10000)")
    add("--sensors", metavar="FILE", help='labels, units, limits of names (conf/sensors.toml; "": none)')
    add("--http-host", default="127.0.0.1", metavar="ADDRESS", help="address of the status page (127.0.0.1)")
    add("--http-port", type=_port, default=7777, metavar="PORT", help="port of the status page (7777; 0: off)")
    add("--no-keeper", action="store_true", help="all in one process, which a crash takes with it (for debugging)")
    add("--log-format", choices=("plain", "json"), default="plain", help="how to log (plain)")
    return parser


def read_sensors(given: str | None, environment: Mapping[str, str]) -> Sensors:
    """The sensor file that `--sensors` names, else the default one; the empty text is none. Raises SettingsError."""
    path = default_sensors(environment) if given is None else _path(given) if given else None
    return Sensors() if path is None else Sensors.load(path)


def _influx(given: argparse.Namespace) -> InfluxSettings:
    password = given.influx_pass
    if given.influx_pass_file is not None:
        try:
            password = given.influx_pass_file.read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"--influx-pass-file: {error}") from error
    if not given.influx_name:
        raise SettingsError("--influx-name: a database needs a name")
    return InfluxSettings(
        host=given.influx_host.strip("[]"),
        port=given.influx_port,
        user=given.influx_user,
        password=password,
        database=given.influx_name,
        ssl=given.influx_ssl,
        path=given.influx_path,
    )


def _pods(given: Sequence[tuple[str, str]]) -> dict[str, str]:
    names: dict[str, str] = {}
    for address, name in given:
        if names.setdefault(address, name) != name:
            raise SettingsError(f"--pod: {address} has two names, {names[address]!r} and {name!r}")
    return names


def known_variables(parser: configargparse.ArgumentParser) -> set[str]:
    """What ODS reads of the environment."""
    return {failpoints.VARIABLE, *(variable for action in parser._actions for variable in _variables(action))}


def unknown_variables(environment: Mapping[str, str], known: Collection[str]) -> list[str]:
    """What looks as if it were for ODS, and is not."""
    return sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known)


def _variables(action: Any) -> list[str]:
    return [
        ENVIRONMENT_PREFIX + option.lstrip("-").replace("-", "_").upper()
        for option in action.option_strings
        if option.startswith("--")
    ]


def _host(text: str) -> str:
    if not re.fullmatch(r"[^\s/?#@:]+", text) and not _is_ipv6(text.strip("[]")):
        told = "a URL" if "@" in text else repr(text)  # it may hold a password
        raise argparse.ArgumentTypeError(f"{told} is no host name or address (nothing else belongs here)")
    return text


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _url_path(text: str) -> str:
    if re.search(r"[?#]", text):
        raise argparse.ArgumentTypeError("a path holds no ? and no #")  # behind them may be a token
    return text


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port (0 to 65535)")
    return int(text)


def _nonzero_port(text: str) -> int:
    if not _port(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no port (1 to 65535)")
    return int(text)


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no size (a number and KiB, MiB, GiB, TiB, KB, MB, GB or TB)")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no network (like 10.0.0.0/24)") from error


def _pod(text: str) -> tuple[str, str]:
    address, equals, name = text.partition("=")
    try:
        parsed = ipaddress.ip_address(address)
        address = str(getattr(parsed, "ipv4_mapped", None) or parsed)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not ADDRESS=NAME (like 10.0.0.20=pod-a)") from error
    if not equals or not name or len(name.encode()) > _MAX_POD_NAME_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r}: a pod's name has 1 to {_MAX_POD_NAME_BYTES} bytes")
    if not name.isprintable() or "\\" in name or name != name.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: a pod's name holds no backslash and nothing invisible")
    if name == ODS:
        raise argparse.ArgumentTypeError(f"{text!r}: {ODS!r} is the name that ODS's own events go by")
    return address, name


def told(message: str) -> str:
    """What the parser says is wrong with the flags, in one line that repeats nothing that may be a password."""
    unknown, is_unknown, rest = message.partition("unrecognized arguments: ")
    if is_unknown and not unknown:  # by the first name alone
        message = f"unknown option {rest.split()[0].partition('=')[0]}"
    return _one_line(message)


def _one_line(message: str) -> str:
    return " ".join(message.split())


def from_environment(arguments: Sequence[str]) -> Settings:
    """The settings of this process."""
    return parse(arguments, os.environ)
