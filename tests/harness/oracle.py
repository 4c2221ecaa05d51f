"""What pods sent and what ODS said OK to, held against what InfluxDB has.

Every record carries its own number in its value, so a stored point tells which record of which pod it was: one that is
lost, doubled, changed, or stored under another name or pod, shows.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from harness.influx_server import Points

#: Measurements that a pod sends, in turn.
NAMES = (
    *(f"{quantity}_{axis}" for quantity in ("accel", "velocity", "position", "gyro") for axis in "xyz"),
    "pressure",
    "temp:battery",
    "temp/motor-1",
    "volt.bus",
)
#: As long as names may be, so that replies to them soon fill the buffers of the kernel.
LONG_NAMES = tuple(f"{name:_<63}" for name in ("accel_x", "accel_y", "accel_z"))
#: Values of one pod are this far from those of the next. The step of 0.5 is exact as a float and as `%f`.
POD_STRIDE = 10_000_000
STEP = 0.5
#: The reply to a record that neither store could keep.
NOT_STORED = b"ERROR: Not Stored"


class Record(NamedTuple):
    """A data point as a pod sends it."""

    name: str
    value: float

    @property
    def line(self) -> bytes:
        return b"POD2%s %f\n" % (self.name.encode(), self.value)

    @property
    def reply(self) -> bytes:
        return f"OK: ({self.name},{self.value!r})".encode()


class Oracle:
    """Makes the records of any number of pods, and judges what became of them."""

    def __init__(self, names: Sequence[str] = NAMES) -> None:
        self._names = names
        self._pods: list[str] = []
        self._sent: dict[str, int] = defaultdict(int)
        self._acknowledged: dict[str, set[int]] = defaultdict(set)
        self._refused: dict[str, set[int]] = defaultdict(set)

    def record(self, pod: str, number: int) -> Record:
        """Return the record `number` (from 0) of `pod`."""
        if pod not in self._pods:
            self._pods.append(pod)
        return Record(self._names[number % len(self._names)], self._pods.index(pod) * POD_STRIDE + number * STEP)

    def next_lines(self, pod: str, count: int) -> list[bytes]:
        """Return the next `count` lines of `pod`, and count them as sent."""
        first = self._sent[pod]
        self._sent[pod] += count
        return [self.record(pod, number).line for number in range(first, first + count)]

    def sent_count(self, pod: str | None = None) -> int:
        return self._sent[pod] if pod is not None else sum(self._sent.values())

    def acknowledged_count(self) -> int:
        return sum(map(len, self._acknowledged.values()))

    def refused_count(self, pod: str | None = None) -> int:
        return len(self._refused[pod]) if pod is not None else sum(map(len, self._refused.values()))

    def judge(self, pod: str, replies: Sequence[bytes], *, first: int = 0) -> None:
        """Like `acknowledge`, for a pod that may have been told of some records that they are not stored."""
        for number, reply in enumerate(replies, start=first):
            if reply == NOT_STORED:
                self._refused[pod].add(number)
            else:
                self.acknowledge(pod, [reply], first=number)

    def acknowledge(self, pod: str, replies: Sequence[bytes], *, first: int = 0) -> None:
        """Take in the replies to the records of `pod` from `first` on. Raises AssertionError at a wrong one."""
        for number, reply in enumerate(replies, start=first):
            expected = self.record(pod, number).reply
            assert reply == expected, f"reply to record {number} of {pod}: {reply!r} instead of {expected!r}"
            self._acknowledged[pod].add(number)

    def check(self, points: Points, *, only_acknowledged: bool = False) -> None:
        """Raise AssertionError unless `points` are what was sent: each value once, exact, under its own pod, in order.

        A record that was refused must not be there: it was counted as dropped.
        With `only_acknowledged`, a record that was sent and not answered may be there or not.
        """
        strangers = {pod for _, pod in points} - set(self._pods)
        assert not strangers, f"points of pods that sent none: {sorted(strangers)}"
        for pod in self._pods:
            sent = set(range(self._sent[pod])) - self._refused[pod]
            required = self._acknowledged[pod] if only_acknowledged else sent
            self._check_pod(pod, points, required)

    def _check_pod(self, pod: str, points: Points, required: set[int]) -> None:
        base = self._pods.index(pod) * POD_STRIDE
        found: list[tuple[int, int]] = []
        foreign: list[object] = []
        for (measurement, owner), rows in points.items():
            if owner != pod:
                continue
            for time_ns, value in rows:
                number = (value - base) / STEP if isinstance(value, int | float) else -1.0
                if not (number.is_integer() and 0 <= number < self._sent[pod] and self._is_name(measurement, number)):
                    foreign.append((measurement, time_ns, value))
                found.append((time_ns, int(number)))
        assert not foreign, f"{len(foreign)} points of {pod} that it did not send: {foreign[:5]}"
        numbers = [number for _, number in found]
        missing = sorted(required.difference(numbers))
        assert not missing, f"{len(missing)} of {len(required)} points of {pod} are missing, first {missing[:10]}"
        refused = sorted(self._refused[pod].intersection(numbers))
        assert not refused, f"{len(refused)} points of {pod} are there though they were refused, first {refused[:10]}"
        assert len(set(numbers)) == len(numbers), f"{len(numbers) - len(set(numbers))} points of {pod} are there twice"
        _check_order(pod, sorted(found))

    def _is_name(self, measurement: str, number: float) -> bool:
        return measurement == self._names[int(number) % len(self._names)]


def _check_order(pod: str, found: list[tuple[int, int]]) -> None:
    for (time_ns, number), (next_time_ns, next_number) in itertools.pairwise(found):
        assert time_ns < next_time_ns, f"{pod}: records {number} and {next_number} have the same time {time_ns}"
        assert number < next_number, f"{pod}: record {next_number} has a later time than record {number}"
