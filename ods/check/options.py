"""The options as `serve` would take them, each with where it came from; and all that is wrong, not just the first.

They are parsed by the parser of `serve` itself, from which what is wrong is kept away: a wrong value counts as not
given, so that all else can be looked at. Promises to repeat no value of an option that is, or may be, a password.
"""

import argparse
import difflib
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ods.check.finding import Finding, failed, ok, warning
from ods.command_options import CommandParser
from ods.errors import SettingsError
from ods.options import (
    ENVIRONMENT_PREFIX,
    ON_THE_COMMAND_LINE,
    FileError,
    as_text,
    build_parser,
    known_variables,
    settings_from,
)
from ods.settings import Settings, default_config

#: Their values are never shown.
SECRET = ("influx_pass",)
#: What is given where there is to be no sensor file.
NO_SENSORS = ""
_SENSORS = "sensor file"
_HIDDEN = "(hidden)"
#: What a switch may be set to in a file or in the environment.
_SWITCHED = ("true", "yes", "on", "1", "false", "no", "off", "0")
#: Stands for a value that is wrong.
_WRONG = object()
_ON_THE_COMMAND_LINE = warning(
    "option", "--influx-pass as a flag can be read by every user of this machine", "put it into --influx-pass-file"
)

_Values = dict[str, str | list[str]]


@dataclass(frozen=True, slots=True)
class Choice:
    """An option as it counts: its text, and the flag, variable or file that it is from, or `default`."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Read:
    """All that there is to know of the options."""

    settings: Settings
    choices: list[Choice]
    findings: list[Finding]
    #: Options whose value is wrong, so that `settings` has the default.
    wrong: frozenset[str]
    given: argparse.Namespace


def read(parser: Any, arguments: Sequence[str], environment: Mapping[str, str]) -> Read:
    """Read them, by the parser of `serve` with the options of the check besides. Raises SettingsError for a wrong use.

    That is an unknown flag, or a flag without its value; `--help` and `--version` print and raise SystemExit.
    """
    return _Reading(parser, environment).read(list(arguments))


class _Reading:
    """The parse of one command line, that goes on after what is wrong."""

    def __init__(self, parser: Any, environment: Mapping[str, str]) -> None:
        serve = build_parser()
        self._own = {action.dest: action for action in serve._actions if action.dest not in ON_THE_COMMAND_LINE}
        self._known = known_variables(serve)
        self._parser = parser
        self._environment = environment
        self._texts: dict[str, list[str]] = {}
        self._wrong: set[str] = set()
        self._findings: list[Finding] = []
        for action in parser._actions:
            if action.dest in self._own and action.nargs != 0:
                self._make_tolerant(action)

    def read(self, arguments: list[str]) -> Read:
        config = _config_of(arguments, self._environment)
        in_file = self._in_file(config) if config else {}
        self._parser._config_file_parser = _Already(in_file)
        given = self._parser.parse_args(arguments, config_file_contents="", env_vars=self._in_environment())
        given.config = config
        self._replace_wrong(given)
        settings = self._settings(given)
        if not any(finding.what == "configuration" for finding in self._findings):
            found = f"{config} is read" if config else "no file; --config names one"
            self._findings.insert(0, ok("configuration", found))
        if "sensors" not in self._wrong:
            sensors = settings.sensors
            found = f"{sensors.path}, {len(sensors.by_name)} names" if sensors.path else "none"
            self._findings.append(ok(_SENSORS, found))
        choices = self._choices(given)
        self._findings += [_ON_THE_COMMAND_LINE for one in choices if (one.value, one.origin) == (_HIDDEN, "flag")]
        return Read(settings, choices, self._findings, frozenset(self._wrong), given)

    # -- The file and the environment

    def _in_file(self, path: Path) -> _Values:
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            advice = "mend --config; what follows is without it"
            self._fail("configuration", f"{path}: {error.strerror or error}", advice)
            return {}
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            self._fail("configuration", f"{path}: {_one_line(error)}", "mend the file; what follows is without it")
            return {}
        table = tables.pop("ods", {})
        for key in tables:
            advice = "put it below the line [ods]; ODS refuses it"
            self._fail("configuration", f"{path}: {key!r} is not in [ods]", advice)
        if not isinstance(table, dict):
            self._fail("configuration", f"{path}: ods is no table", "begin it with the line [ods]")
            return {}
        return {key: text for key, value in table.items() if (text := self._text(path, key, value)) is not None}

    def _text(self, path: Path, key: str, value: object) -> str | list[str] | None:
        """A value of the file as text; None for one that is wrong."""
        dest = key.replace("-", "_")
        if dest not in self._own or "_" in key:
            known = [name.replace("_", "-") for name in self._own]
            self._fail("configuration", f"{path}: unknown key {key!r}", _nearest(key, known, "take it out"))
            return None
        try:
            text = as_text(key, value)
        except FileError as error:
            self._refuse(dest, _one_line(error))
            return None
        if self._own[dest].nargs == 0 and str(text).lower() not in _SWITCHED:
            self._refuse(dest, f"{path}: {key} is true or false")
            return None
        return text

    def _in_environment(self) -> dict[str, str]:
        """What the parser is to see: of the options of `serve`, without switches that are neither on nor off."""
        kept = {}
        for name, value in sorted(self._environment.items()):
            if not name.upper().startswith(ENVIRONMENT_PREFIX):
                continue
            if name not in self._known:
                self._tell_unknown(name)
                continue
            action = self._own.get(name.removeprefix(ENVIRONMENT_PREFIX).lower())
            if action is not None and action.nargs == 0 and value.lower() not in _SWITCHED:
                self._refuse(action.dest, f"{name} is true or false")
            else:
                kept[name] = value
        return kept

    def _tell_unknown(self, name: str) -> None:
        found = f"{name} is no option of ODS, and is ignored"
        near = difflib.get_close_matches(name.upper(), self._known, n=1, cutoff=0.75)
        if near:
            self._fail("environment", found, f"do you mean {near[0]}?")
        else:
            self._findings.append(warning("environment", found, "take it out, or see `ods check --help`"))

    # -- Values

    def _make_tolerant(self, action: Any) -> None:
        """Have a wrong value noted, not raised."""
        kind: Callable[[str], Any] = action.type or str
        choices, action.choices = action.choices, None

        def parsed(text: str) -> Any:
            try:
                value = kind(text)
            except (argparse.ArgumentTypeError, ValueError) as error:
                self._refuse(action.dest, _one_line(error))
                return _WRONG
            if choices is not None and value not in choices:
                self._refuse(action.dest, f"{text!r} is none of {', '.join(choices)}")
                return _WRONG
            self._texts.setdefault(action.dest, []).append(text)
            return value

        action.type = parsed

    def _replace_wrong(self, given: argparse.Namespace) -> None:
        """Put the default in the place of what is wrong."""
        for dest, action in self._own.items():
            value = getattr(given, dest)
            if value is _WRONG:
                self._set_default(given, action)
            elif isinstance(value, list):
                setattr(given, dest, [item for item in value if item is not _WRONG])

    def _set_default(self, given: argparse.Namespace, action: Any) -> None:
        kind = action.type or str
        setattr(given, action.dest, kind(action.default) if isinstance(action.default, str) else action.default)

    def _settings(self, given: argparse.Namespace) -> Settings:
        """The settings; options that do not go together, or name a file that is none, are noted too."""
        while True:
            try:
                return settings_from(given, self._environment)
            except SettingsError as error:
                option, _, reason = str(error).partition(" ")
                dest = option.removeprefix("--").removesuffix(":").replace("-", "_")
                if dest not in self._own or dest in self._wrong:
                    raise
                if dest == "sensors":
                    self._wrong.add(dest)
                    self._fail(_SENSORS, reason, "mend the line; ODS does not start so")
                    given.sensors = NO_SENSORS
                else:
                    self._refuse(dest, reason)
                    self._set_default(given, self._own[dest])

    # -- What is told

    def _choices(self, given: argparse.Namespace) -> list[Choice]:
        sources = self._parser.get_source_to_settings_dict()
        origins = _origins(sources, str(given.config))
        flags = _flags_of(sources)
        chosen = []
        for dest, action in self._own.items():
            is_flag = any(flag in flags for flag in action.option_strings) or _is_glued(action, flags)
            origin = "default" if dest in self._wrong else origins.get(dest) or ("flag" if is_flag else "default")
            chosen.append(Choice(dest.replace("_", "-"), self._shown(dest, action, given, origin), origin))
        return chosen

    def _shown(self, dest: str, action: Any, given: argparse.Namespace, origin: str) -> str:
        value = getattr(given, dest)
        if dest in SECRET:
            return _HIDDEN
        if action.nargs == 0:
            return str(value).lower()
        if origin == "default":
            return "" if action.default in (None, []) else str(action.default)
        texts = self._texts.get(dest, [])
        return ", ".join(texts) if isinstance(value, list) else texts[-1] if texts else str(value)

    def _refuse(self, dest: str, reason: str) -> None:
        if dest not in self._wrong:
            self._wrong.add(dest)
            option = f"--{dest.replace('_', '-')}"
            found = reason if option in reason else f"{option}: {reason}"
            self._fail("option", found, "mend it; ODS does not start so")

    def _fail(self, what: str, found: str, advice: str) -> None:
        self._findings.append(failed(what, found, advice))


class _Already:
    """In the place of the parser of the file: it was read before."""

    def __init__(self, values: _Values) -> None:
        self._values = values

    def parse(self, _: object) -> _Values:
        return self._values


def _config_of(arguments: Sequence[str], environment: Mapping[str, str]) -> Path | None:
    """The configuration file, of which `serve` finds out in the same order."""
    finder = CommandParser(prog="ods check", add_help=False)
    finder.add_argument("-c", "--config")
    named = finder.parse_known_args(list(arguments))[0].config
    named = named or environment.get(f"{ENVIRONMENT_PREFIX}CONFIG") or default_config(environment)
    return Path(named).expanduser().absolute() if named else None


def _origins(sources: Mapping[str, Any], config: str) -> dict[str, str]:
    """The variable or the file that an option is from, by its name."""
    origins: dict[str, str] = {}
    for source, settings in sources.items():
        for name, (action, _) in settings.items():
            if action is not None and source.startswith("environment"):
                origins[action.dest] = name
            elif action is not None and source.startswith("config_file"):
                origins[action.dest] = config
    return origins


def _flags_of(sources: Mapping[str, Any]) -> Collection[str]:
    """The words of the command line, those with their value behind a `=` without it."""
    words = [words for settings in sources.values() for action, words in settings.values() if action is None]
    return {word.partition("=")[0] for given in words for word in given}


def _is_glued(action: Any, flags: Collection[str]) -> bool:
    """Whether it is given like `-p7001`."""
    short = [option for option in action.option_strings if not option.startswith("--")]
    return any(flag.startswith(option) and not flag.startswith("--") for option in short for flag in flags)


def _nearest(word: str, known: Collection[str], otherwise: str) -> str:
    near = difflib.get_close_matches(word.replace("_", "-").lower(), known, n=1)
    return f"do you mean {near[0]!r}?" if near else otherwise


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
