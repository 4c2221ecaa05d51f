"""`make faults` tries every fault of a field run, and prints what became of each record, a row a fault.

Exit status 1: a record was lost, doubled or wrong, something else was not as promised, or a pod's send waited a second.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.influx_server import InfluxServer

from faults import table
from faults.bench import Bench
from faults.suite import LONG_ROUNDS, SHORT_ROUNDS, Choice, Suite, names, say
from faults.table import Row

EPILOG = """\
examples:
  make faults                                         all of it, in about 50 minutes
  make faults ARGS="--only kill --rounds 50"          50 kills, in about 3 minutes
  make faults ARGS="--only refused --only 'delay 2'"  two faults; part of a name is enough
  make faults ARGS="--only kill --seed 7 --from-round 120 --rounds 20"
                                                      what a run with this seed did in these rounds
"""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the user asks for."""
    parser = argparse.ArgumentParser(
        prog="make faults", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, help=f"how many kills (default {LONG_ROUNDS}; {SHORT_ROUNDS} in the short form)")
    add("--from-round", type=int, default=0, help="the number of the first kill, to repeat some (default 0)")
    add("--seed", help="what the choices of the kills follow from (default: a random one, which is printed)")
    add("--only", action="append", default=[], metavar="NAME", help="run what has this in its name; may be repeated")
    add("--list", action="store_true", help="list the names, and exit")
    add("--short", action="store_true", help="a selection, with outages of a second: about a minute and a half")
    add("--flap-seconds", type=float, default=3.0, help="how long a short outage lasts (default 3)")
    add("--outage-seconds", type=float, default=30.0, help="how long a long one lasts (default 30)")
    add("--markdown", action="store_true", help="print the table as one of Markdown")
    return parser.parse_args(given)


def choice(asked: argparse.Namespace) -> Choice:
    """The same as a value, with a seed."""
    return Choice(
        seed=asked.seed or str(random.SystemRandom().randrange(10_000)),
        only=asked.only,
        is_short=asked.short,
        flap_seconds=asked.flap_seconds,
        outage_seconds=asked.outage_seconds,
        first_round=asked.from_round,
        rounds=asked.rounds,
    )


def main() -> int:
    """Run; returns the exit status."""
    asked = arguments()
    if asked.list:
        print("\n".join(names()))
        return 0
    if not InfluxServer.is_installed():
        print("no influxd on this machine: install Debian's package influxdb", file=sys.stderr)
        return 2
    chosen = choice(asked)
    say(f"seed {chosen.seed}")
    folder = Path(tempfile.mkdtemp(prefix="ods-faults-"))
    rows, is_interrupted = _run(chosen, folder)
    print(f"\n{table.markdown(rows) if asked.markdown else table.plain(rows)}\n")
    print("\n".join([*table.failures(rows), f"seed {chosen.seed}"]))
    is_good = all(row.is_good and row.is_prompt for row in rows)
    if is_good:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"what the failed runs left is in {folder}")
    return 130 if is_interrupted else 0 if is_good else 1


def _run(chosen: Choice, folder: Path) -> tuple[list[Row], bool]:
    """Run all; returns the rows, and whether the user ended it before its end."""
    suite = Suite(chosen)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Bench(folder) as bench:
            suite.run(bench)
    except KeyboardInterrupt:
        return suite.rows, True
    return suite.rows, False


if __name__ == "__main__":
    sys.exit(main())
