"""The last word on errors: whatever the inner stages raise leaves in the one shape, without internals."""

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import context_of
from app.errors import InternalError
from app.problems import as_gateway_error, render

log = structlog.get_logger("errors")


class ErrorSanitiser:
    """Answer an exception; once an answer has begun, cut it so that no client takes it for whole."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self.app(scope, receive, send)
        started = False

        async def watching(message: Message) -> None:
            nonlocal started
            started = started or message["type"] in {"http.response.start", "websocket.accept"}
            await send(message)

        try:
            await self.app(scope, receive, watching)
        except ClientDisconnect:
            return None
        except Exception as error:
            gateway_error = as_gateway_error(error)
            if isinstance(gateway_error, InternalError):
                log.exception("internal_error", request_id=context_of(scope).request_id)
            answer = render(gateway_error, scope)
            if not started:
                await answer(scope, receive, send)
            # Returning without the final body message makes the server close the connection.
        return None
