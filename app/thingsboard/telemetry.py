"""Time series: keys, latest values, history, aggregates, writes and deletions."""

import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypedDict
from urllib.parse import quote

import orjson

from app.errors import UpstreamGarbled
from app.thingsboard.connection import Connection, Query, acknowledge, expect_list, expect_object
from app.thingsboard.errors import keys_in
from app.thingsboard.latest_cache import LatestCache

#: Where ThingsBoard keeps telemetry of any entity.
ROOT = "/api/plugins/telemetry"
#: How long a checked read of an entity's keys stands for the permission to read its history.
CHECK_SECONDS = 5.0
MOST_REMEMBERED = 2_000
#: Encoded characters of `keys=` in one call: Tomcat refuses request heads beyond 8 KiB.
LONGEST_KEYS = 6_000
#: What one character takes there: four bytes.
LONGEST_CHARACTER = len("%F0%9F%92%A1")


class Point(TypedDict):
    """One value at one time, in ms since the epoch."""

    ts: int
    value: Any


Series = dict[str, list[Point]]


class Latest(NamedTuple):
    """Latest values, and their age in seconds if they were kept; None: they were read now."""

    series: Series
    age: float | None


class TelemetryCalls:
    """One method a ThingsBoard call. Times are ms since the epoch, ranges `[start, end)`."""

    def __init__(self, connection: Connection, latest: LatestCache | None = None) -> None:
        self._connection, self.latest_cache = connection, latest
        self._checked: OrderedDict[tuple[str, str], tuple[float, tuple[str, ...]]] = OrderedDict()
        self._forgotten = 0
        #: Points that ThingsBoard acknowledged, and points of histories that it sent.
        self.points_written = self.points_read = 0

    async def checked_keys(
        self, entity_type: str, entity_id: str, wanted: Collection[str] | None
    ) -> tuple[str, ...]:
        """Return the entity's keys, checked by ThingsBoard now or at most 5 s ago.

        Every history, count and aggregate goes through here first, because those routes check nothing. What
        is remembered serves only if it knows all the `wanted` keys; None, all keys, asks again.

        Raises:
            NotFound: there is no such entity, or not for this account.
        """
        entity = entity_type, entity_id
        until, known = self._checked.get(entity, (0.0, ()))
        now = time.monotonic()
        if now < until and wanted is not None and set(wanted) <= set(known):
            return known
        self._checked.pop(entity, None)
        forgotten = self._forgotten
        known = tuple(dict.fromkeys(await self.keys(entity_type, entity_id)))
        if forgotten != self._forgotten:
            # Something was deleted meanwhile: this answer may be older.
            return known
        self._checked[entity] = now + CHECK_SECONDS, known
        if len(self._checked) > MOST_REMEMBERED:
            self._checked.popitem(last=False)
        return known

    def forget(self, entity_type: str, entity_id: str) -> None:
        """Drop what is remembered of an entity that is being deleted, or loses keys."""
        self._forgotten += 1
        self._checked.pop((entity_type, entity_id), None)
        self._end_latest(entity_type, entity_id)

    async def keys(self, entity_type: str, entity_id: str) -> list[str]:
        """Return the entity's telemetry keys. It checks existence and permission, which history does not."""
        path = f"{ROOT}/{entity_type}/{entity_id}/keys/timeseries"
        return [str(key) for key in expect_list(await self._connection.get_json(path))]

    async def latest(self, entity_type: str, entity_id: str, keys: Sequence[str] | None) -> Latest:
        """Return the newest point of each key, typed; of all keys when `keys` is None.

        An unknown key comes back with the value None (recordings telemetry.json), or is left out.
        """
        if self.latest_cache is None:
            return Latest(await self.latest_now(entity_type, entity_id, keys), None)
        entity = entity_type, entity_id
        kept = self.latest_cache.find(entity, keys)
        if kept is not None:
            return Latest(orjson.loads(kept.content), kept.age)
        begun = self.latest_cache.begin(entity)
        series = await self.latest_now(entity_type, entity_id, keys)
        self.latest_cache.keep(begun, entity, keys, orjson.dumps(series))
        return Latest(series, None)

    async def latest_now(self, entity_type: str, entity_id: str, keys: Sequence[str] | None) -> Series:
        """Return what `latest` does, asked for now, in one call."""
        path = f"{ROOT}/{entity_type}/{entity_id}/values/timeseries"
        groups = keys_by_call(keys or ())
        # Names that one `keys=` cannot hold would take several calls; the values of all keys take one.
        is_named = len(groups) == 1 and is_plain(groups[0][0])
        query: Query = {"keys": ",".join(groups[0]) if is_named else None, "useStrictDataTypes": True}
        series = read_series(await self._connection.get_json(path, query=query))
        return series if keys is None or is_named else {key: series[key] for key in keys if key in series}

    def _end_latest(self, entity_type: str, entity_id: str) -> None:
        if self.latest_cache is not None:
            self.latest_cache.end((entity_type, entity_id))

    async def history(self, entity_type: str, entity_id: str, keys: Sequence[str], *, query: Query) -> Series:
        """Return raw or aggregated points of a range, typed.

        ThingsBoard checks neither existence nor permission here: call `keys` first. It is one call, unless
        the keys cannot be named in one (`keys_by_call`).

        Args:
            query: `startTs`, `endTs` and ThingsBoard's own `limit`, `orderBy`, `agg`, `interval`,
                `intervalType`, `timeZone`.
        """
        path = f"{ROOT}/{entity_type}/{entity_id}/values/timeseries"
        series: Series = {}
        for group in keys_by_call(keys):
            # `key=` (4.3 and later) reads any key, one a call, and wins over `keys=`. Without that, though,
            # ThingsBoard takes any call for one of latest values, whatever its range and aggregation.
            awkward = None if is_plain(group[0]) else group[0]
            naming: Query = {"keys": ",".join(group), "key": awkward}
            answer = await self._connection.get_json(
                path, query={**naming, **query, "useStrictDataTypes": True}
            )
            named = frozenset(group)
            series |= {key: points for key, points in read_series(answer).items() if key in named}
        self.points_read += sum(map(len, series.values()))
        return series

    async def save(
        self,
        entity_type: str,
        entity_id: str,
        body: bytes,
        *,
        points: int,
        is_idempotent: bool,
        ttl_seconds: int | None = None,
    ) -> None:
        """Store so many points: JSON in ThingsBoard's own form. Repeatable when every point has its `ts`."""
        suffix = "" if ttl_seconds is None else f"/{ttl_seconds}"
        path = f"{ROOT}/{entity_type}/{entity_id}/timeseries/ANY{suffix}"
        # At its start too: what is read from then on is told apart from what was read before.
        self._end_latest(entity_type, entity_id)
        try:
            with keys_in("telemetry_data"):
                acknowledge(await self._connection.call("POST", path, body=body, is_idempotent=is_idempotent))
            self.points_written += points
        finally:
            # However it ended: it may have been carried out.
            self._end_latest(entity_type, entity_id)

    async def delete(
        self,
        entity_type: str,
        entity_id: str,
        keys: Sequence[str],
        *,
        start_ts: int | None,
        end_ts: int | None,
    ) -> None:
        """Delete a range of keys, or all of them when there is no range.

        Latest is moved back to the newest point in `[0, start_ts - 1)`, or lost when there is none.
        """
        everything = start_ts is None and end_ts is None
        path = f"{ROOT}/{entity_type}/{entity_id}/timeseries/delete"
        self._end_latest(entity_type, entity_id)
        try:
            for joined in joined_keys(keys):
                query: Query = {
                    "keys": joined,
                    "deleteAllDataForKeys": everything,
                    "startTs": start_ts,
                    "endTs": end_ts,
                    "rewriteLatestIfDeleted": True,
                }
                acknowledge(await self._connection.call("DELETE", path, query=query, is_idempotent=True))
        finally:
            self.forget(entity_type, entity_id)


def is_plain(key: str) -> bool:
    """Tell whether `keys=`, which splits at commas, can name this key."""
    return "," not in key


def keys_by_call(keys: Sequence[str]) -> list[Sequence[str]]:
    """Put keys into groups that one history call can name: a key with a comma is alone."""
    joined = ",".join(keys)
    # The usual case in a microsecond: no comma but ours, and short enough whatever is encoded.
    if joined.count(",") == len(keys) - 1 and len(joined) * LONGEST_CHARACTER <= LONGEST_KEYS:
        return [keys]
    return [*_groups(filter(is_plain, keys)), *([key] for key in keys if not is_plain(key))]


def joined_keys(keys: Iterable[str]) -> Iterator[str]:
    """Join keys by commas into texts that fit a request line each."""
    return map(",".join, _groups(keys))


def _groups(keys: Iterable[str]) -> Iterator[list[str]]:
    group: list[str] = []
    length = 0
    for key in keys:
        encoded = len(quote(key, safe="")) + len("%2C")
        if group and length + encoded > LONGEST_KEYS:
            yield group
            group, length = [], 0
        group.append(key)
        length += encoded
    if group:
        yield group


def read_series(value: Any) -> Series:
    """Check the outer shape of `{"key":[{"ts","value"}]}`; the points themselves are passed on."""
    series = expect_object(value)
    if not all(isinstance(points, list) for points in series.values()):
        raise UpstreamGarbled(note="not_a_series")
    return series
