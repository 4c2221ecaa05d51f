"""What is decoded as one piece gives each pod the same chunks as if it were alone."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ods import together
from ods.admission import Admission
from ods.chunk import Chunk
from ods.clock import Clock
from ods.intake import ALONE_SECONDS, Intake
from ods.latency import Latency
from ods.latest import LatestValues
from ods.ledger import Ledger
from ods.limit_watch import LimitWatch
from ods.pods import Pods
from ods.sensors import Sensor, Sensors
from ods.tape import Tape

NOW_NS = 1_790_000_000_000_000_000
NAMES = ("accel_x", "speed", "gap", "brake")


class Fleet:
    """Pods with a connection each, or one with several, and all that they have read in the test's hands."""

    def __init__(self, count: int, *, max_names: int = 100, are_one_pod: bool = False) -> None:
        self.now_ns = NOW_NS
        self.chunks: list[Chunk] = []
        self.expected: dict[Intake, None] = {}
        self.crossings: list[tuple[Any, ...]] = []
        self.ledger = Ledger()
        self.clock = Clock(wall_ns=lambda: self.now_ns, monotonic_ns=lambda: self.now_ns)
        self.latest = LatestValues(now_ns=lambda: self.now_ns)
        limits = LimitWatch(
            Sensors({"speed": Sensor(warning_high=10.0)}),
            emit=lambda pod, *event: self.crossings.append((pod.name, *event)),
            now_ns=lambda: self.now_ns,
        )
        pods = Pods({}, max_names=max_names)
        self.tapes = [Tape(Tape.make()) for _ in range(count)]
        self.intakes = [
            Intake(
                pod=pods.at(f"10.0.0.{1 if are_one_pod else number + 1}"),
                clock=self.clock,
                ledger=self.ledger,
                admission=Admission(),
                onward=self,
                reply=lambda replies: None,
                latest=self.latest,
                limits=limits,
                replying=Latency(),
                tape=tape,
            )
            for number, tape in enumerate(self.tapes)
        ]

    def put(self, chunk: Chunk) -> None:
        """Take a chunk over, in the batcher's place."""
        self.chunks.append(chunk)

    def expect(self, intake: Intake, size_bytes: int, *, urgent: bool) -> None:
        """Be told, in the batcher's place, of bytes that wait to be decoded."""
        self.expected[intake] = None

    def read(self, reads: Sequence[tuple[int, bytes]]) -> None:
        """Let connections read, one after the other."""
        for number, data in reads:
            self.now_ns += 1_000
            self.intakes[number % len(self.intakes)].receive(data)

    def begin_batch(self, *, is_together: bool) -> None:
        """Have decoded what was read."""
        expected, self.expected = self.expected, {}
        if is_together:
            together.flush(expected)
        else:
            for intake in expected:
                intake.flush()

    def seen(self) -> dict[str, Any]:
        """All that came of it: what each pod's chunks hold, in their order, and what was counted and noted."""
        self.latest.sample()
        pods = {intake.pod.name: intake.pod for intake in self.intakes}
        return {
            "chunks": {name: [_parts(chunk) for chunk in self.chunks if chunk.pod == name] for name in pods},
            "counts": {name: self.ledger.of(name).as_dict() for name in pods},
            "names": {name: (len(pod.names), pod.names.refused, pod.latest_ns) for name, pod in pods.items()},
            "values": {name: self.latest.frame(name, since=0, match="") for name in pods},
            "crossings": sorted(self.crossings),
            "notes": [tape.notes() for tape in self.tapes],
            "held": [intake.oldest_ns for intake in self.intakes],
        }


def _parts(chunk: Chunk) -> tuple[Any, ...]:
    replies = [(text, lines) for text, lines in chunk.replies]
    return (
        chunk.lines,
        chunk.data_rows,
        chunk.log_rows,
        chunk.points,
        chunk.first_ns,
        chunk.last_ns,
        replies,
        chunk.mark,
    )


_numbers = st.one_of(
    st.floats(-1e6, 1e6).map(lambda value: f"{value:f}"),
    st.integers(-(10**10), 10**10).map(str),
    st.sampled_from(["1e5", "nan", "1e999", "0.000012", "-0.0", ".5", "12.345678901"]),
)
_good = st.builds(lambda name, value: f"POD2{name} {value:f}\n".encode(), st.sampled_from(NAMES), st.floats(-1e6, 1e6))
_any = st.one_of(
    _good,
    st.builds(lambda name, number: f"POD2{name} {number}\n".encode(), st.sampled_from(NAMES), _numbers),
    st.sampled_from([b"POD1[NOTE]  hi\n", b"POD1[WARN]  x", b"\n", b"what\n", b"POD2speed", b" 7.5\n", b"\xff\n"]),
)
_reads = st.one_of(
    *(
        st.lists(st.tuples(st.integers(0, 4), st.lists(lines, min_size=1, max_size=8).map(b"".join)), max_size=12)
        for lines in (_good, _any)
    )
)


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 5), st.lists(_reads, min_size=1, max_size=3), st.sampled_from([2, 3, 100]))
@example(2, [[(0, b"POD2speed"), (0, b" 7.5\n"), (1, b"POD2speed 1.5\n")]], 100)
def test_pods_that_are_decoded_together_get_what_each_gets_alone(
    count: int, batches: list[list[tuple[int, bytes]]], max_names: int
) -> None:
    fleets = [Fleet(count, max_names=max_names) for _ in range(2)]
    for reads in batches:
        for fleet, is_together in zip(fleets, (True, False), strict=True):
            fleet.read(reads)
            fleet.begin_batch(is_together=is_together)
    assert fleets[0].seen() == fleets[1].seen()


def test_good_lines_of_many_pods_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test before would compare a thing to itself."""
    fleet = Fleet(3)
    monkeypatch.setattr(Intake, "flush", lambda intake: pytest.fail("an intake was flushed by itself"))
    fleet.read([(0, b"POD2speed 1.5\n"), (1, b"POD2gap 2.5\nPOD2speed 3.5\n"), (2, b"POD2brake 1.0\n")])
    fleet.begin_batch(is_together=True)
    assert [chunk.points for chunk in fleet.chunks] == [1, 2, 1]


def test_two_connections_of_one_pod_share_its_times() -> None:
    fleet = Fleet(2, are_one_pod=True)
    fleet.read([(0, b"POD2speed 1.5\nPOD2speed 2.5\n"), (1, b"POD2speed 3.5\n"), (0, b"POD2speed 4.5\n")])
    fleet.begin_batch(is_together=True)
    times = [int(line.split()[-1]) for chunk in fleet.chunks for line in chunk.lines.splitlines()]
    assert len(set(times)) == 4


def test_a_pod_that_sends_other_lines_does_not_keep_the_others_apart_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(3)
    reads = [(number, b"POD2speed 1.5\n") for number in range(3)]
    fleet.read([(0, b"POD1[NOTE]  hi\n"), *reads[1:]])
    fleet.begin_batch(is_together=True)
    alone: list[Intake] = []
    flush = Intake.flush
    monkeypatch.setattr(Intake, "flush", lambda intake: (alone.append(intake), flush(intake)))
    fleet.read(reads)
    fleet.begin_batch(is_together=True)
    assert alone == [fleet.intakes[0]], "the pod that sent a message is not left alone, or others are too"
    fleet.intakes[0]._alone_until -= ALONE_SECONDS
    fleet.read(reads)
    fleet.begin_batch(is_together=True)
    assert alone == [fleet.intakes[0]]
    assert sum(chunk.points for chunk in fleet.chunks) == 9
