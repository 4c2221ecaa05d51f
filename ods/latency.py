"""How long something took, counted in classes of length: what a histogram of latencies is made of. Belongs to the hub.

The classes are few and fixed, so that noting a latency costs next to nothing on the way of the data.
"""

from bisect import bisect_left


class Latency:
    """Counts of durations by length, and their sum. Seconds."""

    #: The upper end of each class, which belongs to it; what is longer than all goes to one more. Seconds.
    BOUNDS_SECONDS: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

    def __init__(self) -> None:
        #: One count for each class, the last for what is beyond all bounds; not cumulative.
        self.counts = [0] * (len(self.BOUNDS_SECONDS) + 1)
        self.sum_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.BOUNDS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds
