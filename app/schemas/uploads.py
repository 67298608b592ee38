"""Telemetry uploads, single and bulk."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.schemas.common import Int64, Milliseconds, Success
from app.schemas.telemetry import Point, PointValue

NULL = {"type": "null"}
#: The schemas that reading declares, so that SDKs, which know no `not`, have one type for points and one for
#: values. ThingsBoard stores no null: it answers 400, for attributes 500 (telemetry.json, attributes.json).
POINT_SCHEMA: dict[str, Any] = {
    "$ref": f"#/components/schemas/{Point.__name__}",
    "not": {"properties": {"value": NULL}, "required": ["value"]},
}
VALUE_SCHEMA: dict[str, Any] = {"$ref": f"#/components/schemas/{PointValue.__name__}", "not": NULL}

#: The one declared form of an upload; the other forms are described in words, for the sake of SDKs.
UPLOAD_SCHEMA: dict[str, Any] = {
    "title": "TelemetryUpload",
    "type": "object",
    "description": (
        'Points by key: `{"temperature":[{"ts":1760000000000,"value":25.6}]}`. Also taken: '
        '`{"temperature":25.6}` (stored at the present time), '
        '`{"ts":1760000000000,"values":{"temperature":25.6}}`, and a list of those. '
        "`ts` is ms since the epoch or ISO 8601. A value is any JSON value but null."
    ),
    "minProperties": 1,
    "additionalProperties": {
        "type": "array",
        "minItems": 1,
        "items": POINT_SCHEMA,
    },
    "examples": [{"temperature": [{"ts": 1760000000000, "value": 25.6}]}],
}

BULK_SCHEMA: dict[str, Any] = {
    "title": "BulkTelemetryUpload",
    "type": "object",
    "description": "Uploads by device: a UUID, or `name:` and the exact name.",
    "minProperties": 1,
    "additionalProperties": UPLOAD_SCHEMA,
}


def body_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI request body of a route that reads its body itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


class ValueWarning(BaseModel):
    """Something ThingsBoard stores otherwise than it was sent. An empty key counts what is not listed."""

    key: str
    reason: str


class _EntityOfUpload(Success):
    keys_uploaded: list[str]
    total_data_points: Int64 = Field(description="Points that ThingsBoard acknowledged.")
    message: str
    warnings: list[ValueWarning]


class DeviceUploadAnswer(_EntityOfUpload):
    """What was stored."""

    device_id: str


class AssetUploadAnswer(_EntityOfUpload):
    """What was stored."""

    asset_id: str


class _TelemetryDeleted(Success):
    keys_deleted: list[str]
    message: str


class DeviceTelemetryDeleted(_TelemetryDeleted):
    """What was deleted."""

    device_id: str


class AssetTelemetryDeleted(_TelemetryDeleted):
    """What was deleted."""

    asset_id: str


class BulkSummary(BaseModel):
    """The result in numbers."""

    total_devices: Int64
    successful_devices: Int64
    failed_devices: Int64
    total_data_points: Int64 = Field(description="Points that ThingsBoard acknowledged.")


class BulkResult(BaseModel):
    """The result of one device."""

    status: Literal["success", "error"]
    device_id: str | None = Field(description="UUID, if the device was found.")
    keys_uploaded: list[str]
    data_points: Int64 = Field(description="Points that ThingsBoard acknowledged, of a failed device too.")
    error: str | None
    error_code: str | None
    warnings: list[ValueWarning]


class BulkLineError(BaseModel):
    """A line of a streamed upload that was not taken."""

    line: Int64
    error: str
    device_id: str | None = Field(description="The device as the line names it, if it does.")


class BulkAnswer(BaseModel):
    """The result of each device, by its id or name as sent."""

    status: Literal["success", "partial", "failed"]
    timestamp: Milliseconds
    summary: BulkSummary
    results: dict[str, BulkResult]
    line_errors: list[BulkLineError] = Field(description="The first 100 lines that were not taken.")
    total_line_errors: Int64
    message: str
