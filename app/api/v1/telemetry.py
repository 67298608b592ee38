"""Telemetry of one device or asset, read: keys, latest values, history, counts and queries."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from app.api.entities import ASSET, DEVICE, Entity, Kind, entity_in_path
from app.api.envelope import success, tagged
from app.api.etags import revalidated
from app.api.ranges import KeysDep, SpanDep
from app.api.route import requires, versioned_router
from app.api.v1.histories import add_history_routes
from app.deps import UpstreamDep
from app.schemas.telemetry import (
    CountAnswer,
    KeyList,
    LatestAnswer,
    QueryAnswer,
    TelemetryQuery,
)
from app.services import point_queries
from app.services.exact_aggregates import count_points
from app.services.latest import latest_of
from app.services.point_queries import Question

SCOPE = requires("telemetry:read")


def _add_values(routes: APIRouter, kind: Kind) -> None:
    find = entity_in_path(kind)

    @routes.get(
        f"{kind.path}/keys",
        operation_id=kind.operation("list_{}telemetry_keys"),
        summary=f"List the telemetry keys of one {kind.word}",
        responses=revalidated(KeyList),
        openapi_extra=SCOPE,
    )
    async def list_telemetry_keys(
        upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)]
    ) -> Response:
        """Return the keys that have ever had a value and were not deleted."""
        return tagged({**entity.identified, "keys": await upstream.telemetry.keys(entity.type, entity.id)})

    @routes.get(
        f"{kind.path}/telemetry/latest",
        operation_id=kind.operation("get_{}latest_telemetry"),
        summary=f"Get the latest values of one {kind.word}",
        responses=revalidated(LatestAnswer),
        openapi_extra=SCOPE,
    )
    async def get_latest_telemetry(
        upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)], keys: KeysDep
    ) -> Response:
        """Return the newest point of each key with the type it was stored with; null for an unknown key."""
        values, age = await latest_of(upstream, (entity.type, entity.id), keys)
        return tagged({**entity.identified, "keys_requested": keys or list(values), "data": values}, age=age)


def _add_query(routes: APIRouter, kind: Kind) -> None:
    find = entity_in_path(kind)

    @routes.get(
        f"{kind.path}/telemetry/count",
        operation_id=kind.operation("count_{}telemetry"),
        summary=f"Count the points of one {kind.word}",
        responses={200: {"model": CountAnswer}},
        openapi_extra=SCOPE,
    )
    async def count_telemetry(
        upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)], keys: KeysDep, span: SpanDep
    ) -> Response:
        """Return how many points each key has in a range: what an export of it would hold.

        Beyond 200,000 points, all keys together, the longest ones are not looked through, nor beyond 80 calls
        to ThingsBoard, which values of many kilobytes may take. ThingsBoard's count of such a key is too low
        if its values are of mixed types: `exact` is then false, and `at_least` names the keys.
        """
        found = await count_points(upstream, (entity.type, entity.id), keys, span)
        return success({**entity.identified, **found.answer})

    @routes.post(
        f"{kind.path}/telemetry/query",
        operation_id=kind.operation("query_{}telemetry"),
        summary=f"Query points or aggregates of one {kind.word}",
        responses={200: {"model": QueryAnswer}},
        openapi_extra=SCOPE,
    )
    async def query_telemetry(
        upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)], query: TelemetryQuery
    ) -> Response:
        """Return a page of points, or of AVG, MIN, MAX, SUM or COUNT by interval, by key.

        A bucket is `{"ts": start, "end_ts": end, "value"}`, clipped to the range; days, weeks and months
        follow the clock changes of `time_zone`. An average or sum of values that are not numbers is null, and
        `warnings` says so. `metadata.truncated` says whether there is more, which may be so below `limit`
        where buckets take many calls to ThingsBoard: send the same query again with `cursor` set to
        `metadata.next_cursor`.
        """
        found = await point_queries.answer(upstream, (entity.type, entity.id), Question.of(query))
        return success({**entity.identified, **found})


router = versioned_router("telemetry")
for each_kind in (DEVICE, ASSET):
    _add_values(router, each_kind)
    add_history_routes(router, each_kind)
    _add_query(router, each_kind)
