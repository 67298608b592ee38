"""One log line a request: what was asked, by whom, what came of it, how long it took."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import context_of

log = structlog.get_logger("access")

#: nginx's number for a caller who left before the answer; no caller ever sees it.
CLIENT_LEFT = 499
#: A WebSocket that was accepted, and one that was refused without an answer of its own.
SWITCHED, REFUSED = 101, 403


class AccessLog:
    """Log each request once, when its answer is complete or its caller has gone."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return await self._log_web_socket(scope, receive, send)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = time.perf_counter()
        status, sent, complete = CLIENT_LEFT, 0, False

        async def counting(message: Message) -> None:
            nonlocal status, sent, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent += len(message.get("body", b""))
                complete = not message.get("more_body", False)
            await send(message)

        try:
            await self.app(scope, receive, counting)
        finally:
            self._write(scope, status, sent, complete=complete, seconds=time.perf_counter() - started)

    async def _log_web_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Log a connection once, when it has ended; 101 is one that was accepted."""
        started = time.perf_counter()
        status, sent = CLIENT_LEFT, 0

        async def counting(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "websocket.accept":
                status = SWITCHED
            elif message["type"] == "websocket.http.response.start":
                status = message["status"]
            elif message["type"] == "websocket.close" and status == CLIENT_LEFT:
                status = REFUSED
            else:
                sent += len(message.get("text") or message.get("body") or b"")
            await send(message)

        try:
            await self.app(scope, receive, counting)
        finally:
            self._write(scope, status, sent, complete=True, seconds=time.perf_counter() - started)

    def _write(self, scope: Scope, status: int, sent: int, *, complete: bool, seconds: float) -> None:
        context = context_of(scope)
        caller = context.caller
        route = scope.get("route")
        fields = {
            "request_id": context.request_id,
            "method": scope.get("method", "WEBSOCKET"),
            # The template, never the path: a path may hold a device's name.
            "route": getattr(route, "path_format", None),
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
            "bytes_sent": sent,
            "client": context.client_address,
            "key_id": caller.id if caller else None,
            "upstream": caller.upstream if caller else None,
        }
        if not complete:
            fields["incomplete"] = True
        if context.error_code:
            fields["error_code"] = context.error_code
        if context.error_note:
            fields["error_note"] = context.error_note
        log.info("request", **fields)
