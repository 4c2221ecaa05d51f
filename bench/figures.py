"""What is measured: figures, the ratios between them, and the statistics of both. Pure.

A ratio is taken round by round, of two values that were measured one after the other, so that a machine that is slow
for a while is slow for both; its median is the median of these, not the ratio of the medians.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

#: What one round of a row measured: for each figure a value, or several.
Round = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Figure:
    """Something measured."""

    name: str
    unit: str
    #: The number of the contract (DESIGN section 12); empty where it has none.
    reach: str = ""


@dataclass(frozen=True)
class Ratio:
    """One figure by another."""

    name: str
    of: str
    by: str
    reach: str = ""


@dataclass(frozen=True)
class Summary:
    """A line of the table."""

    name: str
    unit: str
    count: int
    smallest: float
    middle: float
    largest: float
    reach: str = ""


def summaries(figures: Sequence[Figure], ratios: Sequence[Ratio], rounds: Sequence[Round]) -> list[Summary]:
    """The lines of a row. What was not measured in any round has none."""
    lines = [(figure.name, figure.unit, figure.reach, _values(rounds, figure.name)) for figure in figures]
    lines += [(ratio.name, "ratio", ratio.reach, _ratios(rounds, ratio)) for ratio in ratios]
    return [
        Summary(name, unit, len(values), min(values), median(values), max(values), reach)
        for name, unit, reach, values in lines
        if values
    ]


def _values(rounds: Sequence[Round], name: str) -> list[float]:
    return [value for measured in rounds for value in measured.get(name, ())]


def _ratios(rounds: Sequence[Round], ratio: Ratio) -> list[float]:
    pairs = [
        pair
        for measured in rounds
        for pair in zip(measured.get(ratio.of, ()), measured.get(ratio.by, ()), strict=False)
    ]
    return [of / by for of, by in pairs if by]
