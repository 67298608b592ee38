"""Telemetry as it is read: keys, latest values, history, counts and queries. Uploads are in `uploads.py`."""

from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    WithJsonSchema,
)

from app import key_names
from app.schemas.common import Int64, Milliseconds, Success

CalendarUnit = Literal["hour", "day", "week", "month"]
UNITS: tuple[CalendarUnit, ...] = get_args(CalendarUnit)
MOST_KEYS = 100
#: Points of one answer, all keys and devices together: what is held in memory for it.
MOST_POINTS = 100_000
MOST_LATEST_DEVICES = 1_000
MOST_QUERY_DEVICES = 100

Key = Annotated[
    str,
    StringConstraints(min_length=1, max_length=key_names.LONGEST_KEY),
    AfterValidator(key_names.check),
]


class PointValue(RootModel[bool | Int64 | float | str | dict[str, Any] | list[Any] | None]):
    """A value with the type it was stored with: number, text, true or false, a JSON object or list."""


class Point(BaseModel):
    """One value at one time."""

    ts: Milliseconds
    value: PointValue


class QueryPoint(BaseModel):
    """One point, or the aggregate of one bucket: `ts` is then its start and `end_ts` its exclusive end."""

    ts: Milliseconds
    end_ts: Milliseconds | None = None
    value: PointValue


class KeyList(Success):
    """The telemetry keys of one device or asset."""

    device_id: str | None = None
    asset_id: str | None = None
    keys: list[str]


class LatestAnswer(Success):
    """The newest point of each key; null for a key that does not exist."""

    device_id: str | None = None
    asset_id: str | None = None
    keys_requested: list[str]
    data: dict[str, Point | None]


class HistoryAnswer(Success):
    """All points of a range, oldest first, by key."""

    device_id: str | None = None
    asset_id: str | None = None
    data: dict[str, list[Point]]


class CountAnswer(Success):
    """How many points there are."""

    device_id: str | None = None
    asset_id: str | None = None
    counts: dict[str, Int64]
    total: Int64
    exact: bool = Field(
        description="Whether every count is exact: always up to 200,000 points of the usual size."
    )
    at_least: list[str] = Field(
        description="Keys with too many points to look through. There are more points than counted if the "
        "values of the key are of mixed types."
    )


class TimeRange(BaseModel):
    """The range that was answered, its end exclusive."""

    start: Milliseconds
    end: Milliseconds
    duration_hours: float


class QueryMetadata(BaseModel):
    """What an answer holds and whether there is more."""

    total_points: Int64
    keys_found: list[str]
    keys_missing: list[str] = Field(description="Keys that the device does not have.")
    time_range: TimeRange
    truncated: bool
    next_cursor: str | None = Field(description="Send it with the same query to get the next page.")


class QueryEcho(BaseModel):
    """The query as it was understood, defaults filled in."""

    keys: list[str]
    start_ts: Milliseconds
    end_ts: Milliseconds
    limit: Int64
    interval: str | Int64 | None
    agg: str
    time_zone: str
    fill: str | None
    order: str


class KeyWarning(BaseModel):
    """What to know about the values of a key."""

    key: str
    reason: str


class QueryAnswer(Success):
    """A page of points or buckets by key."""

    device_id: str | None = None
    asset_id: str | None = None
    query: QueryEcho
    data: dict[str, list[QueryPoint]]
    metadata: QueryMetadata
    warnings: list[KeyWarning]


class DeviceError(BaseModel):
    """Why there is nothing for a device."""

    error: str
    error_code: str
    status: Int64


class ManyLatestAnswer(Success):
    """Latest values by device, keyed as the devices were named."""

    data: dict[str, dict[str, Point | None]]
    errors: dict[str, DeviceError]
    device_ids: dict[str, str] = Field(description="The UUID of each device that has one.")


class DeviceQueryResult(BaseModel):
    """The answer for one of many devices."""

    device_id: str
    query: QueryEcho
    data: dict[str, list[QueryPoint]]
    metadata: QueryMetadata
    warnings: list[KeyWarning]


class ManyQueryAnswer(Success):
    """Query answers by device, keyed as the devices were named."""

    data: dict[str, DeviceQueryResult]
    errors: dict[str, DeviceError]
    device_ids: dict[str, str] = Field(description="The UUID of each device that has one.")


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _check_interval(value: Any) -> Any:
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() else value.lower()
    if value is None or value in UNITS or (type(value) is int and 1 <= value <= LONGEST_INTERVAL):
        return value
    raise ValueError(f"must be ms (a whole number from 1) or one of {', '.join(UNITS)}")


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("is not a time zone of the IANA database, such as Europe/Berlin") from None
    return name


#: A thousand years: more is a mistake.
LONGEST_INTERVAL = 31_557_600_000_000

#: Declared as what it usually is; ISO 8601 text is read too.
Moment = Annotated[
    int | str | None,
    Field(description="ms since the epoch; ISO 8601 text is taken too."),
    WithJsonSchema({"anyOf": [{"type": "integer", "format": "int64"}, {"type": "null"}]}),
]
Interval = Annotated[
    int | CalendarUnit | None,
    BeforeValidator(_check_interval),
    Field(
        description="Length of a bucket: ms, counted from start_ts, or hour, day, week, month of time_zone. "
        "Without it an aggregation has one bucket, the whole range."
    ),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "format": "int64", "minimum": 1},
                {"type": "string", "enum": list(UNITS)},
                {"type": "null"},
            ]
        }
    ),
]
Keys = Annotated[
    list[Key] | None,
    Field(
        min_length=1, max_length=MOST_KEYS, description="Telemetry keys; all of the device's when left out."
    ),
]


class QueryFields(BaseModel):
    """What one and many devices are asked alike."""

    model_config = ConfigDict(extra="forbid", strict=True)

    keys: Keys = None
    start_ts: Moment = None
    end_ts: Moment = None
    limit: Annotated[
        Int64,
        Field(
            ge=1,
            le=10_000,
            description="Points, or buckets (empty ones only with `fill`), of each key in this answer. "
            f"All keys and devices share {MOST_POINTS} points: many of them lower the limit, and "
            "`query.limit` says so.",
        ),
    ] = 1_000
    interval: Interval = None
    agg: Annotated[Literal["NONE", "AVG", "MIN", "MAX", "SUM", "COUNT"], BeforeValidator(_upper)] = "NONE"
    time_zone: Annotated[
        str,
        StringConstraints(min_length=1, max_length=64),
        AfterValidator(_check_zone),
        Field(description="IANA time zone of calendar intervals."),
    ] = "UTC"
    fill: Annotated[
        Literal["null"] | None, Field(description="`null`: empty buckets are answered with the value null.")
    ] = None
    order: Annotated[
        Literal["ASC", "DESC"] | None,
        BeforeValidator(_upper),
        Field(description="ASC, oldest first, unless given."),
    ] = None


class TelemetryQuery(QueryFields):
    """A query for points or aggregates of a device or asset, of the last 24 hours unless told otherwise."""

    cursor: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=65_536),
        Field(
            description="`metadata.next_cursor` of the page before; everything but `limit` stays as it was."
        ),
    ] = None


DeviceReferences = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=300)]],
    Field(min_length=1, description="UUIDs, or `name:` and the exact name. Doubles are answered once."),
]


class ManyTelemetryQuery(QueryFields):
    """One query for many devices. `next_cursor` goes to the query of that one device."""

    device_ids: Annotated[DeviceReferences, Field(max_length=MOST_QUERY_DEVICES)]


class ManyLatestQuery(BaseModel):
    """Which devices and keys."""

    model_config = ConfigDict(extra="forbid", strict=True)

    device_ids: Annotated[DeviceReferences, Field(max_length=MOST_LATEST_DEVICES)]
    keys: Keys = None
    types: Annotated[
        Literal["strict", "inferred"],
        Field(
            description="`strict`: stored types, a ThingsBoard call a device. `inferred`: one call for all, "
            "types read from the text, so the text `12` comes back as the number 12; needs `keys`."
        ),
    ] = "strict"
