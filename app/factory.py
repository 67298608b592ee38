"""Builds the application from settings; the only place where all parts meet."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import compile_path

from app import upstream_file
from app.api.direct import RouteIndex
from app.api.ops import PUBLIC_PATHS, docs, health, metrics
from app.api.v1 import ROUTERS
from app.connections import CONNECTIONS, Connections, most_connections
from app.counters import MemoryCounters
from app.draining import DRAINING, Draining
from app.errors import GatewayError
from app.keys.store import load as load_keys
from app.load_shedding import LOAD_SHEDDING, LoadShedding
from app.metrics.calls import CallMetrics
from app.metrics.reading import Process
from app.metrics.requests import REQUESTS, RequestMetrics
from app.metrics.sampler import Sampler
from app.middleware import Gatekeepers, build_middleware
from app.openapi import document_of
from app.problems import as_gateway_error, render
from app.redis_counters import RedisCounters
from app.security_events import SecurityLog
from app.services.live_channels import Channels
from app.services.streams import Streams
from app.settings import Settings
from app.thingsboard.transport import Transport
from app.tracing import Tracing, is_configured
from app.upstreams import Upstreams

METHOD_NOT_ALLOWED = 405


def create_app(settings: Settings, *, transport: Transport | None = None) -> FastAPI:
    """Return the gateway. `transport` replaces the network towards `TB_HOST` in tests of single faults."""
    configured = upstream_file.load(settings)
    keys = load_keys(settings, frozenset(configured))
    redis = RedisCounters(settings.redis_url) if settings.redis_url else None
    local = redis.local if redis else MemoryCounters()
    counters = redis or local
    routes = RouteIndex()
    requests, security_log = RequestMetrics(routes.template_of), SecurityLog(routes.template_of)
    calls, tracing = CallMetrics(), Tracing(settings.version) if is_configured() else None
    gatekeepers = Gatekeepers(
        keys, counters, PUBLIC_PATHS, routes.find, requests, security_log, tracing.tracer if tracing else None
    )
    app = _framework(settings, gatekeepers)
    app.state.settings = settings
    app.state.keys = keys
    app.state.redis, app.state.counters = redis, counters
    app.state.upstreams = Upstreams.build(
        configured,
        transport,
        watch=partial(_watch, calls, tracing),
        latest_cache_seconds=settings.latest_cache_seconds,
    )
    app.state.tracing = tracing
    app.state.streams, app.state.channels = Streams(keys, settings.streams_per_key), Channels()
    app.state.draining = Draining(app.state.streams.drain)
    app.state.connections = Connections(most_connections(), settings.trusted_proxies)
    app.state.load_shedding = LoadShedding(
        requests, app.state.upstreams.queue_stands, settings.backend_cors_origins
    )
    app.state.requests = requests
    process = Process(
        upstreams=app.state.upstreams,
        keys=keys,
        memory=local,
        redis=redis,
        streams=app.state.streams,
        channels=app.state.channels,
        requests=requests,
        calls=calls,
        security_log=security_log,
        load_shedding=app.state.load_shedding,
    )
    app.state.sampler = Sampler(process)
    _add_routes(app, routes)
    app.openapi = lambda: document_of(app)  # type: ignore[method-assign]  # FastAPI's own way to replace it
    return app


def _framework(settings: Settings, gatekeepers: Gatekeepers) -> FastAPI:
    return FastAPI(
        title=settings.project_name,
        version=settings.version,
        debug=False,
        # Its spans hold paths and queries, believe any caller, and cost 8 us even while nobody collects them.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        docs_url=None,
        redoc_url=None,
        # Served by `api/ops/docs.py`, under the same checks as every route.
        openapi_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        middleware=build_middleware(settings, gatekeepers),
        exception_handlers=dict.fromkeys(
            (GatewayError, RequestValidationError, HTTPException), _answer_error
        ),
    )


def _add_routes(app: FastAPI, index: RouteIndex) -> None:
    for router in (health.router, metrics.router, docs.router, *ROUTERS):
        # Not included: FastAPI would build each route again, in 0.1 s of the first request that goes its way.
        app.router.routes.extend(router.routes)
        index.fill(router.routes)


def _watch(
    calls: CallMetrics, tracing: Tracing | None, upstream: str, transport: Transport, kind: str
) -> Transport:
    """Let an upstream's transport be counted, and traced where there is a collector."""
    if tracing is not None:
        transport = tracing.watch(upstream, transport)
    return calls.watch(upstream, transport, kind)


async def _answer_error(request: Request, error: Exception) -> Response:
    if isinstance(error.__cause__, ClientDisconnect):
        raise error.__cause__
    if isinstance(error, HTTPException) and error.status_code == METHOD_NOT_ALLOWED:
        # The framework names the methods of the first route with this path only.
        error.headers = {"Allow": ", ".join(_methods_at(request))}
    return render(as_gateway_error(error), request.scope)


def _methods_at(request: Request) -> list[str]:
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.methods and compile_path(route.path or "")[0].match(request.url.path):
            methods |= route.methods
    return sorted(methods)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    probe = app.state.probe = asyncio.create_task(app.state.upstreams.probe())
    watch = asyncio.create_task(app.state.keys.watch())
    sampling = asyncio.create_task(app.state.sampler.run())
    measuring = asyncio.create_task(app.state.load_shedding.watch())
    try:
        # Handed to the server and to each connection.
        yield {
            DRAINING: app.state.draining,
            CONNECTIONS: app.state.connections,
            LOAD_SHEDDING: app.state.load_shedding,
            REQUESTS: app.state.requests,
        }
    finally:
        tasks = (probe, watch, sampling, measuring)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await app.state.upstreams.aclose()
        if app.state.redis is not None:
            await app.state.redis.aclose()
        if app.state.tracing is not None:
            await asyncio.to_thread(app.state.tracing.close)
