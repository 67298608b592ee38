"""Lets exact browser origins read every answer, refusals included."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.context import context_of
from app.deadline import HEADER
from app.errors import InvalidRequest
from app.problems import render

ALLOWED_METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS")
ALLOWED_HEADERS = (
    "X-API-Key",
    "Content-Type",
    "Content-Encoding",
    "Accept",
    "X-Request-ID",
    HEADER,
    "If-None-Match",
    "Last-Event-ID",
)
EXPOSED_HEADERS = (
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "RateLimit",
    "RateLimit-Policy",
    "X-Request-ID",
    "ETag",
    "Location",
    "Content-Disposition",
    "API-Key-Expires",
    "Deprecation",
    "Sunset",
    "Link",
    "Server-Timing",
)


class CORS(CORSMiddleware):
    """Starlette's CORS stage with our lists, and with refused preflights in our error shape."""

    def __init__(self, app: ASGIApp, *, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=ALLOWED_METHODS,
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
            max_age=600,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if not any(name == b"origin" for name, _ in scope["headers"]):
                # Starlette says the same for 15 us more. Others may have answered the same address before.
                context_of(scope).response_headers.append((b"vary", b"Origin"))
                return await self.app(scope, receive, send)
            headers = Headers(scope=scope)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                return await self._preflight(scope, headers)(scope, receive, send)
        return await super().__call__(scope, receive, send)

    def _preflight(self, scope: Scope, headers: Headers) -> Response:
        answer = self.preflight_response(request_headers=headers)
        if answer.status_code < 400:  # noqa: PLR2004 - HTTP's border between success and refusal
            return answer
        refusal = render(InvalidRequest("This origin, method or header is not allowed by CORS."), scope)
        refusal.headers["Vary"] = "Origin"
        return refusal
