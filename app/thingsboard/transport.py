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


def tls_policy(ca_file: Path | None, *, verify: bool) -> ssl.SSLContext | bool:
    """Return what aiohttp takes as `ssl`: verification is on unless it was switched off by name."""
    if not verify:
        return False
    return ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
