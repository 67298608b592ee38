"""One page of points or aggregates of one entity, and the cursor to the next."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Self
from zoneinfo import ZoneInfo

from app.errors import InvalidRequest, UpstreamGarbled
from app.schemas.telemetry import MOST_KEYS, MOST_POINTS, CalendarUnit, QueryFields, TelemetryQuery
from app.services.aggregation import CALLS_AT_ONCE, INTERVALS_A_CALL, Bucket, Function, runs_of
from app.services.allowance import Allowance
from app.services.calendar_intervals import EqualGrid, Grid, buckets_backward, buckets_forward, build_grid
from app.services.cursors import Cursor, Order, bad_cursor, digest_of
from app.services.exact_aggregates import ExactAggregates, exact_aggregate
from app.services.fan_out import run_bounded
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.telemetry import Point, keys_by_call
from app.times import DAY_MS, now_ms, parse_range, parse_time

#: Points of one ThingsBoard call.
POINTS_A_CALL = 20_000
#: So many runs of buckets are read before it is looked where the next point is: a year of hours. Behind a gap
#: it is one, then twice as many each time until the next gap: single points may lie far apart.
RUNS_A_ROUND = 16
HOUR_MS = 3_600_000
NO_AGGREGATION = "NONE"
TOO_LOW = "COUNT is too low: the values are of mixed types, and ThingsBoard counts only one of them"


@dataclass(frozen=True, slots=True)
class Question:
    """What a caller wants to know; times as they were given."""

    keys: tuple[str, ...] | None
    start_ts: int | str | None
    end_ts: int | str | None
    limit: int
    interval: int | CalendarUnit | None
    agg: str
    time_zone: str
    fill: str | None
    order: Order | None
    cursor: str | None = None

    @classmethod
    def of(cls, query: QueryFields) -> Self:
        """Return what a request body asks, each key once."""
        return cls(
            keys=None if query.keys is None else tuple(dict.fromkeys(query.keys)),
            start_ts=query.start_ts,
            end_ts=query.end_ts,
            limit=query.limit,
            interval=query.interval,
            agg=query.agg,
            time_zone=query.time_zone,
            fill=query.fill,
            order=query.order,
            cursor=query.cursor if isinstance(query, TelemetryQuery) else None,
        )

    @property
    def is_aggregate(self) -> bool:
        """Tell whether buckets are asked for, not points."""
        return self.agg != NO_AGGREGATION


@dataclass(frozen=True, slots=True)
class _Plan:
    """A question with everything decided."""

    question: Question
    entity: tuple[str, str]
    keys: list[str]
    known: frozenset[str]
    span: Bucket
    order: Order
    limit: int
    cursor: Cursor | None
    digest: str
    allowance: Allowance

    def next_cursor(
        self, *, positions: dict[str, int] | None = None, boundary: int | None = None
    ) -> str | None:
        """Return the text of the cursor to what is left, or None when that is nothing."""
        if not positions and boundary is None:
            return None
        return Cursor(self.digest, *self.span, self.order, positions, boundary).encode()


async def answer(
    upstream: ThingsBoardClient,
    entity: tuple[str, str],
    question: Question,
    *,
    devices: int = 1,
) -> dict[str, Any]:
    """Return `query`, `data`, `metadata` and `warnings` of one page.

    Args:
        devices: how many share what an answer may hold and cost.

    Raises:
        InvalidRequest: the question makes no sense, or the cursor does not fit it.
        NotFound: there is no such entity, or not for this account.
    """
    check(question)
    plan = await _plan(upstream, entity, question, devices)
    warnings: list[dict[str, str]] = []
    data: dict[str, Any]
    if question.is_aggregate:
        data, next_cursor = await _aggregates(upstream, plan, warnings)
    else:
        data, next_cursor = await _points(upstream, plan)
    return {
        "query": _echo(plan),
        "data": data,
        "metadata": _metadata(plan, data, next_cursor),
        "warnings": warnings,
    }


def check(question: Question) -> None:
    """Refuse a question that makes no sense, before anything is asked."""
    if not question.is_aggregate:
        for field in ("interval", "fill"):
            if getattr(question, field) is not None:
                raise _refused(field, "needs an aggregation: set agg to AVG, MIN, MAX, SUM or COUNT")
    if question.cursor is None:
        read_span(question)


def read_span(question: Question) -> Bucket:
    """Return the range of a question: the last 24 h before its end unless it has a start."""
    end = None if question.end_ts is None else parse_time(question.end_ts, "end_ts")
    default_start = (now_ms() + 1 if end is None else end) - DAY_MS
    return parse_range(question.start_ts, end, default_start=default_start)


async def _plan(
    upstream: ThingsBoardClient, entity: tuple[str, str], question: Question, devices: int
) -> _Plan:
    cursor = None if question.cursor is None else Cursor.decode(question.cursor)
    digest = digest_of(
        entity, question.keys, question.agg, question.interval, question.time_zone, question.fill
    )
    if cursor is not None:
        _check_cursor(cursor, question, digest)
    span = read_span(question) if cursor is None else (cursor.start, cursor.end)
    known = await upstream.telemetry.checked_keys(*entity, question.keys)
    keys = list(known if question.keys is None else question.keys)
    if len(keys) > MOST_KEYS:
        raise _refused("keys", f"there are {len(keys)} keys: name {MOST_KEYS} at most")
    order: Order = cursor.order if cursor else question.order or "ASC"
    limit = max(1, min(question.limit, MOST_POINTS // devices // max(1, len(keys))))
    allowance = Allowance.of_one_in(devices)
    return _Plan(question, entity, keys, frozenset(known), span, order, limit, cursor, digest, allowance)


def _check_cursor(cursor: Cursor, question: Question, digest: str) -> None:
    if cursor.digest != digest or (cursor.boundary is not None) != question.is_aggregate:
        raise bad_cursor("belongs to another query: repeat the query it came from, only limit may change")
    if question.order not in {None, cursor.order}:
        raise bad_cursor("belongs to a query in the other order")
    for field, fixed in (("start_ts", cursor.start), ("end_ts", cursor.end)):
        given = getattr(question, field)
        if given is not None and parse_time(given, field) != fixed:
            raise bad_cursor(f"belongs to a query with another {field}")
    if question.keys is not None and set(cursor.positions or ()) - set(question.keys):
        raise bad_cursor("belongs to a query of other keys")


async def _points(upstream: ThingsBoardClient, plan: _Plan) -> tuple[dict[str, list[Point]], str | None]:
    ascending = plan.order == "ASC"
    if plan.cursor is not None and plan.cursor.positions is not None:
        positions = {key: at for key, at in plan.cursor.positions.items() if key in plan.keys}
    else:
        positions = dict.fromkeys(plan.keys, plan.span[0] if ascending else plan.span[1])
    data: dict[str, list[Point]] = {key: [] for key in plan.keys}
    calls = _calls(positions, plan.limit)
    left = {key: at for at, keys in calls[plan.allowance.calls :] for key in keys}

    async def read(call: tuple[int, list[str]]) -> None:
        position, keys = call
        start, end = (position, plan.span[1]) if ascending else (plan.span[0], position)
        if start == end:
            return
        # One more than wanted shows whether there is more.
        query = {"startTs": start, "endTs": end, "limit": plan.limit + 1, "orderBy": plan.order}
        series = await upstream.telemetry.history(*plan.entity, keys, query=query)
        for key in keys:
            points = series.get(key, [])
            data[key] = points[: plan.limit]
            if len(points) > plan.limit:
                left[key] = data[key][-1]["ts"] + (1 if ascending else 0)

    await run_bounded(calls[: plan.allowance.calls], read, at_once=CALLS_AT_ONCE)
    return data, plan.next_cursor(positions=left)


def _calls(positions: dict[str, int], limit: int) -> list[tuple[int, list[str]]]:
    """Put keys at the same position into the same calls, as many as a call may bring points of."""
    keys_at: dict[int, list[str]] = defaultdict(list)
    for key, position in positions.items():
        keys_at[position].append(key)
    size = max(1, POINTS_A_CALL // (limit + 1))
    return [
        (position, list(group[index : index + size]))
        for position, keys in keys_at.items()
        for group in keys_by_call(keys)
        for index in range(0, len(group), size)
    ]


async def _aggregates(
    upstream: ThingsBoardClient, plan: _Plan, warnings: list[dict[str, str]]
) -> tuple[dict[str, list[dict[str, Any]]], str | None]:
    question, allowance = plan.question, plan.allowance
    function = Function(question.agg, question.interval, question.time_zone)
    allowance.check(plan.keys, function.looks)
    grid = _grid(plan)
    boundary = plan.cursor.boundary if plan.cursor else None
    buckets: list[Bucket] = []
    values: dict[str, dict[Bucket, Any]] = {key: {} for key in plan.keys}
    faults = _Faults()
    room, most_runs = plan.limit, RUNS_A_ROUND
    while True:
        some, boundary = _buckets(plan, function, grid, boundary, (room, most_runs))
        most_runs = min(RUNS_A_ROUND, 2 * most_runs)
        in_time = some if plan.order == "ASC" else some[::-1]
        exact = await exact_aggregate(upstream, plan.entity, plan.keys, function, in_time, allowance)
        buckets += some
        for key in plan.keys:
            values[key] |= exact.found.values[key]
        faults.add(exact)
        # A bucket has one value a key at most, so this many more cannot exceed the limit of any.
        filled = max((len(found) for found in values.values()), default=0)
        room = plan.limit - (filled if question.fill is None else len(buckets))
        if boundary is None or not room or not allowance.covers_more(plan.keys, function.looks + 1):
            break
        if question.fill is None and not any(some[-1] in found for found in values.values()):
            boundary, most_runs = await _skip_empty(upstream, plan, grid, boundary), 1
            if boundary is None:
                break
    warnings += faults.warnings(question.agg)
    data = {
        key: _aggregated(values[key], buckets, question.fill) if key in plan.known or values[key] else []
        for key in plan.keys
    }
    return data, plan.next_cursor(boundary=boundary)


def _buckets(
    plan: _Plan, function: Function, grid: Grid, boundary: int | None, most: tuple[int, int]
) -> tuple[list[Bucket], int | None]:
    """Return the next buckets in the order of the answer, and where those after them begin, if any.

    They are as many as the allowance covers.

    Args:
        most: how many buckets and runs of buckets there may be.
    """
    start, end = plan.span
    room, most_runs = most
    most_runs = min(most_runs, plan.allowance.times(plan.keys, function.looks))
    count = min(room, most_runs * INTERVALS_A_CALL)
    is_ascending = plan.order == "ASC"
    if is_ascending:
        buckets = list(islice(buckets_forward(grid, start if boundary is None else boundary, end), count))
    else:
        buckets = list(islice(buckets_backward(grid, start, end if boundary is None else boundary), count))
    runs = runs_of(buckets if is_ascending else buckets[::-1], function)
    if len(runs) > most_runs:
        buckets = list(chain.from_iterable(runs[:most_runs] if is_ascending else runs[-most_runs:]))
        buckets = buckets if is_ascending else buckets[::-1]
    if not buckets:
        return buckets, None
    reached = buckets[-1][1 if is_ascending else 0]
    return buckets, reached if start < reached < end else None


async def _skip_empty(upstream: ThingsBoardClient, plan: _Plan, grid: Grid, boundary: int) -> int | None:
    """Return where the next bucket with a point begins, or ends going backwards; None when there is none."""
    is_ascending = plan.order == "ASC"
    start, end = (boundary, plan.span[1]) if is_ascending else (plan.span[0], boundary)
    plan.allowance.spend(plan.keys)
    query = {"startTs": start, "endTs": end, "limit": 1, "orderBy": plan.order}
    series = await upstream.telemetry.history(*plan.entity, plan.keys, query=query)
    try:
        times = [points[0]["ts"] for points in series.values() if points]
        if not times:
            return None
        if is_ascending:
            return max(boundary, grid.floor(min(times)))
        return min(boundary, grid.ceiling(max(times)))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UpstreamGarbled(note="not_a_point") from None


def _grid(plan: _Plan) -> Grid:
    start, end = plan.span
    interval = plan.question.interval
    if interval is None:
        return EqualGrid(start, end - start)
    return build_grid(interval, ZoneInfo(plan.question.time_zone), plan.span)


def _aggregated(
    values: dict[Bucket, Any], buckets: Sequence[Bucket], fill: str | None
) -> list[dict[str, Any]]:
    return [
        {"ts": bucket[0], "end_ts": bucket[1], "value": values.get(bucket)}
        for bucket in buckets
        if fill is not None or bucket in values
    ]


class _Faults:
    """What the values of a page cannot tell by themselves, over all its rounds."""

    def __init__(self) -> None:
        self._not_numeric: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._too_low: set[str] = set()

    def add(self, exact: ExactAggregates) -> None:
        """Take those of one round over."""
        self._not_numeric.update(exact.found.not_numeric)
        self._unknown.update(exact.unknown)
        self._too_low.update(exact.too_low)

    def warnings(self, agg: str) -> list[dict[str, str]]:
        """Return one warning a key and kind."""
        nulls = "{} is null in {} bucket(s): {}"
        no_number = "none of their values is a number"
        too_many = "too many values of mixed types to look through"
        reasons = [(key, nulls.format(agg, n, no_number)) for key, n in self._not_numeric.items()]
        reasons += [(key, nulls.format(agg, n, too_many)) for key, n in self._unknown.items()]
        reasons += [(key, TOO_LOW) for key in sorted(self._too_low)]
        return [{"key": key, "reason": reason} for key, reason in reasons]


def _echo(plan: _Plan) -> dict[str, Any]:
    question = plan.question
    return {
        "keys": plan.keys,
        "start_ts": plan.span[0],
        "end_ts": plan.span[1],
        "limit": plan.limit,
        "interval": question.interval,
        "agg": question.agg,
        "time_zone": question.time_zone,
        "fill": question.fill,
        "order": plan.order,
    }


def _metadata(plan: _Plan, data: dict[str, Any], next_cursor: str | None) -> dict[str, Any]:
    start, end = plan.span
    # ThingsBoard lists a key by its latest value; points may have outlived that.
    missing = [key for key in plan.keys if key not in plan.known and not data[key]]
    return {
        "total_points": sum(map(len, data.values())),
        "keys_found": [key for key in plan.keys if key not in missing],
        "keys_missing": missing,
        "time_range": {"start": start, "end": end, "duration_hours": round((end - start) / HOUR_MS, 6)},
        "truncated": next_cursor is not None,
        "next_cursor": next_cursor,
    }


def _refused(field: str, issue: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {issue}", details={"field": field, "issue": issue})


def pinned(question: Question) -> Question:
    """Return the question with its range decided now, so that many devices are asked for the same one."""
    start, end = read_span(question)
    return replace(question, start_ts=start, end_ts=end)
