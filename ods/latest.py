"""What every value of every pod is now, and was in the last minutes: for the live page, which works without InfluxDB.

Taking values in costs one `dict.update` a chunk, and less for a small piece; they are sampled twice a second, and more
rarely where there are so many that it would take more than a fiftieth of the hub's time. A value that changes faster is
seen as it stood at each sample. Nothing here is ever waited for, and nothing is lost by losing it: InfluxDB, the buffer
and the recordings have every value.
"""

import math
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import gevent

from ods.data_points import DataPoints
from ods.protocol import LogMessage, Record
from ods.supervisor import Supervisor

#: How often values are sampled, where that is cheap. Seconds.
STEP_SECONDS = 0.5
#: Sampling may take this part of the hub's time.
SHARE = 0.02
#: How long it may keep the hub before others have their turn. Seconds.
SLICE_SECONDS = 0.002
#: How many samples of a value are kept: five minutes' worth.
SAMPLES = 600
#: So many values have a history; further ones are shown as of now alone. Sixteen megabytes in all.
MAX_HISTORIES = 3000
#: So many pods are remembered; beyond it the one is forgotten that has been silent longest.
MAX_PODS = 2000
#: How often it is looked for histories that are all empty by now. Ticks.
FORGET_TICKS = 120
#: A log message is decoded this long after it was received, at most. Ticks.
UNDECODED_TICKS = 2
#: A frame or a history holds at most this many values of a pod.
SHOWN_NAMES = 300
#: So many log messages of a pod are remembered, each cut to so many characters.
LOG_MESSAGES = 50
TEXT_CHARACTERS = 200

#: So many small pieces of a pod wait to be looked at: a pod that sends in bursts begins anew after a few.
ROWS = 16

#: A name, and its samples, the oldest first.
Series = tuple[str, list[float | None]]


class LatestOfPod:
    """The values and the last words of one pod."""

    def __init__(self) -> None:
        #: What has come in since the last sample: numbers as text, by name.
        self._fresh: dict[str, str] = {}
        #: What came after that in small pieces, not looked at yet: rows, by their names. Of pieces with the same names
        #: only the last one counts.
        self._rows: dict[str, bytes] = {}
        #: By name: the value, the time of its sample in nanoseconds, and the number of the tick.
        self.values: dict[str, tuple[float, int, int]] = {}
        self.histories: dict[str, _History] = {}
        #: Time in nanoseconds, level, text; the newest last.
        self.log: deque[tuple[int, str | None, str]] = deque(maxlen=LOG_MESSAGES)

    def take(self, records: Iterable[Record], times: Sequence[str]) -> None:
        """Note what has come in."""
        self._look_at_rows()
        at = 0
        for record in records:
            if isinstance(record, DataPoints):
                self._fresh.update(zip(record.names, record.values, strict=True))
                at += len(record)
            else:
                if isinstance(record, LogMessage):
                    self.log.append((int(times[at]), record.level, record.message[:TEXT_CHARACTERS]))
                at += 1

    def take_rows(self, names: str, rows: bytes) -> None:
        """Note what has come in, given as rows of a recording of data points of these names (`ods.recording`)."""
        if self._rows.pop(names, None) is None and len(self._rows) >= ROWS:
            self._look_at_rows()
        self._rows[names] = rows

    def take_fresh(self) -> dict[str, str]:
        """What has come in since this was asked last: numbers as text, by name."""
        self._look_at_rows()
        fresh, self._fresh = self._fresh, {}
        return fresh

    def _look_at_rows(self) -> None:
        if self._rows:
            fields = b"".join(self._rows.values()).decode().replace("\n", ",").split(",")
            self._fresh.update(zip(fields[1::3], fields[2::3], strict=True))
            self._rows.clear()

    def last_words(self, count: int, *, after_ns: int = 0) -> list[dict[str, Any]]:
        """The last log messages, the newest first."""
        newest = [message for message in self.log if message[0] > after_ns][: -count - 1 : -1]
        return [{"time_ns": time_ns, "level": level, "text": text} for time_ns, level, text in newest]


class _History:
    """The samples of one value: a ring with a place for every tick, a NaN where nothing came."""

    def __init__(self) -> None:
        self._samples = array("d", [math.nan]) * SAMPLES
        self.tick = 0

    def note(self, tick: int, value: float) -> None:
        for missed in range(max(self.tick + 1, tick - SAMPLES), tick):
            self._samples[missed % SAMPLES] = math.nan
        self._samples[tick % SAMPLES] = value
        self.tick = tick

    def copy(self) -> "_History":
        """One that stays as it is."""
        copy = _History.__new__(_History)
        copy._samples, copy.tick = self._samples[:], self.tick
        return copy

    def until(self, tick: int) -> list[float | None]:
        """The samples up to this tick, the oldest first, from the first that there is."""
        oldest = max(tick - SAMPLES + 1, 1)
        samples = [self._samples[at % SAMPLES] if at <= self.tick else math.nan for at in range(oldest, tick + 1)]
        first = next((at for at, sample in enumerate(samples) if sample == sample), len(samples))
        return [sample if sample == sample else None for sample in samples[first:]]


class LatestValues:
    """The latest of all pods, and the greenlet that samples it."""

    def __init__(self, *, now_ns: Callable[[], int], beyond: Callable[[str], dict[str, Any]] = lambda pod: {}) -> None:
        self._now_ns = now_ns
        #: By name, what of a pod's values is beyond its limits (`ods.limit_watch`).
        self._beyond = beyond
        #: In the order of their last samples.
        self._pods: dict[str, LatestOfPod] = {}
        self._histories = 0
        #: How many times all was sampled, and when each of the last times was, in nanoseconds.
        self.tick = 0
        self._times_ns = array("q", [0]) * SAMPLES
        self.step_seconds = STEP_SECONDS

    def take(self, pod: str, records: Iterable[Record], times: Sequence[str]) -> None:
        """Note what has come in from a pod."""
        (self._pods.get(pod) or self._begin(pod)).take(records, times)

    def take_rows(self, pod: str, names: str, rows: bytes) -> None:
        """Note what has come in from a pod in a small piece: data points of these names, as rows of a recording.

        `names`: in their order, with commas between.

        To enter each value of each of a thousand pods by itself takes several times as long as to keep these bytes:
        neither the values nor the memory that those before them leave are in any cache.
        """
        (self._pods.get(pod) or self._begin(pod)).take_rows(names, rows)

    def _begin(self, pod: str) -> LatestOfPod:
        if len(self._pods) >= MAX_PODS:
            self._histories -= len(self._pods.pop(next(iter(self._pods))).histories)
        latest = self._pods[pod] = LatestOfPod()
        return latest

    def last_words(self, pod: str, count: int) -> list[dict[str, Any]]:
        """The last log messages of a pod, the newest first."""
        latest = self._pods.get(pod)
        return latest.last_words(count) if latest is not None else []

    def start(self, supervisor: Supervisor) -> None:
        """Begin to sample."""
        supervisor.spawn("latest values", self._run)

    def _run(self) -> None:
        while True:
            gevent.sleep(self.step_seconds)
            self.step_seconds = max(STEP_SECONDS, self.sample(pause=lambda: gevent.sleep(0)) / SHARE)

    def sample(self, *, pause: Callable[[], None] = lambda: None) -> float:
        """Take a sample of everything that has come in; returns the processor time that it took, in seconds."""
        tick, time_ns, cost_seconds = self.tick + 1, self._now_ns(), 0.0
        began = time.thread_time()
        for name, pod in list(self._pods.items()):
            if fresh := pod.take_fresh():
                self._sample(pod, fresh, tick, time_ns)
                self._pods[name] = self._pods.pop(name, pod)
            if (seconds := time.thread_time() - began) > SLICE_SECONDS:
                cost_seconds += seconds
                pause()
                began = time.thread_time()
        if tick % FORGET_TICKS == 0:
            self._forget_empty_histories(tick)
        self.tick, self._times_ns[tick % SAMPLES] = tick, time_ns
        return cost_seconds + time.thread_time() - began

    def _sample(self, pod: LatestOfPod, fresh: Mapping[str, str], tick: int, time_ns: int) -> None:
        for name, number in fresh.items():
            value = float(number)
            pod.values[name] = (value, time_ns, tick)
            history = pod.histories.get(name)
            if history is None:
                if self._histories >= MAX_HISTORIES:
                    continue
                self._histories += 1
                history = pod.histories[name] = _History()
            history.note(tick, value)

    def _forget_empty_histories(self, tick: int) -> None:
        for pod in self._pods.values():
            pod.histories = {name: kept for name, kept in pod.histories.items() if kept.tick > tick - SAMPLES}
        self._histories = sum(len(pod.histories) for pod in self._pods.values())

    def frame(self, pod: str, *, since: int, match: str) -> dict[str, Any]:
        """The values of a pod that came after the tick `since`, and its last words since about then.

        `match`: a part of the names.
        """
        latest = self._pods.get(pod) or LatestOfPod()
        names, shown = _matching(latest.values, match)
        return {
            "pod": pod,
            "tick": self.tick,
            "names": names,
            "shown": len(shown),
            "values": {
                name: [value, time_ns]
                for name in shown
                for value, time_ns, tick in (latest.values[name],)
                if tick > since
            },
            "beyond": {name: state for name, state in self._beyond(pod).items() if name in latest.values},
            "log": latest.last_words(LOG_MESSAGES, after_ns=self._time_ns_of(since - UNDECODED_TICKS)),
        }

    def _time_ns_of(self, tick: int) -> int:
        """When this tick was; 0 where that is not known any more."""
        return self._times_ns[tick % SAMPLES] if max(0, self.tick - SAMPLES) < tick <= self.tick else 0

    def history(self, pod: str, *, match: str) -> dict[str, Any]:
        """The last minutes of a pod's values; each series ends with the last of the times, but may begin later."""
        history, series = self.history_by_parts(pod, match=match)
        return {**history, "series": dict(series)}

    def history_by_parts(self, pod: str, *, match: str) -> tuple[dict[str, Any], Iterator[Series]]:
        """The same without its series, and these as of now, each made when it is asked for.

        To make three hundred of them takes tens of milliseconds, for which nobody may hold up the hub.
        """
        latest, tick = self._pods.get(pod) or LatestOfPod(), self.tick
        _, shown = _matching(latest.values, match)
        histories = [(name, latest.histories[name].copy()) for name in shown if name in latest.histories]
        history = {
            "pod": pod,
            "step_seconds": self.step_seconds,
            "end_ns": self._times_ns[tick % SAMPLES],
            "times_ns": [self._times_ns[at % SAMPLES] for at in range(max(tick - SAMPLES + 1, 1), tick + 1)],
        }
        return history, ((name, kept.until(tick)) for name, kept in histories)


def _matching(values: Iterable[str], match: str) -> tuple[int, list[str]]:
    """How many names match, and those of them that are shown, in their order."""
    wanted = match.lower()
    names = sorted(name for name in values if wanted in name.lower())
    return len(names), names[:SHOWN_NAMES]
