"""How much of the hub's time something may take: whoever looks at the shuttle must never slow it.

Everything in ODS has its turn in one thread, gevent's hub. What is asked for over HTTP is counted in seconds of it, and
waits as soon as it has had its share. The seconds are those of a clock, so that on a machine that is busy, where all
takes longer, less is answered.
"""

import time
from collections.abc import Callable

import gevent
from gevent.lock import Semaphore


class Pace:
    """Gives turns, one after the other, in the order in which they are asked for; belongs to the hub.

    `share` is that of the hub's time, from 0 to 1; what was not used is saved, up to `burst_seconds`.
    """

    def __init__(
        self, *, share: float, burst_seconds: float = 0.0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._share = share
        self._burst_seconds = burst_seconds
        self._clock = clock
        self._saved_seconds = burst_seconds
        self._counted_at = clock()
        self._lock = Semaphore()
        self._turn_began: float | None = None

    def spent(self, seconds: float) -> None:
        """Count what was taken."""
        self._count()
        self._saved_seconds -= seconds

    def seconds_to_wait(self) -> float:
        """How long nothing may be taken; 0.0 where something may be taken now."""
        self._count()
        return max(0.0, -self._saved_seconds / self._share)

    def wait(self) -> None:
        """Wait until something may be taken, behind those who wait already. Not within a turn."""
        with self._lock:
            self._wait_as_first()

    def begin_turn(self) -> None:
        """Wait for a turn. It is to be ended before anything else is waited for."""
        self._lock.acquire()
        try:
            self._wait_as_first()
        except BaseException:
            self._lock.release()
            raise
        self._turn_began = self._clock()

    def end_turn(self) -> None:
        """Let the next one have its turn, and count what this one has taken."""
        if self._turn_began is not None:
            self.spent(self._clock() - self._turn_began)
            self._turn_began = None
            self._lock.release()

    def _wait_as_first(self) -> None:
        """Only one looks at the clock: if all who wait did, again and again, waiting would cost more than is saved."""
        while (seconds := self.seconds_to_wait()) > 0:
            gevent.sleep(seconds)

    def _count(self) -> None:
        now = self._clock()
        self._saved_seconds = min(self._burst_seconds, self._saved_seconds + (now - self._counted_at) * self._share)
        self._counted_at = now


class Unbounded(Pace):
    """One by which nobody waits, for anything."""

    def __init__(self) -> None:
        super().__init__(share=1.0)

    def spent(self, seconds: float) -> None:
        """Nothing is counted."""

    def begin_turn(self) -> None:
        """Everyone has a turn at any time."""

    def end_turn(self) -> None:
        """Nobody waits for it."""
