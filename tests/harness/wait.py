"""The one way in which tests wait."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Between two looks at the predicate, in seconds.
POLL_SECONDS = 0.02


def wait_until(
    predicate: Callable[[], T | None],
    *,
    timeout_seconds: float,
    what: str,
    state: Callable[[], object] | None = None,
) -> T:
    """Return the first true value of `predicate`.

    Raises AssertionError after `timeout_seconds`, with `what` was waited for, the predicate's last value, and `state()`
    where it is given.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            shown = f"\n{state()}" if state is not None else ""
            raise AssertionError(f"not within {timeout_seconds:g} s: {what}; last seen: {value!r}{shown}")
        time.sleep(POLL_SECONDS)
