"""Counts requests per client address and tells callers where they stand.

slowapi declares what is limited and by which key; `limits.aio` counts. slowapi's own storage calls would
block the event loop and its middleware breaks streams (docs/adr/0002-rate-limits.md).
"""

import ipaddress
import time
from math import ceil

from limits import RateLimitItem
from limits.aio.strategies import FixedWindowRateLimiter
from slowapi.wrappers import LimitGroup
from starlette.types import ASGIApp, Receive, Scope, Send

from app.context import RequestContext, context_of
from app.errors import RateLimited

#: One customer usually holds a whole IPv6 /64: counting single addresses would limit nobody.
IPV6_PREFIX = 64


def address_key(request: Scope) -> str:
    """Return the key an address is counted under."""
    address = context_of(request).client_address
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
    except ValueError:
        return address


async def seconds_until_reset(counter: FixedWindowRateLimiter, item: RateLimitItem, *key: str) -> float:
    """Return how long the running window still lasts."""
    stats = await counter.get_window_stats(item, *key)
    return max(0.0, stats.reset_time - time.time())


def declared_limits(requests: int, window_seconds: int) -> LimitGroup:
    """Declare the default limit: so many requests a window for each client address."""
    return LimitGroup(
        f"{requests} per {window_seconds} second",
        address_key,
        scope="requests",
        per_method=False,
        methods=None,
        error_message=None,
        exempt_when=None,
        cost=1,
        override_defaults=False,
    )


class RateLimitStage:
    """Admit or refuse; either way say what is left. Paths without a key are not counted."""

    def __init__(self, app: ASGIApp, *, limits: LimitGroup, counter: FixedWindowRateLimiter) -> None:
        self.app, self.counter = app, counter
        (self.limit,) = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"} or context_of(scope).caller is None:
            return await self.app(scope, receive, send)
        item, key = self.limit.limit, self.limit.key_func(scope)
        admitted = await self.counter.hit(item, self.limit.scope, key)
        stats = await self.counter.get_window_stats(item, self.limit.scope, key)
        wait = max(0.0, stats.reset_time - time.time())
        context = context_of(scope)
        self._tell(context, item, max(0, stats.remaining), wait)
        if not admitted:
            raise RateLimited(
                f"Rate limit exceeded: {item.amount} requests per {item.get_expiry()} seconds.",
                retry_after=wait,
                details={"limited_by": "gateway", "limit": item.amount, "window_seconds": item.get_expiry()},
            )
        return await self.app(scope, receive, send)

    def _tell(self, context: RequestContext, item: RateLimitItem, remaining: int, wait: float) -> None:
        reset, window = max(1, ceil(wait)), item.get_expiry()
        context.rate_limit = {
            "limit": item.amount,
            "remaining": remaining,
            "reset_seconds": reset,
            "window_seconds": window,
        }
        # `RateLimit` and `RateLimit-Policy`: draft-ietf-httpapi-ratelimit-headers-10.
        context.response_headers += [
            (b"x-ratelimit-limit", str(item.amount).encode()),
            (b"x-ratelimit-remaining", str(remaining).encode()),
            (b"x-ratelimit-reset", str(int(time.time()) + reset).encode()),
            (b"ratelimit", f'"default";r={remaining};t={reset}'.encode()),
            (b"ratelimit-policy", f'"default";q={item.amount};w={window}'.encode()),
        ]
