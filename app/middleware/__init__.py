"""The stages every request passes, in their one order. Each file holds one stage."""

from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry.trace import Tracer
from starlette.middleware import Middleware
from starlette.types import Scope

from app.counters import Counters
from app.keys.store import APIKeys
from app.metrics.requests import RequestMetrics
from app.middleware.access_log import AccessLog
from app.middleware.api_keys import APIKeyStage
from app.middleware.body_limit import BodyLimit
from app.middleware.client_address import ClientAddress
from app.middleware.cors import CORS
from app.middleware.dispatch import Answering, Dispatch
from app.middleware.error_sanitiser import ErrorSanitiser
from app.middleware.first_frame import FirstFrameKey
from app.middleware.rate_limits import RateLimitStage, address_key, declare
from app.middleware.request_id import RequestId
from app.middleware.request_timeout import RequestTimeout
from app.middleware.security_headers import SecurityHeaders
from app.middleware.tracing import TracingStage
from app.middleware.trusted_hosts import TrustedHosts
from app.security_events import SecurityLog
from app.settings import Settings

#: Their bodies are read piece by piece, so the limit for bodies held in memory does not apply.
STREAMED_PATHS = ("/api/v1/tb/telemetry/bulk",)
WEB_SOCKET_PATHS = ("/api/v1/tb/ws",)
#: Requests without a valid key that an address may make.
FAILED_KEYS = "20/minute"


@dataclass(frozen=True)
class Gatekeepers:
    """What the stages need besides settings."""

    keys: APIKeys
    counters: Counters
    #: Need no key and count towards no limit; compared exactly.
    public_paths: frozenset[str]
    #: The index of direct routes.
    find_route: Callable[[Scope], Answering | None]
    metrics: RequestMetrics
    #: Writes what has been refused or shown.
    security_log: SecurityLog
    #: Makes spans; None: nobody collects them.
    tracer: Tracer | None = None


def build_middleware(settings: Settings, gatekeepers: Gatekeepers) -> list[Middleware]:
    """Return the stages, outermost first. A stage that is switched off is left out."""
    stages = [
        Middleware(RequestId),
        Middleware(ClientAddress, trusted_proxies=settings.trusted_proxies),
        Middleware(TracingStage, tracer=gatekeepers.tracer) if gatekeepers.tracer else None,
        Middleware(AccessLog, metrics=gatekeepers.metrics),
        Middleware(SecurityHeaders),
        Middleware(CORS, origins=settings.backend_cors_origins) if settings.backend_cors_origins else None,
        Middleware(ErrorSanitiser, security_log=gatekeepers.security_log),
        Middleware(TrustedHosts, allowed=settings.allowed_hosts)
        if "*" not in settings.allowed_hosts
        else None,
        Middleware(BodyLimit, limits_by_path=dict.fromkeys(STREAMED_PATHS, settings.stream_body_limit)),
        Middleware(FirstFrameKey, paths=WEB_SOCKET_PATHS, origins=settings.backend_cors_origins),
        Middleware(
            APIKeyStage,
            keys=gatekeepers.keys,
            public_paths=gatekeepers.public_paths,
            counters=gatekeepers.counters,
            failures=declare("failed-keys", FAILED_KEYS, address_key),
        ),
        Middleware(
            RateLimitStage,
            default=declare("address", settings.default_rate_limit, address_key),
            counters=gatekeepers.counters,
            is_charged_by_device=settings.rate_limit_bulk_cost == "devices",
        ),
        Middleware(RequestTimeout),
        Middleware(Dispatch, find=gatekeepers.find_route, web_sockets=WEB_SOCKET_PATHS),
    ]
    return [stage for stage in stages if stage is not None]
