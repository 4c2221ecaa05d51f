"""What there is to be run, in which order, and the table so far."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from faults import cells, rounds, slow, table
from faults.bench import Bench
from faults.kills import GROUP_ROUNDS, Kills
from faults.table import Row

#: What the short form has: these faults, a slow InfluxDB, and kills.
SHORT_FAULTS = (
    "answer 200 portal",
    "answer 413 above 1500 bytes",
    "answer 429 Retry-After 2",
    "refused",
    "blackhole",
    "reset",
    "cut after the 204",
    "influxd frozen",
)
SHORT_OUTAGE_SECONDS, SHORT_SLOW_SECONDS, SHORT_ROUNDS = 1.0, 5.0, 12
SLOW_SECONDS, LONG_ROUNDS = 20.0, 500
#: A short outage comes so many times.
FLAPS = 3


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the user asks for."""

    seed: str
    only: Sequence[str] = ()
    is_short: bool = False
    flap_seconds: float
    outage_seconds: float
    first_round: int
    #: None: as many as belong to the form.
    rounds: int | None

    def includes(self, name: str) -> bool:
        """Whether what has this name is to be run."""
        wanted = self.only or ([*SHORT_FAULTS, slow.NAME, "kill"] if self.is_short else [""])
        return any(part in name for part in wanted)

    def lengths(self) -> list[tuple[float, int]]:
        """How long each fault lasts, and how many times it comes."""
        return [(SHORT_OUTAGE_SECONDS, 1)] if self.is_short else [(self.flap_seconds, FLAPS), (self.outage_seconds, 1)]

    def kills(self) -> list[rounds.Kill]:
        """The rounds of kills."""
        count = self.rounds if self.rounds is not None else SHORT_ROUNDS if self.is_short else LONG_ROUNDS
        numbers = range(self.first_round, self.first_round + count)
        return [kill for kill in (rounds.plan(self.seed, number) for number in numbers) if self.includes(kill.title)]


class Suite:
    """Runs what was asked for; `rows` is the table so far."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._finished: list[Row] = []
        self._kills: Kills | None = None

    @property
    def rows(self) -> list[Row]:
        """The table so far."""
        return [*self._finished, *(self._kills.rows() if self._kills else [])]

    def run(self, bench: Bench) -> None:
        """Run all of it, and say how it goes."""
        for run in self._cells():
            self._finished.append(run(bench))
            _say_row(self._finished[-1])
        self._kills = Kills(bench)
        kills = self._choice.kills()
        for first in range(0, len(kills), GROUP_ROUNDS):
            self._kills.run_group(kills[first : first + GROUP_ROUNDS])
            done, lost = min(first + GROUP_ROUNDS, len(kills)), sum(row.lost for row in self._kills.rows())
            say(f"{done} of {len(kills)} kills, {lost} records lost")

    def _cells(self) -> Iterator[Callable[[Bench], Row]]:
        choice = self._choice
        for fault in cells.FAULTS:
            for seconds, times in choice.lengths() if choice.includes(fault.name) else ():
                yield partial(cells.run_cell, fault=fault, seconds=seconds, rounds=times)
        if choice.includes(slow.NAME):
            yield partial(slow.run_slow, seconds=SHORT_SLOW_SECONDS if choice.is_short else SLOW_SECONDS)


def names() -> list[str]:
    """What there is to be run."""
    kills = map(rounds.title, [*rounds.FAILPOINTS, rounds.ANYWHERE])
    return [*(fault.name for fault in cells.FAULTS), slow.NAME, *kills]


def say(line: str) -> None:
    """Tell how far it is, beside the table."""
    print(line, file=sys.stderr, flush=True)


def _say_row(row: Row) -> None:
    figures = zip(table.HEADINGS[1:], row.cells()[1:], strict=True)
    say(f"{row.fault}: {', '.join(f'{heading} {cell}' for heading, cell in figures if cell)}")
    for failure in table.failures([row]):
        say(f"    {failure}")
