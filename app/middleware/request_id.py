"""Outermost: gives each request its context and puts the collected headers on every answer."""

import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import CURRENT, KEY, RequestContext

#: What a caller may choose as id: it ends up in logs and headers.
ACCEPTABLE = re.compile(rb"[A-Za-z0-9._-]{8,128}")


#: What begins an answer, a WebSocket's too.
HEADS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}


class RequestId:
    """Take the caller's `X-Request-ID` when it is well-formed, else make one; answer with it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self.app(scope, receive, send)
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if ACCEPTABLE.fullmatch(given) else secrets.token_hex(16)
        context = scope[KEY] = RequestContext(request_id)
        CURRENT.set(context)

        async def with_headers(message: Message) -> None:
            if message["type"] in HEADS:
                message["headers"] = [
                    *message.get("headers", ()),
                    *context.response_headers,
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        return await self.app(scope, receive, with_headers)
