"""Buckets and aggregate functions of ThingsBoard's SQL history (telemetry.json, "aggregate ...")."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from tb_simulator.answers import PlainError, bad_request
from tb_simulator.timeseries import Series
from tb_simulator.values import JsonText, Value

MOST_INTERVALS = 700
_SHORTEST_COUNTED_MS = 1000
DAY_MS = 86_400_000
_DAYS_A_WEEK, _MONTHS_A_YEAR, _MONTHS_A_QUARTER = 7, 12, 3

FUNCTIONS = frozenset({"NONE", "AVG", "MIN", "MAX", "SUM", "COUNT"})
#: Each calendar interval with the ms that ThingsBoard takes it for when it counts the intervals.
CALENDAR = {"WEEK": 7 * DAY_MS, "WEEK_ISO": 7 * DAY_MS, "MONTH": 30 * DAY_MS, "QUARTER": 90 * DAY_MS}
#: Names that ThingsBoard hands to Java with a meaning of its own: Python's EST knows no summer time.
_ZONES = {"EST": "America/New_York", "HST": "US/Hawaii", "MST": "America/Phoenix"}
#: Java's Double.MIN_VALUE, for which MAX takes every value that is no double.
_JAVA_MIN_VALUE = 5e-324


def check_interval_count(start: int, end: int, interval: int) -> None:
    """Refuse more than 700 intervals; intervals under a second count as one second (telemetry.json)."""
    count = (end - start) // max(interval, _SHORTEST_COUNTED_MS)
    if count > MOST_INTERVALS:
        raise PlainError(
            400,
            f"Incorrect TsKvQuery. Number of intervals is to high - {count}. Please increase 'interval' "
            "parameter for your query or reduce the time range of the query.",
        )


def fixed_buckets(start: int, end: int, interval: int) -> Iterator[tuple[int, int]]:
    """Yield ``[start, end)`` of each bucket, counted from the start of the range, the last one clipped."""
    while start < end:
        stop = min(start + interval, end)
        yield start, stop
        start = stop


def calendar_buckets(start: int, end: int, kind: str, zone_name: str | None) -> Iterator[tuple[int, int]]:
    """Yield calendar buckets in a zone, the first and the last one clipped to the range."""
    try:
        name = zone_name or "UTC"
        zone = ZoneInfo(_ZONES.get(name, name))
    except (KeyError, ValueError, OSError):
        raise bad_request(f"Unknown time-zone ID: {zone_name}") from None
    while start < end:
        stop = min(_period_end(start, kind, zone), end)
        yield start, stop
        start = stop


def _period_end(ts: int, kind: str, zone: tzinfo) -> int:
    local = datetime.fromtimestamp(ts / 1000, zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if kind in {"WEEK", "WEEK_ISO"}:
        # Python's Monday is 0; ThingsBoard's WEEK begins on Sunday.
        since = midnight.weekday() if kind == "WEEK_ISO" else (midnight.weekday() + 1) % _DAYS_A_WEEK
        following = midnight + timedelta(days=_DAYS_A_WEEK - since)
    else:
        size = 1 if kind == "MONTH" else _MONTHS_A_QUARTER
        month = midnight.year * _MONTHS_A_YEAR + (midnight.month - 1) // size * size + size
        following = datetime(month // _MONTHS_A_YEAR, month % _MONTHS_A_YEAR + 1, 1)  # noqa: DTZ001 - zone below
    return int(following.replace(tzinfo=zone).timestamp() * 1000)


def aggregate(series: Series, buckets: Sequence[tuple[int, int]], function: str) -> list[tuple[int, Value]]:
    """Return ``(ts, value)`` for each bucket that holds points; ``ts`` is the middle of the bucket."""
    found: list[tuple[int, Value]] = []
    for start, stop in buckets:
        low, high = series.span(start, stop)
        if low == high:
            continue
        value = _apply(function, series.values[low:high])
        if value is not None:
            found.append((start + (stop - start) // 2, value))
    return found


def _apply(function: str, values: list[Value]) -> Value | None:
    if function == "COUNT":
        return _count(values)
    numbers: list[Any] = [v for v in values if type(v) is int or type(v) is float]
    if function == "AVG":
        # The average of text is 0.0, not nothing (telemetry.json, "average of a text key").
        return float(sum(numbers)) / len(numbers) if numbers else 0.0
    if function == "SUM":
        return sum(numbers) if numbers else 0
    return _extreme(function, numbers, values)


def _count(values: list[Value]) -> int:
    """Count one type only: the first of these that there is, and both kinds of numbers last."""
    by_type = Counter[type](map(type, values))
    counts = (by_type[kind] for kind in (bool, str, JsonText))
    return next((count for count in counts if count), by_type[int] + by_type[float])


def _extreme(function: str, numbers: list[Any], values: list[Value]) -> Value | None:
    pick = min if function == "MIN" else max
    if numbers:
        doubles = sum(type(n) is float for n in numbers)
        if function == "MAX" and 0 < doubles < len(values):
            numbers = [*numbers, _JAVA_MIN_VALUE]
        found = pick(numbers)
        return float(found) if doubles else found
    texts = [v for v in values if isinstance(v, str) and not isinstance(v, JsonText)]
    return pick(texts) if texts else None
