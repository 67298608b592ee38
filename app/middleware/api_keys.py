"""Knows who calls: every path needs a key, except a fixed list of exact paths."""

import structlog
from limits import RateLimitItem
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api_keys import APIKeys
from app.context import context_of
from app.errors import InvalidRequest, NotAuthenticated, RateLimited
from app.middleware.rate_limits import address_key, seconds_until_reset

log = structlog.get_logger("security")


class APIKeyStage:
    """Put the caller into the context, or refuse. Wrong keys are counted per address.

    Args:
        failures: how many wrong keys an address may present; a valid key passes regardless.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: APIKeys,
        public_paths: frozenset[str],
        counter: FixedWindowRateLimiter,
        failures: RateLimitItem,
    ) -> None:
        self.app, self.keys, self.public_paths = app, keys, public_paths
        self.counter, self.failures = counter, failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"} or scope["path"] in self.public_paths:
            return await self.app(scope, receive, send)
        presented = [value for name, value in scope["headers"] if name == b"x-api-key"]
        if len(presented) > 1:
            raise InvalidRequest(
                "Send one X-API-Key header.", details={"field": "X-API-Key", "issue": "sent more than once"}
            )
        if not presented or not presented[0]:
            raise NotAuthenticated
        context = context_of(scope)
        context.caller = self.keys.find_caller(presented[0])
        if context.caller is None:
            await self._refuse(scope)
        return await self.app(scope, receive, send)

    async def _refuse(self, scope: Scope) -> None:
        context = context_of(scope)
        log.warning("unknown_key", client=context.client_address, request_id=context.request_id)
        key = address_key(scope)
        if not await self.counter.hit(self.failures, "failed-keys", key):
            wait = await seconds_until_reset(self.counter, self.failures, "failed-keys", key)
            raise RateLimited("Too many wrong API keys from this address.", retry_after=wait)
        raise NotAuthenticated
