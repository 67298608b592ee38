"""Admits or refuses requests by how many came before, and tells callers where they stand.

A caller whose key has a limit of its own is counted by key, all others by address. slowapi declares what is
limited and by which key; all windows are counted in one step by ours (docs/adr/0002-rate-limits.md).
"""

import socket
from collections.abc import Callable
from functools import lru_cache, partial
from math import ceil
from typing import NamedTuple

from slowapi.wrappers import LimitGroup
from starlette.types import ASGIApp, Receive, Scope, Send

from app.context import RequestContext, context_of
from app.counters import Counters
from app.metering import Meter, exceeded
from app.quotas import Quota, Standing, items, make_quota, tightest

#: Bytes of an IPv6 address that tell customers apart: one usually holds a whole /64.
IPV6_PREFIX_BYTES = 8
#: `::ffff:192.0.2.1` is how a socket for both families shows an IPv4 address.
MAPPED_IPV4 = bytes(10) + b"\xff\xff"

HEADERS = frozenset(
    {
        b"x-ratelimit-limit",
        b"x-ratelimit-remaining",
        b"x-ratelimit-reset",
        b"ratelimit",
        b"ratelimit-policy",
    }
)


class Rule(NamedTuple):
    """How much callers may use, and which of them are counted together."""

    quota: Quota
    key_of: Callable[[Scope], str]


@lru_cache(maxsize=1024)
def declare(scope: str, text: str, key_of: Callable[[Scope], str]) -> Rule:
    """Declare a limit; `parse_limits` has checked the text."""
    group = LimitGroup(
        text,
        key_of,
        scope=scope,
        per_method=False,
        methods=None,
        error_message=None,
        exempt_when=None,
        cost=1,
        override_defaults=False,
    )
    return Rule(make_quota(scope, (limit.limit for limit in group)), group.key_function)


def caller_key(request: Scope) -> str:
    """Return the id of the caller's key."""
    caller = context_of(request).caller
    return caller.id if caller else ""


def address_key(request: Scope) -> str:
    """Return what an address is counted under: itself, or the /64 network of an IPv6 address."""
    address = context_of(request).client_address
    if ":" not in address:
        return address
    try:
        packed = socket.inet_pton(socket.AF_INET6, address)
    except OSError:
        return address
    if packed.startswith(MAPPED_IPV4):
        return socket.inet_ntop(socket.AF_INET, packed[len(MAPPED_IPV4) :])
    return packed[:IPV6_PREFIX_BYTES].hex()


def tell(context: RequestContext, quota: Quota, standing: Standing) -> None:
    """Put where the caller stands onto its answer, in place of what was told before.

    `X-RateLimit-*` speak of the tightest window, `RateLimit` and `RateLimit-Policy` of each.
    """
    if context.rate_limit is not None:
        others = [each for each in context.response_headers if each[0] not in HEADERS]
        context.response_headers = others
    place = tightest(quota, standing)
    window, left = quota.windows[place], standing.left[place]
    rest = max(0, window.amount - standing.used[place])
    context.rate_limit = {
        "limit": window.amount,
        "remaining": rest,
        "reset_seconds": ceil(left),
        "window_seconds": window.seconds,
    }
    # `RateLimit` and `RateLimit-Policy`: draft-ietf-httpapi-ratelimit-headers-10.
    context.response_headers += [
        (b"x-ratelimit-limit", b"%d" % window.amount),
        (b"x-ratelimit-remaining", b"%d" % rest),
        (b"x-ratelimit-reset", b"%d" % ceil(standing.now + left)),
        (b"ratelimit", items(quota, standing)),
        (b"ratelimit-policy", quota.policy),
    ]


class RateLimitStage:
    """Admit or refuse; either way say what is left. Paths without a key are not counted.

    Args:
        default: for callers whose key has no limit of its own.
        is_charged_by_device: calls that name many devices cost one request a device.
    """

    def __init__(
        self, app: ASGIApp, *, default: Rule, counters: Counters, is_charged_by_device: bool
    ) -> None:
        self.app, self.default, self.counters = app, default, counters
        self.is_charged_by_device = is_charged_by_device

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self.app(scope, receive, send)
        context = context_of(scope)
        caller = context.caller
        if caller is None:
            return await self.app(scope, receive, send)
        own = caller.rate_limit
        quota, key_of = self.default if own is None else declare("key", own, caller_key)
        key = key_of(scope)
        standing = await self.counters.take(quota, key)
        tell(context, quota, standing)
        if not standing.granted:
            raise exceeded(quota, standing, key)
        if self.is_charged_by_device:
            context.meter = Meter(self.counters, quota, key, partial(tell, context))
        return await self.app(scope, receive, send)
