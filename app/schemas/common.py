"""Shapes that every resource shares."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

#: `format: int64`: without it Java and C# SDKs get 32 bits and every time stamp fails.
Int64 = Annotated[int, Field(json_schema_extra={"format": "int64"})]
Milliseconds = Annotated[int, Field(description="ms since the epoch", json_schema_extra={"format": "int64"})]


def as_json(value: Any) -> bytes:
    """Encode anything that came as JSON, big integers included.

    Raises:
        ValueError: it holds NaN, Infinity or a lone surrogate, which pass through Python's reader.
        RecursionError: it is nested too deeply.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class Success(BaseModel):
    """The envelope of every successful JSON answer."""

    status: Literal["success"] = "success"
    timestamp: Milliseconds


class Pagination(BaseModel):
    """Where a list stands."""

    page: Int64
    page_size: Int64
    total_pages: Int64
    total_elements: Int64
    has_next: bool


class EntityId(BaseModel):
    """ThingsBoard's reference to an entity."""

    model_config = ConfigDict(populate_by_name=True)

    entity_type: str = Field(alias="entityType")
    id: str


class ThingsBoardObject(BaseModel):
    """What devices and assets have in common; ThingsBoard's further fields are passed on."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    id: EntityId
    created_time: Milliseconds = Field(alias="createdTime")
    name: str
    type: str
    label: str | None = None
    additional_info: dict[str, Any] | None = Field(default=None, alias="additionalInfo")


class EntityTypeInfo(BaseModel):
    """One type that devices or assets have."""

    model_config = ConfigDict(extra="allow")

    type: str


class TypeList(Success):
    """Types in use."""

    data: list[EntityTypeInfo]
    pagination: Pagination


class Deleted(Success):
    """What was deleted."""

    message: str


class ErrorBody(BaseModel):
    """The one error shape. `application/problem+json` (RFC 9457) carries the same members."""

    status: Int64 = Field(description="HTTP status")
    message: str
    error_code: str
    timestamp: Milliseconds
    details: dict[str, Any] | None = None
    request_id: str | None = None


class RateLimitError(ErrorBody):
    """A 429 says when to come back; `details.limited_by` says whose limit it was."""

    error: str
    detail: str
    retry_after: Int64 = Field(description="seconds")
