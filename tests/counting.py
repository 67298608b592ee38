"""What rate limits must do, in the simplest words: the oracle of the counters' tests."""

from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import strategies as st

from app.quotas import Quota, parse_quota

QUOTAS = [
    parse_quota("key", text)
    for text in ("3/second", "2/second;5/minute", "4 per 2 second;7 per 3 second;9/minute", "1/hour")
]
KEYS = ("a", "b", "c")

#: What a caller may ask: of which quota, by which key, how much, and whether a part will do.
attempts = st.tuples(st.sampled_from(QUOTAS), st.sampled_from(KEYS), st.integers(1, 6), st.booleans())
#: ms that pass.
pauses = st.sampled_from([1, 400, 999, 1_000, 1_001, 2_000, 3_000, 59_999, 60_000, 3_600_000])


class Expected(NamedTuple):
    granted: int
    used: tuple[int, ...]
    left_ms: tuple[int, ...]


@dataclass
class Oracle:
    """Windows by caller and length: what was used, and the ms at which they end."""

    windows: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    def take(self, quota: Quota, key: str, cost: int, now_ms: int, *, partly: bool) -> Expected:
        running = []
        for window in quota.windows:
            used, end = self.windows.get((key, window.seconds), (0, 0))
            running.append((used, end) if end > now_ms else (0, 0))
        room = min(window.amount - used for window, (used, _) in zip(quota.windows, running, strict=True))
        granted = cost if room >= cost else max(0, room) if partly else 0
        for place, window in enumerate(quota.windows):
            if granted:
                used, end = running[place]
                running[place] = (used + granted, end or now_ms + window.seconds * 1_000)
                self.windows[key, window.seconds] = running[place]
        left = tuple(max(0, end - now_ms) for _, end in running)
        return Expected(granted, tuple(used for used, _ in running), left)

    def pass_time(self, milliseconds: int) -> None:
        """Move all ends instead of the clock."""
        for place, (used, end) in self.windows.items():
            self.windows[place] = (used, end - milliseconds)
