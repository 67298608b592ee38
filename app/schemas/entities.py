"""What devices and assets are made of and changed by."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from app.schemas.common import as_json

Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")]
Text255 = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")]

#: Sort fields and ThingsBoard's names for them.
SORT_FIELDS = {
    "created_time": "createdTime",
    "name": "name",
    "type": "type",
    "label": "label",
    "customer_title": "customerTitle",
}


def _ours(value: Any) -> Any:
    """Take ThingsBoard's spelling too: it is what the listed objects show."""
    return next((ours for ours, theirs in SORT_FIELDS.items() if value == theirs), value)


def upper(value: Any) -> Any:
    """Take ThingsBoard's words in small letters too."""
    return value.upper() if isinstance(value, str) else value


AssetSortField = Annotated[Literal["created_time", "name", "type", "label"], BeforeValidator(_ours)]
DeviceSortField = Annotated[
    Literal["created_time", "name", "type", "label", "customer_title"], BeforeValidator(_ours)
]
SortOrder = Annotated[Literal["ASC", "DESC"], BeforeValidator(upper)]


def _is_kept(info: dict[str, Any]) -> dict[str, Any]:
    try:
        as_json(info)
        orjson.dumps(info)
    except (ValueError, TypeError, RecursionError):
        raise ValueError(
            "must be JSON without NaN, Infinity, lone surrogates or integers beyond 64 bits, at most 250 deep"
        ) from None
    return info


#: ThingsBoard keeps what an object says of itself as it came; what our own reader would change is refused.
AdditionalInfo = Annotated[dict[str, Any], AfterValidator(_is_kept)]


class EntityCreate(BaseModel):
    """A device or asset to make."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: Name = Field(description="Unique in the tenant.")
    type: Name = Field(default="default", description="Profile; a new name makes a new profile.")
    label: Text255 | None = None
    additional_info: AdditionalInfo | None = Field(default=None, alias="additionalInfo")


class EntityPatch(BaseModel):
    """What to change; fields left out stay as they are."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: Name | None = None
    type: Name | None = None
    label: Text255 | None = None
    additional_info: AdditionalInfo | None = Field(default=None, alias="additionalInfo")
