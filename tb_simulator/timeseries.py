"""Time series in memory: sorted points by entity and key, and the latest value of each key beside them.

As in ThingsBoard the latest values are a table of their own: an older point does not move them, a
deletion may.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tb_simulator.values import Value

if TYPE_CHECKING:
    from tb_simulator.world import World


_MERGED_FROM = 1000


class Point(NamedTuple):
    """One value of one key at one time, in milliseconds."""

    key: str
    ts: int
    value: Value


class Series:
    """The points of one key, sorted; one value a timestamp, the last written wins."""

    __slots__ = ("expiry", "ts", "values")

    def __init__(self) -> None:
        self.ts: list[int] = []
        self.values: list[Value] = []
        self.expiry: dict[int, int] = {}

    def put(self, ts: int, value: Value) -> None:
        """Store a point; appending is the fast case."""
        times = self.ts
        if not times or ts > times[-1]:
            times.append(ts)
            self.values.append(value)
            return
        at = bisect_left(times, ts)
        if times[at] == ts:
            self.values[at] = value
        else:
            times.insert(at, ts)
            self.values.insert(at, value)

    def put_many(self, rows: list[tuple[int, Value]]) -> None:
        """Store many points in any order by merging: inserting them one by one would be quadratic."""
        merged = dict(zip(self.ts, self.values, strict=True))
        merged.update(rows)
        self.ts = sorted(merged)
        self.values = [merged[ts] for ts in self.ts]

    def purge(self, now: int) -> None:
        """Drop the points whose time to live is over."""
        for ts in [ts for ts, until in self.expiry.items() if until <= now]:
            del self.expiry[ts]
            at = bisect_left(self.ts, ts)
            if at < len(self.ts) and self.ts[at] == ts:
                del self.ts[at], self.values[at]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the index range of ``[start, end)``: ThingsBoard's end is exclusive."""
        low = bisect_left(self.ts, start)
        return low, bisect_left(self.ts, end, low)

    def cut(self, start: int, end: int) -> None:
        """Delete the points in ``[start, end)``."""
        low, high = self.span(start, end)
        for ts in self.ts[low:high] if self.expiry else ():
            self.expiry.pop(ts, None)
        del self.ts[low:high], self.values[low:high]


class TimeSeriesStore:
    """All points and latest values, by entity id alone: the history route never asks for more."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._series: dict[str, dict[str, Series]] = {}
        self._latest: dict[str, dict[str, tuple[int, Value]]] = {}
        self._with_expiry: set[str] = set()

    def save(self, entity_id: str, points: Sequence[Point], *, ttl_seconds: int = 0) -> None:
        """Store points and tell the subscribers; readable as soon as this returns."""
        latest = self._latest.setdefault(entity_id, {})
        all_series = self._series.setdefault(entity_id, {})
        is_large = len(points) >= _MERGED_FROM
        newer: list[Point] = []
        for point in points:
            key, ts, value = point
            known = latest.get(key)
            if known is None or ts >= known[0]:
                latest[key] = (ts, value)
                newer.append(point)
            if not is_large:
                series = all_series.get(key)
                if series is None:
                    series = all_series[key] = Series()
                series.put(ts, value)
        if is_large:
            self._merge(all_series, points)
        if ttl_seconds or entity_id in self._with_expiry:
            self._set_expiry(entity_id, points, ttl_seconds)
        self._world.feed.telemetry_saved(entity_id, points, newer)

    @staticmethod
    def _merge(all_series: dict[str, Series], points: Sequence[Point]) -> None:
        by_key: dict[str, list[tuple[int, Value]]] = {}
        for key, ts, value in points:
            by_key.setdefault(key, []).append((ts, value))
        for key, rows in by_key.items():
            all_series.setdefault(key, Series()).put_many(rows)

    def _set_expiry(self, entity_id: str, points: Sequence[Point], ttl_seconds: int) -> None:
        self._with_expiry.add(entity_id)
        until = self._world.now() + ttl_seconds * 1000
        for key, ts, _ in points:
            expiry = self._series[entity_id][key].expiry
            if ttl_seconds:
                expiry[ts] = until
            else:
                expiry.pop(ts, None)

    def load(self, entity_id: str, key: str, ts: Iterable[int], values: Iterable[Value]) -> None:
        """Replace the points of a key by already sorted ones; for tests and benchmarks, tells nobody."""
        series = Series()
        series.ts, series.values = list(ts), list(values)
        self._series.setdefault(entity_id, {})[key] = series
        if series.ts:
            self._latest.setdefault(entity_id, {})[key] = (series.ts[-1], series.values[-1])

    def series(self, entity_id: str, key: str) -> Series | None:
        """Return the live points of a key, or None when there never were any."""
        series = self._series.get(entity_id, {}).get(key)
        if series is not None and series.expiry:
            series.purge(self._world.now())
        return series

    def latest(self, entity_id: str) -> dict[str, tuple[int, Value]]:
        """Return the latest values of an entity by key, in the order the keys first came."""
        return self._latest.get(entity_id, {})

    def delete(
        self,
        entity_id: str,
        keys: Iterable[str],
        span: tuple[int, int],
        *,
        latest: bool = True,
        rewrite: bool = False,
    ) -> None:
        """Delete the span ``[start, end)`` of keys; latest values in it go too, or fall back."""
        start, end = span
        for key in keys:
            series = self.series(entity_id, key)
            if series is not None:
                series.cut(start, end)
            known = self.latest(entity_id).get(key)
            if latest and known is not None and start <= known[0] < end:
                self._drop_latest(entity_id, key, series, start, rewrite=rewrite)
        if latest:
            # A frame without data follows a deletion (websocket_frames.json, after the deleted key).
            self._world.feed.telemetry_saved(entity_id, [], [])

    def _drop_latest(
        self, entity_id: str, key: str, series: Series | None, start: int, *, rewrite: bool
    ) -> None:
        # It looks in `[0, start - 1)`, whose end is exclusive (findNewLatestEntry, 3.6 to 4.4).
        at = bisect_left(series.ts, start - 1) - 1 if series else -1
        if rewrite and series is not None and at >= 0 and series.ts[at] >= 0:
            point = Point(key, series.ts[at], series.values[at])
            self._latest[entity_id][key] = (point.ts, point.value)
            # ThingsBoard pushes the old point again (facts, WebSocket).
            self._world.feed.telemetry_saved(entity_id, [point], [point])
            return
        del self._latest[entity_id][key]
        self._world.feed.telemetry_deleted(entity_id, key)

    def forget(self, entity_id: str) -> None:
        """Drop all points of a deleted entity."""
        self._series.pop(entity_id, None)
        self._latest.pop(entity_id, None)
