"""Deleting telemetry, with the latest values right afterwards."""

import asyncio
from collections.abc import Sequence
from typing import Any

from app.errors import UpstreamGarbled
from app.services.latest import latest_of
from app.services.points import Points
from app.services.sending import Sender
from app.services.uploads import split_keys
from app.services.values import Assay, InexactError, UnstorableError, Warnings
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.connection import Query
from app.times import EARLIEST, LATEST, parse_range

Entity = tuple[str, str]
#: Time and value by key.
Found = dict[str, tuple[int, Any]]


async def delete(
    upstream: ThingsBoardClient,
    entity_type: str,
    entity_id: str,
    keys: str,
    start: str | None,
    end: str | None,
) -> list[str]:
    """Delete a range of some keys, or all their points, and return the keys."""
    names = split_keys(keys)
    if start is None and end is None:
        # ThingsBoard's own "delete all" leaves points of the future and from before 1970.
        start_ts, end_ts = EARLIEST, LATEST + 1
    else:
        start_ts, end_ts = parse_range(start, end, default_start=EARLIEST)
    await upstream.telemetry.delete(entity_type, entity_id, names, start_ts=start_ts, end_ts=end_ts)
    if start_ts > EARLIEST:
        await _restore_latest(upstream, (entity_type, entity_id), names, start_ts)
    return names


async def _restore_latest(
    upstream: ThingsBoardClient, entity: Entity, keys: Sequence[str], start_ts: int
) -> None:
    """Make the newest point before a deleted range the latest value, where ThingsBoard has missed it.

    ThingsBoard (`findNewLatestEntry`, 3.6 to 4.4) looks in `[0, start_ts - 1)`: the millisecond before the
    range and the time before 1970 escape it, and a key without a latest value vanishes from the list of keys.
    Saving the same point again at its own time writes latest too, and changes nothing if it has been done.
    """
    (latest, _), found = await asyncio.gather(
        latest_of(upstream, entity, keys), _newest(upstream, entity, keys, (start_ts - 1, start_ts))
    )
    lost = [key for key in keys if latest.get(key) is None and key not in found]
    if lost:
        found |= await _newest(upstream, entity, lost, (EARLIEST, min(start_ts, 0)))
    points = Points()
    for key, (ts, value) in found.items():
        known = latest.get(key)
        if known is None or known["ts"] < ts:
            _add_again(points, key, ts, value)
    await Sender(upstream).store(*entity, points)


async def _newest(
    upstream: ThingsBoardClient, entity: Entity, keys: Sequence[str], span: tuple[int, int]
) -> Found:
    """Return the newest point of each key in `[start, end)`, of those that have one."""
    query: Query = {"startTs": span[0], "endTs": span[1], "limit": 1, "orderBy": "DESC"}
    series = await upstream.telemetry.history(*entity, keys, query=query)
    try:
        return {key: (points[0]["ts"], points[0]["value"]) for key, points in series.items() if points}
    except (KeyError, TypeError):
        raise UpstreamGarbled(note="not_a_point") from None


def _add_again(points: Points, key: str, ts: int, value: Any) -> None:
    """Add a stored point with a value that ThingsBoard reads as what it stored."""
    # A float that ThingsBoard tells is exact; in JSON it may stand for an integer whose digits are lost.
    take = Assay(Warnings(), is_exact=type(value) is float).take
    try:
        points.timed.setdefault(ts, {})[key] = take(key, value)
    except (InexactError, UnstorableError):
        # Better the latest value that ThingsBoard has found than history changed.
        return
    points.count += 1
