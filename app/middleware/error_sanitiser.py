"""The last word on errors: whatever the inner stages raise leaves in the one shape, without internals.

What was refused or shown on the way is in the security log before the answer leaves.
"""

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import context_of
from app.errors import InternalError
from app.problems import as_gateway_error, render
from app.security_events import SecurityLog

log = structlog.get_logger("errors")

BEGINNINGS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}
#: Close code of a WebSocket: what went wrong was nothing of the caller's.
SERVER_FAULT = 1011


class ErrorSanitiser:
    """Answer an exception; once an answer has begun, cut it so that no client takes it for whole."""

    def __init__(self, app: ASGIApp, *, security_log: SecurityLog) -> None:
        self.app, self.security_log = app, security_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self.app(scope, receive, send)
        context, started = context_of(scope), False
        lasts = scope["type"] == "websocket"

        async def watching(message: Message) -> None:
            nonlocal started
            if not started or lasts:
                started = started or message["type"] in BEGINNINGS
                if context.notes:
                    self.security_log.write(scope)
            await send(message)

        try:
            await self.app(scope, receive, watching)
        except ClientDisconnect:
            return None
        except Exception as error:
            gateway_error = as_gateway_error(error)
            if isinstance(gateway_error, InternalError):
                log.exception("internal_error", request_id=context.request_id)
            answer = cut if started else render(gateway_error, scope)
            await answer(scope, receive, watching)
        finally:
            # Of an answer that had begun, or of a caller who has left.
            if context.notes:
                self.security_log.write(scope)
        # Returning without the final body message makes the server close the connection.
        return None


async def cut(scope: Scope, _receive: Receive, send: Send) -> None:
    """End an answer that has begun: a WebSocket with a word, HTTP by not completing it."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": SERVER_FAULT})
