"""Which of a pod's values are beyond their limits. Pure: values in, crossings out; every value is looked at.

A name has a level: 0 where all is right, 1 and 2 above its warning and its danger, -1 and -2 below. To each level
belongs a band of values that leave it as it is, so that a chunk in which nothing is crossed, as nearly all are, costs
one comparison a value. Back to a lower level it goes only from some way inside the limit (the hysteresis), so that a
value which trembles about its limit crosses it once.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ods.data_points import DataPoints
from ods.protocol import Record
from ods.sensors import HYSTERESIS_SHARE, Sensor, Sensors

#: What the sizes of a level mean.
SEVERITIES = ("", "warning", "danger")

_Band = tuple[float, float]
#: Of a name that has no limits.
_ALL: _Band = (-math.inf, math.inf)


class Crossing(NamedTuple):
    """A value that changed the level of its name."""

    name: str
    number: float
    time_ns: int
    before: int
    level: int

    @property
    def is_worse(self) -> bool:
        """Whether a limit was crossed outwards; else one was come back from."""
        return abs(self.level) > abs(self.before) or self.level * self.before < 0

    @property
    def severity(self) -> str:
        """That of the worse one of the two levels."""
        return SEVERITIES[max(abs(self.before), abs(self.level))]

    @property
    def severity_now(self) -> str:
        """That of the level that it has led to."""
        return SEVERITIES[abs(self.level)]

    @property
    def side(self) -> str:
        """Beyond which side the value is."""
        return "high" if self.level > 0 else "low" if self.level else ""


class LevelsOf:
    """The limits of one name as levels and bands."""

    def __init__(self, sensor: Sensor) -> None:
        self.sensor = sensor
        warning = _filled(sensor.warning_low, sensor.warning_high)
        danger = _filled(sensor.danger_low, sensor.danger_high)
        self._warning_low, self._warning_high = warning
        self._danger_low, self._danger_high = danger
        normal = max(warning[0], danger[0]), min(warning[1], danger[1])
        # From beyond one limit a value must be able to come back before it is beyond the opposite one.
        most = (normal[1] - normal[0]) / 4
        back = {1: _hysteresis(sensor, warning, most), 2: _hysteresis(sensor, danger, most)}
        self.bands: Mapping[int, _Band] = {
            -2: (-math.inf, danger[0] + back[2]),
            -1: (danger[0], warning[0] + back[1]),
            0: normal,
            1: (warning[1] - back[1], danger[1]),
            2: (danger[1] - back[2], math.inf),
        }

    def level(self, number: float) -> int:
        """The level of a value, whatever was before it."""
        if number > self._danger_high:
            return 2
        if number < self._danger_low:
            return -2
        return (number > self._warning_high) - (number < self._warning_low)

    def limit(self, level: int) -> float | None:
        """The limit beyond which this level begins; None for 0."""
        sensor = self.sensor
        limits = {-2: sensor.danger_low, -1: sensor.warning_low, 1: sensor.warning_high, 2: sensor.danger_high}
        return limits.get(level)


class Watched:
    """All names that have limits, with the bands at which every pod begins."""

    def __init__(self, sensors: Sensors) -> None:
        self.levels = {name: LevelsOf(sensor) for name, sensor in sensors.by_name.items() if sensor.has_limits}
        self.bands = {name: levels.bands[0] for name, levels in self.levels.items()}


class LimitsOfPod:
    """The levels of the names of one pod."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        #: Those of all pods, until this one crosses a limit.
        self._bands: Mapping[str, _Band] = watched.bands
        #: Each name that is beyond a limit, with what brought it there last.
        self.beyond: dict[str, Crossing] = {}

    def look(self, records: Iterable[Record], times: Sequence[str]) -> list[Crossing]:
        """Look at every value; what of it has crossed a limit, in order."""
        crossings: list[Crossing] = []
        at = 0
        for record in records:
            if isinstance(record, DataPoints):
                if not self._bands.keys().isdisjoint(record.names) and self._has_outside(record):
                    crossings += self._cross(record, times[at : at + len(record)])
                at += len(record)
            else:
                at += 1
        return crossings

    def _has_outside(self, points: DataPoints) -> bool:
        """Whether any value leaves the band of its name. As quick as can be: all values go through here."""
        banded = zip(map(self._bands.get, points.names), points.values, strict=True)
        return bool([1 for band, value in banded if band is not None and not band[0] <= float(value) <= band[1]])

    def _cross(self, points: DataPoints, times: Sequence[str]) -> Iterable[Crossing]:
        bands = dict(self._bands)
        self._bands = bands
        for name, value, time in zip(points.names, points.values, times, strict=True):
            low, high = bands.get(name, _ALL)
            if low <= (number := float(value)) <= high:
                continue
            levels, before = self._watched.levels[name], self.beyond.pop(name, None)
            crossing = Crossing(name, number, int(time), before.level if before else 0, levels.level(number))
            bands[name] = levels.bands[crossing.level]
            if crossing.level:
                self.beyond[name] = crossing
            yield crossing


def _filled(low: float | None, high: float | None) -> _Band:
    return -math.inf if low is None else low, math.inf if high is None else high


def _hysteresis(sensor: Sensor, band: _Band, most: float) -> float:
    """How far inside its limit a value has come back."""
    if sensor.hysteresis is not None:
        return sensor.hysteresis
    low, high = band
    span = high - low if math.isfinite(high - low) else max((abs(one) for one in band if math.isfinite(one)), default=0)
    return min(HYSTERESIS_SHARE * span, most)
