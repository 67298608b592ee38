"""Reads whole histories from ThingsBoard in pages, oldest first, at constant memory."""

import asyncio
import math
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from operator import itemgetter
from typing import Self, TypeVar

from app.errors import GatewayError, UpstreamError, UpstreamGarbled, UpstreamTimeout
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.connection import Query
from app.thingsboard.telemetry import Point, Series

#: Points of one ThingsBoard call, all its keys together.
PAGE_POINTS = 10_000
#: Three halvings, and the fourth time-out ends it: the breaker opens at the fifth.
SMALLEST_PAGE = PAGE_POINTS // 8
KEYS_A_CALL = 100

Item = TypeVar("Item")
Block = dict[str, list[Point]]
time_of = itemgetter("ts")


class Track:
    """How far one key has been read: what waits here to be delivered, and where its next page begins."""

    __slots__ = ("cursor", "is_exhausted", "key", "waiting")

    def __init__(self, key: str, start: int) -> None:
        self.key, self.cursor = key, start
        self.waiting: list[Point] = []
        self.is_exhausted = False

    def add(self, points: list[Point], limit: int) -> None:
        """Take a page in; what it repeats of the last one is dropped."""
        self.is_exhausted = len(points) < limit
        fresh = points[bisect_left(points, self.cursor, key=time_of) :] if points else points
        if fresh:
            self.waiting = self.waiting + fresh if self.waiting else fresh
            self.cursor = fresh[-1]["ts"] + 1

    def take(self, until: float) -> list[Point]:
        """Remove and return the points up to this time, itself included."""
        if not self.waiting or self.waiting[-1]["ts"] <= until:
            taken, self.waiting = self.waiting, []
        else:
            cut = bisect_right(self.waiting, until, key=time_of)
            taken, self.waiting = self.waiting[:cut], self.waiting[cut:]
        return taken


class History:
    """The points of some keys of one entity in `[start, end)`. For one reader, once.

    `open` checks the entity and fetches the first page: whatever is wrong shows before an answer begins.
    """

    def __init__(
        self, upstream: ThingsBoardClient, entity: tuple[str, str], keys: Sequence[str], span: tuple[int, int]
    ) -> None:
        self._upstream, self._entity, self._end = upstream, entity, span[1]
        self.keys = list(keys)
        self._tracks = {key: Track(key, span[0]) for key in keys}
        self._unread = list(keys)
        self._page_points = PAGE_POINTS

    @classmethod
    async def open(
        cls,
        upstream: ThingsBoardClient,
        entity: tuple[str, str],
        keys: Sequence[str] | None,
        span: tuple[int, int],
    ) -> Self:
        """Check the entity, find its keys when none are named, and fetch the first page.

        Args:
            entity: ThingsBoard's type and id.
            span: start and exclusive end in ms since the epoch.

        Raises:
            NotFound: there is no such entity, or not for this account.
        """
        known = await upstream.telemetry.checked_keys(*entity, keys)
        # A named key is asked for even if it is not listed: that list is made of latest values, and a history
        # may outlive its latest value (recordings telemetry.json, "keys after deleting").
        history = cls(upstream, entity, known if keys is None else keys, span)
        await history._read_next_keys()
        return history

    def merged(self) -> AsyncGenerator[Block, None]:
        """Yield blocks of all keys; every point of a block is later than every point of those before it."""
        return one_ahead(self._merged())

    def by_key(self) -> AsyncGenerator[tuple[str, list[Point]], None]:
        """Yield the pages of one key after the other, at least one, maybe empty, for each key."""
        return one_ahead(self._by_key())

    async def _merged(self) -> AsyncGenerator[Block, None]:
        while self._unread:
            await self._read_next_keys()
        while True:
            reading = [track for track in self._tracks.values() if not track.is_exhausted]
            if any(not track.waiting for track in reading):
                await self._refill(reading)
                continue
            # Beyond the earliest end of a key's page, that key may still bring points.
            frontier = min((track.waiting[-1]["ts"] for track in reading), default=math.inf)
            taken = {key: track.take(frontier) for key, track in self._tracks.items() if track.waiting}
            if not taken:
                return
            yield {key: points for key, points in taken.items() if points}

    async def _refill(self, reading: list[Track]) -> None:
        """Fetch for the keys that have run dry, and in the same calls for those that soon will.

        All dry keys are at the frontier. Another key would bring again what it still holds, so it joins only
        when that is a quarter of its share at most: keys with nearly the same times keep sharing their calls,
        and a sparse key is not fetched again and again beside a dense one.
        """
        few = self._page_points // (4 * len(reading))
        group = sorted(
            (track for track in reading if len(track.waiting) <= few), key=lambda track: len(track.waiting)
        )
        for index in range(0, len(group), KEYS_A_CALL):
            await self._fetch(group[index : index + KEYS_A_CALL])

    async def _by_key(self) -> AsyncGenerator[tuple[str, list[Point]], None]:
        for key, track in self._tracks.items():
            if key in self._unread:
                await self._read_next_keys()
            yield key, track.take(math.inf)
            while not track.is_exhausted:
                await self._fetch([track])
                if track.waiting:
                    yield key, track.take(math.inf)

    async def _read_next_keys(self) -> None:
        """Fetch the first page of the next keys that have none yet."""
        group, self._unread = self._unread[:KEYS_A_CALL], self._unread[KEYS_A_CALL:]
        if group:
            await self._fetch([self._tracks[key] for key in group])

    async def _fetch(self, tracks: list[Track]) -> None:
        # The other keys of the call bring some points again from the earliest cursor on; `add` drops them.
        start = min(track.cursor for track in tracks)
        series, limit = await self._page([track.key for track in tracks], start)
        for track in tracks:
            points = series.get(track.key, [])
            before = track.cursor
            try:
                track.add(points, limit)
            except (KeyError, TypeError):
                raise UpstreamGarbled(note="not_a_point") from None
            if not track.waiting and len(points) >= limit and track.cursor == before:
                raise UpstreamGarbled(note="page_without_progress")

    async def _page(self, keys: list[str], start: int) -> tuple[Series, int]:
        """Return a page and its limit for each key; half of it when ThingsBoard is too slow for the whole."""
        while True:
            limit = max(1, self._page_points // len(keys))
            query: Query = {"startTs": start, "endTs": self._end, "limit": limit, "orderBy": "ASC"}
            try:
                series = await self._upstream.telemetry.history(*self._entity, keys, query=query)
            except UpstreamError as error:
                if self._page_points <= SMALLEST_PAGE or not is_too_slow(error):
                    raise
                self._page_points //= 2
            else:
                self._page_points = min(PAGE_POINTS, self._page_points * 2)
                return series, limit


def is_too_slow(error: GatewayError) -> bool:
    """Tell whether a smaller page may help: time-outs, and the 503 of a proxy in between."""
    return isinstance(error, UpstreamTimeout) or error.note == "upstream_503"


async def one_ahead(source: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
    """Fetch the next item while the last one is being used; closing it cancels what is under way."""
    done = object()
    coming = asyncio.ensure_future(_next(source, done))
    try:
        while (item := await coming) is not done:
            coming = asyncio.ensure_future(_next(source, done))
            yield item  # type: ignore[misc]  # everything but `done` is an Item
    finally:
        coming.cancel()
        try:
            await asyncio.gather(coming, return_exceptions=True)
        finally:
            await source.aclose()


async def _next(source: AsyncIterator[Item], done: object) -> Item | object:
    return await anext(source, done)
