"""Reading whole histories in pages: every point once, in order, with few calls."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import UpstreamGarbled
from app.services import history as module
from app.services.allowance import Allowance, AllowanceSpent
from app.services.history import History
from app.thingsboard.telemetry import Point, Series

ENTITY = ("DEVICE", "d")


class Telemetry:
    """History calls of a client, answered from lists."""

    def __init__(self, stored: dict[str, list[int]]) -> None:
        self.stored = stored
        self.calls: list[tuple[tuple[str, ...], int]] = []

    async def checked_keys(self, *_: Any) -> tuple[str, ...]:
        return tuple(self.stored)

    async def history(self, _type: str, _id: str, keys: list[str], *, query: dict[str, Any]) -> Series:
        found: Series = {}
        for key in keys:
            times = [ts for ts in self.stored[key] if query["startTs"] <= ts < query["endTs"]]
            if times:
                found[key] = [Point(ts=ts, value=f"{key}{ts}") for ts in times[: query["limit"]]]
        self.calls.append((tuple(keys), sum(map(len, found.values()))))
        return found


class Upstream:
    """A client with nothing but telemetry."""

    def __init__(self, stored: dict[str, list[int]]) -> None:
        self.telemetry = Telemetry(stored)


async def read_merged(upstream: Upstream, span: tuple[int, int] = (0, 10_000_000)) -> list[tuple[int, str]]:
    history = await History.open(upstream, ENTITY, None, span)  # type: ignore[arg-type]  # all it needs
    read: list[tuple[int, str]] = []
    last = -1
    async for block in history.merged():
        rows = sorted((point["ts"], point["value"]) for points in block.values() for point in points)
        assert rows
        assert rows[0][0] > last
        last = rows[-1][0]
        read += rows
    return read


async def test_a_history_ends_where_its_allowance_does() -> None:
    upstream = Upstream({"a": list(range(100_000)), "b,c": [1]})
    allowance = Allowance(calls=5, raw_points=0)
    history = History(upstream, ENTITY, ["a", "b,c"], (0, 100_000), allowance=allowance)  # type: ignore[arg-type]  # all it needs
    read: list[int] = []

    async def read_on() -> None:
        async for block in history.merged():
            read.extend(point["ts"] for point in block.get("a", []))

    with pytest.raises(AllowanceSpent):
        await read_on()
    assert read == list(range(len(read)))
    # The first call names both keys, which takes two.
    assert (len(upstream.telemetry.calls), allowance.calls) == (4, 0)


stored_series = st.dictionaries(
    st.sampled_from("abcdef"), st.sets(st.integers(0, 400), max_size=120).map(sorted), min_size=1
)


@given(stored=stored_series, page=st.integers(1, 60), keys_a_call=st.integers(1, 4))
@settings(deadline=None)
async def test_every_point_comes_once_and_in_order(
    stored: dict[str, list[int]], page: int, keys_a_call: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PAGE_POINTS", page)
        patch.setattr(module, "KEYS_A_CALL", keys_a_call)
        expected = sorted((ts, f"{key}{ts}") for key, times in stored.items() for ts in times if ts < 300)
        assert await read_merged(Upstream(stored), (0, 300)) == expected
        upstream = Upstream(stored)
        history = await History.open(upstream, ENTITY, None, (0, 300))  # type: ignore[arg-type]
        by_key: dict[str, list[int]] = {}
        async for key, points in history.by_key():
            by_key.setdefault(key, []).extend(point["ts"] for point in points)
        assert by_key == {key: [ts for ts in times if ts < 300] for key, times in stored.items()}
        assert list(by_key) == list(stored)


async def test_a_dense_key_is_not_fetched_again_beside_a_sparse_one() -> None:
    dense, sparse = list(range(200_000)), list(range(0, 200_000, 40))
    upstream = Upstream({"dense": dense, "sparse": sparse})
    assert len(await read_merged(upstream)) == len(dense) + len(sparse)
    fetched = sum(points for _, points in upstream.telemetry.calls)
    assert fetched <= 1.02 * (len(dense) + len(sparse))
    assert len(upstream.telemetry.calls) <= 23


async def test_keys_with_shifted_times_share_their_calls() -> None:
    stored = {f"k{n}": list(range(n, 100_000, 10)) for n in range(10)}
    upstream = Upstream(stored)
    assert len(await read_merged(upstream)) == 100_000
    assert len(upstream.telemetry.calls) <= 15
    assert sum(points for _, points in upstream.telemetry.calls) <= 110_000


async def test_a_thingsboard_that_ignores_the_start_does_not_loop() -> None:
    upstream = Upstream({"a": list(range(30_000))})
    original = upstream.telemetry.history

    async def ignoring(*args: Any, query: dict[str, Any]) -> Series:
        return await original(*args, query={**query, "startTs": 0})

    upstream.telemetry.history = ignoring  # type: ignore[method-assign]
    with pytest.raises(UpstreamGarbled):
        await read_merged(upstream)


async def test_points_that_are_none_are_garbled() -> None:
    upstream = Upstream({"a": [1]})

    async def garbled(*_: Any, **__: Any) -> Any:
        return {"a": ["x"]}

    upstream.telemetry.history = garbled  # type: ignore[method-assign]
    with pytest.raises(UpstreamGarbled):
        await read_merged(upstream)
