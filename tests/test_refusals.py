"""Who was turned away: the latest first, each address once, and never more than are remembered."""

from ods import refusals
from ods.refusals import Refusals


def test_an_address_is_news_once_and_its_tries_are_counted() -> None:
    turned_away = Refusals()
    assert turned_away.note("10.0.0.1", "not allowed", 1)
    assert not turned_away.note("10.0.0.1", "not allowed", 2)
    (refusal,) = turned_away.latest(5)
    assert (refusal.count, refusal.last_ns, turned_away.total) == (2, 2, 2)


def test_another_reason_is_news() -> None:
    turned_away = Refusals()
    turned_away.note("10.0.0.1", "not allowed", 1)
    assert turned_away.note("10.0.0.1", "no room", 2)


def test_those_who_tried_last_come_first() -> None:
    turned_away = Refusals()
    for time_ns, address in enumerate(("a", "b", "c", "a")):
        turned_away.note(address, "not allowed", time_ns)
    assert [refusal.address for refusal in turned_away.latest(2)] == ["a", "c"]


def test_a_scan_of_all_addresses_fills_no_memory() -> None:
    turned_away = Refusals()
    for number in range(refusals.REMEMBERED + 100):
        turned_away.note(str(number), "not allowed", number)
    remembered = list(turned_away.latest(10**6))
    assert len(remembered) == refusals.REMEMBERED
    assert remembered[0].address == str(refusals.REMEMBERED + 99)
    assert turned_away.total == refusals.REMEMBERED + 100
