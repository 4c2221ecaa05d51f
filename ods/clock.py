"""ODS's clock: the wall clock at the start, carried on by the monotonic clock.

Promises that a time once given out is never followed by an earlier one: a step of the wall clock forward moves this
clock, a step back does not (it shows as an offset until the wall clock has caught up), and a start before the last time
of the run before (a board without a battery wakes in 1970) continues from that time.
"""

import time
from collections.abc import Callable

#: A difference between wall clock and monotonic clock above this is a step, not jitter. Nanoseconds.
STEP_NS = 50_000_000
#: The last time given out is noted about once a second; after a crash the true one may be this much later. Nanoseconds.
NOTE_MARGIN_NS = 2_000_000_000


class Clock:
    """Reception times, in nanoseconds since 1970 (UTC). Not thread-safe: it belongs to the hub."""

    def __init__(
        self,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        on_step: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._on_step = on_step
        self._base_ns = wall_ns() - monotonic_ns()
        self._last_wall_base_ns = self._base_ns
        self._latest_ns = 0
        self.steps_forward = 0
        self.steps_back = 0

    def continue_from(self, latest_ns: int) -> bool:
        """Never give out a time before `latest_ns`, the last one of the run before; True where that held the clock."""
        if self.now_ns() > latest_ns:
            return False
        self._base_ns += latest_ns + NOTE_MARGIN_NS - self.now_ns()
        return True

    def now_ns(self) -> int:
        """The time now; at or after every time given out before."""
        monotonic_ns = self._monotonic_ns()
        wall_base_ns = self._wall_ns() - monotonic_ns
        if abs(wall_base_ns - self._last_wall_base_ns) > STEP_NS:
            self._step(wall_base_ns)
        self._latest_ns = max(self._latest_ns, self._base_ns + monotonic_ns)
        return self._latest_ns

    def _step(self, wall_base_ns: int) -> None:
        step_ns = wall_base_ns - self._last_wall_base_ns
        self._last_wall_base_ns = wall_base_ns
        if step_ns > 0:
            self.steps_forward += 1
            self._base_ns = max(self._base_ns, wall_base_ns)
        else:
            self.steps_back += 1
        self._on_step(step_ns / 1e9)

    @property
    def latest_ns(self) -> int:
        """The last time given out."""
        return self._latest_ns

    @property
    def offset_seconds(self) -> float:
        """How far this clock is ahead of the wall clock."""
        return (self._base_ns + self._monotonic_ns() - self._wall_ns()) / 1e9
