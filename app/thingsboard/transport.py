"""The narrow port to whatever carries bytes to ThingsBoard, and its aiohttp adapter.

Only this file knows which HTTP library that is.
"""

import io
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from app.errors import UpstreamGarbled, UpstreamReset, UpstreamTimeout, UpstreamUnreachable

#: Below Tomcat's 20 s, so that ThingsBoard does not close a connection that we are about to use.
KEEPALIVE_SECONDS = 15.0
CONNECT_TIMEOUT_SECONDS = 5.0
#: aiohttp warns about plain bytes beyond this.
LARGE_BODY = 1 << 20


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


class AiohttpTransport:
    """One aiohttp session. It honours HTTPS_PROXY, keeps no cookies and follows no redirect."""

    def __init__(self, origin: str, *, tls: ssl.SSLContext | bool, connections: int) -> None:
        self._origin = origin
        self._tls, self._connections = tls, connections
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        # Made on first use: a session belongs to the running event loop.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections, ssl=self._tls, keepalive_timeout=KEEPALIVE_SECONDS
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=proxy_for(self._origin),
                skip_auto_headers={"User-Agent", "Content-Type"},
                max_line_size=16_384,
                max_field_size=32_768,
            )
            # aiohttp would repeat a lost GET by itself, beside our retries and outside their budget.
            self._session._retry_connection = False  # noqa: SLF001 - there is no public switch (3.14)
        return self._session

    async def send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_seconds: float,
    ) -> Answer:
        """Send one request; see `Transport`."""
        try:
            async with self._open().request(
                method,
                URL(self._origin + target, encoded=True),
                data=_sendable(body),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=CONNECT_TIMEOUT_SECONDS),
            ) as response:
                content = await response.read()
                return Answer(response.status, response.content_type, content)
        except aiohttp.ConnectionTimeoutError as error:
            raise UpstreamTimeout(note="connect_timeout") from error
        except TimeoutError as error:
            raise UpstreamTimeout(note="read_timeout") from error
        except aiohttp.ClientConnectorError as error:
            raise UpstreamUnreachable(note=type(error).__name__) from error
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError, aiohttp.InvalidURL) as error:
            raise UpstreamGarbled(note=type(error).__name__) from error
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise UpstreamReset(note=type(error).__name__) from error

    async def aclose(self) -> None:
        """Close the session and its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _sendable(body: bytes | None) -> bytes | io.BytesIO | None:
    """Hand a large body over as a file: aiohttp then writes it in pieces and the event loop goes on."""
    return io.BytesIO(body) if body is not None and len(body) > LARGE_BODY else body


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
