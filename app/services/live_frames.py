"""Live events as bytes: for server-sent events, and for WebSockets. Encoded once for all who get them."""

from typing import Any, Protocol

import orjson

from app.thingsboard.live_events import LiveEvent


class Form(Protocol):
    """How a transport writes events."""

    def event(self, event: LiveEvent, token: bytes | None = None) -> bytes:
        """Return an event with its id, if it has one."""


def members(event: LiveEvent) -> dict[str, Any]:
    """Return what callers are told of an event."""
    told: dict[str, Any] = {"device_id": event.device_id} if event.device_id else {}
    if event.kind == "telemetry":
        told |= {"key": event.key, "ts": event.ts, "value": event.value}
    elif event.kind == "attribute":
        told |= {"scope": event.scope, "key": event.key, "ts": event.ts, "value": event.value}
    elif event.kind == "status":
        told |= {"active": event.value, "ts": event.ts}
    elif event.kind == "gap":
        told |= {"key": event.key, "ts": event.ts, "reason": event.reason}
    else:
        told["reason"] = event.reason
    return {**told, "first": True} if event.is_first else told


class ServerSentEvents:
    """The form of `text/event-stream`."""

    def event(self, event: LiveEvent, token: bytes | None = None) -> bytes:
        """Return an event."""
        head = b"event: " + event.kind.encode()
        if token is not None:
            head += b"\nid: " + token
        return head + b"\ndata: " + orjson.dumps(members(event)) + b"\n\n"

    def place(self, token: bytes) -> bytes:
        """Return an event without data: readers keep its id and tell nobody of it."""
        return b"id: " + token + b"\n\n"


class WebSocketFrames:
    """The form of our WebSocket: one JSON object a frame."""

    def event(self, event: LiveEvent, token: bytes | None = None) -> bytes:
        """Return a frame."""
        told = {"type": event.kind, **members(event)}
        return orjson.dumps(told if token is None else {**told, "id": token.decode()})


SSE, WEB_SOCKET = ServerSentEvents(), WebSocketFrames()
