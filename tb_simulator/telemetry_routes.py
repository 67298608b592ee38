"""Telemetry routes (telemetry.json)."""

from typing import Any

from tb_simulator.access import check_entity_type, check_uuid, checked_plain
from tb_simulator.aggregation import (
    CALENDAR,
    FUNCTIONS,
    aggregate,
    calendar_buckets,
    check_interval_count,
    fixed_buckets,
)
from tb_simulator.answers import EMPTY, Answer, PlainError, bad_request, ok, server_error
from tb_simulator.payloads import LONGEST_KEY, telemetry_points, utf16_length
from tb_simulator.routing import ANYONE, Call, Routes
from tb_simulator.timeseries import Series
from tb_simulator.values import JsonText, as_text, as_typed

routes = Routes()

_BASE = "/api/plugins/telemetry/{entityType}/{id}"
DEFAULT_LIMIT = 100


def requested_keys(call: Call) -> list[str]:
    """Return the keys asked for: since 4.3 ``key=`` as it stands, or else ``keys=`` split at commas."""
    split = (key for value in call.query.get("keys", ()) for key in value.split(","))
    found = [key for key in call.query.get("key") or split if key]
    if any(utf16_length(key) > LONGEST_KEY for key in found):
        # Even reading puts a key into the table of keys, whose column is no longer.
        raise server_error("could not execute statement")
    return found


@routes.post(f"{_BASE}/timeseries/{{scope}}", f"{_BASE}/timeseries/{{scope}}/{{ttl}}", who=ANYONE)
def save_telemetry(call: Call) -> Answer:
    """Store points; they are in latest and history when the answer leaves."""
    ttl = call.params.get("ttl", "0")
    if not ttl.isdigit():
        raise bad_request(f"Invalid ttl value: {ttl}")
    entity = checked_plain(call, call.params["entityType"], call.params["id"])
    points = telemetry_points(call.body, call.world.now())
    call.world.telemetry.save(entity.id, points, ttl_seconds=int(ttl))
    return EMPTY


@routes.get(f"{_BASE}/keys/timeseries", who=ANYONE)
def telemetry_keys(call: Call) -> Answer:
    """Return the keys of an entity; unlike history this checks existence and permission."""
    entity = checked_plain(call, call.params["entityType"], call.params["id"])
    return ok(list(call.world.telemetry.latest(entity.id)))


@routes.get(f"{_BASE}/values/timeseries", who=ANYONE)
def telemetry_values(call: Call) -> Answer:
    """Return latest values, or history when a range and ``keys`` are given: ``key`` alone is not enough."""
    keys = requested_keys(call)
    start, end = call.number("startTs"), call.number("endTs")
    strict = call.flag("useStrictDataTypes")
    if start is None or end is None or not keys or "keys" not in call.query:
        return ok(_latest(call, keys, strict=strict))
    # History checks neither existence nor permission nor the entity's type (telemetry.json, customer.json).
    check_entity_type(call.params["entityType"])
    entity_id = check_uuid(call.params["id"])
    return ok(_history(call, entity_id, keys, (start, end), strict=strict))


def _latest(call: Call, keys: list[str], *, strict: bool) -> dict[str, Any]:
    entity = checked_plain(call, call.params["entityType"], call.params["id"])
    latest, now = call.world.telemetry.latest(entity.id), call.world.now()
    show = as_typed if strict else as_text
    found = {}
    for key in keys or latest:
        known = latest.get(key)
        # A missing key is not missing in the answer: it comes with the present time and null.
        value = {"ts": now, "value": None} if known is None else {"ts": known[0], "value": show(known[1])}
        found[key] = [value]
    return found


def _history(
    call: Call, entity_id: str, keys: list[str], span: tuple[int, int], *, strict: bool
) -> dict[str, list[dict[str, Any]]]:
    limit = call.number("limit", DEFAULT_LIMIT, kind="Integer") or 0
    function, buckets = _aggregation(call, *span)
    if limit < 1:
        raise PlainError(400, "Page size must not be less than one")
    newest_first = (call.arg("orderBy") or "DESC").upper() != "ASC"
    found: dict[str, list[dict[str, Any]]] = {}
    for key in keys:
        series = call.world.telemetry.series(entity_id, key)
        if series is None:
            continue
        if function == "NONE":
            rows = _raw(series, span, limit, newest_first=newest_first, strict=strict)
        else:
            show = as_typed if strict else as_text
            rows = [{"ts": ts, "value": show(value)} for ts, value in aggregate(series, buckets, function)]
        if rows:
            found.setdefault(key, []).extend(rows)
    return found


def _raw(
    series: Series, span: tuple[int, int], limit: int, *, newest_first: bool, strict: bool
) -> list[dict[str, Any]]:
    low, high = series.span(*span)
    if newest_first:
        low = max(low, high - limit)
    else:
        high = min(high, low + limit)
    times, values = series.ts[low:high], series.values[low:high]
    if newest_first:
        times.reverse()
        values.reverse()
    shown: list[Any] = list(values)
    if not strict:
        shown = [as_text(value) for value in values]
    elif any(type(value) is JsonText for value in values):
        shown = [as_typed(value) for value in values]
    return [{"ts": ts, "value": value} for ts, value in zip(times, shown, strict=True)]


def _aggregation(call: Call, start: int, end: int) -> tuple[str, list[tuple[int, int]]]:
    interval = call.number("interval", 0) or 0
    kind = call.arg("intervalType") or "MILLISECONDS"
    function = (call.arg("agg") or "NONE").upper()
    if function not in FUNCTIONS:
        raise bad_request(f"No enum constant org.thingsboard.server.common.data.kv.Aggregation.{function}")
    if kind != "MILLISECONDS" and kind not in CALENDAR:
        raise bad_request(f"No enum constant org.thingsboard.server.common.data.kv.IntervalType.{kind}")
    if function == "NONE" or (kind == "MILLISECONDS" and interval <= 0):
        return "NONE", []
    check_interval_count(start, end, CALENDAR.get(kind, interval))
    if kind in CALENDAR:
        return function, list(calendar_buckets(start, end, kind, call.arg("timeZone")))
    return function, list(fixed_buckets(start, end, interval))


@routes.delete(f"{_BASE}/timeseries/delete", who=ANYONE)
def delete_telemetry(call: Call) -> Answer:
    """Delete keys, whole or in a range."""
    entity = checked_plain(call, call.params["entityType"], call.params["id"])
    keys = requested_keys(call)
    if not keys:
        raise PlainError(400, "Empty keys: []")
    start, end = call.number("startTs"), call.number("endTs")
    if call.flag("deleteAllDataForKeys"):
        # Up to now: ThingsBoard leaves points of the future. The millisecond under way is still included,
        # because saving and deleting take less than one here.
        start, end = 0, call.world.now() + 1
    if start is None or end is None:
        raise PlainError(
            400, "When deleteAllDataForKeys is false, start and end timestamp values shouldn't be empty"
        )
    call.world.telemetry.delete(
        entity.id,
        keys,
        (start, end),
        latest=call.flag("deleteLatest", default=True),
        rewrite=call.flag("rewriteLatestIfDeleted"),
    )
    return EMPTY
