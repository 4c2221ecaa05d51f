"""Finding the lines that InfluxDB will never take, by asking it: exactly those, and with few requests."""

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ods.errors import Rejected, Unavailable
from ods.sift import find_bad_lines

#: What InfluxDB 1.6 says, by the kind of the fault.
CONFLICT = 'HTTP 400 partial write: field type conflict: input field "value" on measurement "x" is type float dropped=1'
TOO_OLD = "HTTP 400 partial write: points beyond retention policy dropped=1"
#: The same of InfluxDB 2.7.12 and later, and of 1.12.3 and later.
TOO_OLD_SINCE = "HTTP 422 partial write: dropped 1 points outside retention policy of duration 1h0m0s - oldest point x"
#: What 1.12.0 and 1.12.3 say where a retention policy limits the future too.
OUTSIDE = (
    "HTTP 400 partial write: points beyond retention policy or outside permissible write window dropped=1",
    "HTTP 400 partial write: dropped 0 points outside retention policy of duration 1h0m0s and 1 points outside write "
    "window (-30m0s to 5m0s) - oldest point x",
)
UNPARSED = "HTTP 400 unable to parse 'x': bad timestamp"


class Server:
    """Refuses a write that holds a line with a fault; keeps what it confirmed."""

    def __init__(self, fault: Callable[[str], str | None]) -> None:
        self._fault = fault
        self.confirmed: set[str] = set()
        self.requests: list[list[str]] = []

    def write(self, lines: Sequence[str]) -> None:
        assert lines, "an empty write says nothing"
        self.requests.append(list(lines))
        reasons = [reason for line in lines if (reason := self._fault(line))]
        if reasons:
            raise Rejected(reasons[0])
        self.confirmed.update(lines)


def line_of(series: int, time_ns: int) -> str:
    return f"name_{series:03},pod=a value={time_ns}.0 {time_ns}"


def series_in(line: str) -> int:
    return int(line[5:8])


def time_in(line: str) -> int:
    return int(line.rpartition(" ")[2])


def lines_of(series: int, times: int) -> list[str]:
    """A batch as it arrives: at each time every series once."""
    return [line_of(number, time_ns) for time_ns in range(times) for number in range(series)]


def halvings(count: int) -> int:
    return math.ceil(math.log2(max(count, 2)))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), series=st.integers(1, 40), times=st.integers(1, 8))
def test_exactly_the_bad_lines_are_found(data: st.DataObject, series: int, times: int) -> None:
    """Whatever lines are bad, in whatever order they came: each is found, every other one is confirmed."""
    lines = data.draw(st.permutations(lines_of(series, times)))
    bad = set(data.draw(st.lists(st.sampled_from(lines), max_size=12)))
    known_bad = {f"name_{number:03},pod=a" for number in data.draw(st.sets(st.integers(0, series), max_size=5))}
    server = Server(lambda line: UNPARSED if line in bad else None)
    found = find_bad_lines(lines, server.write, known_bad)
    assert sorted(line for line, _ in found) == sorted(bad)
    assert {reason for _, reason in found} <= {UNPARSED}
    assert server.confirmed == set(lines) - bad
    assert len(server.requests) <= 2 * len(bad) * (halvings(series) + halvings(times)) + 2


@settings(max_examples=100, deadline=None)
@given(series=st.integers(1, 200), times=st.integers(1, 5), bad=st.sets(st.integers(0, 199), max_size=6))
def test_bad_series_take_few_requests(series: int, times: int, bad: set[int]) -> None:
    """A field of the wrong type makes all lines of a series bad: about 2 k log2 n requests for k of n series."""
    bad = {number for number in bad if number < series}
    server = Server(lambda line: CONFLICT if series_in(line) in bad else None)
    known_bad: set[str] = set()
    found = find_bad_lines(lines_of(series, times), server.write, known_bad)
    assert {line for line, _ in found} == {line for line in lines_of(series, times) if series_in(line) in bad}
    assert len(found) == len(bad) * times
    assert server.confirmed == {line for line in lines_of(series, times) if series_in(line) not in bad}
    assert len(server.requests) <= 2 * len(bad) * (halvings(series) + 1) + 1
    assert known_bad == {f"name_{number:03},pod=a" for number in bad}


@settings(max_examples=100, deadline=None)
@given(series=st.integers(1, 20), times=st.integers(1, 10), cutoff=st.integers(0, 10))
def test_exactly_the_lines_that_are_too_old_are_found(series: int, times: int, cutoff: int) -> None:
    """What lies beyond the retention policy is bad, what is younger is stored, in each series."""
    server = Server(lambda line: TOO_OLD if time_in(line) < cutoff else None)
    lines = lines_of(series, times)
    found = find_bad_lines(lines, server.write, set())
    assert sorted(line for line, _ in found) == sorted(line for line in lines if time_in(line) < cutoff)
    assert server.confirmed == {line for line in lines if time_in(line) >= cutoff}


@pytest.mark.parametrize("reason", [TOO_OLD, TOO_OLD_SINCE], ids=["1.6", "2.9"])
def test_a_batch_that_is_too_old_as_a_whole_takes_few_requests(reason: str) -> None:
    """A backlog beyond the retention policy is not sent line by line: where the newest is too old, so are all."""
    server = Server(lambda line: reason)
    assert len(find_bad_lines(lines_of(4, 1000), server.write, set())) == 4000
    assert len(server.requests) <= 4 * 4


@pytest.mark.parametrize("reason", OUTSIDE, ids=["1.12.0", "1.12.3"])
def test_lines_too_far_in_the_future_do_not_condemn_older_ones(reason: str) -> None:
    """Where the future is limited too, a newest line that is bad says nothing of those before it."""
    server = Server(lambda line: reason if time_in(line) >= 8 else None)
    lines = lines_of(3, 10)
    found = find_bad_lines(lines, server.write, set())
    assert sorted(line for line, _ in found) == sorted(line for line in lines if time_in(line) >= 8)
    assert server.confirmed == set(lines) - {line for line, _ in found}


def test_only_the_shard_with_the_conflict_is_bad() -> None:
    """Field types conflict within a shard (a week): where a batch crosses into the next one, its rest is good."""
    boundary = 6
    server = Server(lambda line: CONFLICT if series_in(line) == 1 and time_in(line) < boundary else None)
    lines = lines_of(3, 10)
    found = find_bad_lines(lines, server.write, set())
    assert sorted(line for line, _ in found) == [line_of(1, time_ns) for time_ns in range(boundary)]
    assert server.confirmed == set(lines) - {line for line, _ in found}


def test_series_that_were_bad_before_are_tried_apart() -> None:
    """A stream with a bad series takes a few requests a batch, once the series is known."""
    known_bad = {"name_001,pod=a"}
    server = Server(lambda line: CONFLICT if series_in(line) == 1 else None)
    found = find_bad_lines(lines_of(50, 3), server.write, known_bad)
    assert len(found) == 3
    assert len(server.requests) <= 4


def test_a_series_that_was_bad_before_is_stored_when_it_is_good_again() -> None:
    """What was bad in one shard may be good in the next: nothing is quarantined on suspicion."""
    server = Server(lambda line: None)
    lines = lines_of(5, 2)
    assert find_bad_lines(lines, server.write, {"name_001,pod=a"}) == []
    assert server.confirmed == set(lines)


def test_no_lines_take_no_request() -> None:
    """An empty batch has no bad line."""
    server = Server(lambda line: CONFLICT)
    assert find_bad_lines([], server.write, set()) == []
    assert server.requests == []


def test_an_outage_ends_the_search() -> None:
    """Unavailable says nothing of a line: nothing is found bad by it, the search is begun anew later."""

    def write(lines: Sequence[str]) -> None:
        raise Unavailable("away")

    with pytest.raises(Unavailable):
        find_bad_lines(lines_of(3, 3), write, set())
