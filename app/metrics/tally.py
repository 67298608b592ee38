"""Durations, counted by how long they were: in plain numbers, because each request does it."""

from bisect import bisect_left

#: Seconds: from an answer out of memory to ThingsBoard's own limit of 30 s.
DURATIONS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Tally:
    """Durations of one kind, as a histogram needs them.

    Args:
        bounds: the largest duration in seconds of each class, ascending; there is one more beyond the last.
    """

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: tuple[float, ...] = DURATIONS) -> None:
        self.bounds, self.seconds = bounds, 0.0
        self.counts = [0] * (len(bounds) + 1)

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds
