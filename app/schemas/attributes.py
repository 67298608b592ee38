"""Attributes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from app.schemas.common import Int64, Milliseconds, Success
from app.schemas.telemetry import PointValue
from app.schemas.uploads import VALUE_SCHEMA, ValueWarning

AttributeScope = Literal["SERVER_SCOPE", "SHARED_SCOPE", "CLIENT_SCOPE"]


def _is_writable(scope: Any) -> Any:
    if scope == "client":
        raise ValueError("client attributes are written by the device itself; write server or shared ones")
    return scope


ScopeName = Literal["server", "shared", "client"]
WritableScopeName = Annotated[Literal["server", "shared"], BeforeValidator(_is_writable)]

ATTRIBUTES_SCHEMA: dict[str, Any] = {
    "title": "AttributeValues",
    "type": "object",
    "description": 'Values by key: `{"serial":"SN-1","limit":30.5}`. A value is any JSON value but null.',
    "minProperties": 1,
    "additionalProperties": VALUE_SCHEMA,
    "examples": [{"serial": "SN-1", "limit": 30.5}],
}


class Attribute(BaseModel):
    """One attribute."""

    value: PointValue
    last_update_ts: Milliseconds


class _OneScope(Success):
    scope: AttributeScope
    data: dict[str, Attribute]


class DeviceAttributes(_OneScope):
    """Attributes of one scope."""

    device_id: str


class AssetAttributes(_OneScope):
    """Attributes of one scope."""

    asset_id: str


class AttributesByScope(BaseModel):
    """Attributes of each scope."""

    server: dict[str, Attribute] = Field(alias="SERVER_SCOPE")
    shared: dict[str, Attribute] = Field(alias="SHARED_SCOPE")
    client: dict[str, Attribute] = Field(alias="CLIENT_SCOPE")


class DeviceAttributesByScope(Success):
    """All attributes."""

    device_id: str
    data: AttributesByScope


class AssetAttributesByScope(Success):
    """All attributes."""

    asset_id: str
    data: AttributesByScope


class _Uploaded(Success):
    scope: AttributeScope
    attributes_uploaded: list[str]
    count: Int64
    message: str
    warnings: list[ValueWarning]


class DeviceAttributesUploaded(_Uploaded):
    """What was written."""

    device_id: str


class AssetAttributesUploaded(_Uploaded):
    """What was written."""

    asset_id: str


class _Deleted(Success):
    scope: AttributeScope
    attributes_deleted: list[str]
    count: Int64
    message: str


class DeviceAttributesDeleted(_Deleted):
    """What was deleted."""

    device_id: str


class AssetAttributesDeleted(_Deleted):
    """What was deleted."""

    asset_id: str
