"""The records of a simulated run, in the order and in the bytes in which a pod sends them.

It exists apart from the connection so that a test can compute what InfluxDB must contain: the same plan and the same
pod always give the same records, and a run that was cut short sent a prefix of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from ods.simulator.run_profile import Reading, readings_at

#: The least number of records for each log message: a run of a few records is not all talk.
RECORDS_PER_LOG_MESSAGE = 4
#: A pod without pacing plays runs as if they were sampled at this rate, one after the other.
UNPACED_RECORDS_PER_SECOND = 10_000


@dataclass(frozen=True, slots=True)
class DataPoint:
    """A data point; `number` is its value as sent, `value` what that number means."""

    name: str
    number: str

    @property
    def value(self) -> float:
        return float(self.number)

    @property
    def wire(self) -> bytes:
        return f"POD2{self.name} {self.number}\n".encode()


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A log message; `level` as the pod writes it (NOTE), `text` without it."""

    level: str
    text: str

    @property
    def wire(self) -> bytes:
        """Without a newline, as real pods send it: the next record is glued to it."""
        return f"POD1{f'[{self.level}]':<8}{self.text}".encode()


@dataclass(frozen=True, slots=True)
class OddLine:
    """A line, with its newline, that is not what pods should send; the reply to it, and what ODS is to count in it."""

    wire: bytes
    reply: bytes
    data_points: int = 0
    log_messages: int = 0
    invalid: int = 0


Record = DataPoint | LogMessage | OddLine
#: What gets a reply of its own.
Line = DataPoint | OddLine


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What each pod of a simulation sends: `rate` records a second (0: no pacing) for `seconds` to `target`."""

    target: str
    rate: float
    seconds: float
    seed: int = 0

    @property
    def records_per_run(self) -> int:
        return max(1, round((self.rate or UNPACED_RECORDS_PER_SECOND) * self.seconds))


def records_of_pod(plan: RunPlan, pod_index: int) -> Iterator[Record]:
    """All records of one pod: one run, exactly `records_per_run` of them; without pacing, runs without end."""
    generator = random.Random(f"{plan.seed}/{pod_index}")
    yield from _records_of_run(plan, generator)
    while not plan.rate:
        yield from _records_of_run(plan, generator)


def _records_of_run(plan: RunPlan, generator: random.Random) -> Iterator[Record]:
    script = _log_script(plan.target, generator)[: plan.records_per_run // RECORDS_PER_LOG_MESSAGE]
    points = plan.records_per_run - len(script)
    waiting = [(round(progress * points), message) for progress, message in script]
    for position, point in enumerate(_data_points(points, plan.seconds, generator)):
        while waiting and waiting[0][0] <= position:
            yield waiting.pop(0)[1]
        yield point
    for _, message in waiting:
        yield message


def _data_points(count: int, seconds: float, generator: random.Random) -> Iterator[DataPoint]:
    """Sweeps over all names, each taken at one moment, spread evenly over the run; the last one may be cut."""
    left = count
    while left > 0:
        elapsed_seconds = seconds * (count - left) / count
        readings = readings_at(elapsed_seconds, duration_seconds=seconds, noise=lambda: generator.uniform(-1.0, 1.0))
        for name, reading in list(readings.items())[:left]:
            yield DataPoint(name, as_sent(reading))
        left -= len(readings)


def as_sent(reading: Reading) -> str:
    """The number as a pod prints it: integers with %d, floats with %f."""
    return f"{reading:d}" if isinstance(reading, int) else f"{reading:f}"


def _log_script(target: str, generator: random.Random) -> list[tuple[float, LogMessage]]:
    """What the pod says, and at which fraction of its run; 1 is after its last data point."""
    script = [
        (0.0, LogMessage("NOTE", f"Connected to {target}")),
        (0.0, LogMessage("INFO", "punching boot_sem")),
        (0.02, LogMessage("DEBUG", "self test: all sensors answer")),
        (0.1, LogMessage("NOTE", "state change: boot -> ready")),
        (0.11, LogMessage("INFO", "skates: solenoids open, levitating")),
        (0.25, LogMessage("NOTE", "state change: ready -> pushing")),
        (0.5, LogMessage("NOTE", "state change: pushing -> coasting")),
        (0.5, LogMessage("INFO", "pusher released")),
        (0.75, LogMessage("NOTE", "state change: coasting -> braking")),
        (0.76, LogMessage("INFO", "brakes: both calipers closed")),
        (1.0, LogMessage("NOTE", "standstill, closing telemetry")),
    ]
    # Moments that differ from pod to pod, as the odd things of a real run do.
    script += [
        (generator.uniform(0.03, 0.7), LogMessage("DEBUG", f"control loop late by {generator.randint(20, 900)} us")),
        (generator.uniform(0.3, 0.7), LogMessage("WARN", f"skate {generator.randint(1, 4)}: ride height unsteady")),
        (generator.uniform(0.3, 0.7), LogMessage("ERROR", f"imu {generator.randint(1, 2)}: checksum, sample skipped")),
    ]
    return sorted(script, key=lambda moment: moment[0])
