"""What happens in each round of kills: chosen by its number and a seed, so that a failure is repeated by them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from faults.behaviours import Answer, Behaviour, Blackhole, Cut, Delay, Pass, Refuse, Reset

#: The fail-points of ODS, with the highest count that a round of a few seconds reaches for certain.
FAILPOINTS = {"read": 40, "recorded": 20, "committing": 5, "committed": 5, "requested": 4, "confirmed": 3}
#: The drain after one outage may be a single request.
REACHED_ONCE = {("confirmed", "up"), ("confirmed", "away")}
#: A kill at any moment comes so long after the start. Seconds.
ANYWHERE_SECONDS = (0.3, 2.3)
#: A fail-point that is not reached in this time is not waited for: ODS is killed where it is. Seconds.
FAILPOINT_SECONDS = 4.0
STATES = ("up", "away", "flapping")
ANYWHERE = "anywhere"
#: So many times more than usual the pods send in a burst: now and then ODS is busy when it dies.
BURST_FACTORS = (1, 1, 5)

AWAY = (Refuse(), Blackhole(), Reset(), Answer(503, b"{}"))
#: Faults in which ODS still sends its request.
ANSWERING = (Blackhole(), Answer(503, b"{}"), Cut())
#: Slow enough that ODS commits to its buffer what InfluxDB was asked to store.
SLOW = Delay(0.4)


@dataclass(frozen=True)
class Kill:
    """One round: where ODS is killed, and how InfluxDB is meanwhile."""

    number: int
    #: The name of a fail-point, or `anywhere`.
    place: str
    #: The time that it is reached at which ODS dies.
    count: int
    #: For `anywhere`: how long after the start.
    after_seconds: float
    burst_factor: int
    state: str
    #: How the proxy behaves, each for so many seconds; the last one stays.
    weather: tuple[tuple[Behaviour, float], ...]

    @property
    def title(self) -> str:
        """What it is listed as."""
        return title(self.place)

    def __str__(self) -> str:
        at_point = f"at {self.place}:{self.count}"
        when = f"{self.after_seconds:.2f} s after the start" if self.place == ANYWHERE else at_point
        return f"round {self.number}, kill {when}, InfluxDB {self.state}"


def title(place: str) -> str:
    """What kills at a place are listed as."""
    return f"kill {place}" if place == ANYWHERE else f"kill at {place}"


def plan(seed: str, number: int) -> Kill:
    """Choose what happens in a round; every second one is at a fail-point, each of them in turn in each state."""
    choice = random.Random(f"{seed} {number}")
    turn, is_anywhere = divmod(number, 2)
    place = ANYWHERE if is_anywhere else list(FAILPOINTS)[turn % len(FAILPOINTS)]
    state = STATES[(turn if is_anywhere else turn + turn // len(FAILPOINTS)) % len(STATES)]
    count = choice.randint(1, FAILPOINTS.get(place, 1) if (place, state) not in REACHED_ONCE else 1)
    after_seconds = choice.uniform(*ANYWHERE_SECONDS)
    burst_factor = choice.choice(BURST_FACTORS)
    weather = tuple(_weather(choice, place, state))
    return Kill(number, place, count, after_seconds, burst_factor, state, weather)


def _weather(choice: random.Random, place: str, state: str) -> Iterator[tuple[Behaviour, float]]:
    """How InfluxDB is in a round. Where its fail-point would not be reached otherwise, it is slow, or comes back."""
    healthy = SLOW if place in ("committing", "committed") else Pass()
    if (place, state) in REACHED_ONCE:
        yield choice.choice(AWAY), 1.2
        yield SLOW if state == "up" else Pass(), 0.0
    elif state == "up":
        if place == "requested" and choice.random() < 0.5:  # so that the drain's request may be the one
            yield Refuse(), 1.2
        yield healthy, 0.0
    elif state == "away":
        yield choice.choice(ANSWERING if place == "requested" else AWAY), 0.0
    else:
        for _ in range(20):
            yield choice.choice((*AWAY, Cut())), choice.uniform(0.1, 0.4)
            yield healthy, choice.uniform(0.1, 0.5)
