"""Points that were missed: read from the history, some keys at a time, bounded."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from app.errors import UpstreamGarbled
from app.thingsboard.connection import Query
from app.thingsboard.telemetry import TelemetryCalls

#: Points of one call, all its keys together.
PAGE_POINTS = 10_000
KEYS_A_CALL = 100
#: Earlier than any time that the gateway takes.
EARLIEST_MS = -62_135_596_800_000

#: Start and exclusive end in ms since the epoch, by key.
Spans = Mapping[str, tuple[int, int]]


class Missed(NamedTuple):
    """Points as (ts, key, value) in order, and from when on keys were not read for want of room."""

    points: list[tuple[int, str, Any]]
    unread: dict[str, tuple[int, int]]


async def read_missed(telemetry: TelemetryCalls, device_id: str, spans: Spans, *, most: int) -> Missed:
    """Return the points of each key in its span, `most` of them in all and a page more.

    Raises:
        NotFound: there is no such device any more, or not for this account.
    """
    await telemetry.checked_keys("DEVICE", device_id, list(spans))
    left, points = dict(spans), list[tuple[int, str, Any]]()
    while left and len(points) < most:
        start = min(begin for begin, _ in left.values())
        keys = [key for key, (begin, _) in left.items() if begin == start][:KEYS_A_CALL]
        limit = max(1, min(most, PAGE_POINTS) // len(keys))
        query: Query = {
            "startTs": start,
            "endTs": max(left[key][1] for key in keys),
            "limit": limit,
            "orderBy": "ASC",
        }
        series = await telemetry.history("DEVICE", device_id, keys, query=query)
        for key in keys:
            try:
                found = [(int(point["ts"]), key, point["value"]) for point in series.get(key, ())]
            except (KeyError, TypeError, ValueError):
                raise UpstreamGarbled(note="not_a_point") from None
            _, end = left.pop(key)
            points += [point for point in found if point[0] < end]
            if len(found) >= limit and found[-1][0] + 1 < end:
                left[key] = found[-1][0] + 1, end
    points.sort(key=lambda point: point[:2])
    return Missed(points, left)
