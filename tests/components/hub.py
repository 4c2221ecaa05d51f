"""How tests wait in gevent's hub. Their process is not patched, so that `harness.wait` would stop the hub."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import gevent

T = TypeVar("T")

#: A test of components that takes longer hangs. Seconds.
HANG_SECONDS = 20.0
#: Between two looks at a predicate. Seconds.
POLL_SECONDS = 0.002


def fail_when_hung() -> Iterator[None]:
    """The body of a fixture under which a test that hangs in the hub fails."""
    with gevent.Timeout(HANG_SECONDS):
        yield


def wait_in_hub(predicate: Callable[[], T | None], what: str) -> T:
    """Return the first true value of `predicate`, letting greenlets run. Raises AssertionError, saying `what`."""
    with gevent.Timeout(HANG_SECONDS / 2, AssertionError(f"never came: {what}")):
        while not (value := predicate()):
            gevent.sleep(POLL_SECONDS)
        return value


def let_all_run() -> None:
    """Give every greenlet that is ready its turn, a few times over."""
    for _ in range(20):
        gevent.sleep(0)
