"""The histogram: each duration belongs to one class, and none is lost."""

from hypothesis import given
from hypothesis import strategies as st

from ods.latency import Latency


@given(st.lists(st.floats(min_value=0, max_value=100)))
def test_each_duration_is_counted_once_in_the_class_that_it_fits(durations: list[float]) -> None:
    latency = Latency()
    for seconds in durations:
        latency.observe(seconds)
    for at, bound in enumerate(Latency.BOUNDS_SECONDS):
        assert sum(latency.counts[: at + 1]) == sum(seconds <= bound for seconds in durations)
    assert sum(latency.counts) == len(durations)
    assert abs(latency.sum_seconds - sum(durations)) < 1e-6 * max(1.0, sum(durations))


def test_there_is_one_class_beyond_all_bounds() -> None:
    latency = Latency()
    latency.observe(Latency.BOUNDS_SECONDS[-1] + 1)
    assert latency.counts == [0] * len(Latency.BOUNDS_SECONDS) + [1]
