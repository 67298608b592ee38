"""Spans for an OpenTelemetry collector: made only when the standard `OTEL_*` variables name one.

Else the SDK is not imported, and no request pays for it. The reasons are in docs/adr/0014-tracing.md.
"""

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.context import RESENT
from app.errors import ConfigurationError
from app.thingsboard.transport import Answer, Transport

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
MISSING = "needs packages that are not installed here: install requirements/tracing.txt"
SERVICE = "thingsboard-gateway"

#: Ids in ThingsBoard's paths. Names never are in them: they go in queries and bodies.
IDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=/)\d+(?=/|$)")
#: `traceparent` and `tracestate`; no baggage, which may hold anything.
PROPAGATOR = TraceContextTextMapPropagator()
BAD_STATUS = 400


def is_configured() -> bool:
    """Tell whether the environment names a collector.

    Raises:
        ConfigurationError: it names one in a way that is not served.
    """
    set_as = {name: value for name, value in os.environ.items() if value and name.startswith("OTEL_")}
    name = next((name for name in ENDPOINTS if name in set_as), None)
    exporter = set_as.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower()
    if name is None or exporter == "none" or set_as.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    parts = urlsplit(set_as[name])
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(f"{name}: must be an HTTP or HTTPS address such as http://collector:4318")
    if exporter != "otlp":
        raise ConfigurationError("OTEL_TRACES_EXPORTER: must be otlp or none")
    for protocol in PROTOCOLS:
        if set_as.get(protocol, "http/protobuf") != "http/protobuf":
            raise ConfigurationError(f"{protocol}: must be http/protobuf")
    try:
        import opentelemetry.exporter.otlp.proto.http  # noqa: F401, PLC0415 - an extra, and 0.1 s of each start
    except ImportError:
        raise ConfigurationError(f"{name}: {MISSING}") from None
    return True


class Tracing:
    """Makes spans and exports them from a thread of its own. One object serves the process."""

    def __init__(self, version: str) -> None:
        # An extra, and 0.1 s of each start.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        name = os.environ.get("OTEL_SERVICE_NAME") or SERVICE
        resource = Resource.create({"service.name": name, "service.version": version})
        self._provider: Any = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer: Tracer = self._provider.get_tracer("gateway", version)

    def watch(self, upstream: str, transport: Transport) -> Transport:
        """Make a span of each call of an upstream's transport."""
        return TracedTransport(transport, self.tracer, upstream)

    def close(self) -> None:
        """Export what waits. May take seconds: call it in a thread."""
        self._provider.shutdown()


class TracedTransport:
    """The transport it is given, with a span for each attempt, and `traceparent` for ThingsBoard.

    Calls that belong to no request (logins ahead of time, the live feed) have none.
    """

    def __init__(self, transport: Transport, tracer: Tracer, upstream: str) -> None:
        self._transport, self._tracer, self._upstream = transport, tracer, upstream

    async def send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_seconds: float,
    ) -> Answer:
        """Send; see `Transport`."""
        if not trace.get_current_span().get_span_context().is_valid:
            return await self._transport.send(
                method, target, headers=headers, body=body, timeout_seconds=timeout_seconds
            )
        template = IDS.sub("{id}", target.partition("?")[0])
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "url.template": template,
            "gateway.upstream": self._upstream,
        }
        if resent := RESENT.get():
            attributes["http.request.resend_count"] = resent
        carried = dict(headers)
        with self._tracer.start_as_current_span(
            f"{method} {template}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            # An exception's text may hold anything.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            PROPAGATOR.inject(carried)
            try:
                answer = await self._transport.send(
                    method, target, headers=carried, body=body, timeout_seconds=timeout_seconds
                )
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise
            span.set_attribute("http.response.status_code", answer.status)
            if answer.status >= BAD_STATUS:
                span.set_attribute("error.type", str(answer.status))
                span.set_status(StatusCode.ERROR)
            return answer

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()
