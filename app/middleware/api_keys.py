"""Knows who calls: every path needs a key, except a fixed list of exact paths."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.addresses import parse_address
from app.context import TURN, RequestContext, context_of
from app.counters import Counters
from app.errors import GatewayError, InvalidRequest, NotAllowed, NotAuthenticated
from app.keys.key_ring import HeldKey, Refusal
from app.keys.store import APIKeys, Refused
from app.metering import exceeded
from app.middleware.rate_limits import Rule
from app.security_events import note
from app.times import DAY_MS, iso_of

#: A key that ends within this time says so on every answer.
WARNING_MS = 14 * DAY_MS
EXPIRY_HEADER = b"api-key-expires"
#: The keys nobody holds: no id to name in the log.
NOBODY = {Refusal.UNKNOWN, Refusal.MISTYPED}


class APIKeyStage:
    """Put the caller into the context, or refuse. Requests without a valid key are counted per address.

    Args:
        failures: how many of those an address may make; a valid key passes regardless.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: APIKeys,
        public_paths: frozenset[str],
        counters: Counters,
        failures: Rule,
    ) -> None:
        self.app, self.keys, self.public_paths = app, keys, public_paths
        self.counters, self.failures = counters, failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        TURN.set("")
        if scope["type"] not in {"http", "websocket"} or scope["path"] in self.public_paths:
            return await self.app(scope, receive, send)
        presented = [value for name, value in scope["headers"] if name == b"x-api-key"]
        if len(presented) > 1:
            raise InvalidRequest(
                "Send one X-API-Key header.", details={"field": "X-API-Key", "issue": "sent more than once"}
            )
        if not presented or not presented[0]:
            await self._count_failure(scope)
            raise NotAuthenticated
        context = context_of(scope)
        found = self.keys.find(presented[0])
        if isinstance(found, Refused):
            # Whatever is wrong with a key looks the same from outside: the log tells.
            await self._refuse(scope, found, NotAuthenticated())
        else:
            context.caller = found.caller
            TURN.set(found.caller.id)
            await self._check_place(scope, found)
            self._warn_of_expiry(context, found)
        return await self.app(scope, receive, send)

    async def _check_place(self, scope: Scope, held: HeldKey) -> None:
        """Refuse addresses and pages that the key is not meant for."""
        if held.allowed_ips is not None:
            address = parse_address(context_of(scope).client_address)
            if not held.allows_address(address):
                message = "This API key may not be used from this address."
                error = NotAllowed(message, details={"rule": "allowed_ips"})
                await self._refuse(scope, Refused(Refusal.ADDRESS, held.caller.id), error)
        if held.allowed_origins is not None:
            origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
            if not held.allows_origins(origins):
                message = "This API key may not be used by pages of this origin."
                error = NotAllowed(message, details={"rule": "allowed_origins"})
                await self._refuse(scope, Refused(Refusal.ORIGIN, held.caller.id), error)

    def _warn_of_expiry(self, context: RequestContext, held: HeldKey) -> None:
        end = held.caller.expires_at
        if end is not None and end - self.keys.clock() <= WARNING_MS:
            context.response_headers.append((EXPIRY_HEADER, iso_of(end).encode()))

    async def _refuse(self, scope: Scope, refused: Refused, error: GatewayError) -> None:
        self.keys.refused[refused.reason] += 1
        # Beyond the limit that is the event, so that a flood of bad keys is no flood of lines.
        await self._count_failure(scope, refused.key_id)
        event = "unknown_key" if refused.reason in NOBODY else "key_refused"
        note(event, reason=refused.reason.value, key_id=refused.key_id)
        raise error

    async def _count_failure(self, scope: Scope, key_id: str | None = None) -> None:
        quota, key_of = self.failures
        counted = key_of(scope)
        standing = await self.counters.take(quota, counted)
        if not standing.granted:
            message = "Too many requests without a valid API key from this address."
            raise exceeded(quota, standing, counted, message=message, key_id=key_id)
