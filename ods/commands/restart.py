"""`ods restart`: the running ODS goes on with the code and the configuration as they are now, and no pod notices."""

import argparse
import http.client
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ods.control_client import ask
from ods.restarts import FAILED
from ods.settings import default_directory

#: How long the new version may take to become ready, and then to serve and to prove itself. Seconds.
READY_SECONDS, PROVEN_SECONDS = 20.0, 40.0
POLL_SECONDS = 0.1

_EXAMPLES = """examples:
  ods restart
  ods restart --directory /var/lib/ods

What it cannot change without a stop and a start: --host, --port, --directory. Where the new code or configuration does
not come up, or fails within its first 5 seconds, ODS goes on as it was, and this says why.

exit status: 0 restarted, 1 refused, 2 wrong usage, 3 no ODS answers
"""


def main(argv: Sequence[str]) -> int:
    """Restart. Returns the exit status."""
    given = _parser().parse_args(list(argv))
    directory = given.directory or default_directory(os.environ)
    try:
        before = _status(directory)
        code, body = ask(directory, "/api/restart", method="POST", timeout_seconds=READY_SECONDS)
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"ods restart: no ODS answers in {directory}: {error}", file=sys.stderr)
        return 3
    if code != 202:
        print(f"ods restart: refused, and ODS goes on as it was: {_reason(body)}", file=sys.stderr)
        return 1
    return _wait(directory, before)


def _wait(directory: Path, before: dict[str, Any]) -> int:
    """Until the new version has proven itself, or failed."""
    deadline = time.monotonic() + PROVEN_SECONDS
    if sys.stderr.isatty():
        print("the new version is on trial for some seconds", file=sys.stderr)
    while time.monotonic() < deadline:
        try:
            status = _status(directory)
            is_on_trial = json.loads(ask(directory, "/api/restart")[1])["is_on_trial"]
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            status, is_on_trial = before, True
        if failed := _failed(before, status):
            print(f"ods restart: {failed}; ODS goes on as it was", file=sys.stderr)
            return 1
        if status["restarts"]["count"] > before["restarts"]["count"] and not is_on_trial:
            print(f"restarted: ODS {status['version']} (before: {before['version']})")
            return 0
        time.sleep(POLL_SECONDS)
    print("ods restart: the new version does not answer yet; its log says why", file=sys.stderr)
    return 1


def _failed(before: dict[str, Any], status: dict[str, Any]) -> str | None:
    """Why the trial of a new version has failed since; None where none has."""
    since = max((restart["time_ns"] for restart in before["restarts"]["latest"]), default=0)
    causes = [restart["cause"] for restart in status["restarts"]["latest"] if restart["time_ns"] > since]
    return next((cause for cause in causes if cause.startswith(FAILED)), None)


def _status(directory: Path) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(ask(directory, "/api/status")[1])
    return status


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace").strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ods restart",
        description="Have the running ODS go on with the code and the configuration as they are now.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-d", "--directory", type=Path, metavar="DIR", help="its data directory (the default one)")
    return parser
