"""Who was turned away at the door, and why: what an operator asks first when a pod does not boot."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

#: So many addresses are remembered; the one that tried longest ago is forgotten first.
REMEMBERED = 1000


@dataclass(slots=True)
class Refusal:
    """What is known of an address that was turned away."""

    address: str
    reason: str
    count: int = 0
    #: When it last tried, in nanoseconds since 1970.
    last_ns: int = 0


class Refusals:
    """All who were turned away in this run."""

    def __init__(self) -> None:
        self._by_address: dict[str, Refusal] = {}
        #: How many tries there were.
        self.total = 0

    def note(self, address: str, reason: str, time_ns: int) -> bool:
        """Note a try; returns whether it is news."""
        refusal = self._by_address.pop(address, None) or Refusal(address, reason)
        is_news = not refusal.count or refusal.reason != reason
        refusal.reason, refusal.last_ns = reason, time_ns
        refusal.count += 1
        self._by_address[address] = refusal
        self.total += 1
        if len(self._by_address) > REMEMBERED:
            del self._by_address[next(iter(self._by_address))]
        return is_news

    def latest(self, count: int) -> Iterator[Refusal]:
        """Those who tried last, the latest first."""
        return islice(reversed(self._by_address.values()), count)
