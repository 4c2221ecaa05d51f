"""What is told of a crossing: an event with the time of the value, a line in the log, once; and of many, not all."""

import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from ods.data_points import DataPoints
from ods.limit_watch import BURST, LISTED, PAUSE_SECONDS, RECENT_SECONDS, LimitWatch
from ods.pods import Pods
from ods.sensors import Sensor, Sensors

SECOND_NS = 1_000_000_000
ACCEL = Sensor(unit="m/s²", warning_low=-10, warning_high=10, danger_low=-20, danger_high=20, hysteresis=1)
BARE = Sensor(warning_high=5)


@dataclass
class Bench:
    """A watch with its clock and its ears in the test's hands."""

    sensors: Sensors = field(default_factory=lambda: Sensors({"accel_x": ACCEL, "bare": BARE}))
    events: list[tuple[str, str, str, int]] = field(default_factory=list)
    now_seconds: float = 1000.0

    def __post_init__(self) -> None:
        self.pods = Pods({"10.0.0.20": "pod-a", "10.0.0.21": "pod-b"}, max_names=100)
        self.watch = LimitWatch(self.sensors, emit=self._emit, now_ns=self.now_ns, clock=lambda: self.now_seconds)
        self.pods.named("pod-a").connections = 1

    def now_ns(self) -> int:
        return int(self.now_seconds * SECOND_NS)

    def _emit(self, pod: Any, event: str, detail: str, time_ns: int) -> None:
        self.events.append((pod.name, event, detail, time_ns))

    def send(self, *values: float, name: str = "accel_x", pod: str = "pod-a") -> None:
        texts = [repr(float(value)) for value in values]
        self.pods.named(pod).names.admit_all([name])
        times = list(map(str, self.pods.named(pod).take_times(self.now_ns(), len(texts))))
        self.watch.take(self.pods.named(pod), [DataPoints([name] * len(texts), texts, texts)], times)

    def told(self) -> list[str]:
        """What was told since the last look."""
        told = [detail for _, _, detail, _ in self.events]
        self.events.clear()
        return told


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_crossing_is_an_event_of_its_pod_with_the_time_of_the_value(bench: Bench) -> None:
    bench.send(0, 12.3, 12.4, 0)
    assert bench.events == [
        ("pod-a", "limit_crossed", "accel_x 12.3 above warning 10 m/s²", bench.now_ns() + 1),
        (
            "pod-a",
            "limit_cleared",
            "accel_x 0 inside its limits again; it was above warning 10 m/s²",
            bench.now_ns() + 3,
        ),
    ]


@pytest.mark.parametrize(
    ("values", "last"),
    [
        ((25,), "accel_x 25 above danger 20 m/s²"),
        ((-12.5,), "accel_x -12.5 below warning -10 m/s²"),
        ((25, 15), "accel_x 15 no longer above danger 20 m/s², but above warning 10 m/s²"),
        ((25, -15), "accel_x -15 below warning -10 m/s²"),
        ((1e9 / 3,), "accel_x 3.333333e+08 above danger 20 m/s²"),
    ],
)
def test_the_words_name_value_limit_and_unit(bench: Bench, values: tuple[float, ...], last: str) -> None:
    bench.send(*values)
    assert bench.told()[-1] == last


def test_a_limit_without_a_unit_is_told_without_one(bench: Bench) -> None:
    bench.send(6, name="bare")
    assert bench.told() == ["bare 6 above warning 5"]


def test_danger_is_an_error_warning_a_warning_and_the_return_is_noted(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        bench.send(12, 25, 15, 0)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "limit: pod pod-a: accel_x 12 above warning 10 m/s²"),
        ("ERROR", "limit: pod pod-a: accel_x 25 above danger 20 m/s²"),
        ("INFO", "limit: pod pod-a: accel_x 15 no longer above danger 20 m/s², but above warning 10 m/s²"),
        ("INFO", "limit: pod pod-a: accel_x 0 inside its limits again; it was above warning 10 m/s²"),
    ]


def test_what_chatters_is_told_a_few_times_then_counted(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.send(*[12, 0] * 500)
    assert len(bench.told()) == BURST == len(caplog.records) * 2  # half of them are returns: INFO
    bench.watch.tell_held_back()
    assert bench.told() == []
    bench.now_seconds += PAUSE_SECONDS
    bench.watch.tell_held_back()
    missed = 1000 - BURST - 1
    assert bench.told() == [
        "accel_x 0 inside its limits again; it was above warning 10 m/s²; "
        f"before that it crossed its limits {missed} times more"
    ]
    bench.now_seconds += PAUSE_SECONDS * BURST
    bench.watch.tell_held_back()
    assert bench.told() == []


def test_in_the_end_it_is_told_where_the_value_stands(bench: Bench) -> None:
    bench.send(*[12, 0] * 20, 12)
    bench.told()
    bench.now_seconds += PAUSE_SECONDS
    bench.watch.tell_held_back()
    assert bench.told()[-1].startswith("accel_x 12 above warning 10 m/s²; before that")


def test_a_danger_is_told_at_once_however_much_a_value_chatters_about_its_warning(bench: Bench) -> None:
    bench.send(*[12, 0] * 20)
    bench.told()
    bench.send(12, 25)
    missed = 40 - BURST + 1
    assert bench.told() == [f"accel_x 25 above danger 20 m/s²; before that it crossed its limits {missed} times more"]
    bench.now_seconds += PAUSE_SECONDS
    bench.watch.tell_held_back()
    assert bench.told() == [], "what was held back is older"


def test_one_name_that_chatters_holds_up_no_other_and_no_other_pod(bench: Bench) -> None:
    bench.send(*[12, 0] * 20)
    bench.told()
    bench.send(6, name="bare")
    bench.send(12, pod="pod-b")
    assert bench.told() == ["bare 6 above warning 5", "accel_x 12 above warning 10 m/s²"]


def test_the_status_counts_names_beyond_their_limits_the_worst_first(bench: Bench) -> None:
    pod = bench.pods.named("pod-a")
    nothing = {"warning": 0, "danger": 0, "names": []}
    assert bench.watch.beyond(pod) == nothing
    bench.send(6, name="bare")
    bench.send(25)
    told = bench.watch.beyond(pod)
    assert (told["warning"], told["danger"]) == (1, 1)
    assert [name["name"] for name in told["names"]] == ["accel_x", "bare"]
    assert told["names"][0] == {
        "name": "accel_x",
        "severity": "danger",
        "side": "high",
        "limit": 20,
        "unit": "m/s²",
        "since_ns": bench.now_ns() + 1,
        "cleared_ns": None,
    }
    assert bench.watch.beyond(bench.pods.named("pod-b")) == nothing
    pod.connections = 0
    assert bench.watch.beyond(pod) == nothing, "of a pod that is gone nothing is of now"


def test_of_many_names_some_are_listed_and_all_are_counted() -> None:
    bench = Bench(Sensors({f"name_{number}": BARE for number in range(LISTED + 5)}))
    for number in range(LISTED + 5):
        bench.send(6, name=f"name_{number}")
    told = bench.watch.beyond(bench.pods.named("pod-a"))
    assert (told["warning"], len(told["names"])) == (LISTED + 5, LISTED)


def test_a_spike_is_shown_for_a_while_after_it_is_over(bench: Bench) -> None:
    """With the worst that it was; else nobody who does not look just then would see it."""
    bench.send(0, 12, 25, -12, 0)
    shown = bench.watch.shown("pod-a")
    assert (shown["accel_x"]["severity"], shown["accel_x"]["cleared_ns"]) == ("danger", bench.now_ns() + 4)
    assert shown["accel_x"]["side"] == "high"
    bench.send(12)
    shown = bench.watch.shown("pod-a")
    assert (shown["accel_x"]["severity"], shown["accel_x"]["cleared_ns"]) == ("warning", None)
    bench.send(0)
    bench.now_seconds += RECENT_SECONDS + 1
    assert bench.watch.shown("pod-a") == bench.watch.shown("nobody") == {}


def test_without_limits_nothing_is_kept_of_any_pod() -> None:
    bench = Bench(Sensors({"accel_x": Sensor(label="Acceleration")}))
    bench.send(1e9)
    assert (bench.events, bench.watch._pods) == ([], {})


def test_a_limited_name_is_watched_however_late_a_pod_begins_to_use_it(bench: Bench) -> None:
    for number in range(3):
        bench.send(1e9, name=f"other_{number}")
    bench.send(12)
    bench.send(1e9, name="other_4")
    bench.send(25)
    assert bench.told() == ["accel_x 12 above warning 10 m/s²", "accel_x 25 above danger 20 m/s²"]
