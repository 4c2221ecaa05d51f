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
from ods.settings import default_directory

#: How long the new worker may take to become ready, and then to serve. Seconds.
READY_SECONDS, SERVING_SECONDS = 20.0, 20.0
POLL_SECONDS = 0.1

_EXAMPLES = """examples:
  ods restart
  ods restart --directory /var/lib/ods

What it cannot change without a stop and a start: --host, --port, --directory. Where the new code or configuration does
not come up, ODS goes on as it was, and this says why.

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
    """Until the new worker answers."""
    deadline = time.monotonic() + SERVING_SECONDS
    while time.monotonic() < deadline:
        try:
            status = _status(directory)
        except (OSError, ValueError, http.client.HTTPException):
            status = before
        if status["restarts"]["count"] > before["restarts"]["count"]:
            print(f"restarted: ODS {status['version']} (before: {before['version']})")
            return 0
        time.sleep(POLL_SECONDS)
    print("ods restart: the new worker does not answer yet; its log says why", file=sys.stderr)
    return 1


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
