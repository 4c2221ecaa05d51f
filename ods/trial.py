"""The trial of a new version: until it has served for some seconds, the one before can be had back.

A version may come up, and fail at its first record. Whoever asked for it must not find ODS dying again and again
while a version that worked is a moment away: so the zygote of that one is kept until the trial is over.
"""

from ods.zygote_process import ZygoteProcess

#: How long a new version may take until it serves, and how long it then must go on. Longer than it takes to notice that
#: a worker stands still. Seconds.
SERVE_SECONDS, TRIAL_SECONDS = 8.0, 5.0


class Trial:
    """Of the version that `former` is not of; it begins when a worker of that version is given its go."""

    def __init__(self, former: ZygoteProcess) -> None:
        self.former = former
        self.ends_at = float("inf")

    def given(self, now: float) -> None:
        """A worker of the new version was given its go."""
        self.ends_at = now + SERVE_SECONDS

    def serving(self, now: float) -> None:
        """It has started."""
        self.ends_at = now + TRIAL_SECONDS
