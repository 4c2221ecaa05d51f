"""What a row is, and how large its measurements are."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.figures import Figure, Ratio, Round
from bench.stand import Stand


@dataclass(frozen=True)
class Sizes:
    """How much is measured in one round of a row."""

    #: Of a flood, and of the raw rate.
    points: int = 1_200_000
    #: Of what is measured for a time.
    seconds: float = 5.0
    #: How often the worker is killed.
    kills: int = 4
    #: Of the keeper alone.
    restarts: int = 50
    pods: int = 1000
    #: Pods that send in bursts, all at once; and the fleets of which the cost of a point is measured.
    fleet: int = 1000
    fleets: tuple[int, ...] = (1, 10, 100, 1000, 2000)
    #: Of a minute of an outage.
    minute_points: int = 60_000
    #: Of a backlog that ODS starts with.
    waiting_points: int = 50_000_000


#: What `--short` measures: enough to see that it works, and the order of magnitude.
SHORT = Sizes(points=200_000, seconds=1.5, kills=1, restarts=4, pods=100, fleets=(1, 100), minute_points=6000)


@dataclass(frozen=True)
class Row:
    """One thing to measure."""

    name: str
    about: str
    figures: tuple[Figure, ...]
    #: Measures one round, of this number: what is compared swaps its order from round to round.
    measure: Callable[[Stand, Sizes, int], Round]
    ratios: tuple[Ratio, ...] = ()
    #: Rows that it is compared to, so that they are measured too, in the same round.
    needs: tuple[str, ...] = ()
    #: Whether one round is all: it sees by itself whether something changes with time.
    is_once: bool = False


def modes(number: int) -> tuple[bool, bool]:
    """With a keeper and without, in the order of this round."""
    return (True, False) if number % 2 == 0 else (False, True)


def mode_name(has_keeper: bool) -> str:
    """As it is called in the table."""
    return "keeper" if has_keeper else "no keeper"
