"""Telemetry of devices and assets: upload and delete."""

from typing import Annotated

from fastapi import Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from app.api.entities import ASSET, DEVICE, Entity, Kind, entity_in_path
from app.api.envelope import success
from app.api.route import check_content_type, requires, versioned_router
from app.deps import UpstreamDep
from app.schemas.uploads import (
    UPLOAD_SCHEMA,
    AssetTelemetryDeleted,
    AssetUploadAnswer,
    DeviceTelemetryDeleted,
    DeviceUploadAnswer,
    body_of,
)
from app.services import deletions, uploads

router = versioned_router("telemetry")

#: Cassandra's longest time to live.
LONGEST_TTL_SECONDS = 630_720_000


async def _json_body(request: Request) -> bytes:
    check_content_type(request)
    return await request.body()


JsonBody = Annotated[bytes, Depends(_json_body)]
TimeToLive = Annotated[
    int | None,
    Query(ge=1, le=LONGEST_TTL_SECONDS, description="Seconds after which the points may be forgotten."),
]
DeletedKeys = Annotated[str, Query(min_length=1, description="Keys, separated by commas.")]
RangeStart = Annotated[
    str | None, Query(description="ms since the epoch or ISO 8601; open when only the end is given.")
]
RangeEnd = Annotated[
    str | None,
    Query(description="ms since the epoch or ISO 8601, exclusive; now when only the start is given."),
]


def _add_upload(kind: Kind, answer: type[BaseModel]) -> None:
    find = entity_in_path(kind)

    @router.post(
        f"{kind.path}/telemetry",
        operation_id=kind.operation("upload_{}telemetry"),
        summary=f"Upload telemetry of one {kind.word}",
        status_code=201,
        responses={201: {"model": answer}},
        openapi_extra={**requires("telemetry:write"), **body_of(UPLOAD_SCHEMA)},
    )
    async def upload_telemetry(
        upstream: UpstreamDep,
        entity: Annotated[Entity, Depends(find)],
        body: JsonBody,
        ttl: TimeToLive = None,
    ) -> Response:
        """Store points; when this answers they can be read.

        The body is a map of keys to points, `{"temperature":[{"ts":1760000000000,"value":25.6}]}`. Also
        taken: `{"temperature":25.6}` (stored at ThingsBoard's present time),
        `{"ts":1760000000000,"values":{...}}`, and a list of those. An upload in which every point has its
        `ts` may be repeated: the same key and time is overwritten. `warnings` names every key of which
        ThingsBoard stores something else than was sent.
        """
        receipt = await uploads.upload(upstream, entity.type, entity.id, body, ttl)
        return success(
            {
                **entity.identified,
                "keys_uploaded": receipt.keys,
                "total_data_points": receipt.points,
                "message": f"Stored {receipt.points} data points.",
                "warnings": receipt.warnings,
            },
            status_code=201,
        )


def _add_delete(kind: Kind, answer: type[BaseModel]) -> None:
    find = entity_in_path(kind)

    @router.delete(
        f"{kind.path}/telemetry",
        operation_id=kind.operation("delete_{}telemetry"),
        summary=f"Delete telemetry of one {kind.word}",
        responses={200: {"model": answer}},
        openapi_extra=requires("telemetry:delete"),
    )
    async def delete_telemetry(
        upstream: UpstreamDep,
        entity: Annotated[Entity, Depends(find)],
        keys: DeletedKeys,
        start_ts: RangeStart = None,
        end_ts: RangeEnd = None,
    ) -> Response:
        """Delete the points of some keys in `[start_ts, end_ts)`, or all of them when no range is given.

        The latest value of a key becomes the newest point that is left before the range. Unknown keys are no
        error.
        """
        deleted = await deletions.delete(upstream, entity.type, entity.id, keys, start_ts, end_ts)
        return success({**entity.identified, "keys_deleted": deleted, "message": "Telemetry deleted."})


for _kind, _uploaded, _deleted in (
    (DEVICE, DeviceUploadAnswer, DeviceTelemetryDeleted),
    (ASSET, AssetUploadAnswer, AssetTelemetryDeleted),
):
    _add_upload(_kind, _uploaded)
    _add_delete(_kind, _deleted)
