"""The narrow port to whatever carries bytes to ThingsBoard.

`BareTransport` carries them; `AiohttpTransport` where a proxy stands in between. Nothing above knows which.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

#: Below Tomcat's 20 s, so that ThingsBoard does not close a connection that we are about to use.
KEEPALIVE_SECONDS = 15.0
CONNECT_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, content type (lower case, without parameters) and the whole body."""

    status: int
    content_type: str
    body: bytes


class Transport(Protocol):
    """Sends one request and returns its answer.

    Raises UpstreamUnreachable when nothing was sent, UpstreamReset when the connection broke, UpstreamTimeout
    after `timeout_seconds`, UpstreamGarbled when the answer is not HTTP or ends early.
    """

    async def send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_seconds: float,
    ) -> Answer:
        """Send `body` to `target`, a path with its query, encoded already."""

    async def aclose(self) -> None:
        """Close all connections."""


def proxy_for(origin: str) -> str | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for this origin.

    Found once: aiohttp's `trust_env` looks it up in a thread for every call (0.5 ms of CPU each).
    """
    parts = urlsplit(origin)
    if proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)


class TLSPolicies:
    """TLS contexts, one for each way to trust: with the system's authorities, 0.8 MiB and 50 ms each.

    Connections share nothing through a context: Python resumes no session unless it is handed one.
    """

    def __init__(self) -> None:
        self._contexts: dict[tuple[Path | None, bool], ssl.SSLContext] = {}

    def of(self, ca_file: Path | None, *, verify: bool) -> ssl.SSLContext:
        """Return the context for these settings."""
        trust = ca_file, verify
        if trust not in self._contexts:
            self._contexts[trust] = tls_context(tls_policy(ca_file, verify=verify))
        return self._contexts[trust]


def tls_context(tls: ssl.SSLContext | bool) -> ssl.SSLContext:
    """Make the context once: asyncio would read all authorities again for each connection."""
    if isinstance(tls, ssl.SSLContext):
        return tls
    context = ssl.create_default_context()
    if not tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def tls_policy(ca_file: Path | None, *, verify: bool) -> ssl.SSLContext | bool:
    """Return what aiohttp takes as `ssl`: verification is on unless it was switched off by name."""
    if not verify:
        return False
    return ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
