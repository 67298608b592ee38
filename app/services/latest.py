"""Latest values: of one entity, typed by ThingsBoard, or of many devices in few calls."""

import math
import re
from collections.abc import Sequence
from typing import Any

import orjson

from app.errors import GatewayError, NotFound, UpstreamGarbled
from app.services.addressing import resolve
from app.services.fan_out import run_each
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.telemetry import Series

#: What ThingsBoard writes for numbers, exponents of Java's doubles included.
NUMBER = re.compile(r"-?[0-9]+(\.([0-9]+)(E-?[0-9]+)?)?")
#: Entity queries cast in SQL, and PostgreSQL writes its exponents so: `5e-05`, `1e+15`.
POSTGRESQL_EXPONENT = re.compile(r"-?[0-9]+(\.[0-9]+)?e[+-][0-9]{2,}")
INT64 = range(-(2**63), 2**63)
#: ThingsBoard stores numbers with more decimals as text.
MOST_DECIMALS = 16

Values = dict[str, dict[str, Any] | None]
#: By device as it was named: its id, and its values or what went wrong.
Outcome = tuple[str | None, Values | GatewayError]


async def latest_of(
    upstream: ThingsBoardClient, entity: tuple[str, str], keys: Sequence[str] | None
) -> Values:
    """Return the newest point of each key, None for a key that the entity does not have.

    Raises:
        NotFound: there is no such entity, or not for this account.
    """
    series = await upstream.telemetry.latest(*entity, keys)
    if keys is None:
        return _newest(series, list(series))
    if not series:
        # A key with a comma is unknown to ThingsBoards before 4.3, which then answer nothing at all.
        await upstream.telemetry.checked_keys(*entity, keys)
    return _newest(series, keys)


def _newest(series: Series, keys: Sequence[str]) -> Values:
    newest: Values = {}
    for key in keys:
        points = series.get(key) or [{"ts": 0, "value": None}]
        try:
            point = {"ts": points[0]["ts"], "value": points[0]["value"]}
        except (KeyError, TypeError):
            raise UpstreamGarbled(note="not_a_point") from None
        newest[key] = None if point["value"] is None else point
    return newest


async def resolve_all(
    upstream: ThingsBoardClient, references: Sequence[str], *, at_once: int
) -> dict[str, str | GatewayError]:
    """Return the UUID of each device, or why it has none, by the reference as it was sent."""
    return await run_each(
        references, lambda reference: resolve(upstream, "DEVICE", reference, "device_ids"), at_once=at_once
    )


async def latest_of_many(
    upstream: ThingsBoardClient,
    references: Sequence[str],
    keys: Sequence[str] | None,
    *,
    inferred: bool,
    at_once: int,
) -> dict[str, Outcome]:
    """Return the latest values of many devices. One that fails leaves the others alone.

    Args:
        inferred: ask once for all devices, which loses the types, and read them from the text; needs `keys`.
    """
    found = await resolve_all(upstream, references, at_once=at_once)
    ids = list(dict.fromkeys(uuid for uuid in found.values() if isinstance(uuid, str)))
    values: dict[str, Values | GatewayError]
    if inferred:
        values = await _inferred(upstream, ids, keys or ())
    else:
        values = await run_each(
            ids, lambda uuid: latest_of(upstream, ("DEVICE", uuid), keys), at_once=at_once
        )
    return {
        reference: (uuid, values[uuid]) if isinstance(uuid, str) else (None, uuid)
        for reference, uuid in found.items()
    }


async def _inferred(
    upstream: ThingsBoardClient, ids: Sequence[str], keys: Sequence[str]
) -> dict[str, Values | GatewayError]:
    rows = await upstream.queries.latest_of_devices(ids, keys)
    found: dict[str, Values | GatewayError] = {}
    for uuid in ids:
        row = rows.get(uuid)
        found[uuid] = NotFound() if row is None else {key: read_point(row.get(key)) for key in keys}
    return found


def read_point(point: dict[str, Any] | None) -> dict[str, Any] | None:
    """Read a point of an entity query: a missing one is `""` at time 0."""
    if point is None or (point.get("ts") == 0 and point.get("value") == ""):
        return None
    return {"ts": point.get("ts"), "value": infer(str(point.get("value", "")))}


def infer(text: str) -> Any:
    """Guess the value that ThingsBoard wrote as this text."""
    if text in {"true", "false"}:
        return text == "true"
    number = NUMBER.fullmatch(text)
    if number:
        return _infer_number(text, number)
    if POSTGRESQL_EXPONENT.fullmatch(text):
        return _finite(text)
    if text[:1] in {"{", "["}:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text


def _infer_number(text: str, number: re.Match[str]) -> int | float | str:
    if number[1] is None:
        return int(text) if len(text) <= len(str(INT64.start)) and int(text) in INT64 else text
    # More decimals can only be text, unless an exponent moved the point.
    if number[3] is None and len(number[2]) > MOST_DECIMALS:
        return text
    return _finite(text)


def _finite(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text
