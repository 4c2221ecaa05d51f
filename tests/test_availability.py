"""What InfluxDB's answers say of its state, and what the operator hears of it."""

import logging
import time

import pytest

from ods.availability import MAX_RETRY_AFTER_SECONDS, Availability
from ods.errors import Unavailable


class Listener:
    """Keeps what `on_change` was called with."""

    def __init__(self) -> None:
        self.changes: list[tuple[bool, str]] = []

    def __call__(self, is_available: bool, detail: str) -> None:
        self.changes.append((is_available, detail))


@pytest.fixture
def changes() -> Listener:
    return Listener()


@pytest.fixture
def availability(changes: Listener, caplog: pytest.LogCaptureFixture) -> Availability:
    caplog.set_level(logging.INFO)
    return Availability(url="http://db:8086", on_change=changes)


def now() -> float:
    return time.monotonic()


def fail(availability: Availability, reason: str = "connection refused", **changes: object) -> None:
    availability.failed(now(), Unavailable(reason, **changes))  # type: ignore[arg-type]


def test_influx_counts_as_available_until_something_is_known(availability: Availability) -> None:
    """The first batch goes to InfluxDB: nobody has to ask before."""
    assert (availability.is_available, availability.is_known, availability.last_error) == (True, False, None)


def test_a_failed_write_begins_an_outage(availability: Availability, changes: Listener) -> None:
    """It is told once, however many writes fail in it."""
    for _ in range(3):
        fail(availability)
    assert (availability.is_available, availability.is_known) == (False, True)
    assert availability.last_error == "connection refused"
    assert changes.changes == [(False, "connection refused")]


def test_a_write_that_began_in_the_outage_ends_it(availability: Availability, changes: Listener) -> None:
    """A confirmed write shows that InfluxDB is back."""
    fail(availability)
    outage = availability.outage
    availability.confirmed(now())
    assert availability.is_available
    assert outage is availability.latest is not None
    assert outage.ended is not None
    assert outage.seconds(now()) == outage.ended - outage.began >= 0
    assert [is_available for is_available, _ in changes.changes] == [False, True]
    assert "connection refused" in changes.changes[1][1]


def test_a_late_confirmation_of_an_older_write_does_not_end_an_outage(availability: Availability) -> None:
    """What began before the outage says nothing of InfluxDB now."""
    began = now()
    fail(availability)
    availability.confirmed(began)
    assert not availability.is_available


def test_a_late_failure_of_an_older_write_does_not_begin_an_outage(
    availability: Availability, changes: Listener
) -> None:
    """A request may hang for seconds while others are answered: a slow InfluxDB is not an outage."""
    began = now()
    availability.confirmed(began + 1e-6)
    availability.failed(began, Unavailable("no answer within 10 s"))
    assert availability.is_available
    assert changes.changes == []


def test_a_late_failure_after_the_return_does_not_begin_the_outage_again(availability: Availability) -> None:
    """Each of the requests that hung in an outage fails in its own time."""
    began = now()
    fail(availability)
    availability.confirmed(now())
    availability.failed(began, Unavailable("no answer within 10 s"))
    assert availability.is_available


def test_an_outage_is_logged_once_a_reason_with_what_to_do(
    availability: Availability, caplog: pytest.LogCaptureFixture
) -> None:
    """One clear line, however long it lasts; another reason is news."""
    for _ in range(5):
        fail(availability, "HTTP 401 nope", advice="check --influx-pass")
    assert len(caplog.records) == 1
    for part in ("http://db:8086", "HTTP 401 nope", "check --influx-pass"):
        assert part in caplog.text
    fail(availability, "connection refused")
    assert len(caplog.records) == 2


def test_the_return_is_logged_and_the_next_outage_too(
    availability: Availability, caplog: pytest.LogCaptureFixture
) -> None:
    """A change of state is a line each, with the same reason as well."""
    fail(availability)
    availability.confirmed(now())
    fail(availability)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO", "WARNING"]
    assert "available again" in caplog.records[1].message


def test_the_first_confirmation_is_logged_once(availability: Availability, caplog: pytest.LogCaptureFixture) -> None:
    """The operator hears at the start that InfluxDB is there."""
    availability.confirmed(now())
    availability.confirmed(now())
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_influx_is_not_asked_before_the_time_it_named(availability: Availability) -> None:
    """`Retry-After` is kept to, 30 s at most, and forgotten when InfluxDB is back."""
    assert MAX_RETRY_AFTER_SECONDS == 30
    before = now()
    fail(availability, retry_after_seconds=5.0)
    assert before + 5.0 <= availability.retry_at <= now() + 5.0
    fail(availability)
    assert before + 5.0 <= availability.retry_at, "another request, which had no answer"
    fail(availability, retry_after_seconds=1e9)
    assert availability.retry_at <= now() + 30.0
    availability.confirmed(now())
    assert availability.retry_at <= now()
