"""`ods status`: what the ODS of a data directory does, in a terminal, once."""

import argparse
import http.client
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ods.control_client import ask
from ods.report import duration
from ods.settings import default_directory

_EXAMPLES = """examples:
  ods status
  ods status --directory /var/lib/ods --json

exit status: 0 points are kept, 1 points are being dropped, 2 wrong usage, 3 no ODS answers
"""

_COLUMNS = ("received", "stored", "pending", "quarantined", "dropped", "invalid", "torn")


def main(argv: Sequence[str]) -> int:
    """Print the status. Returns the exit status."""
    given = _parser().parse_args(list(argv))
    directory = given.directory or default_directory(os.environ)
    try:
        status = fetch(directory)
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"ods status: no ODS answers in {directory}: {error}", file=sys.stderr)
        return 3
    try:
        print(json.dumps(status, indent=2) if given.json else describe(status), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if status["healthy"] else 1


def fetch(directory: Path) -> dict[str, Any]:
    """The status of the ODS that uses this directory, by its control socket. Raises OSError or HTTPException."""
    status: dict[str, Any] = json.loads(ask(directory, "/api/status")[1])
    status["healthy"] = ask(directory, "/healthz")[0] == 200
    return status


def describe(status: dict[str, Any]) -> str:
    """The status as a person reads it."""
    influx, buffer = status["influx"], status["buffer"]
    lines = [f"ODS {status['version']}, up {duration(status['uptime_seconds'])}: {_state(status)}"]
    trouble = "" if influx["available"] else f", away for {duration(influx['outage_seconds'])}: {influx['last_error']}"
    lines.append(f"InfluxDB  {influx['url']}, database {influx['database']}{trouble}")
    waiting = f"{buffer['points']} points in {buffer['bytes'] / 1e6:.1f} MB"
    if buffer["eta_seconds"] is not None:
        waiting += (
            f", draining {buffer['drain_points_per_second']:.0f} a second, {duration(buffer['eta_seconds'])} to go"
        )
    lines += [f"buffer    {waiting}", ""]
    width = max([len(pod["name"]) for pod in status["pods"]] + [len("total")])
    lines.append(f"{'pod':<{width}}  {'connected':<9}  {'per second':>10}  " + "  ".join(f"{c:>11}" for c in _COLUMNS))
    for pod in status["pods"]:
        connected, rate = "yes" if pod["connected"] else "no", pod["points_per_second"]
        lines.append(f"{pod['name']:<{width}}  {connected:<9}  {rate:>10.0f}  {_counts(pod)}")
    lines.append(f"{'total':<{width}}  {'':<9}  {'':>10}  {_counts(status['totals'])}")
    return "\n".join(lines)


def _state(status: dict[str, Any]) -> str:
    if not status["healthy"]:
        return "LOSING DATA, neither InfluxDB nor the buffer takes points"
    return {
        "live": "live",
        "buffering": "buffering, InfluxDB is away",
        "draining": "draining, InfluxDB is back",
    }[status["state"]]


def _counts(counts: dict[str, Any]) -> str:
    return "  ".join(f"{counts[column]:>11}" for column in _COLUMNS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ods status",
        description="Show what a running ODS does.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-d", "--directory", type=Path, metavar="DIR", help="its data directory (the default one)")
    parser.add_argument("--json", action="store_true", help="print /api/status instead")
    return parser
