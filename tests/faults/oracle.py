"""What pods sent, what ODS said OK to and had recorded, held against what InfluxDB has.

Every record tells by its value (or its text) which record of which pod it is. So one that is lost, that is there twice,
or that is not what was sent, shows, and so does the stretch (the fault, the life of ODS) in which it was sent.
"""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.influx_server import Points
from harness.oracle import NAMES, POD_STRIDE, STEP, Record

#: Every so many records one is a log message.
MESSAGE_EVERY = 50
#: Log messages of every pod, in the order of time, as time, level and text.
Messages = Mapping[str, Sequence[tuple[int, str, str]]]
#: A record by its pod and its number.
Identity = tuple[str, int]

#: A row of a recording: the pod, the record that it is (None: of none that was sent), and what it says.
Recorded = tuple[str, Identity | None, str]

#: The reply to a record that neither store could keep.
REFUSED = b"ERROR: Not Stored"
_MESSAGE = re.compile(r"(?:\[INFO\]  )?message (\d+) of (\d+), together (\d+)")


@dataclass
class Stretch:
    """Records that were sent one after another by all pods, in which something happened to ODS."""

    firsts: dict[str, int]
    ends: dict[str, int] = field(default_factory=dict)

    def holds(self, pod: str, number: int) -> bool:
        """Whether this record was sent in it."""
        return self.firsts[pod] <= number < self.ends[pod]

    def count(self, only: Mapping[str, Set[int]] | None = None) -> int:
        """How many records were sent in it, or how many of them are among these."""
        numbers = {pod: range(first, self.ends[pod]) for pod, first in self.firsts.items()}
        if only is None:
            return sum(map(len, numbers.values()))
        return sum(len(only[pod] & set(numbers[pod])) for pod in numbers)


class Problem(NamedTuple):
    """A record that is not in InfluxDB as it was sent; `kind` is lost, doubled, wrong or unrecovered."""

    kind: str
    pod: str
    number: int
    what: str


@dataclass
class Verdict:
    """What the oracle found."""

    problems: list[Problem] = field(default_factory=list)

    def count(self, *kinds: str) -> int:
        """How many records have problems of these kinds, each counted once."""
        return len({(found.pod, found.number, found.what) for found in self.problems if found.kind in kinds})

    def describe(self) -> list[str]:
        """One line for each kind of problem and pod."""
        groups: dict[tuple[str, str], list[Problem]] = {}
        for problem in self.problems:
            groups.setdefault((problem.kind, problem.pod), []).append(problem)
        return [
            f"{len(found)} {kind} of {pod}: records {[one.number for one in found[:10]]}, {found[0].what}"
            for (kind, pod), found in groups.items()
        ]

    def within(self, stretch: Stretch) -> "Verdict":
        """What of it was sent in a stretch."""
        return Verdict([problem for problem in self.problems if stretch.holds(problem.pod, problem.number)])


class Oracle:
    """Makes the records of its pods, and judges what became of them. A pod is used by one thread at a time."""

    def __init__(self, pods: Sequence[str]) -> None:
        self.pods = list(pods)
        self.acknowledged: dict[str, set[int]] = {pod: set() for pod in pods}
        #: Records that ODS had written to its recordings when it was killed.
        self.recorded: dict[str, set[int]] = {pod: set() for pod in pods}
        #: Records that ODS refused: neither store took them.
        self.refused: dict[str, set[int]] = {pod: set() for pod in pods}
        self._sent: dict[str, int] = dict.fromkeys(pods, 0)
        self._wrong: list[Problem] = []

    def next_lines(self, pod: str, count: int) -> list[bytes]:
        """Return the next lines of a pod, and count them as sent."""
        first = self._sent[pod]
        self._sent[pod] += count
        return [self._line(pod, number) for number in range(first, first + count)]

    def sent_count(self, pod: str | None = None) -> int:
        """How many records a pod, or all of them, sent."""
        return self._sent[pod] if pod is not None else sum(self._sent.values())

    def acknowledged_count(self) -> int:
        """How many records ODS said OK to, as far as the pods read it."""
        return sum(map(len, self.acknowledged.values()))

    def begin_stretch(self) -> Stretch:
        """Begin a stretch with the next records."""
        return Stretch(dict(self._sent))

    def end_stretch(self, stretch: Stretch) -> None:
        """The next records are no longer of it."""
        stretch.ends = dict(self._sent)

    def take_replies(self, pod: str, replies: Sequence[bytes], *, first: int) -> None:
        """Take in the replies to the records of a pod from `first` on; they come in the order of the records."""
        for number, reply in enumerate(replies, start=first):
            if reply == self._reply(pod, number):
                self.acknowledged[pod].add(number)
            elif reply == REFUSED:
                self.refused[pod].add(number)
            else:
                self._wrong.append(Problem("wrong", pod, number, f"was answered {reply!r}"))

    def take_recorded(self, rows: Iterable[Recorded]) -> None:
        """Note what the recordings held after a kill."""
        for pod, identity, what in rows:
            if identity is not None and identity[0] == pod:
                self.recorded[pod].add(identity[1])
            else:
                self._wrong.append(Problem("wrong", pod, -1, f"recorded, and never sent: {what}"))

    def recorded_count(self) -> int:
        """How many records were found in recordings after kills."""
        return sum(map(len, self.recorded.values()))

    def identify(self, name: str, value: float) -> Identity | None:
        """Tell which record a data point is; None for none that was ever sent."""
        pod_index, rest = divmod(value, POD_STRIDE)
        number = rest / STEP
        if not (0 <= pod_index < len(self.pods) and number.is_integer()):
            return None
        pod = self.pods[int(pod_index)]
        is_sent = number < self._sent[pod] and not _is_message(int(number))
        return (pod, int(number)) if is_sent and self._record(pod, int(number)).name == name else None

    def identify_message(self, text: str) -> Identity | None:
        """Tell which record a log message is; None for none that was ever sent."""
        found = _MESSAGE.fullmatch(text)
        if found is None:
            return None
        number, index, together = map(int, found.groups())
        if number + index != together or not index < len(self.pods) or not _is_message(number):
            return None
        return (self.pods[index], number) if number < self._sent[self.pods[index]] else None

    def judge(self, points: Points, messages: Messages, *, is_all_required: bool) -> Verdict:
        """Compare what InfluxDB has with what was sent.

        Required is all that was sent, or all that was acknowledged (else lost) or recorded (else unrecovered).
        """
        verdict = Verdict(list(self._wrong))
        found = self._found(points, messages, verdict)
        for pod in self.pods:
            times = found[pod]
            if is_all_required:
                _miss(verdict, "lost", pod, set(range(self._sent[pod])) - self.refused[pod] - set(times))
            _miss(verdict, "lost", pod, self.acknowledged[pod] - set(times))
            _miss(verdict, "unrecovered", pod, self.recorded[pod] - set(times))
            _judge_times(verdict, pod, times)
        return verdict

    def _found(self, points: Points, messages: Messages, verdict: Verdict) -> dict[str, dict[int, list[int]]]:
        """For each pod the times under which each record is there; what was never sent goes into the verdict."""
        found: dict[str, dict[int, list[int]]] = {pod: {} for pod in self.pods}

        def take(owner: str, time_ns: int, identity: Identity | None, what: str) -> None:
            if identity is None or identity[0] != owner:
                verdict.problems.append(Problem("wrong", owner, -1, f"never sent: {what} at {time_ns}"))
            else:
                found[owner].setdefault(identity[1], []).append(time_ns)

        for (name, owner), rows in points.items():
            for time_ns, value in rows:
                take(owner, time_ns, self.identify(name, float(value)), f"{name} {value!r}")
        for owner, texts in messages.items():
            for time_ns, level, text in texts:
                take(owner, time_ns, self.identify_message(text) if level == "info" else None, f"{level} {text!r}")
        return found

    def _record(self, pod: str, number: int) -> Record:
        return Record(NAMES[number % len(NAMES)], self.pods.index(pod) * POD_STRIDE + number * STEP)

    def _line(self, pod: str, number: int) -> bytes:
        if not _is_message(number):
            return self._record(pod, number).line
        index = self.pods.index(pod)
        return f"POD1[INFO]  message {number} of {index}, together {number + index}\n".encode()

    def _reply(self, pod: str, number: int) -> bytes:
        return b"OK: LOGGED" if _is_message(number) else self._record(pod, number).reply


def _is_message(number: int) -> bool:
    return number % MESSAGE_EVERY == MESSAGE_EVERY - 1


def _miss(verdict: Verdict, kind: str, pod: str, numbers: set[int]) -> None:
    known = {(problem.pod, problem.number) for problem in verdict.problems if problem.kind == kind}
    what = "not in InfluxDB"
    verdict.problems += [Problem(kind, pod, number, what) for number in sorted(numbers) if (pod, number) not in known]


def _judge_times(verdict: Verdict, pod: str, times: Mapping[int, Sequence[int]]) -> None:
    latest_ns = 0
    for number, at in sorted(times.items()):
        if len(at) > 1:
            verdict.problems.append(Problem("doubled", pod, number, f"there at {sorted(at)}"))
        if min(at) <= latest_ns:
            verdict.problems.append(Problem("wrong", pod, number, f"at {min(at)}, not after the one before it"))
        latest_ns = max(latest_ns, min(at))
