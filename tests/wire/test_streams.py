"""Histories over a real socket: what is cut, what is stopped, what is cleaned up."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.conftest import KEY_HEADER, GatewayFactory
from tests.serving import serve
from tests.telemetry_world import DEVICES, START, VALUES, device_id, fail_history_from, load

POINTS = 400_000
#: Written to disk first.
FILES = {"xlsx", "parquet"}


def request_head(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY_HEADER['X-API-Key']}\r\n\r\n".encode()


@pytest.fixture
def device(simulator: Simulator) -> str:
    """A device with 40 pages of history."""
    found = device_id(simulator)
    simulator.world.telemetry.load(found, "temperature", range(START, START + POINTS), range(POINTS))
    return found


@pytest.mark.parametrize("file_format", ["json", "csv", "jsonl"])
async def test_a_late_fault_cuts_the_stream(
    make_gateway: GatewayFactory, device: str, file_format: str
) -> None:
    """Without the final chunk no client takes the half for the whole."""
    gateway = make_gateway()
    fail_history_from(gateway, page=5)
    async with (
        serve(gateway.app) as url,
        httpx.AsyncClient(base_url=url, headers=KEY_HEADER) as client,
        client.stream("GET", f"{DEVICES}/{device}/telemetry?format={file_format}") as answer,
    ):
        assert answer.status_code == 200
        pieces = answer.aiter_bytes()
        assert await anext(pieces)
        with pytest.raises(httpx.RemoteProtocolError):
            await drain(pieces)


@pytest.mark.parametrize("file_format", ["json", "csv", "jsonl", "xlsx", "parquet"])
async def test_a_late_fault_never_looks_complete_to_a_simple_client(
    make_gateway: GatewayFactory, device: str, file_format: str
) -> None:
    gateway = make_gateway()
    fail_history_from(gateway, page=3)
    async with serve(gateway.app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        path = f"{DEVICES}/{device}/telemetry?format={file_format}"
        writer.write(request_head(path))
        received = await reader.read(-1) if file_format not in FILES else await reader.readuntil(b"\r\n")
        writer.close()
        await writer.wait_closed()
    if file_format in FILES:
        assert received == b"HTTP/1.1 502 Bad Gateway\r\n"
    else:
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("file_format", ["json", "csv", "jsonl", "xlsx", "parquet"])
async def test_a_caller_who_leaves_stops_the_calls(
    make_gateway: GatewayFactory,
    simulator: Simulator,
    device: str,
    file_format: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gateway = make_gateway()
    async with serve(gateway.app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        path = f"{DEVICES}/{device}/telemetry?format={file_format}"
        writer.write(request_head(path))
        if file_format in FILES:
            await until(lambda: simulator.calls[VALUES] >= 2)
        else:
            await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        await until(lambda: not serving_tasks())
        calls = simulator.calls[VALUES]
        assert calls < POINTS // 10_000
        await gateway.get(f"{DEVICES}/{device}/keys")
        assert simulator.calls[VALUES] == calls
    assert is_empty(tmp_path)


async def received_before_the_cut(client: httpx.AsyncClient, path: str) -> bytes:
    """Return what of a broken stream arrived."""
    received = []
    async with client.stream("GET", path) as answer:
        pieces = answer.aiter_bytes()
        with contextlib.suppress(httpx.RemoteProtocolError):
            while True:
                received.append(await anext(pieces))
    return b"".join(received)


@pytest.mark.parametrize("layout", ["csv", "csv&layout=wide", "jsonl"])
@pytest.mark.parametrize("torn", [0, 9], ids=["between lines", "within a line"])
async def test_a_broken_export_goes_on_where_it_stopped(
    make_gateway: GatewayFactory, simulator: Simulator, layout: str, torn: int
) -> None:
    """Complete lines, then `cursor`: the same bytes as of one export that did not break."""
    device = device_id(simulator)
    for key, step in (("b", 1), ("a", 1), ("c", 3)):
        load(simulator, device, key, [(START + n, n) for n in range(0, 20_000, step)])
    path = f"{DEVICES}/{device}/telemetry/export?keys=b,a,c&format={layout}"
    gateway = make_gateway()
    whole = (await gateway.get(path)).content
    for first_failure in (2, 3, 4):
        breaking = make_gateway()
        fail_history_from(breaking, page=first_failure)
        async with (
            serve(breaking.app) as url,
            httpx.AsyncClient(base_url=url, headers=KEY_HEADER) as client,
        ):
            received = await received_before_the_cut(client, path)
        kept = received[: received.rindex(b"\n", 0, len(received) - torn) + 1]
        assert 100 < len(kept) < len(whole)
        last = kept.splitlines()[-1]
        if layout == "jsonl":
            row = json.loads(last)
            cursor = f"{row['ts']},{row['key']}"
        else:
            cursor = ",".join(last.decode().split(",")[: 1 if "wide" in layout else 2])
        rest = await gateway.get(f"{path}&cursor={cursor}")
        assert kept + rest.content == whole


async def drain(pieces: AsyncIterator[bytes]) -> None:
    async for _ in pieces:
        pass


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


async def until(is_true: Callable[[], bool]) -> None:
    """Let the loop run until something is true."""
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110 - what is waited for happens in other people's code
            await asyncio.sleep(0)


def serving_tasks() -> set[asyncio.Task[object]]:
    """Return the tasks that still serve a request."""
    return {task for task in asyncio.all_tasks() if "run_asgi" in repr(task.get_coro())}


async def test_a_slow_reader_holds_the_producer_back(
    make_gateway: GatewayFactory, simulator: Simulator, device: str
) -> None:
    """What a reader does not take is not fetched: memory stays flat however long the history is."""
    gateway = make_gateway()
    async with serve(gateway.app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]), limit=1024)
        writer.write(request_head(f"{DEVICES}/{device}/telemetry"))
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(300):
            await gateway.get("/health/live")
        calls = simulator.calls[VALUES]
        assert calls < POINTS // 10_000
        for _ in range(100):
            await gateway.get("/health/live")
        assert simulator.calls[VALUES] == calls
        writer.transport.abort()


async def test_a_whole_history_ends_properly(make_gateway: GatewayFactory, device: str) -> None:
    gateway = make_gateway()
    async with serve(gateway.app) as url, httpx.AsyncClient(base_url=url, headers=KEY_HEADER) as client:
        for file_format in ("json", "csv", "jsonl"):
            answer = await client.get(f"{DEVICES}/{device}/telemetry?format={file_format}")
            assert answer.content.count(b"17600") >= POINTS
