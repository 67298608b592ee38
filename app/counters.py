"""Counts what callers use, in this process: exact, bounded, lost with the process.

`limits`' own memory storage sweeps every key at each hit (2.2 ms of CPU at 100 addresses) and has no bound;
its strategies know one window. See `docs/adr/0002-rate-limits.md`.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from app.quotas import Quota, Standing, Window

#: Windows of one scope and length that are remembered at once: about 25 MiB of them.
MAXIMUM_WINDOWS = 100_000


class Counters(Protocol):
    """Where uses are counted."""

    async def take(self, quota: Quota, key: str, cost: int = 1, *, partly: bool = False) -> Standing:
        """Use up `cost` of every window of this key, or nothing when one of them has less left.

        Args:
            partly: take as much as all windows have left instead of nothing.
        """


class _Running:
    """A window that has begun."""

    __slots__ = ("end", "key", "used")

    def __init__(self, key: str, end: float) -> None:
        self.key, self.end, self.used = key, end, 0


class _Windows:
    """The windows of one scope and length, by key: being of one length, they end in the order they began."""

    __slots__ = ("by_key", "evicted", "in_order", "maximum")

    def __init__(self, maximum: int) -> None:
        self.by_key: dict[str, _Running] = {}
        #: Holds what is in `by_key`, and what has ended and was begun anew since.
        self.in_order: deque[_Running] = deque()
        self.maximum, self.evicted = maximum, 0

    def begin(self, key: str, now: float, end: float) -> _Running:
        """Begin a window; drops two that have ended, or the oldest one when there is no room."""
        for _ in range(2):
            if self.in_order and self.in_order[0].end <= now:
                self._drop_first()
        if len(self.in_order) >= self.maximum:
            self.evicted += self.in_order[0].end > now
            self._drop_first()
        running = self.by_key[key] = _Running(key, end)
        self.in_order.append(running)
        return running

    def _drop_first(self) -> None:
        oldest = self.in_order.popleft()
        if self.by_key.get(oldest.key) is oldest:
            del self.by_key[oldest.key]


class MemoryCounters:
    """Counts in this process. Windows are told apart by scope, so strangers cannot push out those of callers.

    Args:
        maximum: windows of one scope and length that are remembered; the one begun first goes first.
        clock: seconds that never go back.
    """

    def __init__(
        self, *, maximum: int = MAXIMUM_WINDOWS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._maximum, self._clock = maximum, clock
        self._places: dict[tuple[str, int], _Windows] = {}

    @property
    def evicted(self) -> int:
        """How many running windows have been forgotten for want of room."""
        return sum(windows.evicted for windows in self._places.values())

    @property
    def remembered(self) -> int:
        """How many windows are in memory."""
        return sum(len(windows.in_order) for windows in self._places.values())

    async def take(self, quota: Quota, key: str, cost: int = 1, *, partly: bool = False) -> Standing:
        """Count; see `Counters`."""
        return self.count(quota, key, cost, partly=partly)

    def count(self, quota: Quota, key: str, cost: int = 1, *, partly: bool = False) -> Standing:
        """Count without giving way to anybody: all windows are looked at before any is used."""
        now, granted = self._clock(), cost
        found: list[_Running | None] = []
        for window in quota.windows:
            running = self._running(window, key, now)
            found.append(running)
            rest = window.amount if running is None else window.amount - running.used
            if rest < granted:
                granted = max(0, rest) if partly else 0
        used, left = [], []
        for place, window in enumerate(quota.windows):
            running = found[place]
            if granted:
                running = running or self._places[window.place].begin(key, now, now + window.seconds)
                running.used += granted
            used.append(running.used if running else 0)
            left.append(running.end - now if running else 0.0)
        return Standing(granted, tuple(used), tuple(left), time.time())

    def _running(self, window: Window, key: str, now: float) -> _Running | None:
        windows = self._places.get(window.place)
        if windows is None:
            windows = self._places[window.place] = _Windows(self._maximum)
        running = windows.by_key.get(key)
        return running if running is not None and running.end > now else None

    def learn(self, quota: Quota, key: str, standing: Standing) -> None:
        """Take over what is counted elsewhere, to go on from there."""
        now = self._clock()
        for window, used, left in zip(quota.windows, standing.used, standing.left, strict=True):
            running = self._running(window, key, now)
            if running is None and left > 0:
                running = self._places[window.place].begin(key, now, now + left)
            if running is not None:
                running.used, running.end = used, now + left
