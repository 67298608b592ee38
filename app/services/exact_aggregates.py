"""Aggregates that are right for values of mixed types too, where ThingsBoard's COUNT and MAX are not.

COUNT answers the number of one type only: of true and false if there are any, else of texts, else of objects,
else of numbers. MAX answers Java's smallest double where a bucket has a double, none of them is positive, and
another value is none. Both are worked out again from the points themselves, within a bound.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from app.errors import UpstreamError, UpstreamGarbled
from app.services.aggregation import CALLS_AT_ONCE, Aggregates, Bucket, Function, aggregate, is_number
from app.services.allowance import Allowance, AllowanceSpent
from app.services.fan_out import run_bounded
from app.services.history import KEYS_A_CALL, PAGE_POINTS, History
from app.services.pacing import is_too_slow
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.connection import Query
from app.thingsboard.telemetry import Point

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
    allowance: Allowance,
) -> ExactAggregates:
    """Return the aggregates of adjacent buckets, oldest first. The entity has been checked before.

    What it costs is taken off the allowance, as `aggregate` says.
    """
    found = await aggregate(upstream, entity, keys, function, buckets, allowance)
    raw = _RawPoints(upstream, entity, allowance)
    if function.agg == "COUNT":
        with allowance.without(keys):
            at_least, too_low = await _count_again(raw, found.values, buckets)
        too_low |= await _mixed(raw, at_least - too_low, buckets)
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
        InvalidRequest: ThingsBoard would have to be asked for too many of the keys one by one.
        NotFound: there is no such entity, or not for this account.
    """
    known = await upstream.telemetry.checked_keys(*entity, keys)
    wanted = list(known if keys is None else keys)
    allowance = Allowance.of_one_in(1)
    allowance.check(wanted, 1)
    values, buckets = await _count(upstream, entity, wanted, span, allowance)
    at_least, _ = await _count_again(_RawPoints(upstream, entity, allowance), values, buckets)
    counts = {key: sum(map(int, values[key].values())) for key in wanted}
    return Counts(counts, [key for key in wanted if key in at_least])


async def _count(
    upstream: ThingsBoardClient,
    entity: tuple[str, str],
    keys: Sequence[str],
    span: Bucket,
    allowance: Allowance,
) -> tuple[dict[str, dict[Bucket, Any]], list[Bucket]]:
    """Return ThingsBoard's counts by bucket, and the buckets: one, or several where one takes it too long."""
    function = Function("COUNT", None, "UTC")
    try:
        return (await aggregate(upstream, entity, keys, function, [span], allowance)).values, [span]
    except UpstreamError as error:
        if not is_too_slow(error) or not allowance.covers(keys, COUNT_PARTS):
            raise
    start, end = span
    step = -(-(end - start) // COUNT_PARTS)
    buckets = [(at, min(at + step, end)) for at in range(start, end, step)]

    async def count(bucket: Bucket) -> Aggregates:
        return await aggregate(upstream, entity, keys, function, [bucket], allowance)

    values: dict[str, dict[Bucket, Any]] = {key: {} for key in keys}
    for part in await run_bounded(buckets, count, at_once=CALLS_AT_ONCE):
        for key in keys:
            values[key] |= part.values[key]
    return values, buckets


class _RawPoints:
    """Reads points until an allowance is used up, which all reads of one answer share."""

    def __init__(self, upstream: ThingsBoardClient, entity: tuple[str, str], allowance: Allowance) -> None:
        self.upstream, self.entity, self.allowance = upstream, entity, allowance

    async def read(self, keys: Sequence[str], span: Bucket, take: KeyedPage) -> set[str]:
        """Hand over the points of each key, oldest first; return the keys that were read to their end."""
        done: set[str] = set()
        if self.allowance.raw_points < 0:
            return done
        current = keys[0]
        history = History(self.upstream, self.entity, keys, span, allowance=self.allowance)
        try:
            async with aclosing(history.by_key()) as pages:
                async for key, points in pages:
                    if key != current:
                        done.add(current)
                        current = key
                    try:
                        take(key, points)
                    except (KeyError, TypeError):
                        raise UpstreamGarbled(note="not_a_point") from None
                    self.allowance.raw_points -= len(points)
                    if self.allowance.raw_points < 0:
                        return done
        except AllowanceSpent:
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

    await run_bounded(_groups(totals, raw.allowance.raw_points), count, at_once=CALLS_AT_ONCE)
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


async def _mixed(raw: _RawPoints, keys: Collection[str], buckets: Sequence[Bucket]) -> set[str]:
    """Return the keys whose newest points are seen to have several types."""
    size = PAGE_POINTS // SAMPLE_POINTS
    ordered = sorted(keys)
    groups = [ordered[index : index + size] for index in range(0, len(ordered), size)]
    if not raw.allowance.covers(ordered, len(groups)):
        # A shorter look at each in one call.
        groups = [ordered]

    async def look(group: list[str]) -> list[str]:
        start, end = buckets[0][0], buckets[-1][1]
        limit = min(SAMPLE_POINTS, PAGE_POINTS // len(group))
        query: Query = {"startTs": start, "endTs": end, "limit": limit, "orderBy": "DESC"}
        raw.allowance.spend(group)
        sample = await raw.upstream.telemetry.history(*raw.entity, group, query=query)
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
    hidden = {
        key: sorted(bucket for bucket, value in by_bucket.items() if value == HIDDEN_MAX)
        for key, by_bucket in values.items()
    }
    hidden = {key: buckets for key, buckets in hidden.items() if buckets}

    async def find(task: dict[str, list[Bucket]]) -> None:
        starts = {key: [start for start, _ in buckets] for key, buckets in task.items()}
        greatest: dict[str, dict[Bucket, float]] = {key: {} for key in task}
        reached: dict[str, int] = {}

        def take(key: str, points: list[Point]) -> None:
            of_key = greatest[key]
            for point in points:
                value = point["value"]
                if is_number(value):
                    # Where what lies between is read too, it goes to the bucket before it.
                    bucket = task[key][bisect_right(starts[key], point["ts"]) - 1]
                    if point["ts"] < bucket[1] and (bucket not in of_key or value > of_key[bucket]):
                        of_key[bucket] = value
            if points:
                reached[key] = points[-1]["ts"]

        span = min(each[0] for each in starts.values()), max(each[-1][1] for each in task.values())
        done = await raw.read(list(task), span, take)
        for key, buckets in task.items():
            for bucket in buckets:
                is_known = key in done or (key in reached and bucket[1] <= reached[key])
                values[key][bucket] = greatest[key].get(bucket) if is_known else None
                unknown[key] += not is_known

    tasks = [{key: stretch} for key, buckets in hidden.items() for stretch in _stretches(buckets)]
    if len(tasks) > raw.allowance.calls:
        # What lies between them is read too, which takes more points and fewer calls.
        tasks = [hidden]
    await run_bounded(tasks, find, at_once=CALLS_AT_ONCE)
    return dict(+unknown)


def _stretches(ordered: Sequence[Bucket]) -> list[list[Bucket]]:
    """Put buckets together that follow each other without a gap: they are read as one."""
    stretches = [[ordered[0]]]
    for before, bucket in pairwise(ordered):
        if before[1] == bucket[0]:
            stretches[-1].append(bucket)
        else:
            stretches.append([bucket])
    return stretches
