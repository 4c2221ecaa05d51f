"""Which value crosses a limit: every one is looked at, each crossing is found once, at the very value."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ods.data_points import DataPoints
from ods.limits import Crossing, LevelsOf, LimitsOfPod, Watched
from ods.protocol import Decoder, LogMessage, NameBook
from ods.sensors import Sensor, Sensors

BOTH = Sensor(warning_low=-10, warning_high=10, danger_low=-20, danger_high=20, hysteresis=1)


def limits_of(**sensors: Sensor) -> LimitsOfPod:
    return LimitsOfPod(Watched(Sensors(sensors)))


def look(limits: LimitsOfPod, *values: float, name: str = "a") -> list[Crossing]:
    texts = [repr(float(value)) for value in values]
    return limits.look([DataPoints([name] * len(texts), texts, texts)], [str(at) for at in range(len(texts))])


def levels(limits: LimitsOfPod, *values: float) -> list[tuple[int, int]]:
    """At which of the values the level changed, and to what."""
    return [(crossing.time_ns, crossing.level) for crossing in look(limits, *values)]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ([0, 10, 10], []),
        ([0, 10.0000001], [(1, 1)]),
        ([11, 11, 19, 20], [(0, 1)]),
        ([0, 15, 25], [(1, 1), (2, 2)]),
        ([25, 15, 0], [(0, 2), (1, 1), (2, 0)]),
        ([0, 25, 0], [(1, 2), (2, 0)]),
        ([11, 9.5, 10.5, 9.0, 10], [(0, 1)]),
        ([11, 8.9, 10, 11], [(0, 1), (1, 0), (3, 1)]),
        ([21, 19.5, 20.5, 19, 18.9], [(0, 2), (4, 1)]),
        ([15, -15, 25, -25, 0], [(0, 1), (1, -1), (2, 2), (3, -2), (4, 0)]),
        ([1e308, 0], [(0, 2), (1, 0)]),
    ],
)
def test_a_crossing_is_found_at_its_value_and_a_return_some_way_inside(
    values: list[float], changes: list[tuple[int, int]], sign: int
) -> None:
    found = levels(limits_of(a=BOTH), *[sign * value for value in values])
    assert found == [(at, sign * level) for at, level in changes]


@pytest.mark.parametrize(
    ("sensor", "value", "level"),
    [
        (Sensor(warning_high=5), 6, 1),
        (Sensor(warning_high=5), -1e300, 0),
        (Sensor(danger_high=5), 6, 2),
        (Sensor(danger_low=5), 4, -2),
        (Sensor(warning_low=5), 4, -1),
        (Sensor(warning_low=5), 1e300, 0),
        (Sensor(warning_high=5, danger_high=5), 6, 2),
        (Sensor(warning_low=1, danger_high=5), 6, 2),
        (Sensor(warning_low=1, danger_high=5), 0, -1),
        (Sensor(warning_high=-1.7e308), 0, 1),
    ],
)
def test_any_side_may_be_missing(sensor: Sensor, value: float, level: int) -> None:
    assert [crossing.level for crossing in look(limits_of(a=sensor), value)] == [level][: abs(level)]


@pytest.mark.parametrize(
    ("sensor", "stays", "returns"),
    [
        (Sensor(warning_low=0, warning_high=100), 98.0, 97.9),
        (Sensor(warning_high=50), 49.0, 48.9),
        (Sensor(warning_high=-50), -51.0, -51.1),
        (Sensor(warning_high=0), 0.0, -1e-300),
        (Sensor(warning_high=50, hysteresis=0), 50.0, 49.999),
    ],
)
def test_how_far_inside_a_value_is_all_right_again(sensor: Sensor, stays: float, returns: float) -> None:
    beyond = (sensor.warning_high or 0) + 1
    assert [crossing.level for crossing in look(limits_of(a=sensor), beyond, stays, stays, returns)] == [1, 0]


def test_between_two_limits_there_is_always_room_to_be_inside_again() -> None:
    """2 % of what the high limit is by itself would be below the low one."""
    limits = limits_of(a=Sensor(warning_low=990_000, danger_high=1_000_000))
    assert levels(limits, 1_000_001, 997_500, 997_499, 989_999) == [(0, 2), (2, 0), (3, -1)]


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(["warning_low", "warning_high", "danger_low", "danger_high"]), unique=True),
    st.lists(st.floats(-1e7, 1e7) | st.sampled_from([0.0, 1e6, -1e6]), max_size=30),
)
@settings(deadline=None)
def test_the_level_is_always_one_that_the_value_can_have(
    limits: list[float], sides: list[str], values: list[float]
) -> None:
    """Beyond a limit never less than beyond it; inside all of them never beyond one by more than the hysteresis."""
    order = ["danger_low", "warning_low", "warning_high", "danger_high"]
    chosen = sorted(sides, key=order.index)[: len(limits)]
    sensor = Sensor(**dict(zip(chosen, sorted(limits), strict=False)))
    pod, of = limits_of(a=sensor), LevelsOf(sensor)
    level = 0
    for value in values:
        for crossing in look(pod, value):
            assert crossing.before == level
            level = crossing.level
        raw = of.level(value)
        assert abs(level) >= abs(raw)
        assert level * raw >= 0
        low, high = of.bands[level]
        assert low <= value <= high
        assert {name: kept.level for name, kept in pod.beyond.items()} == ({"a": level} if level else {})


def test_no_value_is_missed_among_others_and_however_it_was_sent() -> None:
    """One spike in the middle of a flood, of a name among names without limits, glued to a log message or not."""
    pod, decoder, times = limits_of(a=BOTH), Decoder(NameBook(100)), iter(range(10**6))
    flood = b"".join(b"POD2%s %d\n" % (b"abcde"[at % 5 : at % 5 + 1], at % 9) for at in range(1000))
    found = []
    for data in (flood + b"POD2a 99\n" + flood, b"POD1text POD2a 99\n", b"POD2a x\nPOD2a 99\nPOD2a 0\n"):
        records = decoder.feed(data).records
        count = sum(len(record) if isinstance(record, DataPoints) else 1 for record in records)
        found += pod.look(records, [str(next(times)) for _ in range(count)])
    assert [(crossing.number, crossing.level) for crossing in found] == [(99, 2), (0, 0), (99, 2), (0, 0)]
    assert found[0].time_ns == 1000


def test_times_go_with_their_values_where_there_are_other_records_too() -> None:
    points = DataPoints(["b", "a"], ["1", "30"], ["1.0", "30.0"])
    found = limits_of(a=BOTH).look([LogMessage(None, "x", "x"), points, points], ["5", "6", "7", "8", "9"])
    assert [(crossing.name, crossing.time_ns) for crossing in found] == [("a", 7)]


def test_pods_have_levels_of_their_own() -> None:
    watched = Watched(Sensors({"a": BOTH}))
    one, other = LimitsOfPod(watched), LimitsOfPod(watched)
    assert levels(one, 30) == [(0, 2)]
    assert levels(other, 0) == []
    assert levels(other, 15) == [(0, 1)]
    assert levels(one, 0) == [(0, 0)]


@pytest.mark.parametrize(
    ("before", "level", "is_worse", "severity"),
    [
        *((0, 1, True, "warning"), (0, -2, True, "danger"), (1, 2, True, "danger"), (1, -1, True, "warning")),
        *((2, -1, True, "danger"), (2, 1, False, "danger"), (1, 0, False, "warning"), (-2, 0, False, "danger")),
    ],
)
def test_a_crossing_knows_whether_it_is_for_the_worse(before: int, level: int, is_worse: bool, severity: str) -> None:
    crossing = Crossing("a", 1.0, 1, before, level)
    assert (crossing.is_worse, crossing.severity) == (is_worse, severity)


def test_no_band_is_empty() -> None:
    for sensor in (BOTH, Sensor(warning_high=1), Sensor(danger_low=0, danger_high=1), Sensor()):
        assert all(low <= high for low, high in LevelsOf(sensor).bands.values() if not math.isinf(low + high))
