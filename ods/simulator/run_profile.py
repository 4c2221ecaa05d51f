"""The physics of one run of a hyperloop pod: what its sensors read at any moment of it.

It exists so that a simulated run looks like a run: the pod boots, becomes ready, is pushed, coasts and brakes, and
position, speed and acceleration belong together at every moment. Pure: the noise comes in as an argument, so the same
noise gives the same readings. Every reading is finite.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: A draw between -1 and 1.
Noise = Callable[[], float]
#: Integers are sent with %d, floats with %f.
Reading = int | float

#: Metres of tube that a run may use, and the mean acceleration (m/s^2) of the push: the tighter one sets the top speed.
TUBE_METRES = 1250.0
PUSH_METRES_PER_SECOND_SQUARED = 6.0
#: Reflective stripes along the tube, 100 feet apart, that a pod counts.
STRIPE_METRES = 30.48
GRAVITY_METRES_PER_SECOND_SQUARED = 9.81
#: Times a second that the controller's loop turns.
LOOP_HERTZ = 1000


class State(enum.IntEnum):
    """The states of a pod, as it sends them."""

    BOOT = 0
    READY = 1
    PUSHING = 2
    COASTING = 3
    BRAKING = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """A part of the run: its begin and end as fractions of the run, its speeds as fractions of the top speed."""

    state: State
    begin: float
    end: float
    speed_from: float
    speed_to: float

    @property
    def mean_speed(self) -> float:
        return (self.speed_from + self.speed_to) / 2


LEGS = (
    Leg(state=State.BOOT, begin=0.0, end=0.1, speed_from=0.0, speed_to=0.0),
    Leg(state=State.READY, begin=0.1, end=0.25, speed_from=0.0, speed_to=0.0),
    Leg(state=State.PUSHING, begin=0.25, end=0.5, speed_from=0.0, speed_to=1.0),
    Leg(state=State.COASTING, begin=0.5, end=0.75, speed_from=1.0, speed_to=0.95),
    Leg(state=State.BRAKING, begin=0.75, end=1.0, speed_from=0.95, speed_to=0.0),
)
#: The distance of a run, as a fraction of what the top speed would cover in its time.
_DISTANCE_FRACTION = sum(leg.mean_speed * (leg.end - leg.begin) for leg in LEGS)
_PUSH_FRACTION = sum(leg.end - leg.begin for leg in LEGS if leg.state is State.PUSHING)
_CURRENT_AMPERES = {State.BOOT: 4.0, State.READY: 9.0, State.PUSHING: 24.0, State.COASTING: 21.0, State.BRAKING: 14.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """Where the pod is on its way, in metres and seconds; progress is the fraction of the run that is over."""

    state: State
    elapsed_seconds: float
    progress: float
    top_speed: float
    position: float
    speed: float
    acceleration: float

    @property
    def is_levitating(self) -> bool:
        return self.state is not State.BOOT

    @property
    def is_braking(self) -> bool:
        return self.state is State.BRAKING


def top_speed(duration_seconds: float) -> float:
    """The highest speed (m/s) of a run of this length: within the tube, and within what the pusher can do."""
    by_tube = TUBE_METRES / (_DISTANCE_FRACTION * duration_seconds)
    by_pusher = PUSH_METRES_PER_SECOND_SQUARED * _PUSH_FRACTION * duration_seconds
    return min(by_tube, by_pusher)


def motion_at(elapsed_seconds: float, *, duration_seconds: float) -> Motion:
    """The pod's motion at a moment of a run; before its begin and after its end the pod stands."""
    progress = min(max(elapsed_seconds / duration_seconds, 0.0), 1.0)
    speed_unit = top_speed(duration_seconds)
    position = 0.0
    for leg in LEGS:
        seconds = (leg.end - leg.begin) * duration_seconds
        done = min((progress - leg.begin) / (leg.end - leg.begin), 1.0)
        gain = leg.speed_to - leg.speed_from
        # The speed changes along 3u^2 - 2u^3, so the acceleration has no jump; position and acceleration are its
        # integral and its derivative.
        position += speed_unit * seconds * (leg.speed_from * done + gain * (done**3 - done**4 / 2))
        if progress < leg.end or leg is LEGS[-1]:
            break
    return Motion(
        state=leg.state,
        elapsed_seconds=progress * duration_seconds,
        progress=progress,
        top_speed=speed_unit,
        position=position,
        speed=speed_unit * (leg.speed_from + gain * (3 * done**2 - 2 * done**3)),
        acceleration=speed_unit * gain / seconds * 6 * done * (1 - done),
    )


def readings_at(elapsed_seconds: float, *, duration_seconds: float, noise: Noise) -> dict[str, Reading]:
    """Every reading at a moment of a run, by name, in the order in which a pod sends them."""
    motion = motion_at(elapsed_seconds, duration_seconds=duration_seconds)
    readings: dict[str, Reading] = {"state": int(motion.state)}
    for subsystem in (_navigation, _levitation, _brakes, _battery, _controller):
        readings.update(subsystem(motion, noise))
    return readings


def _navigation(motion: Motion, noise: Noise) -> Iterator[tuple[str, Reading]]:
    shaking = 0.02 + 0.3 * motion.speed / motion.top_speed
    yield "accel_x", motion.acceleration + shaking * noise()
    yield "accel_y", shaking * noise()
    yield "accel_z", GRAVITY_METRES_PER_SECOND_SQUARED + shaking * noise()
    yield "velocity_x", motion.speed + 0.01 * noise()
    yield "velocity_y", 0.01 * shaking * noise()
    yield "velocity_z", 0.01 * shaking * noise()
    yield "position_x", motion.position + 0.005 * noise()
    yield "position_y", 0.001 * noise()
    yield "position_z", 0.001 * noise()
    yield "roll", 0.2 * shaking * noise()
    yield "pitch", 0.05 * motion.acceleration + 0.1 * shaking * noise()
    yield "yaw", 0.1 * shaking * noise()
    yield "stripe_count", int(motion.position / STRIPE_METRES)


def _levitation(motion: Motion, noise: Noise) -> Iterator[tuple[str, Reading]]:
    """Air skates that live on two tanks: pressures in bar, heights in millimetres, temperatures in Celsius."""
    used = max(motion.progress - 0.1, 0.0)
    for tank in (1, 2):
        yield f"tank_pressure_{tank}", 200.0 - 90.0 * used + 0.2 * noise()
        # A tank cools while it empties.
        yield f"tank_temperature_{tank}", 22.0 - 14.0 * used + 0.05 * noise()
    for skate in (1, 2, 3, 4):
        yield f"skate_pressure_{skate}", (4.5 if motion.is_levitating else 0.0) + 0.05 * noise()
        yield f"ride_height_{skate}", (1.2 if motion.is_levitating else 0.0) + 0.02 * noise()
    yield "tube_pressure", 0.0086 + 0.0001 * noise()


def _brakes(motion: Motion, noise: Noise) -> Iterator[tuple[str, Reading]]:
    """Pressures in bar, temperatures in Celsius: the brakes take up what the pod loses in energy."""
    entry_speed = LEGS[-1].speed_from * motion.top_speed
    absorbed = 1.0 - (motion.speed / entry_speed) ** 2 if motion.is_braking else 0.0
    for brake in (1, 2):
        yield f"brake_pressure_{brake}", (38.0 if motion.is_braking else 1.0) + 0.1 * noise()
        yield f"brake_temperature_{brake}", 22.0 + 140.0 * absorbed + 0.2 * noise()
    yield "brakes_engaged", int(motion.is_braking)


def _battery(motion: Motion, noise: Noise) -> Iterator[tuple[str, Reading]]:
    """Volts, amperes, percent, Celsius: the voltage sags with the current and with the charge that is gone."""
    charge_percent = 98.0 - 30.0 * motion.progress
    current_amperes = _CURRENT_AMPERES[motion.state] + 0.3 * noise()
    yield "battery_voltage", 46.0 + 0.06 * charge_percent - 0.03 * current_amperes
    yield "battery_current", current_amperes
    yield "battery_charge", charge_percent
    yield "battery_temperature", 24.0 + 9.0 * motion.progress**2 + 0.05 * noise()


def _controller(motion: Motion, noise: Noise) -> Iterator[tuple[str, Reading]]:
    yield "controller_temperature", 41.0 + 6.0 * motion.progress + 0.1 * noise()
    yield "loop_count", int(motion.elapsed_seconds * LOOP_HERTZ)
