"""A TCP proxy that hurts: late, slow, silent, forgetful, or breaking an answer at a chosen byte.

It runs in the event loop of its user, so a fault begins and ends between two bytes, not some time after a
request to a program of its own; and it knows where the head of an answer ends, which proxies of plain TCP do
not. Nothing here interprets what passes beyond that.
"""

import asyncio
import enum
import math
import re
import socket
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, cast

import httptools

from tb_simulator.broken_answers import reset_transport

HOST = "127.0.0.1"
HEAD_END = b"\r\n\r\n"
#: What is read ahead of a slow receiver.
READ_AHEAD = 1 << 16
IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Cut(enum.Enum):
    """Where an answer breaks."""

    BEFORE_HEAD = "reset instead of an answer"
    AFTER_HEAD = "reset after the head"
    MID_BODY = "reset in the middle of the body"
    HALF_CLOSE = "the end of the stream instead of an answer, the connection left half open"


def no_delay() -> float:
    """Pass everything on at once."""
    return 0.0


class TcpProxy:
    """Listens on a port of its own for the time of an `async with`; its attributes say what is wrong.

    Attributes:
        delay: seconds for each piece of bytes, each way; pieces keep their order.
        bytes_per_second: pace of the answers; infinity is as fast as they come.
        is_silent: nothing passes, connections stay; when it ends, what was held back passes.
        cut: where the next answers break.
        calls: requests seen, as `GET /path/{id}`, among them those that were never answered.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.delay: Callable[[], float] = no_delay
        self.bytes_per_second = math.inf
        self.cut: Cut | None = None
        self.calls: Counter[str] = Counter()
        self.links: set[Link] = set()
        self._is_silent = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.start_listening()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_listening()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def start_listening(self) -> None:
        """Open the port, the same one after `stop_listening`."""
        loop = asyncio.get_running_loop()
        # With the protocol named, asyncio sets TCP_NODELAY on what it accepts.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, self.port))
        self.port = listener.getsockname()[1]
        self._server = await loop.create_server(lambda: Link(self).near, sock=listener)

    async def stop_listening(self) -> None:
        """Refuse connections, and reset those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset_connections()
        await asyncio.sleep(0)

    @property
    def is_silent(self) -> bool:
        """Whether nothing passes."""
        return self._is_silent

    @is_silent.setter
    def is_silent(self, value: bool) -> None:
        self._is_silent = value
        self.flush()

    def flush(self) -> None:
        """Let what a fault that has ended held back pass."""
        for link in tuple(self.links):
            link.flush()

    def reset_connections(self) -> None:
        """Reset all open connections, both ends."""
        for link in tuple(self.links):
            link.reset()

    def forget_connections(self, *, silently: bool) -> None:
        """Be a firewall that lost its table: reset the open connections at their next byte, or drop that."""
        for link in self.links:
            link.fate = Fate.DROPPED if silently else Fate.RESET

    def spawn(self, link: "Link") -> None:
        """Connect a link to the target."""
        task = asyncio.get_running_loop().create_task(link.connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def heal(self) -> None:
        """End all faults but those of forgotten connections."""
        self.delay, self.bytes_per_second, self.cut = no_delay, math.inf, None
        self.is_silent = False


class Fate(enum.Enum):
    """What becomes of a connection."""

    ALIVE = enum.auto()
    RESET = enum.auto()
    DROPPED = enum.auto()


class Link:
    """One connection and its continuation to the target: `near` is the caller's side, `far` the target's."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy, self.fate = proxy, Fate.ALIVE
        self.near, self.far = Side(self, self._note_request), Side(self, self._pass_answer)
        self._requests = Requests(proxy.calls, self._begin_answer)
        self._answer = b""
        #: Whether bytes are a WebSocket's, or an answer that was let pass.
        self.is_open_stream = False

    async def connect(self) -> None:
        """Connect to the target, or refuse as it does."""
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, HOST, self.proxy.target)
        except OSError:
            self.reset()
            return
        self.near.start_reading()

    def flush(self) -> None:
        """Send what is due."""
        for side in (self.near, self.far):
            side.flush()

    def reset(self) -> None:
        """Reset both ends."""
        for side in (self.near, self.far):
            side.reset()

    def _note_request(self, data: bytes) -> None:
        if self.fate is Fate.RESET:
            self.reset()
        elif self.fate is Fate.ALIVE:
            self._requests.feed(data)
            self.far.put(data)

    def _begin_answer(self) -> None:
        self._answer = b""

    def _pass_answer(self, data: bytes) -> None:
        if self.fate is Fate.RESET:
            self.reset()
        if self.fate is not Fate.ALIVE:
            return
        cut = self.proxy.cut
        if cut is None or self.is_open_stream:
            self.near.put(data)
            if data.startswith(b"HTTP/1.1 101 "):
                self.is_open_stream = True
        elif cut is Cut.BEFORE_HEAD:
            self.reset()
        elif cut is Cut.HALF_CLOSE:
            self.fate = Fate.DROPPED
            if self.near.transport is not None and self.near.transport.can_write_eof():
                self.near.transport.write_eof()
        else:
            self._answer += data
            self._break_answer(cut)

    def _break_answer(self, cut: Cut) -> None:
        head, end, body = self._answer.partition(HEAD_END)
        if not end:
            return
        rest = body[: (len(body) + 1) // 2] if cut is Cut.MID_BODY else b""
        is_bodiless = b"content-length: 0" in head.lower() or head.startswith(b"HTTP/1.1 101 ")
        if cut is Cut.MID_BODY and not rest and not is_bodiless:
            return
        if self.near.transport is not None:
            self.near.transport.write(head + end + rest)
        self.reset()


class Requests:
    """Counts the requests of one connection."""

    def __init__(self, calls: Counter[str], on_request: Callable[[], None]) -> None:
        self._calls, self._on_request = calls, on_request
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._url = b""

    def feed(self, data: bytes) -> None:
        """Read on; after an upgrade, or where it is not HTTP, there is nothing to count."""
        if self._parser is not None:
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserUpgrade, httptools.HttpParserError):
                self._parser = None

    def on_message_begin(self) -> None:
        """Forget the request before."""
        self._url = b""

    def on_url(self, url: bytes) -> None:
        """Collect the target, which may come in parts."""
        self._url += url

    def on_headers_complete(self) -> None:
        """Count it."""
        if self._parser is not None:
            path = IDS.sub("{id}", self._url.partition(b"?")[0].decode("latin-1"))
            self._calls[f"{self._parser.get_method().decode()} {path}"] += 1
            self._on_request()


class Side(asyncio.Protocol):
    """One end of a link: what comes in is handed over, what goes out waits for its time."""

    def __init__(self, link: Link, on_data: Callable[[bytes], None]) -> None:
        self._link, self._on_data = link, on_data
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _other(self) -> "Side":
        return self._link.far if self is self._link.near else self._link.near

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the caller's side opens the other one, and is read from when that is there."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(READ_AHEAD)
        if self is self._link.near:
            self.transport.pause_reading()
            self._link.proxy.links.add(self._link)
            self._link.proxy.spawn(self._link)
        elif self._other.transport is None or self._other.transport.is_closing():
            self.transport.abort()

    def start_reading(self) -> None:
        """Read, from when the other end is there."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def reset(self) -> None:
        """Reset this end, unless it is closing already."""
        if self.transport is not None and not self.transport.is_closing():
            reset_transport(self.transport)

    def data_received(self, data: bytes) -> None:
        """Hand over."""
        self._on_data(data)

    def eof_received(self) -> bool:
        """Pass the end on, after what came before it; this end stays open for the rest of an answer."""
        if self._link.fate is Fate.ALIVE:
            self._other.put(None)
        else:
            self._link.reset()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Close the other end as well."""
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        self._link.proxy.links.discard(self._link)
        self._other.reset()

    def pause_writing(self) -> None:
        """Stop reading what this end cannot take."""
        self._set_reading(of=self._other, on=False)

    def resume_writing(self) -> None:
        """Go on reading."""
        self._set_reading(of=self._other, on=True)

    @staticmethod
    def _set_reading(*, of: "Side", on: bool) -> None:
        if of.transport is not None and not of.transport.is_closing():
            with suppress(RuntimeError):
                (of.transport.resume_reading if on else of.transport.pause_reading)()

    def put(self, data: bytes | None) -> None:
        """Send bytes, or None for the end, when it is their time."""
        proxy, now = self._link.proxy, self._loop.time()
        pace = proxy.bytes_per_second if self is self._link.near else math.inf
        if not self._waiting and pace == math.inf and proxy.delay is no_delay and not proxy.is_silent:
            self._write(data)
            return
        due = max(now + proxy.delay(), self._last_due)
        if data is None or pace == math.inf:
            self._waiting.append((due, data))
        else:
            # In pieces of a tenth of a second, or single bytes.
            size = max(1, int(pace / 10))
            for start in range(0, len(data), size):
                due += len(data[start : start + size]) / pace
                self._waiting.append((due, data[start : start + size]))
        self._last_due = due
        self.flush()

    def flush(self) -> None:
        """Send what is due, unless nothing passes; when nothing is slow any more, all of it."""
        proxy, now = self._link.proxy, self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if proxy.is_silent or self._link.fate is not Fate.ALIVE:
            return
        is_quick = proxy.bytes_per_second == math.inf and proxy.delay is no_delay
        while self._waiting and (is_quick or self._waiting[0][0] <= now):
            self._write(self._waiting.popleft()[1])
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][0], self.flush)

    def _write(self, data: bytes | None) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if data is not None:
            self.transport.write(data)
        else:
            # Both directions have ended, as far as this proxy's users go: nobody half-closes on purpose.
            self.transport.close()
