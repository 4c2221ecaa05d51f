"""`ods COMMAND`: finds the command and runs it; nothing of a command is imported before it is asked for."""

import importlib
import sys
from collections.abc import Sequence

from ods import __version__

#: What the keeper starts, and becomes (`ods.keeper`); nobody else does, so that they are not listed.
HIDDEN = ("worker", "keeper")
#: Each command with what it does; the module `ods.commands.<command>` has its `main`.
COMMANDS = {
    "serve": "receive telemetry, write it to InfluxDB, buffer it when InfluxDB is away (the same as ./server.py)",
    "restart": "go on with the code and the configuration as they are now; no pod notices",
    "check": "look before a run whether all is as it should be, and say what to do",
    "simulate": "play the run of one or more pods against a server",
    "status": "show what a running ODS does",
    "mark": "note a moment of the run, such as the begin of a test, or list those noted",
    "replay": "put recordings into InfluxDB again, or play them to a server as the pods did",
    "dashboards": "bring the units and limits of the sensor file into Grafana's dashboard of values",
    "quarantine": "show what InfluxDB would not take, try it again, or drop it",
    "export": "write telemetry to CSV or Parquet, from the recordings or InfluxDB",
}

USAGE = """usage: ods COMMAND [OPTIONS]

OpenLoop Data Shuttle

commands:
{commands}

options:
  -h, --help     show this help; `ods COMMAND --help` shows that of a command
  --version      show the version

example:
  ods simulate --pods 2 --seconds 20
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 well, 1 failed, 2 bad usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(USAGE.format(commands="\n".join(f"  {name:<12} {text}" for name, text in COMMANDS.items())), end="")
        return 0 if given else 2
    if given[0] == "--version":
        print(f"ods {__version__}")
        return 0
    if given[0] not in (*COMMANDS, *HIDDEN):
        print(f"ods: {given[0]!r} is no command; `ods --help` lists them", file=sys.stderr)
        return 2
    command = importlib.import_module(f"ods.commands.{given[0]}")
    status: int = command.main(given[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
