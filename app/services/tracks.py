"""How far each key of a history has been read, and which keys are worth reading in one call."""

from bisect import bisect_left
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import orjson

from app.thingsboard.telemetry import Point

#: What a page, and all that is held at a time, may take in memory.
PAGE_BYTES, HELD_BYTES = 4 << 20, 8 << 20
#: A point with a number: a dictionary, its two values and their places in lists.
BARE_POINT_BYTES = 250
#: How many values of a page are looked at for their size.
SAMPLES = 64
#: Keys in one call differ in density by this factor at most: they share its points evenly.
ALIKE = 4

time_of = itemgetter("ts")


class Track:
    """How far one key has been read: what waits here to be delivered, and where its next page begins."""

    __slots__ = ("cursor", "end", "key", "rate", "waiting", "weight")

    def __init__(self, key: str, start: int, end: int) -> None:
        self.key, self.cursor, self.end = key, start, end
        self.waiting: list[Point] = []
        #: Points a ms, as the last page had it.
        self.rate = 0.0
        #: Bytes of a point in memory, as the last page had it; None before the first page.
        self.weight: float | None = None

    @property
    def is_exhausted(self) -> bool:
        """Tell whether it has been read to its end."""
        return self.cursor >= self.end

    @property
    def held_bytes(self) -> float:
        """Return what its waiting points take."""
        return len(self.waiting) * (self.weight or 0.0)

    def add(self, points: list[Point], limit: int, until: int) -> None:
        """Take a page of `[start, until)` in; what it repeats of the last one is dropped."""
        fresh = points[bisect_left(points, self.cursor, key=time_of) :]
        is_full = len(points) >= limit
        reached = points[-1]["ts"] + 1 if is_full else until
        if fresh:
            self.weight = weight_of(fresh)
            self.waiting = self.waiting + fresh if self.waiting else fresh
        elif self.weight is None:
            self.weight = BARE_POINT_BYTES
        if points or reached > self.cursor:
            # The gap before the first point of a range says nothing about those that follow.
            since = points[0]["ts"] if is_full else self.cursor
            self.rate = len(points if is_full else fresh) / max(1, reached - since)
        self.cursor = max(self.cursor, reached)

    def after(self, ts: int) -> int:
        """Return how many of the waiting points would come again in a page from this time on."""
        return len(self.waiting) - bisect_left(self.waiting, ts, key=time_of)

    def take(self, until: float) -> list[Point]:
        """Remove and return the points before this time."""
        if not self.waiting or self.waiting[-1]["ts"] < until:
            taken, self.waiting = self.waiting, []
        else:
            cut = bisect_left(self.waiting, until, key=time_of)
            taken, self.waiting = self.waiting[:cut], self.waiting[cut:]
        return taken


def weight_of(points: Sequence[Point]) -> float:
    """Estimate the bytes of a point in memory from some of them."""
    sample = points[:: -(-len(points) // SAMPLES)]
    return BARE_POINT_BYTES + sum(_size(point["value"]) for point in sample) / len(sample)


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    # An object takes several times its text.
    return 4 * len(orjson.dumps(value)) if isinstance(value, dict | list) else 0


def calls_for(
    reading: Sequence[Track], frontier: float, page_points: int, keys_a_call: int
) -> list[list[Track]]:
    """Choose who is fetched: the keys at the frontier, and in the same calls those that soon will be.

    Another key would bring again what it still holds, so it joins only when that is a quarter of its share at
    most. Dense keys and sparse ones do not share a call: its limit is the same for all of them.
    """
    few = page_points // (4 * len(reading))
    near = [track for track in reading if track.cursor == frontier or len(track.waiting) <= few]
    calls: list[list[Track]] = []
    for track in sorted(near, key=lambda track: -track.rate):
        if calls and len(calls[-1]) < keys_a_call and track.rate * ALIKE >= calls[-1][0].rate:
            calls[-1].append(track)
        else:
            calls.append([track])
    return [call for call in calls if any(track.cursor == frontier for track in call)]
