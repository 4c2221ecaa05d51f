"""What can go wrong with a pod, to be rehearsed: each fault as the pods of one episode of it.

An episode is a few connections, made anew: so a pod that was unplugged comes back as one whose power was restored.
Where a reading crosses a limit, it is brake temperature 1, which `conf/sensors.toml` has a limit for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from ods.simulator.odd_lines import TORN, bad_run
from ods.simulator.pod import Ending, Endpoint, Pacing, SimulatedPod
from ods.simulator.records import DataPoint, Record, RunPlan, records_of_pod

#: How long an unplugged pod is silent before it is gone. Seconds.
SILENT_SECONDS = 1.0
#: The connections of one storm.
STORM_CONNECTIONS = 50
#: Records sent at once, as after a pod's own logging has hung.
BURST_RECORDS = 5000
#: So many replies of so long names fill what ODS keeps of them, and what both kernels do. Records.
UNREAD_RECORDS = 60_000
LONG_NAME = "never_read/a_name_as_long_as_names_may_be/and_its_reply_with_it/"[:63]
#: The reading that leaves its limits, from where to where and back, in how many steps, and at what rate.
RAMP_NAME, RAMP_FROM, RAMP_TO = "brake_temperature_1", 22.0, 320.0
RAMP_RECORDS, RAMP_RECORDS_PER_SECOND = 200, 100.0
#: Where nothing else is said: records a second, and how many go out at once.
STEADY = Pacing(rate=100.0, seconds=1.0, burst=10)
AT_ONCE = Pacing(rate=math.inf, seconds=1.0, burst=BURST_RECORDS)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who has the fault: where its connections go and come from, by what name, and whether it reads its replies."""

    name: str
    endpoint: Endpoint
    is_reading_replies: bool = True
    seed: int = 0

    def pod(
        self,
        records: Iterable[Record],
        *,
        pacing: Pacing = STEADY,
        ending: Ending | None = None,
        is_reading_replies: bool = True,
    ) -> SimulatedPod:
        """One connection."""
        return SimulatedPod(
            name=self.name,
            endpoint=self.endpoint,
            records=iter(records),
            pacing=pacing,
            is_reading_replies=self.is_reading_replies and is_reading_replies,
            ending=ending,
        )


def _unplug(origin: Origin) -> Iterator[SimulatedPod]:
    ending = Ending(last_words=TORN, silent_seconds=SILENT_SECONDS, is_reset=True)
    yield origin.pod(_points(origin, 100), ending=ending)


def _storm(origin: Origin) -> Iterator[SimulatedPod]:
    """Some say something, some nothing; half of them go by a reset."""
    points = list(_points(origin, 3))
    for number in range(STORM_CONNECTIONS):
        yield origin.pod(points[: number % 4], ending=Ending(is_reset=number % 8 < 4))


def _never_read(origin: Origin) -> Iterator[SimulatedPod]:
    point = DataPoint(LONG_NAME, "0.123456")
    yield origin.pod([point] * UNREAD_RECORDS, pacing=AT_ONCE, is_reading_replies=False)


def _burst(origin: Origin) -> Iterator[SimulatedPod]:
    yield origin.pod(_points(origin, BURST_RECORDS), pacing=AT_ONCE)


def _bad_lines(origin: Origin) -> Iterator[SimulatedPod]:
    yield origin.pod(bad_run(), ending=Ending(last_words=TORN))


def _limit(origin: Origin) -> Iterator[SimulatedPod]:
    yield origin.pod(ramp(), pacing=Pacing(rate=RAMP_RECORDS_PER_SECOND, seconds=1.0, burst=1))


def ramp() -> Iterator[DataPoint]:
    """A reading that goes far beyond its limits and comes back, once."""
    for step in range(RAMP_RECORDS + 1):
        height = 1.0 - abs(1.0 - 2.0 * step / RAMP_RECORDS)
        yield DataPoint(RAMP_NAME, f"{RAMP_FROM + (RAMP_TO - RAMP_FROM) * height:f}")


@dataclass(frozen=True)
class Fault:
    """A kind of fault: what it is in a few words, and the connections of an episode, which begin together."""

    meaning: str
    pods: Callable[[Origin], Iterator[SimulatedPod]]

    def episode(self, origin: Origin) -> Sequence[SimulatedPod]:
        """The connections of one episode."""
        return list(self.pods(origin))


FAULTS: Mapping[str, Fault] = {
    "unplug": Fault("gone in the middle of a line, after a silence", _unplug),
    "reconnect-storm": Fault(f"{STORM_CONNECTIONS} connections at once, which end at once", _storm),
    "never-read": Fault("never reads, until replies must be dropped", _never_read),
    "burst": Fault(f"{BURST_RECORDS} records at once", _burst),
    "bad-lines": Fault("what is no record, of every kind, and a torn line", _bad_lines),
    "limit": Fault(f"{RAMP_NAME} goes far beyond its limits, and back", _limit),
}


def _points(origin: Origin, count: int) -> Iterator[DataPoint]:
    """The first data points of a run, without its log messages."""
    records = records_of_pod(RunPlan(target="", rate=2.0 * count, seconds=1.0, seed=origin.seed), 0)
    return islice((record for record in records if isinstance(record, DataPoint)), count)
