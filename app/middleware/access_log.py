"""One log line and one count a request: what was asked, by whom, what came of it, how long it took."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import RequestContext, context_of
from app.metrics.requests import CLIENT_LEFT, RequestMetrics

log = structlog.get_logger("access")

#: A WebSocket that was accepted, and one that was refused without an answer of its own.
SWITCHED, REFUSED = 101, 403
#: The first digit of statuses that refuse.
REFUSALS = 4


class AccessLog:
    """Log and count each request once, when its answer is complete or its caller has gone.

    Callers with a key are told in `Server-Timing` how long it took until the answer began, and what of that
    ThingsBoard took; of a refusal they are not.
    """

    def __init__(self, app: ASGIApp, *, metrics: RequestMetrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return await self._log_web_socket(scope, receive, send)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, head_seconds = time.perf_counter(), None
        status, sent, complete = CLIENT_LEFT, 0, False

        async def counting(message: Message) -> None:
            nonlocal status, sent, complete, head_seconds
            if message["type"] == "http.response.start":
                status = message["status"]
                head_seconds = time.perf_counter() - started
                context = context_of(scope)
                if context.caller is not None and status // 100 != REFUSALS:
                    # How long a refusal took could tell a hidden object from a missing one, as it could tell
                    # one wrong key from another.
                    context.response_headers.append((b"server-timing", timing(context, head_seconds)))
            else:
                sent += len(message.get("body", b""))
                complete = not message.get("more_body", False)
            await send(message)

        self.metrics.in_flight += 1
        try:
            await self.app(scope, receive, counting)
        finally:
            self.metrics.in_flight -= 1
            self.metrics.add(scope, context_of(scope), status, head_seconds, is_complete=complete)
            self._write(scope, status, sent, complete=complete, seconds=time.perf_counter() - started)

    async def _log_web_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Log a connection once, when it has ended; 101 is one that was accepted."""
        started, head_seconds = time.perf_counter(), None
        status, sent = CLIENT_LEFT, 0

        async def counting(message: Message) -> None:
            nonlocal status, sent, head_seconds
            if message["type"] == "websocket.accept":
                status = SWITCHED
                head_seconds = time.perf_counter() - started
            elif message["type"] == "websocket.http.response.start":
                status = message["status"]
            elif message["type"] == "websocket.close" and status == CLIENT_LEFT:
                status = REFUSED
            else:
                sent += len(message.get("text") or message.get("body") or b"")
            await send(message)

        self.metrics.in_flight += 1
        try:
            await self.app(scope, receive, counting)
        finally:
            self.metrics.in_flight -= 1
            self.metrics.add(scope, context_of(scope), status, head_seconds)
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
        if context.trace_id:
            fields["trace_id"] = context.trace_id
        if not complete:
            fields["incomplete"] = True
        if context.error_code:
            fields["error_code"] = context.error_code
        if context.error_note:
            fields["error_note"] = context.error_note
        log.info("request", **fields)


def timing(context: RequestContext, seconds: float) -> bytes:
    """Return `Server-Timing`, in ms: what the gateway took, and what of the whole ThingsBoard did."""
    upstream = context.upstream_seconds
    return b"gateway;dur=%.1f, thingsboard;dur=%.1f" % ((seconds - upstream) * 1_000, upstream * 1_000)
