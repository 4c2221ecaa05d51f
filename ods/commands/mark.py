"""`ods mark`: note a moment of a run, to be found again on the dashboards and by the commands for afterwards."""

import argparse
import http.client
import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from ods.control_client import ask
from ods.directory import DataDirectory
from ods.errors import Unreachable
from ods.marks import MAX_TEXT_BYTES, Mark, mark_text, marks
from ods.settings import default_directory

_EXAMPLES = f"""examples:
  ods mark pressure test 3
  ods mark 'brakes: "soft" again'
  ods mark --list
  ods mark --list --json

The running ODS notes the moment, as an event in InfluxDB (`ods_event`, event `mark`) and in the recordings. The numbers
count the marks that the recordings hold, by time. A text is one line of at most {MAX_TEXT_BYTES} bytes; begin one that
starts with a dash with `--`. --list needs no running ODS.

exit status: 0 noted, or listed; 1 no store takes it, or there is no mark; 2 wrong usage; 3 no ODS answers, or the
recordings cannot be read, or the output cannot be written
"""

DONE, NOTHING, WRONG_USAGE, FAILED = 0, 1, 2, 3
#: What a shell shows for a command ended by Ctrl-C.
INTERRUPTED = 130
#: For how long an ODS is asked again that is there but between two workers, or just starts. Seconds.
PATIENCE_SECONDS = 3.0
POLL_SECONDS = 0.1
NANOSECONDS = 1_000_000_000


def main(argv: Sequence[str]) -> int:
    """Note a mark, or list those there are. Returns the exit status."""
    given = _parse(argv)
    directory = DataDirectory(given.directory or default_directory(os.environ))
    try:
        status = _list(directory, is_json=given.json) if given.list else _note(directory, given.text, given.json)
        sys.stdout.flush()
    except Unreachable as error:
        return _fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail(f"the output cannot be written: {error.strerror or error}")
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _note(directory: DataDirectory, text: str, is_json: bool) -> int:
    code, body = _ask(directory, f"/api/mark?{urlencode({'text': text})}")
    try:
        told = json.loads(body)
        if code not in (200, 202):
            _say(f"not noted: {told['error']}")
            return NOTHING if code == http.client.SERVICE_UNAVAILABLE else FAILED
        time_ns = int(told["time_ns"])
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"ODS answers {code}: is it of another version?") from error
    number = next((mark.number for mark in marks(directory.recordings) if mark.time_ns == time_ns), None)
    if number is None:
        _say("the recordings do not have it (yet): are they stopped? `ods status` tells")
    if code == http.client.ACCEPTED:
        _say("neither InfluxDB nor the buffer has answered yet; ODS goes on trying")
    if is_json:
        print(json.dumps({"number": number, "time_ns": time_ns, "text": text}))
    else:
        print(f"mark {'' if number is None else f'#{number} '}at {_utc(time_ns)}: {text}")
    return DONE


def _ask(directory: DataDirectory, path: str) -> tuple[int, bytes]:
    """What the ODS of this directory answers. Raises Unreachable."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return ask(directory.path, path, method="POST")
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if not directory.is_held() or time.monotonic() >= deadline:
                raise Unreachable(f"no ODS runs in {directory.path}; nothing was noted") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the ODS of {directory.path} does not answer: {_reason(error)}") from error
        time.sleep(POLL_SECONDS)


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "it belongs to another user; ask as that user, or as root"
    if isinstance(error, TimeoutError):
        return "not in time; --list tells whether it noted the mark"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _list(directory: DataDirectory, *, is_json: bool) -> int:
    unreadable: list[str] = []
    found = marks(directory.recordings, on_unreadable=unreadable.append)
    for reason in unreadable:
        _say(f"left out: {reason}")
    for mark in found:
        print(_json(mark) if is_json else f"#{mark.number:<4} {_utc(mark.time_ns)}  {mark.text}")
    if not found and not unreadable:
        _say(f"there is no mark in {directory.recordings}")
    return FAILED if unreadable else DONE if found else NOTHING


def _json(mark: Mark) -> str:
    return json.dumps({"number": mark.number, "time_ns": mark.time_ns, "text": mark.text})


def _utc(time_ns: int) -> str:
    """As the commands for afterwards take it (`--from`), to the nanosecond."""
    seconds, rest_ns = divmod(time_ns, NANOSECONDS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}Z"


def _fail(reason: str) -> int:
    _say(reason)
    return FAILED


def _say(text: str) -> None:
    print(f"ods mark: {text}", file=sys.stderr)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ods mark",
        description="Note this moment of the run, or list the moments that were noted.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("text", nargs="*", metavar="TEXT", help="what to call the moment; several words are joined")
    parser.add_argument("-l", "--list", action="store_true", help="show the marks of the recordings, the oldest first")
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line")
    parser.add_argument("-d", "--directory", type=Path, metavar="DIR", help="ODS's data directory (the default one)")
    given = parser.parse_args(list(argv))
    if given.list and given.text:
        parser.error("--list takes no text")
    if not given.list:
        try:
            given.text = mark_text(" ".join(given.text))
        except ValueError as error:
            parser.error(str(error))
    return given
