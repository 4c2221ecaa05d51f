"""`ods dashboards`: brings the units and the limits of the sensor file into Grafana's dashboard of values."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ods.dashboards import with_sensors, written
from ods.errors import SettingsError
from ods.options import read_sensors

#: The one whose series are called by the names that pods send.
DASHBOARD = Path(__file__).absolute().parents[2] / "conf" / "grafana" / "dashboards" / "pod-values.json"

_EPILOG = """examples:
  ods dashboards
  ods dashboards --sensors /etc/ods/sensors.toml /etc/ods-grafana/dashboards/pod-values.json

Grafana reads a provisioned dashboard again within half a minute; one that was imported by hand is imported once more.

exit status: 0 done, 1 the dashboard cannot be read or written, 2 wrong usage or a wrong sensor file
"""


def main(argv: Sequence[str]) -> int:
    """Run the command. Returns the exit status."""
    given = _parser().parse_args(list(argv))
    try:
        sensors = read_sensors(given.sensors, os.environ)
        before = given.dashboard.read_text(encoding="utf-8")
        after = written(with_sensors(json.loads(before), sensors)) + "\n"
        if after != before:
            _replace(given.dashboard, after)
    except SettingsError as error:
        print(f"ods dashboards: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"ods dashboards: {given.dashboard}: {error.strerror or error}", file=sys.stderr)
        return 1
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"ods dashboards: {given.dashboard} is no dashboard of Grafana: {error!r}", file=sys.stderr)
        return 1
    print(f"{given.dashboard}: {'up to date' if after == before else 'written'}, {len(sensors.by_name)} names")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ods dashboards",
        description="Bring the units and limits of the sensor file into Grafana's dashboard of values, in place.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    text = 'the sensor file (ODS_SENSORS, else conf/sensors.toml beside ODS\'s code; "": none, which takes them out)'
    parser.add_argument("--sensors", default=os.environ.get("ODS_SENSORS"), metavar="FILE", help=text)
    parser.add_argument(
        "dashboard",
        nargs="?",
        type=Path,
        default=DASHBOARD,
        metavar="DASHBOARD",
        help="the dashboard's JSON (conf/grafana/dashboards/pod-values.json beside ODS's code)",
    )
    return parser


def _replace(path: Path, text: str) -> None:
    """At once: Grafana must never read half of it. A link stays one."""
    path = path.resolve()
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.chmod(path.stat().st_mode & 0o777)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
