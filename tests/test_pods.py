"""Who sends, and when: one name, one pod, one strictly increasing sequence of times."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ods.pods import Pods


def test_a_pod_is_its_address() -> None:
    pods = Pods({}, max_names=3)
    pod = pods.at("10.0.0.20")
    assert (pod.name, pod.address, pod.tag, pod.names.limit) == ("10.0.0.20", "10.0.0.20", ",pod=10.0.0.20", 3)
    assert pods.at("10.0.0.20") is pod


def test_a_pod_has_the_name_that_the_operator_gave() -> None:
    pods = Pods({"10.0.0.20": "pod a"}, max_names=3)
    assert pods.at("10.0.0.20").name == "pod a"
    assert pods.at("10.0.0.20").tag == ",pod=pod\\ a"
    assert pods.at("10.0.0.21").name == "10.0.0.21"


def test_two_addresses_with_one_name_are_one_pod() -> None:
    pods = Pods({"10.0.0.20": "a", "10.0.0.21": "a"}, max_names=3)
    assert pods.at("10.0.0.20") is pods.at("10.0.0.21")
    assert pods.at("10.0.0.21").address == "10.0.0.21"
    assert list(pods.by_name) == ["a"]


def test_a_named_pod_is_listed_before_it_is_seen() -> None:
    pods = Pods({"10.0.0.20": "a"}, max_names=3)
    assert list(pods.by_name) == ["a"]
    pod = pods.by_name["a"]
    assert (pod.address, pod.last_seen, pod.connections) == ("10.0.0.20", None, 0)
    assert pods.at("10.0.0.20") is pod


def test_odss_own_pod_is_not_listed() -> None:
    pods = Pods({}, max_names=3)
    assert (pods.ods().name, pods.ods().tag) == ("ods", ",pod=ods")
    assert not pods.by_name


def test_times_of_a_burst_are_consecutive_nanoseconds() -> None:
    pod = Pods({}, max_names=3).at("a")
    assert pod.take_times(1000, 3) == range(1000, 1003)
    assert pod.take_times(1000, 1) == range(1003, 1004)
    assert pod.take_times(5000, 1) == range(5000, 5001)
    assert not pod.take_times(5000, 0)


def test_pods_have_times_of_their_own() -> None:
    pods = Pods({}, max_names=3)
    pods.at("a").take_times(1000, 500)
    assert pods.at("b").take_times(1000, 1) == range(1000, 1001)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 300)), max_size=40))
def test_no_two_records_of_a_pod_have_one_time(bursts: list[tuple[int, int]]) -> None:
    """InfluxDB silently overwrites a point of the same series and time."""
    pod = Pods({}, max_names=3).at("a")
    latest_ns = -1
    for now_ns, count in bursts:
        times = list(pod.take_times(now_ns, count))
        assert times == list(range(times[0], times[0] + count)) if times else count == 0
        assert all(time_ns > latest_ns and time_ns >= now_ns for time_ns in times)
        latest_ns = max([latest_ns, *times])
