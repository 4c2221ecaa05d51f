"""A pause that doubles with each failure up to a bound, and never becomes giving up."""


class Backoff:
    """`pause` after a failure, `reset` after a success; the bounds are in seconds."""

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self.seconds = 0.0
        #: When the pause is over, on the monotonic clock.
        self.until = 0.0

    def pause(self, now: float, *, longest_seconds: float | None = None) -> None:
        """Pause, for longer than the last time."""
        longest = self._longest_seconds if longest_seconds is None else longest_seconds
        self.seconds = min(max(2 * self.seconds, self._first_seconds), longest)
        self.until = now + self.seconds

    def reset(self) -> None:
        """Do not pause."""
        self.seconds = self.until = 0.0
