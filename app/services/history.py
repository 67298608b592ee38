"""Reads whole histories from ThingsBoard in pages, oldest first, at constant memory."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple, Self, TypeVar

from app.deadline import in_time
from app.errors import BreakerOpen, UpstreamError, UpstreamGarbled
from app.services.allowance import Allowance, AllowanceSpent
from app.services.pacing import Pacer, is_too_slow
from app.services.tracks import HELD_BYTES, PAGE_BYTES, Track, calls_for
from app.services.windows import STEPS, Dial
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.connection import Query
from app.thingsboard.retry import delay_before
from app.thingsboard.telemetry import Point, Series

#: Points of one ThingsBoard call, all its keys together.
PAGE_POINTS = 10_000
#: Points of the first call of a key: how large its values are is not known yet.
FIRST_POINTS = 1_250
KEYS_A_CALL = 100
#: How often an open breaker is waited for: its 2 s each time, and other callers may fall upon its probe.
BREAKER_WAITS = 10

Item = TypeVar("Item")
Block = dict[str, list[Point]]
Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class Page(NamedTuple):
    """An answer, what it was limited to a key, and where its window ended."""

    series: Series
    limit: int
    until: int


class Resume(NamedTuple):
    """The last row that a caller has: all rows up to it are left out. Without a key, all of that time."""

    ts: int
    key: str | None

    def start_of(self, key: str) -> int:
        """Return the first time of a key that is still to come; at one time rows come by their keys."""
        return self.ts + 1 if self.key is None or key <= self.key else self.ts


class History:
    """The points of some keys of one entity in `[start, end)`. For one reader, once.

    `open` checks the entity and fetches the first page: whatever is wrong shows before an answer begins.
    From then on it is patient: it waits for ThingsBoard's rate limit and for an open breaker.

    Args:
        allowance: what its calls are taken from; `AllowanceSpent` is raised in the place of one that is not
            covered. None: whoever reads pays for it by reading.
    """

    def __init__(
        self,
        upstream: ThingsBoardClient,
        entity: tuple[str, str],
        keys: Sequence[str],
        span: tuple[int, int],
        *,
        resume: Resume | None = None,
        allowance: Allowance | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        start, self._end = span
        self._upstream, self._entity, self._allowance = upstream, entity, allowance
        self._clock, self._sleep, self._pacer = clock, sleep, Pacer()
        self._points, self._window = Dial(PAGE_POINTS), Dial(self._end - start)
        self._has_begun = False
        self.keys = list(keys)
        starts = {key: max(start, resume.start_of(key)) if resume else start for key in keys}
        self._tracks = {key: Track(key, first, self._end) for key, first in starts.items()}
        self._unread = [track for track in self._tracks.values() if not track.is_exhausted]

    @classmethod
    async def open(
        cls,
        upstream: ThingsBoardClient,
        entity: tuple[str, str],
        keys: Sequence[str] | None,
        span: tuple[int, int],
        *,
        resume: Resume | None = None,
    ) -> Self:
        """Check the entity, find its keys when none are named, and fetch the first page.

        Args:
            entity: ThingsBoard's type and id.
            span: start and exclusive end in ms since the epoch.
            resume: the last row that is not wanted again.

        Raises:
            NotFound: there is no such entity, or not for this account.
        """
        known = await upstream.telemetry.checked_keys(*entity, keys)
        # A named key is asked for even if it is not listed: that list is made of latest values, and a history
        # may outlive its latest value (recordings telemetry.json, "keys after deleting").
        history = cls(upstream, entity, known if keys is None else keys, span, resume=resume)
        await history._read_next_keys()
        return history

    def merged(self) -> AsyncGenerator[Block, None]:
        """Yield blocks of all keys, by key; every point of a block is later than all of those before it."""
        return one_ahead(self._merged())

    def by_key(self) -> AsyncGenerator[tuple[str, list[Point]], None]:
        """Yield the pages of one key after the other, at least one, maybe empty, for each key."""
        return one_ahead(self._by_key())

    async def _merged(self) -> AsyncGenerator[Block, None]:
        while self._unread:
            await self._read_next_keys()
        # In an order that does not depend on who asks, so that a reader can resume within one time.
        tracks = sorted(self._tracks.values(), key=lambda track: track.key)
        while True:
            reading = [track for track in tracks if not track.is_exhausted]
            # Beyond the point up to which a key has been read, that key may still bring points.
            frontier = min((track.cursor for track in reading), default=math.inf)
            taken = {track.key: track.take(frontier) for track in tracks if track.waiting}
            block = {key: points for key, points in taken.items() if points}
            if block:
                yield block
            if not reading:
                return
            for call in calls_for(reading, frontier, self._points.size, KEYS_A_CALL):
                await self._fetch(call)

    async def _by_key(self) -> AsyncGenerator[tuple[str, list[Point]], None]:
        tracks = list(self._tracks.values())
        for position, track in enumerate(tracks):
            if track.weight is None and not track.is_exhausted:
                await self._read_next_keys()
            yield track.key, track.take(math.inf)
            while not track.is_exhausted:
                await self._fetch(self._with_companions(track, tracks[position + 1 :]))
                if track.waiting:
                    yield track.key, track.take(math.inf)

    def _with_companions(self, track: Track, later: Sequence[Track]) -> list[Track]:
        """Put later keys into the call that have come as far, while there is room to hold their points."""
        call, held = [track], float(PAGE_BYTES)
        few = PAGE_POINTS // KEYS_A_CALL // 4
        for other in later:
            held += other.held_bytes
            if other.weight is None or held > HELD_BYTES or len(call) == KEYS_A_CALL:
                break
            if not other.is_exhausted and other.cursor >= track.cursor and other.after(track.cursor) <= few:
                call.append(other)
        return call

    async def _read_next_keys(self) -> None:
        """Fetch the first page of the next keys that have none yet."""
        group, self._unread = self._unread[:KEYS_A_CALL], self._unread[KEYS_A_CALL:]
        if group:
            await self._fetch(group)
        self._has_begun = True

    async def _fetch(self, tracks: list[Track]) -> None:
        # The other keys of the call bring some points again from the earliest cursor on; `add` drops them.
        start = min(track.cursor for track in tracks)
        page = await self._page([track.key for track in tracks], start, self._most_points(tracks))
        for track in tracks:
            try:
                track.add(page.series.get(track.key, []), page.limit, page.until)
            except (KeyError, TypeError):
                raise UpstreamGarbled(note="not_a_point") from None
            if track.cursor <= start:
                raise UpstreamGarbled(note="page_without_progress")

    def _most_points(self, tracks: list[Track]) -> int:
        """Return how many points of each key there is room for."""
        reading = [track for track in self._tracks.values() if not track.is_exhausted]
        total_rate = sum(track.rate for track in reading)
        most = PAGE_POINTS
        for track in tracks:
            if track.weight is None:
                most = min(most, FIRST_POINTS // len(tracks))
                continue
            # Half of the room is shared by how dense the keys are, half of it evenly.
            share = (track.rate / total_rate if total_rate else 0.0) + 1 / len(reading)
            room = min(PAGE_BYTES / len(tracks), HELD_BYTES / 2 * share)
            most = min(most, int(room / track.weight))
        return max(1, most)

    async def _page(self, keys: list[str], start: int, most: int) -> Page:
        """Return a page; of fewer points and a shorter window when ThingsBoard is too slow for the whole."""
        refusals = waits = 0
        while True:
            limit = max(1, min(most, self._points.size // len(keys)))
            until = min(self._end, start + self._window.size)
            query: Query = {"startTs": start, "endTs": until, "limit": limit, "orderBy": "ASC"}
            try:
                series, seconds = await self._ask(keys, query)
            except BreakerOpen as error:
                # It is this history's own time-outs that may have opened it.
                if waits == BREAKER_WAITS or not (refusals or self._has_begun):
                    raise
                waits += 1
                await in_time(self._sleep(error.retry_after or 1.0))
                continue
            except UpstreamError as error:
                if refusals == len(STEPS) or not is_too_slow(error):
                    raise
                self._points.refused(limit * len(keys), STEPS[refusals])
                self._window.refused(until - start, STEPS[refusals])
                refusals += 1
                if error.note == "upstream_503":
                    await in_time(self._sleep(delay_before(refusals)))
                continue
            if any(len(points) >= limit for points in series.values()):
                self._points.answered(limit * len(keys), seconds)
            else:
                self._window.answered(until - start, seconds)
            return Page(series, limit, until)

    async def _ask(self, keys: list[str], query: Query) -> tuple[Series, float]:
        """Make one call; return its answer and how many seconds it took ThingsBoard."""
        if self._allowance is not None:
            if not self._allowance.covers(keys):
                raise AllowanceSpent
            self._allowance.spend(keys)

        async def call() -> tuple[Series, float]:
            began = self._clock()
            series = await self._upstream.telemetry.history(*self._entity, keys, query=query)
            return series, self._clock() - began

        # Before the answer has begun a caller is better told of the rate limit than kept waiting.
        return await (self._pacer.run(call) if self._has_begun else call())


async def one_ahead(source: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
    """Fetch the next item while the last one is being used; closing it cancels what is under way."""
    done = object()
    coming = asyncio.ensure_future(_next(source, done))
    try:
        while (item := await coming) is not done:
            coming = asyncio.ensure_future(_next(source, done))
            # Let it send its request first: whoever gets the item keeps the loop busy for a while.
            await asyncio.sleep(0)
            yield item  # type: ignore[misc]  # everything but `done` is an Item
    finally:
        coming.cancel()
        try:
            await asyncio.gather(coming, return_exceptions=True)
        finally:
            await source.aclose()


async def _next(source: AsyncIterator[Item], done: object) -> Item | object:
    return await anext(source, done)
