"""What every source of an export gives and every format takes: consecutive rows of one pod, column by column. Pure.

A table comes pod by pod, in the order of their names, and of each pod in the order of time: the same from every source,
so that the same points make the same file. A block has some thousand rows, and so nothing needs more memory than one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ods.selection import Selection

#: What a table is of: data points, or log messages.
DATA, LOGS = "data", "logs"


@dataclass(frozen=True, slots=True)
class Points:
    """Data points; times in nanoseconds since 1970, as text, as they come and go."""

    pod: str
    times: list[str]
    names: list[str]
    values: list[float]


@dataclass(frozen=True, slots=True)
class Messages:
    """Log messages; a level is empty where the message has none."""

    pod: str
    times: list[str]
    levels: list[str]
    messages: list[str]


Block = Points | Messages


class Source(Protocol):
    """Where a table comes from. It may be read more than once, while more arrives."""

    def blocks(self, what: str, selection: Selection) -> Iterator[Block]:
        """The rows of `DATA` or `LOGS`, with no two at the same time of one pod. Raises OdsError or OSError."""

    def told(self) -> dict[str, object]:
        """What the manifest says of the source: its kind, where it is, and what of it could not be read."""

    @property
    def is_whole(self) -> bool:
        """Whether all could be read."""

    @property
    def done(self) -> float | None:
        """Which part is read so far, for people; None where that is not known."""


class Table(Protocol):
    """A format, to which blocks are written in their order."""

    @property
    def columns(self) -> Sequence[str]:
        """The names of its columns."""

    def write(self, block: Block) -> int:
        """Write a block; returns how many rows it became. Raises OSError."""

    def close(self) -> None:
        """Write the end. Raises OSError."""
