"""`ods status`: what an ODS does, in a terminal or a pipe, once or again and again.

It looks at a running ODS from outside and runs nothing of it: no gevent, no file of the data directory opened.
"""

import argparse
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ods.commands.status_output import Output
from ods.commands.status_watch import watch
from ods.errors import Unreachable
from ods.settings import default_directory
from ods.status_source import HTTP_PORT, FirstOf, Source, at_url, in_directory
from ods.status_view.reading import clean

_EXAMPLES = """examples:
  ods status
  ods status --watch
  ods status --boot
  ods status --url http://localhost:7777
  ods status --directory /var/lib/ods --json
  ods status | grep '^pod: '

Without --directory and --url it is the ODS of the default directory, else the one at port 7777 of this machine.

In a pipe there is a thing a line, for grep and scripts, and with --watch a line at each look; programs that want all
of it take --json. NO_COLOR in the environment turns the colours off.

exit status: 0 points are kept, or a watch was ended with Ctrl-C; 1 points are being dropped; 2 wrong usage; 3 no ODS
answers, or the output cannot be written
"""

KEPT, DROPPED, FAILED = 0, 1, 3
#: How long to wait for an answer. Seconds.
TIMEOUT_SECONDS = 5.0
#: Bounds of what --watch takes. Seconds.
SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 86_400.0


def main(argv: Sequence[str]) -> int:
    """Print the status. Returns the exit status."""
    given = _parser().parse_args(list(argv))
    source = given.url or _by_directory(given.directory, os.environ)
    output = Output(is_json=given.json, only_boot=given.boot)
    try:
        return _once(source, output) if given.watch is None else _watch(source, output, given.watch)
    except OSError as error:
        _leave_output()
        return _fail(f"the output cannot be written: {error.strerror or error}")


def _once(source: Source, output: Output) -> int:
    try:
        snapshot = source.fetch(TIMEOUT_SECONDS)
    except Unreachable as error:
        return _fail(f"no ODS answers {source.where}: {error}")
    with _until_the_pipe_is_closed():
        output.show(snapshot, source.name)
    return KEPT if snapshot["healthy"] else DROPPED


def _watch(source: Source, output: Output, every_seconds: float) -> int:
    with _until_the_pipe_is_closed():
        watch(source, output, every_seconds=every_seconds)
    return KEPT


def _by_directory(directory: Path | None, environment: Mapping[str, str]) -> Source:
    """A service's data directory is open to itself alone, so who names none may ask over HTTP."""
    if directory is not None:
        return in_directory(directory)
    return FirstOf([in_directory(default_directory(environment)), at_url(f"http://127.0.0.1:{HTTP_PORT}")])


@contextmanager
def _until_the_pipe_is_closed() -> Iterator[None]:
    """`head` has read enough: that is no failure."""
    try:
        yield
    except BrokenPipeError:
        _leave_output()


def _leave_output() -> None:
    """What is still to be written goes nowhere, or Python would fail over it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(reason: str) -> int:
    print(f"ods status: {clean(reason)}", file=sys.stderr)
    return FAILED


def _source(text: str) -> Source:
    try:
        return at_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no address like http://host:{HTTP_PORT}") from error


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from {SHORTEST_SECONDS} to a day")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ods status",
        description="Show what a running ODS does: whether the telemetry is safe, its pods, its buffer, its outages.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, where = parser.add_argument, parser.add_mutually_exclusive_group()
    where.add_argument("-d", "--directory", type=Path, metavar="DIR", help="the ODS of this data directory")
    where.add_argument("-u", "--url", type=_source, metavar="URL", help="the ODS at http://host:7777, of any machine")
    add("-w", "--watch", type=_seconds, nargs="?", const=1.0, metavar="SECONDS", help="go on looking, each second")
    add("--boot", action="store_true", help="show why a pod does not boot: where it can connect, and who tried")
    add("--json", action="store_true", help="print the JSON of /api/status; with --watch, an object a line")
    return parser
