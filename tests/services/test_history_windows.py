"""Histories of a ThingsBoard that is slow, busy or full of large values: all of it comes, at a fair price."""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from app.errors import BreakerOpen, UpstreamBusy, UpstreamFailed, UpstreamTimeout
from app.services.history import Block, History
from app.services.tracks import BARE_POINT_BYTES, HELD_BYTES, PAGE_BYTES
from app.services.windows import STEPS
from app.thingsboard.telemetry import Point, Series

ENTITY = ("DEVICE", "d")
PATIENCE = 30.0
YEAR_MS = 365 * 86_400_000
END = 1_760_000_000_000


class SlowTelemetry:
    """Answers history calls from memory on a clock of its own; gives up after ThingsBoard's 30 s."""

    def __init__(
        self,
        stored: dict[str, list[Point]],
        *,
        points_per_second: float = float("inf"),
        ms_per_second: float = float("inf"),
    ) -> None:
        self.stored = stored
        self.points_per_second, self.ms_per_second = points_per_second, ms_per_second
        self.now = 0.0
        self.calls = self.refused = 0
        self.slept: list[float] = []
        self.faults: list[Exception] = []

    async def history(self, _type: str, _id: str, keys: list[str], *, query: dict[str, Any]) -> Series:
        self.calls += 1
        start, end, limit = query["startTs"], query["endTs"], query["limit"]
        seconds = limit * len(keys) / self.points_per_second + (end - start) / self.ms_per_second
        self.now += min(seconds, PATIENCE)
        if seconds > PATIENCE:
            self.refused += 1
            raise UpstreamTimeout(note="upstream_request_timeout")
        if self.faults:
            raise self.faults.pop(0)
        found = {key: self._between(key, start, end)[:limit] for key in keys}
        return {key: points for key, points in found.items() if points}

    def _between(self, key: str, start: int, end: int) -> list[Point]:
        points = self.stored[key]
        first, last = (bisect_left(points, ts, key=lambda point: point["ts"]) for ts in (start, end))
        return points[first:last]

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def read(self, span: tuple[int, int]) -> History:
        upstream: Any = self
        self.telemetry = self
        return History(upstream, ENTITY, list(self.stored), span, clock=lambda: self.now, sleep=self.sleep)


def numbers(*times: int) -> list[Point]:
    return [Point(ts=ts, value=ts % 100) for ts in times]


async def all_of(history: History) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {key: [] for key in history.keys}
    async for block in history.merged():
        for key, points in block.items():
            found[key] += points
    return found


async def to_the_end(blocks: AsyncGenerator[Block, None]) -> None:
    async for _ in blocks:
        pass


async def test_a_range_that_takes_too_long_is_read_in_windows() -> None:
    """A year of partitions at ten days a second, most of them empty: no window takes 30 s for long."""
    span = (END - 5 * YEAR_MS, END)
    stored = {"a": numbers(*range(END - YEAR_MS, END, YEAR_MS // 500))}
    upstream = SlowTelemetry(stored, ms_per_second=10 * 86_400_000)
    assert await all_of(upstream.read(span)) == stored
    assert upstream.refused <= 2
    # 182 s of ThingsBoard's time is what the range costs at least.
    assert upstream.now <= 182 + 2 * PATIENCE + 30
    assert upstream.calls <= 60


async def test_points_that_take_too_long_are_read_in_small_pages() -> None:
    stored = {"a": numbers(*range(END - 20_000, END)), "b": numbers(*range(END - 20_000, END, 7))}
    upstream = SlowTelemetry(stored, points_per_second=100)
    assert await all_of(upstream.read((END - 20_000, END))) == stored
    assert upstream.refused <= 2
    assert upstream.calls <= 23_000 / 300


async def test_the_smallest_window_that_goes_is_found() -> None:
    """The whole time since 1970, where even an hour takes half of ThingsBoard's patience."""
    stored = {"a": numbers(END - 3_600_000, END - 1)}
    upstream = SlowTelemetry(stored, ms_per_second=3_600_000 / 15)
    history = upstream.read((END - 24 * 3_600_000, END))
    assert await all_of(history) == stored
    upstream = SlowTelemetry({"a": numbers(5, 3_600_000)}, ms_per_second=3_600_000 / 15)
    blocks = upstream.read((0, END)).merged()
    assert await anext(blocks) == {"a": numbers(5)}
    assert upstream.refused <= len(STEPS)
    await blocks.aclose()


async def test_a_thingsboard_that_answers_nothing_is_given_up() -> None:
    upstream = SlowTelemetry({"a": []}, ms_per_second=1e-9)
    with pytest.raises(UpstreamTimeout):
        await all_of(upstream.read((0, END)))
    assert upstream.calls == 1 + len(STEPS)


async def test_pages_grow_again_when_thingsboard_has_recovered() -> None:
    stored = {"a": numbers(*range(1_000_000, 1_200_000))}
    upstream = SlowTelemetry(stored, points_per_second=40)
    blocks = upstream.read((0, 2_000_000)).merged()
    await anext(blocks)
    upstream.points_per_second = float("inf")
    slow = upstream.calls
    assert sum([len(block["a"]) async for block in blocks]) > 190_000
    # Some more than 20: it was tried again step by step.
    assert upstream.calls - slow <= 150


async def test_a_short_patience_is_learnt() -> None:
    """Where a proxy gives up after a second, quick answers are no reason to ask for what it refused."""
    stored = {"a": numbers(*range(100_000))}
    upstream = SlowTelemetry(stored)
    most = 3_000
    original = upstream.history

    async def impatient(*args: Any, query: dict[str, Any]) -> Series:
        if query["limit"] > most:
            upstream.calls += 1
            upstream.refused += 1
            raise UpstreamFailed(note="upstream_503")
        return await original(*args, query=query)

    upstream.history = impatient  # type: ignore[method-assign]
    assert await all_of(upstream.read((0, 100_000))) == stored
    assert upstream.refused <= upstream.calls / 10
    assert upstream.calls <= 120
    assert len(upstream.slept) == upstream.refused


async def test_one_dense_key_among_two_hundred_sparse_ones_costs_its_points() -> None:
    """Calls in proportion to points, not keys times pages: 101 pages of the dense key, a few for the rest."""
    dense = numbers(*range(1_000_000, 2_000_000))
    stored = {"dense": dense} | {
        f"s{n}": numbers(*range(1_000_000 + n, 2_000_000, 200_000)) for n in range(200)
    }
    upstream = SlowTelemetry(stored)
    upstream.read((0, 3_000_000))
    assert await all_of(upstream.read((0, 3_000_000))) == stored
    assert upstream.calls <= 105


async def test_keys_of_very_different_density_cost_their_points() -> None:
    stored = {"dense": numbers(*range(300_000))}
    stored |= {f"middle{n}": numbers(*range(n, 300_000, 600)) for n in range(100)}
    stored |= {f"sparse{n}": numbers(*range(n, 300_000, 30_000)) for n in range(100)}
    points = sum(map(len, stored.values()))
    assert points == 351_000
    upstream = SlowTelemetry(stored)
    assert await all_of(upstream.read((0, 300_000))) == stored
    # 36 full pages is the least.
    assert upstream.calls <= 70


async def test_key_after_key_costs_its_points_too() -> None:
    """As JSON and workbooks want it: later keys come along while there is room."""
    stored = {f"k{n}": numbers(*range(0, 300_000, 2_000)) for n in range(200)}
    upstream = SlowTelemetry(stored)
    found: dict[str, list[Point]] = {}
    async for key, points in upstream.read((0, 300_000)).by_key():
        found.setdefault(key, []).extend(points)
    assert found == stored
    # 30,000 points.
    assert upstream.calls <= 10


async def test_large_values_are_read_in_small_pages() -> None:
    """What is held is bounded in bytes, whatever a value weighs; only the first page cannot know."""
    text = "x" * 50_000
    stored = {f"k{n}": [Point(ts=ts, value=text) for ts in range(1_000)] for n in range(4)}
    upstream = SlowTelemetry(stored)
    sizes = [sum(map(len, block.values())) async for block in upstream.read((0, 1_000)).merged()]
    assert sum(sizes) == 4_000
    weight = len(text) + BARE_POINT_BYTES
    assert max(sizes[2:]) * weight <= HELD_BYTES + PAGE_BYTES


async def test_what_is_held_is_bounded_whatever_the_number_of_keys() -> None:
    stored = {f"k{n}": numbers(*range(n % 7, 4_000, 7)) for n in range(1_000)}
    upstream = SlowTelemetry(stored)
    history = upstream.read((0, 4_000))
    most = 0
    async for _ in history.merged():
        most = max(most, sum(len(track.waiting) for track in history._tracks.values()))
    assert most * BARE_POINT_BYTES <= 2 * HELD_BYTES
    # 571,000 points, 3,000 a call.
    assert upstream.calls <= 200


async def test_the_next_page_is_under_way_while_the_last_is_used() -> None:
    upstream = SlowTelemetry({"a": numbers(*range(100_000))})
    blocks = upstream.read((0, 100_000)).merged()
    for number in range(1, 5):
        await anext(blocks)
        assert upstream.calls == number + 1
        for _ in range(10):
            await asyncio.sleep(0)
        # One page ahead and no more, however long the reader takes.
        assert upstream.calls == number + 1
    await blocks.aclose()


async def test_an_open_breaker_is_waited_for_once_it_has_begun() -> None:
    upstream = SlowTelemetry({"a": numbers(*range(30_000))})
    history = upstream.read((0, 30_000))
    upstream.faults = [BreakerOpen(retry_after=2)]
    with pytest.raises(BreakerOpen):
        await all_of(history)
    history = upstream.read((0, 30_000))
    blocks = history.merged()
    await anext(blocks)
    upstream.faults = [BreakerOpen(retry_after=2), BreakerOpen(retry_after=1)]
    assert sum([len(block["a"]) async for block in blocks]) > 20_000
    assert upstream.slept == [2, 1]


async def test_a_breaker_that_stays_open_ends_it() -> None:
    upstream = SlowTelemetry({"a": numbers(*range(30_000))})
    blocks = upstream.read((0, 30_000)).merged()
    await anext(blocks)
    upstream.faults = [BreakerOpen(retry_after=2) for _ in range(100)]
    with pytest.raises(BreakerOpen):
        await to_the_end(blocks)
    assert upstream.slept == [2] * 10


async def test_the_rate_limit_is_waited_for_once_it_has_begun() -> None:
    upstream = SlowTelemetry({"a": numbers(*range(30_000))})
    upstream.faults = [UpstreamBusy()]
    with pytest.raises(UpstreamBusy):
        await all_of(upstream.read((0, 30_000)))
    blocks = upstream.read((0, 30_000)).merged()
    await anext(blocks)
    upstream.faults = [UpstreamBusy()]
    assert sum([len(block["a"]) async for block in blocks]) > 20_000


async def test_other_faults_are_not_tried_again() -> None:
    upstream = SlowTelemetry({"a": numbers(*range(30_000))})
    blocks = upstream.read((0, 30_000)).merged()
    await anext(blocks)
    calls = upstream.calls
    upstream.faults = [UpstreamFailed(note="upstream_500")] * 2
    with pytest.raises(UpstreamFailed):
        await to_the_end(blocks)
    assert upstream.calls <= calls + 1
