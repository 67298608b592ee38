"""WebSockets: which paths there are, which pages may open them, and a key that comes as first frame.

Browsers cannot set headers on a WebSocket, so they send `{"api_key"}` first. What follows sees a request with
that key in its header, like any other.
"""

import asyncio
from collections.abc import Sequence

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import GatewayError, NotAllowed, Overloaded
from app.problems import render

FIRST_FRAME_SECONDS = 5.0
#: Connections of strangers that may wait for their first frame at once.
MOST_WAITING = 1_000
#: Close code of a refusal.
POLICY = 1008


class FirstFrameKey:
    """Take the key from the first frame where no header has one; everything else passes.

    Args:
        paths: of the WebSockets there are.
        origins: of the pages that may open them; callers that are no pages send no `Origin`.
    """

    def __init__(self, app: ASGIApp, *, paths: Sequence[str], origins: tuple[str, ...]) -> None:
        self.app, self.paths, self.origins = app, frozenset(paths), frozenset(origins)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            return await self.app(scope, receive, send)
        headers = scope["headers"]
        self._check_origin(headers)
        if scope["path"] not in self.paths or any(name == b"x-api-key" for name, _ in headers):
            return await self.app(scope, receive, send)
        return await self._admit(scope, receive, send)

    def _check_origin(self, headers: list[tuple[bytes, bytes]]) -> None:
        host = next((value for name, value in headers if name == b"host"), b"").decode("latin-1")
        for name, value in headers:
            origin = value.decode("latin-1")
            own = origin.partition("://")[2] == host
            if name == b"origin" and not own and origin not in self.origins:
                raise NotAllowed(
                    "Pages of this origin may not open a WebSocket here.",
                    details={"field": "Origin", "issue": "is not among the allowed origins"},
                )

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._waiting >= MOST_WAITING:
            raise Overloaded
        self._waiting += 1
        try:
            connect = await receive()
            await send({"type": "websocket.accept"})
            key = await _first_key(receive)
        finally:
            self._waiting -= 1
        if key is None:
            # Left, before it said anything.
            return
        if key:
            scope["headers"] = [*scope["headers"], (b"x-api-key", key)]
        accepted = _Accepted(send, connect, receive)
        try:
            await self.app(scope, accepted.receive, accepted.send)
        except GatewayError as error:
            await render(error, scope)(scope, accepted.receive, accepted.send)


class _Accepted:
    """Shows a connection that is open already as one that is still to be accepted."""

    def __init__(self, send: Send, connect: Message, receive: Receive) -> None:
        self._send, self._receive = send, receive
        self._connect: Message | None = connect

    async def receive(self) -> Message:
        """Return the request to connect, then what comes."""
        if self._connect is not None:
            connect, self._connect = self._connect, None
            return connect
        return await self._receive()

    async def send(self, message: Message) -> None:
        """Pass on what is sent; a refusal becomes an `error` frame and the end."""
        if message["type"] == "websocket.http.response.body":
            told = orjson.dumps({"type": "error", **orjson.loads(message["body"] or b"{}")})
            await self._send({"type": "websocket.send", "text": told.decode()})
            await self._send({"type": "websocket.close", "code": POLICY})
        elif message["type"] not in {"websocket.accept", "websocket.http.response.start"}:
            await self._send(message)


async def _first_key(receive: Receive) -> bytes | None:
    """Return the key of the first frame; empty when there is none in time, None when the caller has left."""
    try:
        async with asyncio.timeout(FIRST_FRAME_SECONDS):
            message = await receive()
    except TimeoutError:
        return b""
    if message["type"] == "websocket.disconnect":
        return None
    try:
        key = orjson.loads(message.get("text") or message.get("bytes") or b"")["api_key"]
        return key.encode("latin-1") if isinstance(key, str) else b""
    except (ValueError, KeyError, TypeError):
        return b""
