"""One span a request. Left out of the stages unless the environment names a collector."""

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import RequestContext, context_of
from app.metrics.requests import METHODS, OTHER, SERVER_FAULT
from app.tracing import PROPAGATOR

TRACE_HEADERS = {b"traceparent", b"tracestate"}


class TracingStage:
    """Give the request a span, and the later stages its trace id.

    A caller's `traceparent` counts only if a trusted proxy brings it: strangers would choose what is
    recorded. The span has the route's template, never path, query or headers.
    """

    def __init__(self, app: ASGIApp, *, tracer: Tracer) -> None:
        self.app, self.tracer = app, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self.app(scope, receive, send)
        context, status = context_of(scope), 0
        method = scope.get("method", "WEBSOCKET")
        method = method if method in METHODS else OTHER
        span = self.tracer.start_span(
            method, context=parent_of(scope, context), kind=SpanKind.SERVER, attributes=known(scope, context)
        )
        context.trace_id = format(span.get_span_context().trace_id, "032x")

        async def watching(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                return await self.app(scope, receive, watching)
        finally:
            end(span, scope, context, method, status)


def parent_of(scope: Scope, context: RequestContext) -> Context:
    """Return the span of who called, if it may be believed."""
    if not context.is_proxied:
        return Context()
    carrier = {
        name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in TRACE_HEADERS
    }
    return PROPAGATOR.extract(carrier, context=Context())


def known(scope: Scope, context: RequestContext) -> dict[str, str]:
    """Return what is known of a request from its beginning."""
    return {"url.scheme": scope.get("scheme", "http"), "gateway.request_id": context.request_id}


def end(span: Span, scope: Scope, context: RequestContext, method: str, status: int) -> None:
    """Say what came of the request."""
    span.set_attribute("http.request.method", method)
    route = getattr(scope.get("route"), "path_format", None)
    if route:
        span.set_attribute("http.route", route)
        span.update_name(f"{method} {route}")
    if status:
        span.set_attribute("http.response.status_code", status)
    if context.caller is not None:
        span.set_attribute("gateway.key_id", context.caller.id)
        span.set_attribute("gateway.upstream", context.caller.upstream)
    if context.error_code:
        span.set_attribute("error.type", context.error_code)
    if status >= SERVER_FAULT:
        span.set_status(StatusCode.ERROR)
    span.end()
