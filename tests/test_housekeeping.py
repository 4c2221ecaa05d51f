"""What is noted for the next start: no time up to which all is settled is later than anything that is not."""

import inspect
from unittest.mock import Mock

import pytest
from components.hub import fail_when_hung

from ods.housekeeping import Housekeeping

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)

NOW_NS = 1_000


@pytest.mark.parametrize(
    ("oldest_record_ns", "oldest_mark_ns", "settled_ns"),
    [(None, None, 999), (500, None, 499), (None, 400, 399), (500, 400, 399), (400, 500, 399)],
)
def test_what_is_settled_ends_before_the_oldest_record_or_mark_in_flight(
    oldest_record_ns: int | None, oldest_mark_ns: int | None, settled_ns: int
) -> None:
    parts = {name: Mock() for name in inspect.signature(Housekeeping).parameters}
    parts["clock"].now_ns.return_value = NOW_NS
    parts["reception"].oldest_ns.return_value = oldest_record_ns
    parts["marking"].oldest_ns = oldest_mark_ns
    parts["recovery"].limit.side_effect = lambda time_ns: time_ns
    housekeeping = Housekeeping(**parts)
    housekeeping.start(Mock())
    housekeeping.stop()
    parts["directory"].note_times.assert_called_once_with(NOW_NS, settled_ns)
