"""What commands beside `serve` share: its options of InfluxDB, from the same flags, file and environment.

What ODS was set up with needs no typing again, and means the same everywhere, for it is parsed by the same parser. But
only what a command asks for is a flag of it: its own `--pod`, say, may be another one than that of `serve`.
"""

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

from ods.options import build_parser, parse, told
from ods.settings import InfluxSettings, Settings


class CommandParser(argparse.ArgumentParser):
    """The parser of a command: what is wrong is one line on stderr and exit status 2."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **keywords})

    def error(self, message: str) -> NoReturn:
        """Say it, without any value that may be a password, and exit."""
        self.exit(2, f"{self.prog}: {told(message)}\n")


def add_influx_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command the options of InfluxDB, and `--config`. What is not given as a flag is None."""
    for action in build_parser()._actions:
        option = action.option_strings[-1]
        if not option.startswith("--influx-") and option != "--config":
            continue
        is_switch = action.nargs == 0
        parser.add_argument(
            *action.option_strings,
            default=None,
            help=action.help,
            **({"action": "store_true"} if is_switch else {"type": action.type, "metavar": action.metavar}),
        )


def settings_of(given: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """The settings that `serve` would have with these flags, in this environment, with its file. Raises SettingsError.

    `given` is what a parser with `add_influx_arguments` found, and perhaps with `-d/--directory` and `--sensors`.
    """
    arguments = []
    for name, value in vars(given).items():
        if value in (None, False) or not name.startswith(("influx_", "config", "directory", "sensors")):
            continue
        option = f"--{name.replace('_', '-')}"
        arguments.append(option if value is True else f"{option}={value}")
    return parse(arguments, environment)


def influx_settings(given: argparse.Namespace, environment: Mapping[str, str]) -> InfluxSettings:
    """Where InfluxDB is and who ODS is to it, found as by `settings_of`. Raises SettingsError."""
    return settings_of(given, environment).influx
