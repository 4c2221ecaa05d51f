"""The run: all rows in turn, round after round, so that a machine that is slow for a while is slow for all."""

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench import growth, keeper_alone, takeovers, throughput
from bench.figures import Round, Summary, summaries
from bench.rows import Row, Sizes
from bench.stand import Stand

ROWS: tuple[Row, ...] = (*takeovers.ROWS, *throughput.ROWS, *growth.ROWS, *keeper_alone.ROWS)


def chosen(only: Sequence[str], rows: Sequence[Row] = ROWS) -> list[Row]:
    """The rows that have one of these in their name (all, if none is given), and those that they are compared to."""
    asked = [row for row in rows if not only or any(part.lower() in row.name.lower() for part in only)]
    needed = {name for row in asked for name in row.needs}
    return [row for row in rows if row in asked or row.name in needed]


@dataclass(frozen=True)
class Failure:
    """A row that could not be measured in a round."""

    row: str
    reason: str


class Suite:
    """What was measured so far."""

    def __init__(self, rows: Sequence[Row], sizes: Sizes) -> None:
        self.failures: list[Failure] = []
        self._rows = rows
        self._sizes = sizes
        self._measured: dict[int, dict[str, Round]] = defaultdict(dict)

    def run(self, stand: Stand, rounds: int) -> None:
        """Measure; what fails is noted, and the rest goes on."""
        for number in range(rounds):
            for row in self._rows:
                if number and row.is_once:
                    continue
                began = time.monotonic()
                try:
                    self._measured[number][row.name] = row.measure(stand, self._sizes, number)
                except (AssertionError, OSError, EOFError) as error:
                    self.failures.append(Failure(row.name, str(error).partition("\n")[0] or repr(error)))
                say(f"round {number + 1} of {rounds}: {row.name}, {time.monotonic() - began:.1f} s")

    def lines(self) -> dict[str, list[Summary]]:
        """The table, of the rows that were measured."""
        lines = {row.name: summaries(row.figures, row.ratios, self._rounds_of(row)) for row in self._rows}
        return {name: found for name, found in lines.items() if found}

    def _rounds_of(self, row: Row) -> list[Round]:
        """The rounds of a row, each with the figures of the rows that it is compared to."""
        found = []
        for measured in self._measured.values():
            if row.name in measured:
                together = dict(measured[row.name])
                for name in row.needs:
                    together |= measured.get(name, {})
                found.append(together)
        return found


def say(text: str) -> None:
    """Tell what goes on, apart from the table."""
    print(text, file=sys.stderr, flush=True)
