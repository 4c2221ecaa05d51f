"""Watches every value that pods send against the limits of the sensor file, and tells of each crossing, once.

A crossing is an event of its pod (`limit_crossed`, `limit_cleared`) with the time of the very value, and a line in the
log. What crosses its limits again and again, as a loose cable makes a value do, is told `BURST` times; further
crossings are counted, and told together each `PAUSE_SECONDS`, with where the value stands then: no log fills up.

Best effort, like all events: what a recovery stores of a crash is not looked at, and a process that takes over begins
with every value inside its limits, so that it tells anew of one that is not.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent

from ods.limits import SEVERITIES, Crossing, LevelsOf, LimitsOfPod, Watched
from ods.pods import Pod
from ods.protocol import Record
from ods.sensors import Sensors
from ods.supervisor import Supervisor

log = logging.getLogger(__name__)

#: So many crossings of one name of a pod are told one by one, for each severity apart;
BURST = 10
#: after this time there is one more. Seconds.
PAUSE_SECONDS = 10.0
#: How often it is looked whether held back ones can be told. Seconds.
STEP_SECONDS = 1.0
#: What was beyond a limit so lately is still shown as such: a spike is over before anybody looks. Seconds.
RECENT_SECONDS = 10.0
#: So many names of a pod are told of one by one in its status.
LISTED = 20

#: Notes an event of a pod, with its time in nanoseconds.
Emit = Callable[[Pod, str, str, int], Any]


class LimitWatch:
    """All pods. Belongs to the hub; `take` never waits."""

    def __init__(
        self, sensors: Sensors, *, emit: Emit, now_ns: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._watched = Watched(sensors)
        self._emit = emit
        self._now_ns = now_ns
        self._clock = clock
        self._pods: dict[str, _WatchedPod] = {}

    def start(self, supervisor: Supervisor) -> None:
        """Begin to tell of what was held back."""
        if self._watched.levels:
            supervisor.spawn("limits", self._run)

    def take(self, pod: Pod, records: Iterable[Record], times: Sequence[str]) -> None:
        """Look at what has come in from a pod."""
        if not self.watches(pod):
            return
        watched = self._pods[pod.name]
        for crossing in watched.limits.look(records, times):
            watched.note(crossing)
            if watched.may_tell(crossing, self._clock()):
                self._tell(watched, crossing)
            else:
                watched.hold_back(crossing)

    def watches(self, pod: Pod) -> bool:
        """Whether a pod has ever used a name that has limits; of one that has not, no value need be looked at."""
        if not self._watched.levels:
            return False
        watched = self._pods.get(pod.name)
        if watched is None:
            watched = self._pods[pod.name] = _WatchedPod(pod, self._watched)
        return watched.has_any_limited()

    def tell_held_back(self) -> None:
        """Tell of what was held back for long enough."""
        for watched in self._pods.values():
            for crossing, times in list(watched.held_back.values()):
                if watched.may_tell(crossing, self._clock()):
                    watched.held_back[crossing.name] = crossing, times - 1  # but for this one
                    self._tell(watched, crossing)

    def beyond(self, pod: Pod) -> dict[str, Any]:
        """How many names of a pod are beyond their limits, and the worst of them; none of a pod that is gone."""
        watched = self._pods.get(pod.name) if pod.connections else None
        crossings = list(watched.limits.beyond.values()) if watched is not None else []
        counts = {name: sum(crossing.severity_now == name for crossing in crossings) for name in SEVERITIES[1:]}
        worst = sorted(crossings, key=lambda crossing: (-abs(crossing.level), crossing.name))[:LISTED]
        return {**counts, "names": [self._state(crossing) for crossing in worst]}

    def shown(self, pod: str) -> dict[str, Any]:
        """By name, what is beyond a limit of a pod's values, and what was a moment ago (`cleared_ns` is not null)."""
        watched = self._pods.get(pod)
        if watched is None:
            return {}
        watched.forget_before(self._now_ns() - int(RECENT_SECONDS * 1e9))
        recent = {name: {**self._state(was), "cleared_ns": cleared} for name, (was, cleared) in watched.recent.items()}
        return recent | {name: self._state(crossing) for name, crossing in watched.limits.beyond.items()}

    def _run(self) -> None:
        while True:
            gevent.sleep(STEP_SECONDS)
            self.tell_held_back()

    def _state(self, crossing: Crossing) -> dict[str, Any]:
        levels = self._watched.levels[crossing.name]
        return {
            "name": crossing.name,
            "severity": crossing.severity_now,
            "side": crossing.side,
            "limit": levels.limit(crossing.level),
            "unit": levels.sensor.unit,
            "since_ns": crossing.time_ns,
            "cleared_ns": None,
        }

    def _tell(self, watched: "_WatchedPod", crossing: Crossing) -> None:
        detail = told(crossing, self._watched.levels[crossing.name])
        _, times = watched.held_back.pop(crossing.name, (crossing, 0))
        if times:
            detail += f"; before that it crossed its limits {times} times more"
        event = "limit_crossed" if crossing.is_worse else "limit_cleared"
        self._emit(watched.pod, event, detail, crossing.time_ns)
        if not crossing.is_worse:
            log.info("limit: pod %s: %s", watched.pod.name, detail)
        elif abs(crossing.level) > 1:
            log.error("limit: pod %s: %s", watched.pod.name, detail)
        else:
            log.warning("limit: pod %s: %s", watched.pod.name, detail)


def told(crossing: Crossing, levels: LevelsOf) -> str:
    """A crossing for people: `accel_x 12.3 above danger 10 m/s²`."""
    what, was = _limit(crossing.level, levels), _limit(crossing.before, levels)
    value = f"{crossing.name} {crossing.number:.7g}"
    if crossing.is_worse:
        return f"{value} {what}"
    if crossing.level:
        return f"{value} no longer {was}, but {what}"
    return f"{value} inside its limits again; it was {was}"


def _limit(level: int, levels: LevelsOf) -> str:
    limit, unit = levels.limit(level), levels.sensor.unit
    if limit is None:
        return ""
    return f"{'above' if level > 0 else 'below'} {SEVERITIES[abs(level)]} {limit:.7g}{f' {unit}' if unit else ''}"


class _WatchedPod:
    """One pod: its levels, and what was told of them."""

    def __init__(self, pod: Pod, watched: Watched) -> None:
        self.pod = pod
        self.limits = LimitsOfPod(watched)
        #: By name: the worst since it was inside its limits.
        self._worst: dict[str, Crossing] = {}
        #: By name: the worst of the last time that it was beyond them, and when it came back.
        self.recent: dict[str, tuple[Crossing, int]] = {}
        #: By name: the last crossing that was not told, and how many there were.
        self.held_back: dict[str, tuple[Crossing, int]] = {}
        #: By name and severity: how many may be told at once, and when that was so.
        self._left: dict[tuple[str, str], tuple[float, float]] = {}
        self._names = watched.levels
        #: How many names it had used, and whether any of them has limits.
        self._known = 0, False

    def has_any_limited(self) -> bool:
        """See `LimitWatch.watches`."""
        used, has_any = self._known
        if not has_any and used != len(self.pod.names):
            has_any = self.pod.names.has_any(self._names)
            self._known = len(self.pod.names), has_any
        return has_any

    def note(self, crossing: Crossing) -> None:
        """Remember the worst, and for a while what came back."""
        if not crossing.level:
            self.recent[crossing.name] = self._worst.pop(crossing.name), crossing.time_ns
        elif abs(crossing.level) >= abs(self._worst.get(crossing.name, crossing).level):
            self._worst[crossing.name] = crossing

    def forget_before(self, time_ns: int) -> None:
        """Forget what came back before this time."""
        self.recent = {name: kept for name, kept in self.recent.items() if kept[1] > time_ns}

    def may_tell(self, crossing: Crossing, now: float) -> bool:
        """Whether it may be told now; it counts as told then."""
        key = crossing.name, crossing.severity
        left, at = self._left.get(key, (float(BURST), now))
        left = min(BURST, left + (now - at) / PAUSE_SECONDS)
        self._left[key] = (left - 1 if left >= 1 else left), now
        return left >= 1

    def hold_back(self, crossing: Crossing) -> None:
        """Keep it to be told later."""
        _, times = self.held_back.get(crossing.name, (crossing, 0))
        self.held_back[crossing.name] = crossing, times + 1
