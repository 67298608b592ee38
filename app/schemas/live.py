"""What live streams tell, and the frames that the WebSocket takes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, StringConstraints

from app.schemas.common import Milliseconds
from app.schemas.telemetry import Key, PointValue

#: Devices of one stream or frame, and keys of each.
MOST_DEVICES = 100
MOST_KEYS = 100

Reference = Annotated[StrictStr, StringConstraints(min_length=1, max_length=300)]


class LiveEventBody(BaseModel):
    """The `data` of an event; which members it has depends on the event (docs/live.md)."""

    device_id: str | None = None
    key: str | None = None
    scope: str | None = None
    ts: Milliseconds | None = None
    value: PointValue | None = None
    active: bool | None = None
    reason: str | None = None
    first: bool | None = Field(default=None, description="true: the case before the stream began")


class _Frame(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: StrictInt | Annotated[StrictStr, StringConstraints(max_length=64)] | None = None
    device_ids: Annotated[list[Reference], Field(min_length=1, max_length=MOST_DEVICES)]


class SubscribeFrame(_Frame):
    """Hear of devices."""

    type: Literal["subscribe"]
    keys: Annotated[list[Key], Field(min_length=1, max_length=MOST_KEYS)] | None = None
    attributes: StrictBool = False
    first_values: StrictBool = True
    last_event_ids: Annotated[dict[str, StrictStr], Field(max_length=MOST_DEVICES)] = {}


class UnsubscribeFrame(_Frame):
    """Hear of devices no more."""

    type: Literal["unsubscribe"]


ClientFrame = Annotated[SubscribeFrame | UnsubscribeFrame, Field(discriminator="type")]
