"""Puts the security headers on every answer; `secure` knows their names and syntax."""

from secure import (
    ContentSecurityPolicy,
    CrossOriginOpenerPolicy,
    CrossOriginResourcePolicy,
    PermissionsPolicy,
    ReferrerPolicy,
    Secure,
    StrictTransportSecurity,
    XContentTypeOptions,
    XFrameOptions,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Answers are data: nothing in them may run, frame or load anything.
POLICY = Secure(
    csp=ContentSecurityPolicy()
    .default_src("'none'")
    .frame_ancestors("'none'")
    .base_uri("'none'")
    .form_action("'none'"),
    hsts=StrictTransportSecurity().max_age(31_536_000).include_subdomains(),
    xcto=XContentTypeOptions().nosniff(),
    xfo=XFrameOptions().deny(),
    referrer=ReferrerPolicy().no_referrer(),
    permissions=PermissionsPolicy().geolocation().microphone().camera(),
    coop=CrossOriginOpenerPolicy().same_origin(),
    # A page of an allowed CORS origin must be able to read the answer.
    corp=CrossOriginResourcePolicy().cross_origin(),
)


class SecurityHeaders:
    """Add the fixed headers, except those that a route has set itself (the docs pages' own policy)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.headers = [(name.lower().encode(), value.encode()) for name, value in POLICY.header_items()]
        self.headers.append((b"cache-control", b"no-store"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self.app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                present = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(header for header in self.headers if header[0] not in present),
                ]
            await send(message)

        return await self.app(scope, receive, with_headers)
