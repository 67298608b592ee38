"""Pages joined by their cursors equal the whole, whatever the limit."""

from bisect import bisect_right
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.services import point_queries
from app.services.allowance import Allowance
from app.services.cursors import Cursor
from app.services.point_queries import Question
from app.thingsboard.telemetry import Point, Series, keys_by_call

ENTITY = ("DEVICE", "d")
SPAN = (1_760_000_000_000, 1_760_000_000_300)


class Upstream:
    """A client that answers raw history and COUNT from lists."""

    def __init__(self, stored: dict[str, list[int]]) -> None:
        self.stored = stored
        self.telemetry = self
        self.calls = 0

    async def checked_keys(self, *_: Any) -> tuple[str, ...]:
        return tuple(self.stored)

    async def history(self, _type: str, _id: str, keys: list[str], *, query: dict[str, Any]) -> Series:
        start, end = query["startTs"], query["endTs"]
        self.calls += len(keys_by_call(keys))
        found: Series = {}
        for key in keys:
            times = [ts for ts in self.stored[key] if start <= ts < end]
            if "interval" in query:
                found[key] = list(counts(times, start, end, query["interval"]))
            else:
                ordered = times if query["orderBy"] == "ASC" else times[::-1]
                found[key] = [Point(ts=ts, value=ts) for ts in ordered[: query["limit"]]]
        return found


def counts(times: list[int], start: int, end: int, interval: int) -> Any:
    for begin in range(start, end, interval):
        stop = min(begin + interval, end)
        if number := sum(begin <= ts < stop for ts in times):
            yield Point(ts=begin + (stop - begin) // 2, value=number)


def question(**changes: Any) -> Question:
    fields: dict[str, Any] = {
        "keys": None,
        "start_ts": SPAN[0],
        "end_ts": SPAN[1],
        "limit": 10,
        "interval": None,
        "agg": "NONE",
        "time_zone": "UTC",
        "fill": None,
        "order": "ASC",
    }
    return Question(**(fields | changes))


async def pages(
    upstream: Upstream, limits: list[int], *, devices: int = 1, **fields: Any
) -> dict[str, list[Any]]:
    """Join all pages; as if so many devices shared each answer, so that few calls are left for this one."""
    joined: dict[str, list[Any]] = {}
    cursor, number = None, 0
    while True:
        asked = question(**fields, limit=limits[number % len(limits)], cursor=cursor)
        upstream.calls = 0
        page = await point_queries.answer(upstream, ENTITY, asked, devices=devices)  # type: ignore[arg-type]  # all it needs
        assert upstream.calls <= Allowance.of_one_in(devices).calls
        for key, points in page["data"].items():
            assert len(points) <= asked.limit
            joined.setdefault(key, []).extend(points)
        cursor = page["metadata"]["next_cursor"]
        assert page["metadata"]["truncated"] is (cursor is not None)
        number += 1
        if cursor is None:
            return joined


stored_series = st.dictionaries(
    st.sampled_from(["a", "b", "c,d", ""]),
    st.sets(st.integers(SPAN[0] - 20, SPAN[1] + 20), max_size=60).map(sorted),
    min_size=1,
)
limits = st.lists(st.integers(1, 70), min_size=1, max_size=3)


@given(
    stored=stored_series,
    limits=limits,
    order=st.sampled_from(["ASC", "DESC"]),
    devices=st.sampled_from([1, 500]),
)
# Three keys, each at a position of its own, and two calls.
@example(
    stored={key: list(range(*SPAN, step)) for step, key in enumerate("abc", 7)},
    limits=[2],
    order="ASC",
    devices=500,
)
@settings(deadline=None)
async def test_pages_of_points_joined_equal_the_history(
    stored: dict[str, list[int]], limits: list[int], order: str, devices: int
) -> None:
    joined = await pages(Upstream(stored), limits, order=order, devices=devices)
    step = 1 if order == "ASC" else -1
    for key, times in stored.items():
        expected = [ts for ts in times if SPAN[0] <= ts < SPAN[1]][::step]
        assert [point["ts"] for point in joined[key]] == expected


@given(
    stored=stored_series,
    limits=limits,
    order=st.sampled_from(["ASC", "DESC"]),
    interval=st.integers(1, 400),
    fill=st.sampled_from([None, "null"]),
)
@settings(deadline=None, max_examples=60)
async def test_pages_of_buckets_joined_equal_the_whole(
    stored: dict[str, list[int]], limits: list[int], order: str, interval: int, fill: str | None
) -> None:
    fields = {"agg": "COUNT", "interval": interval, "order": order, "fill": fill}
    upstream = Upstream(stored)
    joined = await pages(upstream, limits, **fields)
    assert joined == await pages(upstream, [10_000], **fields)
    for key, times in stored.items():
        inside = [ts for ts in times if SPAN[0] <= ts < SPAN[1]]
        assert sum(bucket["value"] or 0 for bucket in joined[key]) == len(inside)
        if fill:
            assert len(joined[key]) == -(-(SPAN[1] - SPAN[0]) // interval)


LONG_SPAN = (SPAN[0], SPAN[0] + 20_000)


@given(
    stored=st.dictionaries(
        st.sampled_from(["a", "b", "c,d"]),
        st.sets(st.integers(*LONG_SPAN), max_size=12).map(sorted),
        min_size=1,
    ),
    limit=st.integers(1, 10_000),
    order=st.sampled_from(["ASC", "DESC"]),
    interval=st.integers(1, 40),
    fill=st.sampled_from([None, "null"]),
    devices=st.sampled_from([1, 100, 250]),
)
@settings(deadline=None, max_examples=40)
async def test_pages_of_few_calls_joined_equal_the_whole(
    stored: dict[str, list[int]], limit: int, order: str, interval: int, fill: str | None, devices: int
) -> None:
    """Up to 29 runs of buckets, of which an answer may read two at a time."""
    fields = {"agg": "COUNT", "interval": interval, "order": order, "fill": fill, "end_ts": LONG_SPAN[1]}
    joined = await pages(Upstream(stored), [max(limit, 200)], devices=devices, **fields)
    for key, times in stored.items():
        inside = [ts for ts in times if ts < LONG_SPAN[1]]
        filled = Counter(ts - (ts - SPAN[0]) % interval for ts in inside)
        starts = range(*LONG_SPAN, interval) if fill else sorted(filled)
        expected = [(start, filled[start] or None) for start in starts]
        found = [(bucket["ts"], bucket["value"]) for bucket in joined[key]]
        assert found == (expected if order == "ASC" else expected[::-1])


MONTHS = [int(datetime(1990 + n // 12, n % 12 + 1, 1, 5, tzinfo=UTC).timestamp()) * 1000 for n in range(241)]


@given(
    times=st.sets(st.integers(MONTHS[0], MONTHS[-1] - 1), max_size=9).map(sorted),
    order=st.sampled_from(["ASC", "DESC"]),
    fill=st.sampled_from([None, "null"]),
    devices=st.sampled_from([1, 100, 400]),
)
@settings(deadline=None, max_examples=40)
async def test_pages_of_uneven_buckets_joined_equal_the_whole(
    times: list[int], order: str, fill: str | None, devices: int
) -> None:
    """A call brings one to three of the 240 months."""
    fields = {"agg": "COUNT", "interval": "month", "time_zone": "EST", "order": order, "fill": fill}
    span = {"start_ts": MONTHS[0], "end_ts": MONTHS[-1]}
    joined = await pages(Upstream({"k": times}), [240], devices=devices, **fields, **span)
    filled = Counter(bisect_right(MONTHS, ts) - 1 for ts in times)
    expected = [(MONTHS[n], filled[n] or None) for n in (range(240) if fill else sorted(filled))]
    found = [(bucket["ts"], bucket["value"]) for bucket in joined["k"]]
    assert found == (expected if order == "ASC" else expected[::-1])


@given(text=st.text(max_size=80) | st.binary(max_size=60).map(lambda raw: raw.hex()))
@settings(deadline=None)
def test_text_that_is_no_cursor_is_refused_as_such(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Cursor.decode(text)
    assert refused.value.details == {"field": "cursor", "issue": "is not a cursor of this gateway"}


def test_a_cursor_survives_its_text() -> None:
    for cursor in (
        Cursor("abc", *SPAN, "DESC", positions={"key, with": SPAN[0] + 1}),
        Cursor("abc", *SPAN, "ASC", boundary=SPAN[1]),
    ):
        assert Cursor.decode(cursor.encode()) == cursor


@pytest.mark.parametrize(
    "cursor",
    [
        Cursor("abc", *SPAN, "DESC", positions={"a": SPAN[1] + 1}),
        Cursor("abc", *SPAN, "ASC", boundary=SPAN[0] - 1),
        Cursor("abc", *SPAN, "ASC"),
        Cursor("abc", 0, 2**60, "ASC", boundary=5),
        Cursor("abc", *SPAN, "UP", boundary=SPAN[0]),  # type: ignore[arg-type]  # the point of the test
    ],
    ids=["position outside", "boundary outside", "no position", "no such time", "no such order"],
)
def test_a_forged_cursor_is_refused(cursor: Cursor) -> None:
    with pytest.raises(InvalidRequest):
        Cursor.decode(cursor.encode())
