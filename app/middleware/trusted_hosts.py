"""Answers only to the host names it was given, so that a forged Host leads nowhere."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import InvalidRequest


class TrustedHosts:
    """Refuse other Host headers. `*.example.com` covers every name below it, not itself."""

    def __init__(self, app: ASGIApp, *, allowed: tuple[str, ...]) -> None:
        self.app = app
        self.exact = frozenset(host.lower() for host in allowed if not host.startswith("*"))
        self.suffixes = tuple(host[1:].lower() for host in allowed if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and not self._is_allowed(scope):
            raise InvalidRequest(
                "This host name is not served here.", details={"field": "Host", "issue": "not allowed"}
            )
        return await self.app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"host"), b"")
        text = given.decode("latin-1").lower()
        host = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
        return host in self.exact or host.endswith(self.suffixes)
