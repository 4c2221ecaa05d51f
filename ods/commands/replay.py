"""`ods replay`: recordings back into InfluxDB with their own times, or to a server as if the pods were there."""

import argparse
import importlib
import ipaddress
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ods.command_options import CommandParser, add_influx_arguments, settings_of
from ods.commands.progress_bar import ProgressBar
from ods.errors import SettingsError, Unavailable
from ods.replay.request import AsPods, IntoInflux, Request
from ods.selection import WHEN_HELP, add_arguments

DONE, INCOMPLETE, WRONG_USAGE, FAILED = 0, 1, 2, 3
#: What a shell shows for a command ended by Ctrl-C.
INTERRUPTED = 130

_EXAMPLES = f"""examples:
  ods replay
  ods replay --pod 10.0.0.20 --from 2026-09-21T14:00 --to 2026-09-21T15:00
  ods replay --influx-name rehearsal --redate now /media/card/recordings
  ods replay --resume
  ods replay --server 127.0.0.1:7778 --from 'mark:pressure test 3' --speed 10
  ods replay --server 127.0.0.1:7778 --speed max --loop

Into InfluxDB each point goes with its own time, so that what is there already stays as it is, and a replay may be
repeated. It waits for an InfluxDB that is away. What was interrupted goes on with --resume, given as before. Rows that
are no points (invalid, torn) are only counted.

With --server the lines go out as the pods sent them, a connection a pod, and get the time at which they are received;
what the server answers is counted.

{WHEN_HELP}
exit status: 0 all is replayed, 1 some is not (refused, unreadable, not answered), or nothing was selected, 2 wrong
usage, 3 InfluxDB refuses the user or the database, or the server cannot be found, 130 stopped by Ctrl-C
"""


def main(argv: Sequence[str]) -> int:
    """Replay what was asked for. Returns the exit status."""
    parser = _parser()
    given = parser.parse_args(list(argv))
    with ProgressBar("ods replay") as bar:
        try:
            lines, status = _replay(_request(parser, given), bar)
        except SettingsError as error:
            bar.say(str(error))
            return WRONG_USAGE
        except Unavailable as error:
            bar.say(f"InfluxDB: {error.reason}" + (f"; {error.advice}" if error.advice else ""))
            return FAILED
        except OSError as error:
            bar.say(str(error.strerror or error))
            return FAILED
        except KeyboardInterrupt:
            bar.say("stopped")
            return INTERRUPTED
    return status if _print(lines) else FAILED


def _replay(request: Request, bar: ProgressBar) -> tuple[list[str], int]:
    """InfluxDB is written to by greenlets, whose sockets are patched first; the other kind must not have that."""
    is_into_influx = isinstance(request.target, IntoInflux)
    if is_into_influx:
        importlib.import_module("gevent.monkey").patch_all()
    kind = importlib.import_module(f"ods.replay.{'into_influx' if is_into_influx else 'as_pods'}")
    summary: tuple[list[str], int] = kind.replay(request, bar)
    return summary


def _request(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Request:
    """Raises SettingsError."""
    if given.server is None:
        for option in ("speed", "loop", "first_address"):
            if getattr(given, option) is not None:
                parser.error(f"--{option.replace('_', '-')} goes with --server")
        target: IntoInflux | AsPods = IntoInflux(given.resume, given.state, given.redate)
    else:
        for option in ("resume", "state", "redate"):
            if getattr(given, option):
                parser.error(f"--{option} does not go with --server, which gives each line the time of now")
        target = AsPods(
            host=given.server[0],
            port=given.server[1],
            speed=1.0 if given.speed is None else given.speed,
            is_loop=bool(given.loop),
            first_address=given.first_address or ipaddress.IPv4Address("127.0.1.1"),
        )
    settings = settings_of(given, os.environ)
    return Request(
        given=given, directory=settings.directory, influx=settings.influx, paths=tuple(given.paths), target=target
    )


def _print(lines: Iterable[str]) -> bool:
    """Whether the summary is out, or nobody wants it."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return True
        print(f"ods replay: the output cannot be written: {error.strerror or error}", file=sys.stderr)
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="ods replay",
        description="Put recordings back into InfluxDB with their own times, or play them to a server as the pods did.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("paths", nargs="*", type=Path, metavar="PATH", help="recordings: files, folders (those of the data directory)")
    add("-d", "--directory", type=Path, metavar="DIR", help="ODS's data directory (the default one)")
    add_arguments(parser)
    into = parser.add_argument_group("into InfluxDB")
    into.add_argument("--redate", metavar="WHEN", help="shift all times: the first row is of then (or `now`)")
    into.add_argument("--resume", action="store_true", help="go on where the same replay was interrupted")
    into.add_argument("--state", type=Path, metavar="FILE", help="where to note how far it is (in the data directory)")
    add_influx_arguments(parser)
    server = parser.add_argument_group("to a server, as if the pods were there")
    server.add_argument("--server", type=_server, metavar="HOST:PORT", help="send the lines to this ODS")
    server.add_argument("--speed", type=_speed, metavar="X", help="so many times as fast as it was, or `max` (1)")
    server.add_argument("--loop", action="store_true", default=None, help="again and again, until Ctrl-C")
    server.add_argument(
        *("--first-address",),
        type=_loopback,
        metavar="ADDRESS",
        help="the address of the first pod that had none of 127.0.0.0/8, counted up for others; Linux (127.0.1.1)",
    )
    return parser


def _server(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not host or not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT (like 127.0.0.1:7778)")
    return host.strip("[]"), int(port)


def _speed(text: str) -> float:
    try:
        speed = math.inf if text == "max" else float(text)
    except ValueError:
        speed = math.nan
    if math.isnan(speed) or speed <= 0 or (math.isinf(speed) and text != "max"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, and not `max`")
    return speed


def _loopback(text: str) -> ipaddress.IPv4Address:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 address") from error
    if not address.is_loopback:
        raise argparse.ArgumentTypeError(f"{text!r} is not in 127.0.0.0/8")
    return address
