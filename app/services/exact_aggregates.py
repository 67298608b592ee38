"""Aggregates that are right for values of mixed types too, where ThingsBoard's COUNT and MAX are not.

COUNT answers the number of one type only: of true and false if there are any, else of texts, else of objects,
else of numbers. MAX answers Java's smallest double where a bucket has a double, none of them is positive, and
another value is none. Both are worked out again from the points themselves, within a bound.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from app.errors import UpstreamError, UpstreamGarbled
from app.services.aggregation import CALLS_AT_ONCE, Aggregates, Bucket, Function, aggregate, is_number
from app.services.fan_out import run_bounded
from app.services.history import KEYS_A_CALL, PAGE_POINTS, History
from app.services.pacing import is_too_slow
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.connection import Query
from app.thingsboard.telemetry import Point

#: Points that one query reads to be exact, all its keys together: 20 calls, a second or so of ThingsBoard's.
MOST_RAW_POINTS = 200_000
#: What ThingsBoard's MAX takes a value for that is no double: Java's Double.MIN_VALUE.
HIDDEN_MAX = 5e-324
#: A range whose points cannot be counted within ThingsBoard's 30 s is counted in so many parts.
COUNT_PARTS = 16
#: Points of a key that are looked at for their types when there are too many to read them all.
SAMPLE_POINTS = 1_000

KeyedPage = Callable[[str, list[Point]], None]


@dataclass(frozen=True, slots=True)
class ExactAggregates:
    """Aggregates with what is still to be known about them."""

    found: Aggregates
    #: Keys with too many points to count them one by one: their COUNT is too low if their types are mixed.
    at_least: frozenset[str] = frozenset()
    #: Those of them whose types are mixed for certain.
    too_low: frozenset[str] = frozenset()
    #: In how many buckets of a key the greatest value remained unknown.
    unknown: dict[str, int] = field(default_factory=dict)


async def exact_aggregate(
    upstream: ThingsBoardClient,
    entity: tuple[str, str],
    keys: Sequence[str],
    function: Function,
    buckets: Sequence[Bucket],
    *,
    most_raw_points: int = MOST_RAW_POINTS,
) -> ExactAggregates:
    """Return the aggregates of adjacent buckets, oldest first. The entity has been checked before."""
    found = await aggregate(upstream, entity, keys, function, buckets)
    raw = _RawPoints(upstream, entity, most_raw_points)
    if function.agg == "COUNT":
        at_least, too_low = await _count_again(raw, found.values, buckets)
        too_low |= await _mixed(upstream, entity, at_least - too_low, buckets)
        return ExactAggregates(found, frozenset(at_least), frozenset(too_low))
    if function.agg == "MAX":
        return ExactAggregates(found, unknown=await _find_hidden_maxima(raw, found.values))
    return ExactAggregates(found)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many points each key has, and the keys that may have more."""

    counts: dict[str, int]
    at_least: list[str]

    @property
    def answer(self) -> dict[str, Any]:
        """Return the members of the answer."""
        return {
            "counts": self.counts,
            "total": sum(self.counts.values()),
            "exact": not self.at_least,
            "at_least": self.at_least,
        }


async def count_points(
    upstream: ThingsBoardClient, entity: tuple[str, str], keys: Sequence[str] | None, span: Bucket
) -> Counts:
    """Return how many points each key has in `[start, end)`; all keys when none are named.

    Raises:
        NotFound: there is no such entity, or not for this account.
    """
    known = await upstream.telemetry.checked_keys(*entity, keys)
    wanted = list(known if keys is None else keys)
    values, buckets = await _count(upstream, entity, wanted, span)
    raw = _RawPoints(upstream, entity, MOST_RAW_POINTS)
    at_least, _ = await _count_again(raw, values, buckets)
    counts = {key: sum(map(int, values[key].values())) for key in wanted}
    return Counts(counts, [key for key in wanted if key in at_least])


async def _count(
    upstream: ThingsBoardClient, entity: tuple[str, str], keys: Sequence[str], span: Bucket
) -> tuple[dict[str, dict[Bucket, Any]], list[Bucket]]:
    """Return ThingsBoard's counts by bucket, and the buckets: one, or several where one takes it too long."""
    function = Function("COUNT", None, "UTC")
    try:
        return (await aggregate(upstream, entity, keys, function, [span])).values, [span]
    except UpstreamError as error:
        if not is_too_slow(error):
            raise
    start, end = span
    step = -(-(end - start) // COUNT_PARTS)
    buckets = [(at, min(at + step, end)) for at in range(start, end, step)]

    async def count(bucket: Bucket) -> Aggregates:
        return await aggregate(upstream, entity, keys, function, [bucket])

    values: dict[str, dict[Bucket, Any]] = {key: {} for key in keys}
    for part in await run_bounded(buckets, count, at_once=CALLS_AT_ONCE):
        for key in keys:
            values[key] |= part.values[key]
    return values, buckets


class _RawPoints:
    """Reads points until an allowance is used up, which all reads of one query share."""

    def __init__(self, upstream: ThingsBoardClient, entity: tuple[str, str], allowance: int) -> None:
        self._upstream, self._entity, self.allowance = upstream, entity, allowance

    async def read(self, keys: Sequence[str], span: Bucket, take: KeyedPage) -> set[str]:
        """Hand over the points of each key, oldest first; return the keys that were read to their end."""
        done: set[str] = set()
        if self.allowance < 0:
            return done
        current = keys[0]
        async with aclosing(History(self._upstream, self._entity, keys, span).by_key()) as pages:
            async for key, points in pages:
                if key != current:
                    done.add(current)
                    current = key
                try:
                    take(key, points)
                except (KeyError, TypeError):
                    raise UpstreamGarbled(note="not_a_point") from None
                self.allowance -= len(points)
                if self.allowance < 0:
                    return done
        return {*done, current}


async def _count_again(
    raw: _RawPoints, values: dict[str, dict[Bucket, Any]], buckets: Sequence[Bucket]
) -> tuple[set[str], set[str]]:
    """Correct the counts of as many keys as may be read, those with few points first.

    Returns:
        The other keys, and those of them that have more points than ThingsBoard counted.
    """
    totals = {key: sum(by_bucket.values()) for key, by_bucket in values.items() if by_bucket}
    starts = [start for start, _ in buckets]
    doubtful, too_low = set(totals), set()

    async def count(keys: list[str]) -> None:
        again: dict[str, Counter[Bucket]] = {key: Counter() for key in keys}

        def take(key: str, points: list[Point]) -> None:
            if len(buckets) == 1:
                again[key][buckets[0]] += len(points)
            else:
                again[key].update(buckets[bisect_right(starts, point["ts"]) - 1] for point in points)

        filled = [bucket for key in keys for bucket in values[key]]
        span = min(filled)[0], max(filled)[1]
        doubtful.difference_update(await raw.read(keys, span, take))
        for key in keys:
            if key in doubtful:
                # Both may be too low: ThingsBoard's has one type, ours ended early.
                again[key] |= Counter(values[key])
                too_low.update([key] if again[key] != values[key] else [])
            values[key] = dict(again[key])

    await run_bounded(_groups(totals, raw.allowance), count, at_once=CALLS_AT_ONCE)
    return doubtful, too_low


def _groups(totals: dict[str, int], allowance: int) -> list[list[str]]:
    """Put keys together that fit one page, the smallest first, for as long as the allowance lasts."""
    groups: list[list[str]] = []
    for key in sorted(totals, key=totals.__getitem__):
        allowance -= totals[key]
        if allowance < 0:
            break
        # A page is shared evenly, and one point more tells that a key has no more.
        fits = groups and (len(groups[-1]) + 1) * (totals[key] + 1) <= PAGE_POINTS
        if fits and len(groups[-1]) < KEYS_A_CALL:
            groups[-1].append(key)
        else:
            groups.append([key])
    return groups


async def _mixed(
    upstream: ThingsBoardClient, entity: tuple[str, str], keys: Collection[str], buckets: Sequence[Bucket]
) -> set[str]:
    """Return the keys whose newest points are seen to have several types."""
    size = PAGE_POINTS // SAMPLE_POINTS
    ordered = sorted(keys)
    groups = [ordered[index : index + size] for index in range(0, len(ordered), size)]

    async def look(group: list[str]) -> list[str]:
        start, end = buckets[0][0], buckets[-1][1]
        query: Query = {"startTs": start, "endTs": end, "limit": SAMPLE_POINTS, "orderBy": "DESC"}
        sample = await upstream.telemetry.history(*entity, group, query=query)
        try:
            return [key for key in group if len({_kind(point["value"]) for point in sample.get(key, [])}) > 1]
        except (KeyError, TypeError):
            raise UpstreamGarbled(note="not_a_point") from None

    found = await run_bounded(groups, look, at_once=CALLS_AT_ONCE)
    return {key for group in found for key in group}


def _kind(value: Any) -> type:
    """Return what ThingsBoard's COUNT holds apart: truth values, numbers, texts, and objects with lists."""
    if is_number(value):
        return float
    return type(value) if isinstance(value, bool | str) else dict


async def _find_hidden_maxima(raw: _RawPoints, values: dict[str, dict[Bucket, Any]]) -> dict[str, int]:
    """Put the greatest number in the place of each hidden one; return how many remained unknown, by key."""
    unknown: Counter[str] = Counter()

    async def find(task: tuple[str, list[Bucket]]) -> None:
        key, stretch = task
        starts = [start for start, _ in stretch]
        greatest: dict[Bucket, float] = {}
        reached = stretch[0][0]

        def take(_: str, points: list[Point]) -> None:
            nonlocal reached
            for point in points:
                bucket = stretch[bisect_right(starts, point["ts"]) - 1]
                value = point["value"]
                if is_number(value) and (bucket not in greatest or value > greatest[bucket]):
                    greatest[bucket] = value
            reached = points[-1]["ts"] if points else reached

        is_complete = key in await raw.read([key], (starts[0], stretch[-1][1]), take)
        for bucket in stretch:
            is_known = is_complete or bucket[1] <= reached
            values[key][bucket] = greatest.get(bucket) if is_known else None
            unknown[key] += not is_known

    tasks = [
        (key, stretch)
        for key, by_bucket in values.items()
        for stretch in _stretches(bucket for bucket, value in by_bucket.items() if value == HIDDEN_MAX)
    ]
    await run_bounded(tasks, find, at_once=CALLS_AT_ONCE)
    return dict(+unknown)


def _stretches(buckets: Iterable[Bucket]) -> list[list[Bucket]]:
    """Put buckets together that follow each other without a gap: they are read as one."""
    ordered = sorted(buckets)
    if not ordered:
        return []
    stretches = [ordered[:1]]
    for before, bucket in pairwise(ordered):
        if before[1] == bucket[0]:
            stretches[-1].append(bucket)
        else:
            stretches.append([bucket])
    return stretches
