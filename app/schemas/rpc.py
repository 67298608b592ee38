"""Commands to devices and what became of them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.schemas.common import EntityId, Int64, Milliseconds, Pagination, Success, as_json
from app.schemas.telemetry import Key, PointValue

#: What ThingsBoard waits for a device at least, whatever it is asked (recordings).
SHORTEST_TIMEOUT_MS = 5_000
DEFAULT_TIMEOUT_MS = 10_000
SHORTEST_EXPIRY_MS = 1_000
#: 30 days: of a wait that is stored, and of what is stored.
LONGEST_EXPIRY_MS = 30 * 86_400_000
#: What ThingsBoard takes (facts).
LARGEST_PARAMS_BYTES = 1_000_000

RpcOutcome = Literal["answered", "sent", "queued", "offline", "timeout"]
#: ThingsBoard's states that a list can be filtered by; DELETED is none of a list.
RpcStatus = Literal["QUEUED", "SENT", "DELIVERED", "SUCCESSFUL", "TIMEOUT", "EXPIRED", "FAILED"]


def _long_enough(timeout: int) -> int:
    if timeout < SHORTEST_TIMEOUT_MS:
        raise ValueError(
            f"must be at least {SHORTEST_TIMEOUT_MS}: ThingsBoard waits so many ms for a device, at least"
        )
    return timeout


def _is_json(params: Any) -> Any:
    try:
        encoded = as_json(params)
    except (ValueError, RecursionError):
        # NaN, Infinity and lone surrogates pass through Python's reader.
        raise ValueError("must be JSON, without NaN, Infinity or lone surrogates") from None
    if len(encoded) > LARGEST_PARAMS_BYTES:
        raise ValueError(f"is larger than {LARGEST_PARAMS_BYTES} bytes")
    return params


Timeout = Annotated[
    int,
    Field(
        le=LONGEST_EXPIRY_MS,
        description="ms to wait for the device: 5,000 at least. More than 25,000 is stored, and answered "
        "with 202.",
        json_schema_extra={"format": "int64", "minimum": SHORTEST_TIMEOUT_MS},
    ),
    AfterValidator(_long_enough),
]
FailFast = Annotated[
    bool,
    Field(
        description="Refuse at once, and send nothing, when ThingsBoard holds the device for inactive. "
        "It notices a device that has just connected some seconds late."
    ),
]


class RpcRequest(BaseModel):
    """A command."""

    model_config = ConfigDict(extra="forbid", strict=True)

    method: Annotated[
        str,
        StringConstraints(
            min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
        ),
    ] = Field(description="What the device calls it.")
    params: Annotated[Any, AfterValidator(_is_json)] = Field(
        default_factory=dict, description="Any JSON, up to 1 MB."
    )
    timeout: Timeout = DEFAULT_TIMEOUT_MS
    fail_fast: FailFast = False
    expires_in: Annotated[Int64, Field(ge=SHORTEST_EXPIRY_MS, le=LONGEST_EXPIRY_MS)] | None = Field(
        default=None,
        description="ms that a stored command waits for its device. Unless given: the `timeout`, when that "
        "is why it is stored, else an hour.",
    )


class PersistentRpcRequest(RpcRequest):
    """A command that is stored."""

    oneway: bool = Field(default=False, description="The device is not asked for a reply.")


class RpcAnswer(Success):
    """What became of a command."""

    device_id: str
    outcome: RpcOutcome
    response: PointValue = Field(description="The device's reply, as it came; null when there is none.")
    elapsed_ms: Int64
    rpc_id: str | None = Field(default=None, description="Of a stored command.")
    expires_ts: Milliseconds | None = Field(default=None, description="Of a stored command.")


class LightRequest(BaseModel):
    """What a light is to do."""

    model_config = ConfigDict(extra="forbid", strict=True)

    state: Literal["on", "off"]
    verify: bool = Field(default=True, description="Wait for the device's telemetry to say so.")
    key: Key = Field(default="light", description="Telemetry key that holds the light's state.")
    timeout: Annotated[Timeout, Field(le=25_000, description="ms to wait for the device's reply.")] = (
        DEFAULT_TIMEOUT_MS
    )
    fail_fast: FailFast = False


class ObservedState(BaseModel):
    """A point of the light's telemetry."""

    ts: Milliseconds
    value: PointValue


class LightAnswer(RpcAnswer):
    """What became of the command, and what the telemetry says."""

    verified: bool | None = Field(description="null: nobody asked.")
    observed: ObservedState | None = Field(description="The newest point since the command, if any came.")


class RpcBody(BaseModel):
    """What the device is told."""

    model_config = ConfigDict(extra="allow")

    method: str
    params: PointValue = Field(description="As it was sent.")


class StoredRequest(BaseModel):
    """The command as ThingsBoard keeps it."""

    model_config = ConfigDict(extra="allow")

    oneway: bool
    body: RpcBody


class StoredRpc(BaseModel):
    """ThingsBoard's stored RPC, with `params` as JSON and two fields of the gateway's."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    id: EntityId
    created_time: Milliseconds = Field(alias="createdTime")
    device_id: EntityId = Field(alias="deviceId")
    expiration_time: Milliseconds = Field(alias="expirationTime")
    request: StoredRequest
    response: PointValue
    status: str = Field(description="ThingsBoard's state.")
    outcome: RpcOutcome
    is_final: bool = Field(description="Nothing comes after this state.")


class StoredRpcAnswer(Success):
    """One stored RPC."""

    data: StoredRpc


class StoredRpcList(Success):
    """A page of a device's stored RPCs."""

    data: list[StoredRpc]
    pagination: Pagination


class RpcDeleted(Success):
    """What was deleted."""

    rpc_id: str
    device_id: str
    message: str


class RpcEvent(BaseModel):
    """One state of a stored RPC, as `data` of an `event: state`."""

    rpc_id: str
    device_id: str
    status: str = Field(description="ThingsBoard's state; DELETED: it is gone.")
    outcome: RpcOutcome
    is_final: bool
    is_oneway: bool
    response: PointValue
