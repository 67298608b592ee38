"""The transport port over plain asyncio and httptools, for the hot path: a pool of keep-alive connections.

It speaks HTTP/1.1 to one origin and knows no proxy: `AiohttpTransport` stays for those. It repeats nothing,
because retries and their budget live above the port.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

import aiohappyeyeballs

from app.errors import UpstreamReset, UpstreamTimeout, UpstreamUnreachable
from app.thingsboard.http_connection import BODY_LIMIT, HTTPConnection
from app.thingsboard.transport import (
    CONNECT_TIMEOUT_SECONDS,
    KEEPALIVE_SECONDS,
    Answer,
    proxy_for,
    tls_context,
)

HAPPY_EYEBALLS_SECONDS = 0.25
DEFAULT_PORTS = {"http": 80, "https": 443}
#: Without a body these need no Content-Length.
BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
#: What every request says. Compressing costs both sides more than a local network does (ADR 0005); without
#: the last line any encoding would be welcome (RFC 9110, 12.5.3).
FIXED = " HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\nAccept-Encoding: identity"

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str | int | bytes, ...]]


class BareTransport:
    """Belongs to the event loop of its first call. Closed once, it stays closed."""

    def __init__(
        self,
        origin: str,
        *,
        tls: ssl.SSLContext | bool,
        connections: int,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        body_limit: int = BODY_LIMIT,
    ) -> None:
        if proxy_for(origin) is not None:
            raise ValueError("BareTransport knows no proxy")
        parts = urlsplit(origin)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.path.strip("/"):
            raise ValueError("an origin is needed: scheme, host and port")
        self._host, self._port = _ascii_host(parts.hostname), parts.port or DEFAULT_PORTS[parts.scheme]
        self._tls = tls_context(tls) if parts.scheme == "https" else None
        self._fixed = FIXED.format(_host_header(self._host, parts.port, parts.scheme))
        self._keepalive_seconds, self._body_limit = keepalive_seconds, body_limit
        # A slot is the right to use one connection; idle connections and taken slots never exceed the bound,
        # because a connection is opened only when none is idle.
        self._free = connections
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: deque[HTTPConnection] = deque()
        self._open: set[HTTPConnection] = set()
        self._connecting: set[asyncio.Timeout] = set()
        self._resolver: ThreadPoolExecutor | None = None
        self._lookup: asyncio.Future[Sequence[AddressInfo]] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._emptied: asyncio.Future[None] | None = None

    async def send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_seconds: float,
    ) -> Answer:
        """Send one request; see `Transport`.

        Raises:
            ValueError: target or headers would break out of their line.
        """
        head = self._head(method, target, headers, body)
        loop = asyncio.get_running_loop()
        now = loop.time()
        deadline = now + timeout_seconds
        if self._free:
            self._free -= 1
        else:
            await self._wait_for_slot(loop, deadline)
            now = loop.time()
        try:
            connection = self._take_idle(now) or await self._connect(loop, deadline)
            try:
                answer = await connection.exchange(method, head, body, deadline=deadline)
            except UpstreamReset:
                if connection.is_reused:
                    self._distrust_idle(now)
                raise
            self._put_aside(loop, connection)
            return answer
        finally:
            self._give_slot()

    async def aclose(self) -> None:
        """Close all connections; calls in flight or waiting fail."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._resolver is not None:
            self._resolver.shutdown(wait=False, cancel_futures=True)
        loop = asyncio.get_running_loop()
        for waiter in self._waiting:
            _fail(waiter, UpstreamUnreachable(note="closed"))
        for limit in self._connecting:
            if not limit.expired():
                limit.reschedule(loop.time())
        for connection in tuple(self._open):
            connection.abort(UpstreamReset(note="closed"))
        if self._open or self._connecting:
            self._emptied = self._emptied or loop.create_future()
            await asyncio.shield(self._emptied)

    def _head(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        lines = [f"{method} {target}{self._fixed}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        elif method not in BODILESS:
            lines.append("Content-Length: 0")
        lines.append("\r\n")
        head = "\r\n".join(lines)
        # The head must have the line ends that were put here and no others: that covers all of it at once.
        ends = len(lines) + FIXED.count("\r")
        if head.count("\r") != ends or head.count("\n") != ends or "\0" in head:
            raise ValueError("a control character in the request head")
        if " " in target or not target.startswith("/"):
            raise ValueError("the target must be an encoded path")
        return head.encode("ascii")

    async def _wait_for_slot(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        waiter = loop.create_future()
        timer = loop.call_at(deadline, _fail, waiter, UpstreamTimeout(note="pool_timeout"))
        self._waiting.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.cancelled() or waiter.exception() is not None:
                with suppress(ValueError):
                    self._waiting.remove(waiter)
            else:
                # The slot was handed over in the moment of the cancellation.
                self._give_slot()
            raise
        finally:
            timer.cancel()

    def _give_slot(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                # Not counted as free in between: a newcomer would overtake.
                waiter.set_result(None)
                return
        self._free += 1

    def _take_idle(self, now: float) -> HTTPConnection | None:
        """Return the connection used last: the others may then grow old and go."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and now - connection.idle_since < self._keepalive_seconds:
                return connection
            connection.abort()
        return None

    def _put_aside(self, loop: asyncio.AbstractEventLoop, connection: HTTPConnection) -> None:
        if self._is_closed or not connection.is_reusable:
            connection.abort()
            return
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._keepalive_seconds, self._sweep, loop)

    def _distrust_idle(self, since: float) -> None:
        """Close what has been idle since before then: what broke one connection while it was idle broke all.

        A firewall that forgot them tells only when something is sent, and each would cost a call.
        """
        while self._idle and self._idle[0].idle_since <= since:
            self._idle.popleft().abort()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what was idle for too long; the oldest is leftmost."""
        self._sweeper = None
        now = loop.time()
        while self._idle and now - self._idle[0].idle_since >= self._keepalive_seconds:
            self._idle.popleft().abort()
        if self._idle:
            when = self._idle[0].idle_since + self._keepalive_seconds
            self._sweeper = loop.call_at(when, self._sweep, loop)

    def _forget(self, connection: HTTPConnection) -> None:
        self._open.discard(connection)
        with suppress(ValueError):
            self._idle.remove(connection)
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if self._emptied is not None and not (self._open or self._connecting or self._emptied.done()):
            self._emptied.set_result(None)

    async def _connect(self, loop: asyncio.AbstractEventLoop, deadline: float) -> HTTPConnection:
        self._refuse_if_closed()
        connection = HTTPConnection(loop, self._forget, self._body_limit)
        # asyncio.timeout is too slow for every call, but opening a connection is rare.
        limit = asyncio.timeout_at(min(deadline, loop.time() + CONNECT_TIMEOUT_SECONDS))
        try:
            async with limit:
                self._connecting.add(limit)
                await self._dial(loop, connection)
            self._refuse_if_closed()
        except OSError as error:
            connection.abort()
            self._refuse_if_closed()
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout(note="connect_timeout") from error
            raise UpstreamUnreachable(note=type(error).__name__) from error
        except BaseException:
            connection.abort()
            raise
        finally:
            self._connecting.discard(limit)
            self._tell_if_empty()
        return connection

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise UpstreamUnreachable(note="closed")

    async def _dial(self, loop: asyncio.AbstractEventLoop, connection: HTTPConnection) -> None:
        # uvloop's create_connection knows no Happy Eyeballs: aiohttp's part for it opens the socket instead.
        dialled = await aiohappyeyeballs.start_connection(
            await self._addresses(loop), happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS, interleave=1, loop=loop
        )
        try:
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.create_connection(
                lambda: connection,
                sock=dialled,
                ssl=self._tls,
                server_hostname=self._host if self._tls else None,
            )
        except BaseException:
            # A transport that was made already goes first: it still watches the socket.
            connection.abort()
            dialled.close()
            raise
        # Otherwise it is lost already, and nobody would take it out again.
        if connection.is_open:
            self._open.add(connection)

    async def _addresses(self, loop: asyncio.AbstractEventLoop) -> Sequence[AddressInfo]:
        """Look the name up, once for all that wait for it."""
        if self._lookup is None:
            look_up = partial(socket.getaddrinfo, self._host, self._port, type=socket.SOCK_STREAM)
            # A thread of its own: the loop's few would be used up by other upstreams with a dead resolver.
            self._resolver = self._resolver or ThreadPoolExecutor(1, "resolver")
            self._lookup = loop.run_in_executor(self._resolver, look_up)
            self._lookup.add_done_callback(self._looked_up)
        return await asyncio.shield(self._lookup)

    def _looked_up(self, lookup: asyncio.Future[Sequence[AddressInfo]]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # Seen, also when all who waited have left.


def _fail(waiter: asyncio.Future[None], error: Exception) -> None:
    if not waiter.done():
        waiter.set_exception(error)


def _ascii_host(host: str) -> str:
    return host.encode("idna").decode("ascii")


def _host_header(host: str, port: int | None, scheme: str) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port in {None, DEFAULT_PORTS[scheme]} else f"{name}:{port}"
