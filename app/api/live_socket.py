"""One caller's WebSocket: frames in, events out, each device subscribed to by itself."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import WebSocket
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.websockets import WebSocketDisconnect

from app.api.by_device import charge_devices
from app.api.live_pace import FramePace
from app.errors import GatewayError, InternalError, InvalidRequest, NotFound
from app.problems import as_gateway_error, body_of, wait_of
from app.schemas.live import ClientFrame, SubscribeFrame, UnsubscribeFrame
from app.services.live import check_attributes, find_devices, not_found
from app.services.live_channels import Channel, Channels, Selection, Subscriber
from app.services.live_frames import WEB_SOCKET
from app.services.live_marks import Marks
from app.services.streams import Stream
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.live_events import LiveEvent

MOST_DEVICES = 1_000
#: The protocol's pings show that a quiet connection lives; this only bounds a wait.
QUIET_SECONDS = 60.0
#: What comes of a device while its reader is still catching up.
MOST_HELD = 20_000
#: Close codes: the gateway stops, or the reader was too slow; the key has ended.
GOING_AWAY, TRY_AGAIN, POLICY = 1001, 1013, 1008

FRAME: TypeAdapter[SubscribeFrame | UnsubscribeFrame] = TypeAdapter(ClientFrame)


class _Gate:
    """Holds back what comes of one device until its reader has caught up."""

    is_ended_with_channel = False

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._held: list[bytes] | None = []

    def put(self, frame: bytes) -> None:
        """Pass a frame on, or keep it for later."""
        if self._held is None:
            self._subscriber.put(frame)
            return
        self._held.append(frame)
        if len(self._held) > MOST_HELD:
            self._subscriber.end(LiveEvent("dropped", reason="events came faster than they were read"))

    def end(self, last: LiveEvent | None = None) -> None:
        """Go on: the other devices are still there."""

    def open(self) -> None:
        """Let everything through."""
        held, self._held = self._held or [], None
        for frame in held:
            self._subscriber.put(frame)


class LiveSocket:
    """Serves one accepted connection until either side ends it."""

    def __init__(
        self, web_socket: WebSocket, stream: Stream, upstream: ThingsBoardClient, channels: Channels
    ) -> None:
        self._web_socket, self._stream, self._upstream = web_socket, stream, upstream
        self._channels = channels
        self._subscriber = Subscriber(WEB_SOCKET, channels.counts)
        self._subscriber.is_ended_with_channel = False
        self._open: dict[str, tuple[Channel, _Gate]] = {}
        self._last: LiveEvent | None = None
        self._loop = asyncio.get_running_loop()
        self._pace = FramePace(self._loop.time())
        stream.end = self._end

    async def serve(self) -> None:
        """Read frames and send events."""
        reading = asyncio.create_task(self._read())
        try:
            await self._write()
        except WebSocketDisconnect:
            pass
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            for device_id in list(self._open):
                self._leave(device_id)

    def _end(self, last: LiveEvent) -> None:
        self._last = last
        self._subscriber.end(last)

    async def _write(self) -> None:
        while (frames := await self._subscriber.take(QUIET_SECONDS)) is not None:
            for frame in frames:
                await self._web_socket.send_text(frame.decode())
        code = TRY_AGAIN if self._last is None else GOING_AWAY
        await self._web_socket.close(code)

    async def _read(self) -> None:
        try:
            while True:
                message = await self._web_socket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                text = message.get("text")
                await self._take(text if text is not None else message.get("bytes") or b"")
        finally:
            self._subscriber.leave()

    async def _take(self, content: str | bytes) -> None:
        """Do what a frame says, and answer it."""
        number: Any = None
        try:
            given = _decode(content)
            number = given.get("id")
            answer = await self._obey(_validate(given))
        except Exception as error:
            gateway_error = as_gateway_error(error)
            if isinstance(gateway_error, InternalError) and not isinstance(error, GatewayError):
                raise
            answer = {"type": "error", **body_of(gateway_error, self._web_socket.scope)}
            if (wait := wait_of(gateway_error)) is not None:
                answer["retry_after"] = wait
        told = {"id": number} if isinstance(number, str | int) and len(str(number)) <= 64 else {}  # noqa: PLR2004 - as in the schema
        self._subscriber.put(orjson.dumps({**answer, **told}))

    async def _obey(self, frame: SubscribeFrame | UnsubscribeFrame) -> dict[str, Any]:
        if isinstance(frame, UnsubscribeFrame):
            return await self._unsubscribe(frame)
        caller = self._stream.caller
        check_attributes(caller, wanted=frame.attributes)
        heard = {
            reference: Marks.read(token, "last_event_ids")
            for reference, token in frame.last_event_ids.items()
        }
        found = await self._find(frame.device_ids)
        if len(self._open.keys() | set(found.values())) > MOST_DEVICES:
            issue = f"one connection hears at most {MOST_DEVICES} devices"
            raise InvalidRequest(
                f"device_ids: {issue}", details={"field": "device_ids", "issue": issue, "limit": MOST_DEVICES}
            )
        keys = None if frame.keys is None else frozenset(frame.keys)
        entered = await self._enter(found, keys, attributes=frame.attributes)
        tokens = {}
        for reference, device_id in found.items():
            tokens[device_id] = await self._begin(
                device_id, entered.pop(device_id, None), frame, heard.get(reference) or heard.get(device_id)
            )
        places = {device_id: token for device_id, token in tokens.items() if token is not None}
        return {"type": "ack", "device_ids": found, "last_event_ids": places}

    async def _find(self, references: Sequence[str]) -> dict[str, str]:
        """Look devices up, at the pace and for the price of what names many."""
        if not references:
            return {}
        if wait := self._pace.wait(len(references), self._loop.time()):
            await asyncio.sleep(wait)
        await charge_devices(self._web_socket, references)
        return await find_devices(self._upstream, references)

    async def _enter(
        self, found: dict[str, str], keys: frozenset[str] | None, *, attributes: bool
    ) -> dict[str, Channel]:
        """Open the channels of all these devices, or of none."""
        entered: dict[str, Channel] = {}
        try:
            for reference, device_id in found.items():
                if device_id not in entered:
                    selection = Selection((device_id,), keys, attributes)
                    try:
                        entered[device_id] = await self._channels.enter(self._upstream, selection, WEB_SOCKET)
                    except NotFound as error:
                        raise not_found(reference, error) from None
        except BaseException:
            for channel in entered.values():
                self._channels.leave(channel)
            raise
        return entered

    async def _begin(
        self, device_id: str, channel: Channel | None, frame: SubscribeFrame, heard: Marks | None
    ) -> str | None:
        """Subscribe anew to a device; return the id of where its reader then is."""
        if channel is None:
            # Named twice, in two ways.
            return None
        self._leave(device_id)
        gate = _Gate(self._subscriber)
        self._open[device_id] = channel, gate
        beginning = channel.join(gate, first_values=frame.first_values, heard=heard)
        async for each in beginning.frames:
            self._subscriber.put(each)
        gate.open()
        return beginning.token.decode()

    async def _unsubscribe(self, frame: UnsubscribeFrame) -> dict[str, Any]:
        # What is heard may have been deleted meanwhile, and then has no name any more.
        heard = {each: each.lower() for each in frame.device_ids if each.lower() in self._open}
        ids = heard | await self._find([each for each in frame.device_ids if each not in heard])
        for device_id in ids.values():
            self._leave(device_id)
        return {"type": "ack", "device_ids": ids}

    def _leave(self, device_id: str) -> None:
        channel, gate = self._open.pop(device_id, (None, None))
        if channel is not None and gate is not None:
            channel.leave(gate)
            self._channels.leave(channel)


def _decode(content: str | bytes) -> dict[str, Any]:
    try:
        given = orjson.loads(content)
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        details = {"field": "frame", "issue": "no JSON object"}
        raise InvalidRequest("A frame is a JSON object.", details=details)
    return given


def _validate(given: dict[str, Any]) -> SubscribeFrame | UnsubscribeFrame:
    try:
        return FRAME.validate_python(given)
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_input=False):
            # The first part is which frame it was taken for.
            path = fault["loc"][1:] or ("type",)
            faults.append({**fault, "loc": ("frame", *path)})
        raise RequestValidationError(faults) from None
