"""Telemetry of many devices in one call, read."""

from fastapi import Request
from starlette.responses import Response

from app.api.by_device import answer_by_device, charge_devices
from app.api.route import requires, versioned_router
from app.deps import SettingsDep, UpstreamDep
from app.errors import InvalidRequest
from app.schemas.telemetry import (
    ManyLatestAnswer,
    ManyLatestQuery,
    ManyQueryAnswer,
    ManyTelemetryQuery,
)
from app.services.latest import latest_of_many
from app.services.many_queries import answer_many
from app.services.point_queries import Question

router = versioned_router("telemetry")


@router.post(
    "/telemetry/latest",
    operation_id="get_latest_telemetry_of_devices",
    summary="Get the latest values of many devices",
    responses={200: {"model": ManyLatestAnswer}},
    openapi_extra=requires("telemetry:read"),
)
async def get_latest_telemetry_of_devices(
    request: Request, upstream: UpstreamDep, settings: SettingsDep, query: ManyLatestQuery
) -> Response:
    """Return the newest points of up to 1,000 devices: `data` and `errors`, keyed as they were named.

    A device that does not exist is an entry in `errors` and leaves the others alone.
    """
    inferred = query.types == "inferred"
    if inferred and query.keys is None:
        issue = "types=inferred needs the keys to ask for"
        raise InvalidRequest(f"keys: {issue}", details={"field": "keys", "issue": issue})
    await charge_devices(request, query.device_ids)
    keys = None if query.keys is None else list(dict.fromkeys(query.keys))
    found = await latest_of_many(
        upstream, query.device_ids, keys, inferred=inferred, at_once=settings.bulk_concurrency
    )
    return answer_by_device(found.outcomes, age=found.age)


@router.post(
    "/telemetry/query",
    operation_id="query_telemetry_of_devices",
    summary="Query points or aggregates of many devices",
    responses={200: {"model": ManyQueryAnswer}},
    openapi_extra=requires("telemetry:read"),
)
async def query_telemetry_of_devices(
    request: Request, upstream: UpstreamDep, settings: SettingsDep, query: ManyTelemetryQuery
) -> Response:
    """Answer one query for each of up to 100 devices: `data` and `errors`, keyed as they were named.

    All devices share the 100,000 points of an answer, so with many devices and keys the limit of each key is
    lower than asked for, and 1,000 calls to ThingsBoard: `query.limit` and `metadata.truncated` say so, and
    `metadata.next_cursor` goes on at `POST /devices/{device_id}/telemetry/query`.
    """
    await charge_devices(request, query.device_ids)
    return answer_by_device(
        await answer_many(upstream, query.device_ids, Question.of(query), at_once=settings.bulk_concurrency)
    )
