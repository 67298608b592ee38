"""Spans: made when the environment names a collector, true, and silent about names, queries and secrets."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app import tracing
from app.errors import ConfigurationError
from tb_simulator.server import Simulator
from tests.conftest import API_KEY, GatewayFactory

DEVICES = "/api/v1/tb/devices"
SERVER, CLIENT = 2, 3
ERROR = 2
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """Takes spans as an OpenTelemetry collector does: protobuf over HTTP."""

    def __init__(self) -> None:
        self.received: list[ExportTraceServiceRequest] = []
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                assert self.headers["Content-Type"] == "application/x-protobuf"
                outer.bodies.append(body)
                outer.received.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def attributes(span: Any) -> dict[str, Any]:
    return {
        each.key: each.value.string_value or each.value.int_value or each.value.bool_value
        for each in span.attributes
    }


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


async def traced(gateway: httpx.AsyncClient, collector: Collector) -> list[Any]:
    """Export everything and return it, servers' spans first."""
    await asyncio.to_thread(gateway.app.state.tracing.close)  # type: ignore[attr-defined]
    return sorted(collector.spans, key=lambda span: span.kind)


async def test_a_request_and_its_calls_are_one_trace(
    make_gateway: GatewayFactory, collector: Collector, simulator: Simulator
) -> None:
    gateway = make_gateway()
    answer = await gateway.get(DEVICES, params={"text_search": "a-word-of-the-caller"})
    assert answer.status_code == 200
    server, *calls = await traced(gateway, collector)
    assert (server.name, server.kind) == (f"GET {DEVICES}", SERVER)
    told = attributes(server)
    assert told["http.route"] == DEVICES
    assert told["http.response.status_code"] == 200
    assert told["gateway.key_id"] == "default"
    assert told["gateway.request_id"] == answer.headers["x-request-id"]
    assert {call.kind for call in calls} == {CLIENT}
    assert {call.trace_id for call in calls} == {server.trace_id}
    assert {call.parent_span_id for call in calls} == {server.span_id}
    listed = calls[-1]
    assert listed.name == "GET /api/tenant/deviceInfos"
    assert attributes(listed)["http.response.status_code"] == 200
    resource = attributes(collector.received[0].resource_spans[0].resource)
    assert resource["service.name"] == "thingsboard-gateway"


async def test_spans_hold_no_names_ids_queries_or_secrets(
    make_gateway: GatewayFactory, collector: Collector, simulator: Simulator
) -> None:
    gateway = make_gateway()
    device = next(simulator.world.every("DEVICE"))
    await gateway.get(f"{DEVICES}/name:{device.name}/telemetry/latest", params={"keys": "a-key-of-theirs"})
    await gateway.get(f"{DEVICES}/{device.id}")
    await gateway.get(f"/nowhere/{device.name}")
    assert len(await traced(gateway, collector)) >= 5
    sent = b"".join(collector.bodies).decode("latin-1")
    words = [device.name, device.id, "a-key-of-theirs", API_KEY, "Bearer", "tenant@thingsboard", "nowhere"]
    assert [word for word in words if word in sent] == []


async def test_thingsboard_is_told_of_the_trace(
    make_gateway: GatewayFactory, collector: Collector, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[bytes, bytes]] = []
    original = simulator.asgi.__class__.__call__

    async def watching(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(dict(scope["headers"]))
        await original(self, scope, receive, send)

    monkeypatch.setattr(simulator.asgi.__class__, "__call__", watching)
    gateway = make_gateway()
    await gateway.get(DEVICES)
    server, *calls = await traced(gateway, collector)
    # Without the flags at the end.
    told = {headers[b"traceparent"].decode()[:-3] for headers in seen if b"traceparent" in headers}
    assert told == {f"00-{server.trace_id.hex()}-{call.span_id.hex()}" for call in calls}


@pytest.mark.parametrize(("trusted", "is_believed"), [("127.0.0.1", True), ("10.0.0.1", False), ("", False)])
async def test_only_a_trusted_proxy_says_what_a_request_belongs_to(
    make_gateway: GatewayFactory, collector: Collector, trusted: str, *, is_believed: bool
) -> None:
    gateway = make_gateway(trusted_proxies=trusted)
    await gateway.get("/api/v1/tb/whoami", headers={"traceparent": PARENT})
    (server,) = await traced(gateway, collector)
    assert (server.trace_id.hex() == PARENT.split("-")[1]) is is_believed
    assert (server.parent_span_id.hex() == PARENT.split("-")[2]) is is_believed


async def test_failures_and_retries_show(
    make_gateway: GatewayFactory, collector: Collector, simulator: Simulator
) -> None:
    gateway = make_gateway()
    await gateway.get(DEVICES)
    simulator.faults.reset(path="deviceInfos", count=1)
    assert (await gateway.get(DEVICES, params={"page": 1})).status_code == 200
    simulator.faults.status(500, path="deviceInfos", count=1)
    assert (await gateway.get(DEVICES, params={"page": 2})).status_code == 502
    spans = await traced(gateway, collector)
    calls = [span for span in spans if span.name == "GET /api/tenant/deviceInfos"]
    failed = [span for span in calls if span.status.code == ERROR]
    assert sorted(attributes(span)["error.type"] for span in failed) == ["500", "UpstreamReset"]
    counts = [attributes(span).get("http.request.resend_count") for span in calls]
    assert sorted(count or 0 for count in counts) == [0, 0, 0, 1]
    (server,) = [span for span in spans if span.kind == SERVER and span.status.code == ERROR]
    assert attributes(server)["http.response.status_code"] == 502
    assert attributes(server)["error.type"] == "UPSTREAM_ERROR"
    assert not [span for span in spans if span.events]


async def test_the_log_has_the_trace(
    make_gateway: GatewayFactory, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = make_gateway()
    await gateway.get(DEVICES)
    server, *_ = await traced(gateway, collector)
    assert f'"trace_id":"{server.trace_id.hex()}"' in capsys.readouterr().out


async def test_nothing_is_traced_without_a_collector(gateway: httpx.AsyncClient) -> None:
    assert gateway.app.state.tracing is None  # type: ignore[attr-defined]
    assert (await gateway.get(DEVICES)).status_code == 200


class TestConfiguration:
    """The standard variables, and what is not served is said."""

    @pytest.fixture
    def given(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
        def configured(**variables: str) -> bool:
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            return tracing.is_configured()

        return configured

    def test_either_endpoint_turns_it_on(self, given: Callable[..., bool]) -> None:
        assert not given()
        assert given(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="https://collector:4318/v1/traces")

    @pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
    def test_it_can_be_off(self, given: Callable[..., bool], off: dict[str, str]) -> None:
        assert not given(OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318", **off)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_TRACES_EXPORTER", "jaeger"),
        ],
    )
    def test_what_is_not_served_is_named(self, given: Callable[..., bool], name: str, value: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^{name}: "):
            given(**{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", name: value})

    def test_missing_packages_are_named(
        self, given: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
        with pytest.raises(ConfigurationError, match=r"requirements/tracing\.txt"):
            given(OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318")
