"""Alarms."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.schemas.common import EntityId, Milliseconds, Pagination, Success
from app.schemas.entities import upper

SEVERITIES = ("CRITICAL", "MAJOR", "MINOR", "WARNING", "INDETERMINATE")
#: Sort fields and ThingsBoard's names for them.
SORT_FIELDS = {
    "created_time": "createdTime",
    "start_ts": "startTs",
    "end_ts": "endTs",
    "ack_ts": "ackTs",
    "clear_ts": "clearTs",
    "type": "type",
    "severity": "severity",
    "status": "status",
}


def _ours(value: Any) -> Any:
    """Take ThingsBoard's spelling too: it is what the listed alarms show."""
    return next((ours for ours, theirs in SORT_FIELDS.items() if value == theirs), value)


AlarmSortField = Annotated[
    Literal["created_time", "start_ts", "end_ts", "ack_ts", "clear_ts", "type", "severity", "status"],
    BeforeValidator(_ours),
]
AlarmStatus = Annotated[
    Literal[
        "ACTIVE", "CLEARED", "ACK", "UNACK", "ACTIVE_UNACK", "ACTIVE_ACK", "CLEARED_UNACK", "CLEARED_ACK"
    ],
    BeforeValidator(upper),
]


class Alarm(BaseModel):
    """A ThingsBoard alarm, unchanged; ThingsBoard's further fields are passed on."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    id: EntityId
    created_time: Milliseconds = Field(alias="createdTime")
    type: str
    originator: EntityId = Field(description="The device, asset or other entity that it is about.")
    originator_name: str | None = Field(default=None, alias="originatorName")
    severity: str = Field(description="CRITICAL, MAJOR, MINOR, WARNING or INDETERMINATE.")
    status: str = Field(description="ACTIVE_UNACK, ACTIVE_ACK, CLEARED_UNACK or CLEARED_ACK.")
    acknowledged: bool
    cleared: bool
    start_ts: Milliseconds | None = Field(default=None, alias="startTs")
    end_ts: Milliseconds | None = Field(default=None, alias="endTs")
    ack_ts: Milliseconds | None = Field(default=None, alias="ackTs")
    clear_ts: Milliseconds | None = Field(default=None, alias="clearTs")
    details: Any = Field(default=None, description="Whatever the rule that made the alarm put there.")


class AlarmAnswer(Success):
    """One alarm."""

    data: Alarm


class AlarmList(Success):
    """A page of alarms."""

    data: list[Alarm]
    pagination: Pagination
