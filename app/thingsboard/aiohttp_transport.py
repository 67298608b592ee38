"""The transport port over aiohttp, for a ThingsBoard that only a proxy reaches (HTTPS_PROXY)."""

import io
import ssl
from collections.abc import Mapping

import aiohttp
from yarl import URL

from app.errors import UpstreamGarbled, UpstreamReset, UpstreamTimeout, UpstreamUnreachable
from app.thingsboard.transport import CONNECT_TIMEOUT_SECONDS, KEEPALIVE_SECONDS, Answer, proxy_for

#: aiohttp warns about plain bytes beyond this.
LARGE_BODY = 1 << 20


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
