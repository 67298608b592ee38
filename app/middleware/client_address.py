"""Finds out who is calling: the peer, or what a trusted proxy says about it."""

from collections.abc import Sequence
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from app.addresses import IPAddress, parse_address
from app.context import context_of
from app.settings import IPNetwork


class ClientAddress:
    """Set the context's client address. `X-Forwarded-For` counts only when the peer is a trusted proxy."""

    def __init__(self, app: ASGIApp, *, trusted_proxies: Sequence[IPNetwork]) -> None:
        self.app, self.trusted_proxies = app, trusted_proxies
        # Peers are few and their addresses short; what headers claim is neither.
        self._is_trusted_peer = lru_cache(maxsize=4_096)(lambda peer: self._is_trusted(parse_address(peer)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self.app(scope, receive, send)
        peer = scope["client"][0] if scope.get("client") else ""
        context = context_of(scope)
        context.is_proxied = bool(self.trusted_proxies) and self._is_trusted_peer(peer)
        context.client_address = self._address(peer, scope) if context.is_proxied else peer
        return await self.app(scope, receive, send)

    def _address(self, peer: str, scope: Scope) -> str:
        hops = [
            hop.strip()
            for name, value in scope["headers"]
            if name == b"x-forwarded-for"
            for hop in value.decode("latin-1").split(",")
        ]
        # Each proxy appends its peer, so only the part right of the last untrusted hop is vouched for.
        for hop in reversed(hops):
            address = parse_address(hop)
            if address is None:
                break
            peer = str(address)
            if not self._is_trusted(address):
                break
        return peer

    def _is_trusted(self, address: IPAddress | None) -> bool:
        return address is not None and any(address in network for network in self.trusted_proxies)
