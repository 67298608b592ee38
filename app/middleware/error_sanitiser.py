"""The last word on errors: whatever the inner stages raise leaves in the one shape, without internals.

What was refused or shown on the way is in the security log before the answer leaves.
"""

import asyncio

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import context_of
from app.draining import DRAINING, Draining
from app.errors import GatewayError, InternalError, Overloaded
from app.problems import as_gateway_error, render
from app.security_events import SecurityLog

log = structlog.get_logger("errors")

BEGINNINGS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}
#: Close code of a WebSocket: what went wrong was nothing of the caller's.
SERVER_FAULT = 1011
STOPPING = (
    "The gateway is stopping, and this request took too long. What it was to change may have been changed."
)


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
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the one place for it
            gateway_error = shown(error, scope)
            answer = cut if started else render(gateway_error, scope)
            await answer(scope, receive, watching)
        finally:
            # Of an answer that had begun, or of a caller who has left.
            if context.notes:
                self.security_log.write(scope)
        # Returning without the final body message makes the server close the connection.
        return None


def shown(error: Exception | asyncio.CancelledError, scope: Scope) -> GatewayError:
    """Return what the caller is told. What was cancelled, but not because the gateway stops, stays so."""
    if isinstance(error, asyncio.CancelledError):
        draining: Draining | None = scope.get("state", {}).get(DRAINING)
        if draining is None or not draining.has_begun:
            raise error
        return Overloaded(STOPPING)
    gateway_error = as_gateway_error(error)
    if isinstance(gateway_error, InternalError):
        log.error("internal_error", request_id=context_of(scope).request_id, exc_info=error)
    return gateway_error


async def cut(scope: Scope, _receive: Receive, send: Send) -> None:
    """End an answer that has begun: a WebSocket with a word, HTTP by not completing it."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": SERVER_FAULT})
