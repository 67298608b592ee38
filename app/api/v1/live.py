"""Live data: streams of server-sent events, and the WebSocket."""

from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, WebSocket
from starlette.responses import Response

from app.api.by_device import charge_devices
from app.api.entities import DEVICE, Entity, entity_in_path
from app.api.live_answer import MEDIA_TYPE, LiveAnswer
from app.api.live_socket import LiveSocket
from app.api.ranges import KeysDep
from app.api.route import check_query, check_scopes, requires, versioned_router
from app.context import Caller, context_of
from app.deps import CallerDep, UpstreamDep, upstream_of
from app.errors import NotAuthenticated, UnprocessableRequest
from app.schemas.live import MOST_DEVICES, MOST_KEYS
from app.services.live import check_attributes, find_devices, ordered
from app.services.live_channels import Channels, Selection, Subscriber
from app.services.live_frames import SSE
from app.services.live_marks import Marks
from app.services.streams import Streams
from app.thingsboard.client import ThingsBoardClient

SCOPES = frozenset({"telemetry:read"})
SCOPE = requires(*SCOPES)
LAST_EVENT_ID = "Last-Event-ID"

Attributes = Annotated[
    bool, Query(description="Tell of attributes too; needs the scope `attributes:read` besides.")
]
FirstValues = Annotated[bool, Query(description="Begin with what is the case now.")]
LastEventId = Annotated[
    str | None, Header(alias=LAST_EVENT_ID, description="`id` of the last event that was read: go on there.")
]
DeviceIds = Annotated[
    str,
    Query(
        min_length=1,
        max_length=12_000,
        description=f"Up to {MOST_DEVICES} UUIDs, or `name:` and exact names, separated by commas.",
    ),
]
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events, as `LiveEventBody` describes their `data`, until the caller leaves.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }
}

router = versioned_router("live")


@router.get(
    "/devices/{device_id}/telemetry/stream",
    operation_id="stream_telemetry",
    summary="Stream what happens to a device",
    response_class=Response,
    responses=RESPONSES,
    openapi_extra=SCOPE,
)
async def stream_telemetry(
    request: Request,
    caller: CallerDep,
    upstream: UpstreamDep,
    entity: Annotated[Entity, Depends(entity_in_path(DEVICE))],
    keys: KeysDep,
    attributes: Attributes = False,
    first_values: FirstValues = True,
    last_event_id: LastEventId = None,
) -> Response:
    """Send points, attributes and online or offline as server-sent events, each when it happens.

    Every point comes, late ones and new keys too, with the type it was stored with. Send the `id` of the last
    event as `Last-Event-ID`, which browsers do by themselves, to get what was missed. A comment every 15 s
    shows that the stream is alive.
    """
    selection = Selection((entity.id,), _keys(keys), attributes)
    return await _answer(request, (caller, upstream), selection, (first_values, last_event_id))


@router.get(
    "/telemetry/stream",
    operation_id="stream_telemetry_of_devices",
    summary="Stream what happens to many devices",
    response_class=Response,
    responses=RESPONSES,
    openapi_extra=SCOPE,
)
async def stream_telemetry_of_devices(
    request: Request,
    caller: CallerDep,
    upstream: UpstreamDep,
    keys: KeysDep,
    device_ids: DeviceIds,
    attributes: Attributes = False,
    first_values: FirstValues = True,
    last_event_id: LastEventId = None,
) -> Response:
    """Send what happens to up to 100 devices, as the stream of one device does.

    A device that does not exist is a 404 for the whole call; `details.device_id` names it.
    """
    references = [each for each in device_ids.split(",") if each]
    if not 1 <= len(set(references)) <= MOST_DEVICES:
        issue = f"must name 1 to {MOST_DEVICES} devices"
        raise UnprocessableRequest(f"device_ids: {issue}", details={"field": "device_ids", "issue": issue})
    await charge_devices(request, references)
    found = await find_devices(upstream, references)
    selection = Selection(ordered(found.values()), _keys(keys), attributes)
    return await _answer(request, (caller, upstream), selection, (first_values, last_event_id))


async def _answer(
    request: Request,
    of: tuple[Caller, ThingsBoardClient],
    selection: Selection,
    start: tuple[bool, str | None],
) -> Response:
    """Check everything, open everything, and only then begin to answer."""
    caller, upstream = of
    first_values, last_event_id = start
    check_attributes(caller, wanted=selection.attributes)
    heard = Marks.read(last_event_id, LAST_EVENT_ID) if last_event_id else None
    streams: Streams = request.app.state.streams
    channels: Channels = request.app.state.channels
    subscriber = Subscriber(SSE, channels.counts)
    stream = streams.open(caller)
    stream.end = subscriber.end
    try:
        channel = await channels.enter(upstream, selection, SSE)
    except BaseException:
        stream.close()
        raise
    beginning = channel.join(subscriber, first_values=first_values, heard=heard)

    def close() -> None:
        channel.leave(subscriber)
        channels.leave(channel)
        stream.close()

    return LiveAnswer(subscriber, beginning, close)


def _keys(keys: list[str] | None) -> frozenset[str] | None:
    if keys is not None and len(keys) > MOST_KEYS:
        issue = f"must name at most {MOST_KEYS} keys"
        raise UnprocessableRequest(f"keys: {issue}", details={"field": "keys", "issue": issue})
    return None if keys is None else frozenset(keys)


@router.websocket("/ws")
async def live_socket(web_socket: WebSocket) -> None:
    """Serve one caller's WebSocket (docs/live.md)."""
    caller = context_of(web_socket.scope).caller
    if caller is None:
        raise NotAuthenticated
    check_scopes(web_socket.scope, SCOPES)
    check_query(web_socket.query_params.multi_items(), frozenset())
    state = web_socket.app.state
    upstream = upstream_of(state.upstreams, caller)
    stream = state.streams.open(caller)
    try:
        await web_socket.accept()
        await LiveSocket(web_socket, stream, upstream, state.channels).serve()
    finally:
        stream.close()
