"""A scripted upstream for the tests of the bare transport, and the event loops to run them on."""

import asyncio
import contextlib
import gc
import inspect
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from app.thingsboard.bare_transport import BareTransport
from app.thingsboard.transport import Answer, Transport

Script = Callable[["Peer"], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n"
MIB = 1 << 20


def both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run on asyncio's loop and on uvloop; nothing may be left behind on either."""

    async def watched(**fixtures: Any) -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with asyncio.timeout(60):
            await test(**fixtures)
            gc.collect()
            await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        assert not complaints

    def run(new_loop: Callable[[], asyncio.AbstractEventLoop], **fixtures: Any) -> None:
        # Only what the test makes is looked through: all that pytest holds takes 0.2 s.
        gc.freeze()
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(watched(**fixtures))
        finally:
            gc.unfreeze()

    loop = inspect.Parameter("new_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__signature__ = inspect.Signature([*inspect.signature(test).parameters.values(), loop])
    run.pytestmark = getattr(test, "pytestmark", [])
    loops = [asyncio.new_event_loop, uvloop.new_event_loop]
    return pytest.mark.parametrize("new_loop", loops, ids=["asyncio", "uvloop"])(run)


class Peer:
    """The server's side of one connection."""

    def __init__(self, up: "Upstream", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.up, self.reader, self.writer = up, reader, writer
        self.number = up.connections

    async def head(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.up.heads.append(head)
        return head

    async def request(self) -> tuple[str, bytes]:
        """Return the target and the body of the next request."""
        head = await self.head()
        _, found, length = head.partition(b"Content-Length: ")
        size = int(length.split(b"\r\n")[0]) if found else 0
        return head.split(b" ")[1].decode(), await self.reader.readexactly(size)

    async def say(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class Upstream:
    def __init__(self, script: Script) -> None:
        self.script, self.origin = script, ""
        self.connections, self.closed = 0, 0
        self.heads: list[bytes] = []
        self.tasks: set[asyncio.Task[None]] = set()
        #: For scripts that wait for the test.
        self.go = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.tasks.add(task)
        peer = Peer(self, reader, writer)
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self.script(peer)
        except asyncio.CancelledError:
            pass
        finally:
            self.closed += 1
            writer.transport.abort() if peer.reader.at_eof() else writer.close()
            self.tasks.discard(task)


@asynccontextmanager
async def upstream(
    script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", name: str = ""
) -> AsyncIterator[Upstream]:
    up = Upstream(script)
    server = await asyncio.start_server(up.serve, host, 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    up.origin = f"{'https' if tls else 'http'}://{name or host}:{port}"
    try:
        yield up
    finally:
        server.close()
        for task in tuple(up.tasks):
            task.cancel()
        await until(lambda: not up.tasks)


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - the test's own time-out ends it
        await asyncio.sleep(0.001)


def says(*answers: bytes, then: str = "wait") -> Script:
    """Answer so many requests, then wait for more or close; repeat the only answer for ever."""

    async def script(peer: Peer) -> None:
        for raw in answers:
            await peer.request()
            await peer.say(raw)
        if then == "repeat":
            await script(peer)
        elif then == "wait":
            await peer.reader.read()

    return script


async def echo(peer: Peer) -> None:
    while True:
        target, body = await peer.request()
        answer = f"{target} {len(body)}".encode()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))


def bare(up: Upstream, *, connections: int = 4, tls: Any = True, **options: Any) -> BareTransport:
    return BareTransport(up.origin, tls=tls, connections=connections, **options)


async def send(
    transport: Transport, target: str = "/x", *, method: str = "GET", body: bytes | None = None,
    seconds: float = 10, **headers: str,
) -> Answer:  # fmt: skip
    return await transport.send(method, target, headers=headers, body=body, timeout_seconds=seconds)


def assert_idle(transport: BareTransport, slots: int = 4) -> None:
    """Every slot came back and every open connection is idle."""
    assert transport._free == slots
    assert not transport._waiting
    assert set(transport._idle) == transport._open


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.reader.read()


async def deaf(peer: Peer) -> None:
    await peer.head()
    await asyncio.Event().wait()
