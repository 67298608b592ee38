"""Commands to devices: sent and awaited, or stored until the device comes."""

import re
from typing import Annotated, Any

import orjson
from fastapi import Depends, Path, Query, Request
from pydantic import AfterValidator
from starlette.responses import Response

from app.api.entities import DEVICE, Entity, entity_in_path
from app.api.envelope import paged, success, tagged
from app.api.etags import revalidated
from app.api.route import PREFIX, requires, versioned_router
from app.api.state_stream import EventStream, StateEvents
from app.deps import CallerDep, PageNumber, PageSize, UpstreamDep
from app.schemas.common import as_json
from app.schemas.entities import SortOrder
from app.schemas.rpc import (
    LightAnswer,
    LightRequest,
    PersistentRpcRequest,
    RpcAnswer,
    RpcDeleted,
    RpcRequest,
    RpcStatus,
    StoredRpcAnswer,
    StoredRpcList,
)
from app.security_events import note
from app.services import light, rpc
from app.services.addressing import find_uuid
from app.thingsboard.rpc import Command, device_of

router = versioned_router("rpc")
#: Streams have a tag of their own, by which SDK generators leave them out.
live_router = versioned_router("live")

ACCEPTED = 202
#: What a log line shows of a method: a name, never whatever a caller puts in its place.
PLAIN = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")

Device = Annotated[Entity, Depends(entity_in_path(DEVICE))]
SENT: dict[int | str, dict[str, Any]] = {
    200: {"model": RpcAnswer, "description": "Answered, or sent."},
    ACCEPTED: {
        "model": RpcAnswer,
        "description": "Stored, because the wait would be longer than 25 s; `Location` says where to look.",
    },
}


def _uuid(given: str) -> str:
    uuid = find_uuid(given)
    if uuid is None:
        raise ValueError("must be a UUID")
    return uuid


RpcId = Annotated[str, Path(max_length=36, description="UUID of a stored RPC."), AfterValidator(_uuid)]


@router.post(
    f"{DEVICE.path}/rpc/oneway",
    operation_id="send_oneway_rpc",
    summary="Send a command that needs no reply",
    responses=SENT,
    openapi_extra=requires("rpc:send"),
)
async def send_oneway_rpc(upstream: UpstreamDep, device: Device, command: RpcRequest) -> Response:
    """Send a command and say whether the device fetched it: `sent` (200), or `offline` (409).

    That it is offline shows after `timeout`, unless `fail_fast` is true. The gateway sends a command once.
    Who leaves does not stop it: it can still be delivered until `timeout` is over.
    """
    return await _send(upstream, device, command, is_oneway=True)


@router.post(
    f"{DEVICE.path}/rpc/twoway",
    operation_id="send_twoway_rpc",
    summary="Send a command and wait for the reply",
    responses=SENT,
    openapi_extra=requires("rpc:send"),
)
async def send_twoway_rpc(upstream: UpstreamDep, device: Device, command: RpcRequest) -> Response:
    """Send a command and return the device's reply: `answered` (200), `offline` (409) or `timeout` (504).

    `timeout` means that the device fetched the command and said nothing. That it is offline shows after
    `timeout`, too, unless `fail_fast` is true. The gateway sends a command once. Who leaves does not stop it:
    it can still be delivered until `timeout` is over. A reply that is not JSON is a 502.
    """
    return await _send(upstream, device, command, is_oneway=False)


@router.post(
    f"{DEVICE.path}/rpc/persistent",
    operation_id="send_persistent_rpc",
    summary="Store a command until the device comes",
    status_code=ACCEPTED,
    responses={ACCEPTED: {"model": RpcAnswer}},
    openapi_extra=requires("rpc:send"),
)
async def send_persistent_rpc(
    upstream: UpstreamDep, device: Device, command: PersistentRpcRequest
) -> Response:
    """Store a command for up to `expires_in` ms, an hour by default, and answer at once: `queued`.

    `Location` names the RPC; its `/events` tell of its states. ThingsBoard delivers it when the device comes.
    """
    _note(device.id, command.method, "persistent")
    result = await rpc.store(
        upstream, device.id, _command_of(command, is_oneway=command.oneway), _terms_of(command)
    )
    return _answer(device, result)


@router.post(
    f"{DEVICE.path}/light",
    operation_id="set_light",
    summary="Switch a light on or off",
    responses={200: {"model": LightAnswer}},
    openapi_extra=requires("rpc:send", "telemetry:read"),
)
async def set_light(upstream: UpstreamDep, device: Device, wanted: LightRequest) -> Response:
    """Send `setLight {"on": true}` or `false`, and wait until the device's telemetry says so.

    `verified` is true when a point of `key` that is newer than the command says what was commanded within 5 s
    of the device's reply; `observed` is that point, or else the newest one since the command. On is true, 1,
    `on`, `true` or `1`, off their opposites. With `verify` false both are null, and the reply counts.
    """
    _note(device.id, light.METHOD, "light")
    switched = await light.switch(
        upstream,
        device.id,
        is_on=wanted.state == "on",
        terms=rpc.Terms(wanted.timeout, wanted.fail_fast),
        key=wanted.key if wanted.verify else None,
    )
    return success(
        {
            **_body(device, switched.result),
            "verified": switched.verified,
            "observed": switched.observed,
        }
    )


@router.get(
    f"{DEVICE.path}/rpc",
    operation_id="list_rpcs",
    summary="List the stored RPCs of a device",
    responses=revalidated(StoredRpcList),
    openapi_extra=requires("rpc:send"),
)
async def list_rpcs(
    upstream: UpstreamDep,
    device: Device,
    page: PageNumber = 0,
    page_size: PageSize = 100,
    status: Annotated[RpcStatus | None, Query(description="Only those in this state.")] = None,
    sort_order: Annotated[SortOrder, Query(description="By time; the newest first unless given.")] = "DESC",
) -> Response:
    """Return one page of the commands that were stored for the device, whatever became of them."""
    listed = await upstream.rpc.list_page(
        device.id,
        {
            "page": page,
            "pageSize": page_size,
            "rpcStatus": status,
            "sortProperty": "createdTime",
            "sortOrder": sort_order,
        },
    )
    described = [rpc.described(record) for record in listed.items]
    return paged(listed.holding(described), number=page, size=page_size)


@router.get(
    "/rpc/{rpc_id}",
    operation_id="get_rpc",
    summary="Get one stored RPC",
    responses=revalidated(StoredRpcAnswer),
    openapi_extra=requires("rpc:send"),
)
async def get_rpc(upstream: UpstreamDep, rpc_id: RpcId) -> Response:
    """Return a stored RPC and what has become of it so far."""
    return tagged({"data": rpc.described(await upstream.rpc.get(rpc_id))})


@router.delete(
    "/rpc/{rpc_id}",
    operation_id="delete_rpc",
    summary="Delete a stored RPC",
    responses={200: {"model": RpcDeleted}},
    openapi_extra=requires("rpc:send"),
)
async def delete_rpc(upstream: UpstreamDep, rpc_id: RpcId) -> Response:
    """Delete it. One that still waits for its device is not delivered any more.

    ThingsBoard lets no customer user do this: with such an account behind the gateway it is a 403.
    """
    record = await upstream.rpc.delete(rpc_id)
    return success({"rpc_id": rpc_id, "device_id": device_of(record), "message": "RPC deleted."})


async def _stored_rpc(upstream: UpstreamDep, rpc_id: RpcId) -> dict[str, Any]:
    """Read it before the answer begins, so that whatever is wrong is a proper error."""
    return await upstream.rpc.get(rpc_id)


@live_router.get(
    "/rpc/{rpc_id}/events",
    operation_id="stream_rpc_events",
    summary="Follow the states of a stored RPC",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    openapi_extra=requires("rpc:send"),
)
async def stream_rpc_events(
    request: Request,
    upstream: UpstreamDep,
    caller: CallerDep,
    record: Annotated[dict[str, Any], Depends(_stored_rpc)],
) -> Response:
    """Send its present state, and each later one as ThingsBoard shows it, as server-sent events.

    `event: state` has an `RpcEvent` as `data`; the stream ends after the one with `is_final`. `event: gone`:
    it was deleted, or this key may not see it any more. States that last for less than a moment may be left
    out. `event: closing` and `event: error` say why a stream ends early: connect again.
    """
    return EventStream(StateEvents(upstream.rpc.follow(record), request.app.state.streams, caller))


async def _send(upstream: UpstreamDep, device: Entity, command: RpcRequest, *, is_oneway: bool) -> Response:
    _note(device.id, command.method, "oneway" if is_oneway else "twoway")
    result = await rpc.send(
        upstream, device.id, _command_of(command, is_oneway=is_oneway), _terms_of(command)
    )
    return _answer(device, result)


def _command_of(command: RpcRequest, *, is_oneway: bool) -> Command:
    return Command(command.method, orjson.Fragment(as_json(command.params)), is_oneway)


def _terms_of(command: RpcRequest) -> rpc.Terms:
    return rpc.Terms(command.timeout, command.fail_fast, command.expires_in)


def _answer(device: Entity, result: rpc.Result) -> Response:
    body = _body(device, result)
    if result.rpc_id is None:
        return success(body)
    body |= {"rpc_id": result.rpc_id, "expires_ts": result.expires_ts}
    location = f"{PREFIX}/rpc/{result.rpc_id}"
    return success(body, status_code=ACCEPTED, headers={"Location": location})


def _body(device: Entity, result: rpc.Result) -> dict[str, Any]:
    return {
        **device.identified,
        "outcome": result.outcome,
        "response": result.response,
        "elapsed_ms": result.elapsed_ms,
    }


def _note(device_id: str, method: str, way: str) -> None:
    """Note who commands what: parameters may be secrets, a plain name of a method is not."""
    note("command_sent", device_id=device_id, way=way, command=method if PLAIN.fullmatch(method) else None)
