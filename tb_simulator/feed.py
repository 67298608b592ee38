"""The WebSocket ``/api/ws``: sessions and their commands (websocket_frames.json; facts, WebSocket)."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from tb_simulator.access import check_uuid, checked_plain
from tb_simulator.answers import ApiError, PlainError
from tb_simulator.attribute_store import SCOPES
from tb_simulator.auth import Principal
from tb_simulator.broken_answers import reset_transport
from tb_simulator.queries import find, selected
from tb_simulator.routing import Call
from tb_simulator.subscriptions import (
    AttributeSubscription,
    EntityDataSubscription,
    Subscription,
    TelemetrySubscription,
    error_frame,
    first_frame,
)
from tb_simulator.world import World

Message = MutableMapping[str, Any]
Command = dict[str, Any]

COMMON_PATH, LEGACY_PATH = "/api/ws", "/api/ws/plugins/telemetry"
BAD_TOKEN, POLICY = 1007, 1008
_INTERNAL_ERROR, _BAD_REQUEST = 1, 2
_PARSE_ERROR = "Failed to parse the payload"

_TYPES_TEXT = """
    TIMESERIES TIMESERIES_HISTORY ATTRIBUTES ENTITY_DATA ENTITY_DATA_UNSUBSCRIBE ENTITY_COUNT
    ENTITY_COUNT_UNSUBSCRIBE ALARM_DATA ALARM_DATA_UNSUBSCRIBE ALARM_COUNT ALARM_COUNT_UNSUBSCRIBE
    ALARM_STATUS ALARM_STATUS_UNSUBSCRIBE NOTIFICATIONS NOTIFICATIONS_COUNT NOTIFICATIONS_UNSUBSCRIBE
    MARK_NOTIFICATIONS_AS_READ MARK_ALL_NOTIFICATIONS_AS_READ
"""
_TYPES = frozenset(_TYPES_TEXT.split())


async def serve_feed(
    world: World,
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Serve one WebSocket connection, its request already received, until either side ends it."""
    path = scope["path"]
    if path not in {COMMON_PATH, LEGACY_PATH}:
        await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b""})
        return
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    session = Session(world, transport)
    token = parse_qs(scope["query_string"].decode("latin-1")).get("token")
    await send({"type": "websocket.accept"})
    if token:
        session.authenticate(token[0])
    writer = asyncio.get_running_loop().create_task(session.write(send))
    try:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            session.take(message.get("text") or (message.get("bytes") or b"").decode("utf-8", "replace"))
    finally:
        session.end()
        writer.cancel()


class Session:
    """One WebSocket session. Cutting the socket is all that ends it from outside."""

    def __init__(self, world: World, transport: asyncio.Transport | None) -> None:
        self._world, self._transport = world, transport
        self._outgoing: asyncio.Queue[Message] = asyncio.Queue()
        self._subscriptions: list[Subscription] = []
        self._user: Principal | None = None
        self._known = True
        world.feed.sessions.add(self)

    async def write(self, send: Callable[[Message], Awaitable[None]]) -> None:
        """Send what is queued, in order."""
        while True:
            await send(await self._outgoing.get())

    def push(self, frame: dict[str, Any]) -> None:
        """Queue a frame."""
        if not self._world.feed.muted:
            text = orjson.dumps(frame).decode()
            self._outgoing.put_nowait({"type": "websocket.send", "text": text})

    def close(self, code: int, reason: str) -> None:
        """End the session with a close frame."""
        self._outgoing.put_nowait({"type": "websocket.close", "code": code, "reason": reason})

    def cut(self) -> None:
        """End the session without a close frame, as a restarting ThingsBoard does."""
        if self._transport is not None:
            reset_transport(self._transport)

    def end(self) -> None:
        """Forget the session."""
        self._world.feed.sessions.discard(self)
        self._drop(lambda _: True)

    def authenticate(self, token: str) -> None:
        """Take a JWT, checked this once: a session outlives its token. API keys are refused here."""
        try:
            self._user = self._world.tokens.check(token)
        except ApiError:
            self.close(BAD_TOKEN, "Invalid JWT token: ")

    def take(self, text: str) -> None:
        """Take a frame of the client."""
        try:
            frame = orjson.loads(text)
            commands = _commands(frame)
        except (ValueError, TypeError, AttributeError):
            # One unknown type voids the whole frame; the error comes under 1, whatever ids the frame has.
            self.push(error_frame(1, _BAD_REQUEST, _PARSE_ERROR))
            return
        if self._user is None:
            authentication = frame.get("authCmd")
            if not authentication:
                self.close(POLICY, "Auth cmd is missing")
                return
            self.authenticate(str(authentication.get("token")))
        if self._user is not None:
            for command in commands:
                self._run(command)

    def _run(self, command: Command) -> None:
        number, kind = int(command.get("cmdId") or 0), command["type"]
        if not self._known:
            self.push(error_frame(0, _INTERNAL_ERROR, "Session meta-data not found!"))
        elif kind.endswith("_UNSUBSCRIBE"):
            self._drop(lambda subscription: subscription.number == number)
        elif command.get("unsubscribe"):
            self._unsubscribe(command, number)
        elif kind == "TIMESERIES":
            self._subscribe_telemetry(command, number)
        elif kind == "ATTRIBUTES":
            self._subscribe_attributes(command, number)
        elif kind == "ENTITY_DATA" and command.get("query"):
            self._subscribe_entity_data(command, number)

    def _unsubscribe(self, command: Command, number: int) -> None:
        if not command.get("entityId"):
            # Ends everything, and the session no longer knows itself (facts).
            self._drop(lambda _: True)
            self._known = False
            return
        self._drop(lambda subscription: subscription.number == number)

    def _drop(self, ends: Callable[[Subscription], bool]) -> None:
        kept = []
        for subscription in self._subscriptions:
            if ends(subscription):
                for entity_id in subscription.entity_ids:
                    self._world.feed.unsubscribe(entity_id, subscription.listener(entity_id))
            else:
                kept.append(subscription)
        self._subscriptions = kept

    def _add(self, subscription: Subscription) -> None:
        # A reused cmdId does not replace: both subscriptions go on under one number (facts).
        self._subscriptions.append(subscription)
        for entity_id in subscription.entity_ids:
            self._world.feed.subscribe(entity_id, subscription.listener(entity_id))

    def _call(self) -> Call:
        return Call(self._world, "WS", COMMON_PATH, {}, b"", b"", "", self._user)

    def _subscribe_telemetry(self, command: Command, number: int) -> None:
        try:
            identifier = check_uuid(str(command.get("entityId")))
        except ApiError as error:
            self.push(error_frame(number, _INTERNAL_ERROR, error.message))
            return
        try:
            entity = checked_plain(self._call(), str(command.get("entityType")), identifier)
        except (PlainError, ApiError):
            self.push(error_frame(number, _INTERNAL_ERROR, "Failed to fetch data!"))
            return
        keys = _keys(command)
        latest = self._world.telemetry.latest(entity.id)
        self.push(
            first_frame(number, {key: latest[key] for key in sorted(latest) if not keys or key in keys})
        )
        newer_only = command.get("scope") == "LATEST_TELEMETRY"
        self._add(TelemetrySubscription(self.push, number, entity.id, keys, newer_only=newer_only))

    def _subscribe_attributes(self, command: Command, number: int) -> None:
        """Subscribe without any check: ThingsBoard has none here (facts)."""
        try:
            identifier = check_uuid(str(command.get("entityId")))
        except ApiError as error:
            self.push(error_frame(number, _INTERNAL_ERROR, error.message))
            return
        scope, keys = command.get("scope") or None, _keys(command)
        values = {}
        for one in (scope,) if scope else SCOPES:
            values.update(self._world.attributes.of(identifier, one))
        self.push(
            first_frame(number, {key: values[key] for key in sorted(values) if not keys or key in keys})
        )
        self._add(AttributeSubscription(self.push, number, identifier, scope, keys))

    def _subscribe_entity_data(self, command: Command, number: int) -> None:
        query, call = command["query"], self._call()
        try:
            page = find(call, query)
            ids = {row["entityId"]["id"] for row in page["data"]}
            entities = [entity for entity in selected(call, query) if entity.id in ids]
        except ApiError as error:
            self.push(error_frame(number, _INTERNAL_ERROR, error.message))
            return
        wanted = (command.get("latestCmd") or {}).get("keys") or []
        subscription = EntityDataSubscription(self.push, number, entities, wanted)
        self.push(subscription.frame(page, None))
        if wanted:
            self._add(subscription)


def _keys(command: Command) -> frozenset[str]:
    return frozenset(key for key in str(command.get("keys") or "").split(",") if key)


def _commands(frame: Any) -> list[Command]:
    """Return the commands of a frame, those of the old form included, or raise for an unknown type."""
    commands = [dict(command) for command in frame.get("cmds") or ()]
    for field, kind in (
        ("tsSubCmds", "TIMESERIES"),
        ("attrSubCmds", "ATTRIBUTES"),
        ("entityDataCmds", "ENTITY_DATA"),
    ):
        commands += [{**command, "type": kind} for command in frame.get(field) or ()]
    for command in commands:
        if command.get("type") not in _TYPES:
            raise ValueError(_PARSE_ERROR)
    return commands
