"""The ledger: what became of every record that a pod sent. It always adds up:

    received = stored + pending + quarantined + dropped + in_flight

for each pod and in total. `invalid` and `torn` count what was no record. ODS's own events are stored like points but
are not counted here, so that a pod's figures are those of what it sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Fate(Enum):
    """What becomes of a point; the value is the name of its count."""

    IN_FLIGHT = "in_flight"
    STORED = "stored"
    PENDING = "pending"
    QUARANTINED = "quarantined"
    DROPPED = "dropped"


@dataclass(slots=True)
class Counts:
    """The counts of one pod, or of all."""

    received: int = 0
    stored: int = 0
    pending: int = 0
    in_flight: int = 0
    quarantined: int = 0
    dropped: int = 0
    invalid: int = 0
    torn: int = 0

    def as_dict(self) -> dict[str, int]:
        """Each count by its name."""
        return {name: getattr(self, name) for name in _NAMES}

    def add_up(self) -> bool:
        """Whether every received point has exactly one fate."""
        return self.received == self.stored + self.pending + self.in_flight + self.quarantined + self.dropped


_NAMES = tuple(Counts.__slots__)


class Ledger:
    """The counts of every pod, by its name. Belongs to the hub."""

    def __init__(self) -> None:
        self.pods: dict[str, Counts] = {}
        #: Points that no store could take or keep in this run. Not those that an operator dropped from the quarantine.
        self.lost = 0

    def of(self, pod: str) -> Counts:
        """The counts of a pod; all zero where nothing is known of it."""
        counts = self.pods.get(pod)
        if counts is None:
            counts = self.pods[pod] = Counts()
        return counts

    def receive(self, pod: str, points: int) -> Counts:
        """Points arrived; they are in flight until `move` says what became of them. Returns the counts of the pod."""
        counts = self.of(pod)
        counts.received += points
        counts.in_flight += points
        return counts

    def begin_with(self, fate: Fate, points: Mapping[str, int]) -> None:
        """Points that the buffer holds from the run before."""
        for pod, count in points.items():
            counts = self.of(pod)
            counts.received += count
            setattr(counts, fate.value, getattr(counts, fate.value) + count)

    def move(self, points: Mapping[str, int], before: Fate, after: Fate) -> None:
        """Points, counted by pod, changed their fate."""
        left, entered = before.value, after.value
        for pod, count in points.items():
            counts = self.of(pod)
            setattr(counts, left, getattr(counts, left) - count)
            setattr(counts, entered, getattr(counts, entered) + count)

    def lose(self, points: Mapping[str, int], before: Fate) -> None:
        """Points that no store took, or that one could not keep, are dropped."""
        self.move(points, before, Fate.DROPPED)
        self.lost += sum(points.values())

    def totals(self) -> Counts:
        """The sum over all pods."""
        pods = self.pods.values()
        return Counts(*(sum([getattr(counts, name) for counts in pods]) for name in _NAMES))
