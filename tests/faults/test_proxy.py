"""The proxy that hurts, alone: what it does wrong is what it was told to, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from benchmarks.faults.proxy import HOST, Cut, TcpProxy

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
REQUEST = b"GET /api/device/0b5e7d20-0000-11f1-8bad-23cb275c33c1?a=1 HTTP/1.1\r\nHost: x\r\n\r\n"


class Caller:
    """Speaks through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, length: int = len(ANSWER)) -> bytes:
        self.writer.write(REQUEST)
        async with asyncio.timeout(20):
            return await self.reader.readexactly(length)


class Proxied:
    """A proxy before a server, and its callers."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy, self.writers = proxy, list[asyncio.StreamWriter]()

    async def connect(self) -> Caller:
        caller = Caller(*await asyncio.open_connection(HOST, self.proxy.port))
        self.writers.append(caller.writer)
        return caller


@asynccontextmanager
async def proxied(answer: bytes = ANSWER) -> AsyncIterator[Proxied]:
    """The server says the same to everything."""

    serving = set[Any]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        async with TcpProxy(server.sockets[0].getsockname()[1]) as proxy:
            made = Proxied(proxy)
            yield made
            for writer in made.writers:
                writer.transport.abort()
        # They see the end of their connections.
        await asyncio.gather(*serving)


async def test_without_a_fault_everything_passes_and_is_counted() -> None:
    async with proxied() as made:
        proxy = made.proxy
        connection = await made.connect()
        assert [await connection.ask() for _ in range(3)] == [ANSWER] * 3
        assert proxy.calls == {"GET /api/device/{id}": 3}


@pytest.mark.parametrize(
    ("cut", "answer", "passed"),
    [
        (Cut.BEFORE_HEAD, ANSWER, b""),
        (Cut.HALF_CLOSE, ANSWER, b""),
        (Cut.AFTER_HEAD, ANSWER, ANSWER[:-10]),
        (Cut.MID_BODY, ANSWER, ANSWER[:-5]),
        (Cut.MID_BODY, EMPTY, EMPTY),
    ],
)
async def test_an_answer_breaks_where_it_was_told_to(cut: Cut, answer: bytes, passed: bytes) -> None:
    async with proxied(answer) as made:
        proxy = made.proxy
        proxy.cut = cut
        caller = await made.connect()
        caller.writer.write(REQUEST)
        received = b""
        try:
            while piece := await caller.reader.read(1000):
                received += piece
            is_reset = False
        except ConnectionResetError:
            is_reset = True
        assert received == passed
        assert is_reset == (cut is not Cut.HALF_CLOSE)
        proxy.heal()
        assert await (await made.connect()).ask(len(answer)) == answer


async def test_what_silence_holds_back_comes_when_it_is_over() -> None:
    async with proxied() as made:
        proxy = made.proxy
        connection = await made.connect()
        proxy.is_silent = True
        asking = asyncio.create_task(connection.ask())
        while not proxy.calls:  # noqa: ASYNC110 - turns of the loop, not a wait
            await asyncio.sleep(0)
        assert not asking.done()
        proxy.is_silent = False
        assert await asking == ANSWER


async def test_late_and_slow_bytes_keep_their_order() -> None:
    delays = iter([0.02, 0.0, 0.01] * 100)
    async with proxied() as made:
        proxy = made.proxy
        connection = await made.connect()
        proxy.delay, proxy.bytes_per_second = lambda: next(delays), 2_000.0
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await connection.ask() == ANSWER
        # 49 bytes at 2,000 a second.
        assert loop.time() - began >= 0.02


@pytest.mark.parametrize("silently", [False, True])
async def test_forgotten_connections_end_and_new_ones_work(silently: bool) -> None:
    async with proxied() as made:
        proxy = made.proxy
        old = await made.connect()
        assert await old.ask() == ANSWER
        proxy.forget_connections(silently=silently)
        assert await (await made.connect()).ask() == ANSWER
        asking = asyncio.create_task(old.ask())
        if silently:
            await asyncio.wait([asking], timeout=0.05)
            assert not asking.done()
            asking.cancel()
        else:
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await asking


async def test_who_does_not_listen_refuses_and_cuts() -> None:
    async with proxied() as made:
        proxy = made.proxy
        old = await made.connect()
        assert await old.ask() == ANSWER
        await proxy.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            await made.connect()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await old.ask()
        await proxy.start_listening()
        assert await (await made.connect()).ask() == ANSWER
