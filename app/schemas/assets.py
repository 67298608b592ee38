"""Assets."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.schemas.common import Pagination, Success, ThingsBoardObject
from app.schemas.devices import Name, Text255

#: Sort fields and ThingsBoard's names for them.
SORT_FIELDS = {"created_time": "createdTime", "name": "name", "type": "type", "label": "label"}

SortField = Annotated[
    Literal["created_time", "name", "type", "label"],
    BeforeValidator(lambda value: "created_time" if value == "createdTime" else value),
]


class Asset(ThingsBoardObject):
    """A ThingsBoard asset, unchanged."""


class AssetAnswer(Success):
    """One asset."""

    data: Asset


class AssetList(Success):
    """A page of assets."""

    data: list[Asset]
    pagination: Pagination


class AssetCreate(BaseModel):
    """An asset to make."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: Name = Field(description="Unique in the tenant.")
    type: Name = Field(default="default", description="Asset profile; a new name makes a new profile.")
    label: Text255 | None = None
    additional_info: dict[str, Any] | None = Field(default=None, alias="additionalInfo")


class AssetPatch(BaseModel):
    """What to change; fields left out stay as they are."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: Name | None = None
    type: Name | None = None
    label: Text255 | None = None
    additional_info: dict[str, Any] | None = Field(default=None, alias="additionalInfo")
