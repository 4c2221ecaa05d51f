"""`make bench` measures how fast ODS is, and prints a table: smallest, median and largest of each figure and ratio.

What is compared is measured in the same run, in turn. Nothing is judged: bench/README.md says how to read it.
Exit status 1: something could not be measured.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.influx_server import InfluxServer

from bench import machine, table
from bench.rows import SHORT, Sizes
from bench.stand import Stand
from bench.suite import Suite, chosen, say

ROUNDS, SHORT_ROUNDS = 5, 1
EPILOG = """\
examples:
  make bench                                             all of it, five rounds
  make bench ARGS="--short"                              whether it works, and the order of magnitude
  make bench ARGS="--only kill --rounds 10"              one kind of row; part of a name is enough
  make bench ARGS="--only 'keeper alone' --restarts 1000 --pods 10000"
                                                         the long form, about half an hour
"""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the user asks for."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--rounds",
        type=int,
        help=f"how often each row is measured (default {ROUNDS}; {SHORT_ROUNDS} in the short form)",
    )
    add(
        "--only", action="append", default=[], metavar="NAME", help="measure what has this in its name; may be repeated"
    )
    add("--list", action="store_true", help="list the rows, and exit")
    add("--short", action="store_true", help="small measurements: each row in less than a minute")
    add("--restarts", type=int, help=f"restarts of the row 'keeper alone' (default {Sizes.restarts})")
    add("--pods", type=int, help=f"pods that come and go in the row 'keeper alone' (default {Sizes.pods})")
    add("--markdown", action="store_true", help="print the table as one of Markdown")
    return parser.parse_args(given)


def sizes(asked: argparse.Namespace) -> Sizes:
    """How large the measurements are."""
    basis = SHORT if asked.short else Sizes()
    given = {name: value for name in ("restarts", "pods") if (value := getattr(asked, name)) is not None}
    return Sizes(**{**vars(basis), **given})


def main(given: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    asked = arguments(given)
    rows = chosen(asked.only)
    if asked.list:
        width = max((len(row.name) for row in rows), default=0)
        print("\n".join(f"{row.name:<{width}}  {row.about}" for row in rows))
        return 0
    if not rows or not InfluxServer.is_installed():
        print(
            "no row has that in its name" if not rows else "no influxd: install Debian's package influxdb",
            file=sys.stderr,
        )
        return 2
    rounds = asked.rounds or (SHORT_ROUNDS if asked.short else ROUNDS)
    told, suite = machine.told(), Suite(rows, sizes(asked))
    is_interrupted = _run(suite, rounds)
    lines = suite.lines()
    print("\n".join([*told, "", table.markdown(lines) if asked.markdown else table.plain(lines)]))
    for failure in suite.failures:
        print(f"not measured: {failure.row}: {failure.reason}")
    return 130 if is_interrupted else 1 if suite.failures else 0


def _run(suite: Suite, rounds: int) -> bool:
    """Measure all; returns whether the user ended it before its end."""
    folder = Path(tempfile.mkdtemp(prefix="ods-bench-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Stand(folder) as stand:
            suite.run(stand, rounds)
    except KeyboardInterrupt:
        say("ended before its end: the table is of what was measured")
        return True
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
