"""The ledger always adds up, for each pod and in total."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ods.ledger import Counts, Fate, Ledger

NOTHING = Counts()


def test_a_pod_of_which_nothing_is_known_has_all_zero() -> None:
    assert Ledger().of("a") == NOTHING


def test_an_empty_ledger_totals_nothing() -> None:
    assert Ledger().totals() == NOTHING


def test_received_points_are_in_flight_until_they_have_a_fate() -> None:
    ledger = Ledger()
    ledger.receive("a", 5)
    assert ledger.of("a") == Counts(received=5, in_flight=5)
    ledger.move({"a": 3}, Fate.IN_FLIGHT, Fate.STORED)
    ledger.move({"a": 2}, Fate.IN_FLIGHT, Fate.PENDING)
    assert ledger.of("a") == Counts(received=5, stored=3, pending=2)


def test_each_fate_has_its_count() -> None:
    for fate in Fate:
        ledger = Ledger()
        ledger.receive("a", 1)
        ledger.move({"a": 1}, Fate.IN_FLIGHT, fate)
        expected = Counts(received=1)
        setattr(expected, fate.value, 1)
        assert ledger.of("a") == expected


def test_received_begins_at_what_the_buffer_and_the_quarantine_hold() -> None:
    ledger = Ledger()
    ledger.begin_with(Fate.PENDING, {"a": 7, "b": 2})
    ledger.begin_with(Fate.QUARANTINED, {"a": 1})
    assert ledger.of("a") == Counts(received=8, pending=7, quarantined=1)
    assert ledger.totals() == Counts(received=10, pending=9, quarantined=1)


def test_pods_do_not_mix() -> None:
    ledger = Ledger()
    ledger.receive("a", 1)
    ledger.receive("b", 10)
    ledger.move({"b": 10}, Fate.IN_FLIGHT, Fate.DROPPED)
    assert ledger.of("a") == Counts(received=1, in_flight=1)
    assert ledger.of("b") == Counts(received=10, dropped=10)


def test_totals_count_what_was_no_record_too() -> None:
    ledger = Ledger()
    ledger.of("a").invalid += 2
    ledger.of("b").torn += 1
    ledger.of("b").invalid += 1
    assert ledger.totals() == Counts(invalid=3, torn=1)


def test_counts_that_miss_a_point_do_not_add_up() -> None:
    assert Counts(received=5, stored=1, pending=1, in_flight=1, quarantined=1, dropped=1, invalid=9, torn=9).add_up()
    for fate in Fate:
        counts = Counts(received=5, stored=1, pending=1, in_flight=1, quarantined=1, dropped=1)
        setattr(counts, fate.value, 0)
        assert not counts.add_up()


pods = st.sampled_from(["a", "b", "c"])
moves = st.tuples(st.dictionaries(pods, st.integers(0, 100)), st.sampled_from(Fate), st.sampled_from(Fate))
steps = st.one_of(
    st.tuples(pods, st.integers(0, 1000)),
    moves,
    st.tuples(st.sampled_from(Fate), st.dictionaries(pods, st.integers(0, 9))),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(steps, max_size=30))
def test_it_adds_up_after_every_step(steps: list[tuple[object, ...]]) -> None:
    ledger = Ledger()
    for step in steps:
        match step:
            case (str(pod), int(points)):
                ledger.receive(pod, points)
            case (Fate() as fate, dict(points_by_pod)):
                ledger.begin_with(fate, points_by_pod)
            case (dict(points_by_pod), Fate() as before, Fate() as after):
                ledger.move(points_by_pod, before, after)
        assert all(counts.add_up() for counts in ledger.pods.values())
        assert ledger.totals().add_up()
    assert ledger.totals().received == sum(counts.received for counts in ledger.pods.values())


def test_what_no_store_kept_is_lost_but_not_what_an_operator_dropped() -> None:
    ledger = Ledger()
    ledger.receive("a", 10)
    ledger.move({"a": 4}, Fate.IN_FLIGHT, Fate.QUARANTINED)
    ledger.move({"a": 4}, Fate.QUARANTINED, Fate.DROPPED)
    assert ledger.lost == 0
    ledger.move({"a": 3}, Fate.IN_FLIGHT, Fate.PENDING)
    ledger.lose({"a": 1}, Fate.PENDING)
    ledger.lose({"a": 2}, Fate.IN_FLIGHT)
    assert ledger.lost == 3
    assert ledger.of("a").as_dict()["dropped"] == 7
