"""`ods check`: is all as it should be for a run? A line each, and what to do."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape

from ods.check.checks import findings
from ods.check.finding import Finding, State, ok
from ods.check.options import Choice, Read, read
from ods.errors import SettingsError
from ods.options import build_parser

_EXAMPLES = """examples:
  ods check
  ods check --influx-host 10.0.0.5 --rate 5000
  ods check --config conf/ods.toml --json
  ods check | grep -v '^ok'

It takes the options of `ods serve`, from the same flags, variables and file, looks at everything that a run needs, and
says what to do where something is amiss. It is quick, and may be run beside an ODS that runs. It changes nothing but
this: a point ods_check is written to InfluxDB, read back and deleted; and the database is created where it is missing,
as ODS does.

A service is checked as the user that it runs as, with its own configuration (`sudo -u ods ods check --config
/etc/ods/ods.toml --directory /var/lib/ods`).

exit status: 0 all is well (there may be warnings), 1 something failed, 2 wrong usage
"""

WELL, FAILED, WRONG_USAGE = 0, 1, 2
#: What a shell shows for a command ended by Ctrl-C.
INTERRUPTED = 130
#: The colours of the states, on a terminal.
_STYLES = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "bold red"}
_WIDTH = 17


def main(argv: Sequence[str]) -> int:
    """Look at everything. Returns the exit status."""
    try:
        options = read(_parser(), argv, os.environ)
        points_per_second = _rate(options.given.rate)
    except SettingsError as error:
        print(f"ods check: {error}", file=sys.stderr)
        return WRONG_USAGE
    try:
        status = _check(options, points_per_second)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        print(f"ods check: the output cannot be written: {error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        print("ods check: stopped", file=sys.stderr)
        return INTERRUPTED
    return status


def _check(options: Read, points_per_second: float) -> int:
    is_json = options.given.json
    found = []
    if not is_json:
        _print_choices(options.choices, is_all=options.given.all)
    with _progress() as begin:
        for finding in findings(options, points_per_second=points_per_second, begin=begin):
            found.append(finding)
            if not is_json:
                _print(finding)
    failed = sum(finding.state is State.FAILED for finding in found)
    if is_json:
        _print_json(options.choices, found, failed)
    else:
        _print_end(found, failed)
    return FAILED if failed else WELL


def _print_choices(choices: Sequence[Choice], *, is_all: bool) -> None:
    """Those that somebody has chosen, each; the others in one line."""
    for choice in choices:
        if is_all or choice.origin != "default":
            _print(ok("option", f"--{choice.name} {choice.value} ({choice.origin})"))
    defaults = sum(choice.origin == "default" for choice in choices)
    if defaults and not is_all:
        _print(ok("option", f"{defaults} are at their defaults (--all shows them)"))


def _print(finding: Finding) -> None:
    rest = f"{finding.what:<{_WIDTH}} {_plain(finding.found)}"
    rest += f" -> {_plain(finding.advice)}" if finding.advice else ""
    if sys.stdout.isatty():
        style = _STYLES[finding.state]
        Console(highlight=False, soft_wrap=True).print(f"[{style}]{finding.state:<8}[/] {escape(rest)}")
    else:
        print(f"{finding.state:<8} {rest}", flush=True)


def _print_end(found: Sequence[Finding], failed: int) -> None:
    warnings = sum(finding.state is State.WARNING for finding in found)
    if failed:
        print(f"{failed} failed, {warnings} warnings: not ready for a run")
    else:
        print(f"all is well{f', with {warnings} warnings' if warnings else ''}")


def _print_json(choices: Sequence[Choice], found: Sequence[Finding], failed: int) -> None:
    options = [{"option": choice.name, "value": choice.value, "from": choice.origin} for choice in choices]
    result: dict[str, Any] = {
        "ok": not failed,
        "checks": [finding.as_dict() for finding in found],
        "options": options,
    }
    print(json.dumps(result, indent=1))


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Say on a terminal what is waited for."""
    if not sys.stderr.isatty():
        yield lambda what: None
        return
    with Console(stderr=True).status("checking") as spinner:
        yield lambda what: spinner.update(f"checking {what}")


def _plain(text: str) -> str:
    """Foreign text as a terminal may have it: one line, no control characters."""
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e9:
        raise SettingsError(f"argument --rate: {text!r} is no number of points a second")
    return rate


def _parser() -> Any:
    """That of `serve`, and what the check has besides."""
    parser = build_parser()
    parser.prog = "ods check"
    parser.description = "Look before a run whether all is as it should be, and say what to do where it is not."
    parser.epilog = _EXAMPLES
    add = parser.add_argument_group("of the check alone").add_argument
    add(
        "--rate",
        default="1000",
        metavar="N",
        help="points a second of all pods, to tell how long the disk lasts (1000)",
    )
    add("--json", action="store_true", help="print JSON, once all is known")
    add("--all", action="store_true", help="show the options at their defaults too")
    return parser
