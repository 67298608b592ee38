"""Latest values: of one entity, typed by ThingsBoard, or of many devices in few calls."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from app.errors import GatewayError, NotFound, UpstreamGarbled
from app.services.addressing import resolve
from app.services.fan_out import run_each
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.telemetry import Series
from app.thingsboard.value_texts import infer

Values = dict[str, dict[str, Any] | None]


class Found(NamedTuple):
    """The newest point of each key, and how many seconds ago it was read; None: now."""

    values: Values
    age: float | None


class FoundOfMany(NamedTuple):
    """By device as it was named its id, and its values or what went wrong; and the greatest age."""

    outcomes: dict[str, tuple[str | None, Values | GatewayError]]
    age: float | None


async def latest_of(
    upstream: ThingsBoardClient, entity: tuple[str, str], keys: Sequence[str] | None
) -> Found:
    """Return the newest point of each key, None for a key that the entity does not have.

    Raises:
        NotFound: there is no such entity, or not for this account.
    """
    series, age = await upstream.telemetry.latest(*entity, keys)
    return Found(_newest(series, list(series) if keys is None else keys), age)


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
) -> FoundOfMany:
    """Return the latest values of many devices. One that fails leaves the others alone.

    Args:
        inferred: ask once for all devices, which loses the types, and read them from the text; needs `keys`.
    """
    found = await resolve_all(upstream, references, at_once=at_once)
    ids = list(dict.fromkeys(uuid for uuid in found.values() if isinstance(uuid, str)))
    latest: dict[str, Found | GatewayError]
    if inferred:
        latest = await _inferred(upstream, ids, keys or ())
    else:
        latest = await run_each(
            ids, lambda uuid: latest_of(upstream, ("DEVICE", uuid), keys), at_once=at_once
        )
    values = {uuid: each.values if isinstance(each, Found) else each for uuid, each in latest.items()}
    ages = [each.age for each in latest.values() if isinstance(each, Found) and each.age is not None]
    return FoundOfMany(
        {
            reference: (uuid, values[uuid]) if isinstance(uuid, str) else (None, uuid)
            for reference, uuid in found.items()
        },
        max(ages, default=None),
    )


async def _inferred(
    upstream: ThingsBoardClient, ids: Sequence[str], keys: Sequence[str]
) -> dict[str, Found | GatewayError]:
    rows = await upstream.queries.latest_of_devices(ids, keys)
    found: dict[str, Found | GatewayError] = {}
    for uuid in ids:
        row = rows.get(uuid)
        values = {key: read_point((row or {}).get(key)) for key in keys}
        found[uuid] = NotFound() if row is None else Found(values, None)
    return found


def read_point(point: dict[str, Any] | None) -> dict[str, Any] | None:
    """Read a point of an entity query: a missing one is `""` at time 0."""
    if point is None or (point.get("ts") == 0 and point.get("value") == ""):
        return None
    return {"ts": point.get("ts"), "value": infer(str(point.get("value", "")))}
