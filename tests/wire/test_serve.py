"""`python -m app serve` as a process: what it tells, how it serves and how it ends."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli import SHUTDOWN_SECONDS
from app.settings import Settings
from tb_simulator.server import Simulator
from tests.no_secrets import leaks_in

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "a-key-for-the-served-gateway-0001"
PATIENCE = 30


@dataclass
class Process:
    """A running command, its log lines as they come."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def read_until(self, text: str) -> str:
        """Read on until a line holds this text, and return that line."""
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE):
            while True:
                line = (await self.process.stdout.readline()).decode()
                assert line, "".join(self.lines)
                self.lines.append(line)
                if text in line:
                    return line

    async def end(self) -> int:
        """Read the rest and return the exit code."""
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE):
            self.lines.append((await self.process.stdout.read()).decode())
            return await self.process.wait()

    def said(self) -> str:
        return "".join(self.lines)


Run = Callable[..., Awaitable[Process]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
async def run(simulator: Simulator, tmp_path: Path) -> AsyncIterator[Run]:
    """Run a command in front of the simulator, from a directory without `.env`."""
    started: list[Process] = []
    ours = {name.upper() for name in Settings.model_fields}

    async def start(*command: str, **variables: Any) -> Process:
        inherited = {name: value for name, value in os.environ.items() if name not in ours}
        values = {
            "TB_HOST": simulator.url,
            "TB_USERNAME": "tenant@thingsboard.org",
            "TB_PASSWORD": "tenant",
            "API_KEY": KEY,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            cwd=tmp_path,
            env=inherited | values | {name: str(value) for name, value in variables.items()},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(Process(process))
        return started[-1]

    yield start
    for command in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.process.pid, signal.SIGKILL)
        await command.end()
        # Its output is a pipe of ours: nobody else reads it along.
        assert leaks_in(command.said()) == []


@dataclass
class Served:
    """A gateway that answers."""

    process: Process
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def exchange(self, request: bytes) -> bytes:
        """Send these bytes and return what comes until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


async def accepts(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


@pytest.fixture
async def serve(run: Run) -> Callable[..., Awaitable[Served]]:
    """Start the gateway and wait until it listens."""

    async def start(**variables: Any) -> Served:
        port = free_port()
        process = await run("-m", "app", "serve", PORT=port, **variables)
        await process.read_until("Uvicorn running on")
        async with asyncio.timeout(PATIENCE):
            # With workers the socket is bound by the first process and listened on by the others.
            while not await accepts(port):  # noqa: ASYNC110 - another process has no event for us
                await asyncio.sleep(0.02)
        return Served(process, port)

    return start


Serve = Callable[..., Awaitable[Served]]


async def test_it_says_where_it_listens_and_serves(serve: Serve) -> None:
    gateway = await serve()
    started = next(json.loads(line) for line in gateway.process.lines if "gateway_starting" in line)
    assert (started["address"], started["workers"]) == (gateway.url, 1)
    async with httpx.AsyncClient(base_url=gateway.url, headers={"X-API-Key": KEY}) as client:
        answer = await client.get("/api/v1/tb/devices?page_size=1")
    assert answer.status_code == 200
    assert "server" not in answer.headers
    assert "date" in answer.headers


async def test_the_connection_rules_hold_in_production(serve: Serve) -> None:
    gateway = await serve()
    answer = await gateway.exchange(b"GET /health HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    content = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert content["error_code"] == "VALIDATION_ERROR"
    refusal = json.loads(await gateway.process.read_until("request_refused"))
    assert refusal["request_id"] == content["request_id"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_running_requests_end(serve: Serve, simulator: Simulator, number: int) -> None:
    gateway = await serve()
    simulator.faults.latency(0.5, path="/api/tenant/deviceInfos", count=1)
    struck = simulator.faults.struck
    async with httpx.AsyncClient(base_url=gateway.url, headers={"X-API-Key": KEY}) as client:
        answer = asyncio.create_task(client.get("/api/v1/tb/devices"))
        async with asyncio.timeout(PATIENCE):
            while not struck["latency"]:  # noqa: ASYNC110 - the simulator has no event for it
                await asyncio.sleep(0)
        gateway.process.process.send_signal(number)
        assert (await answer).status_code == 200
        assert (await answer).headers["connection"] == "close"
    assert await gateway.process.end() in {0, -number}


async def test_a_busy_port_ends_the_start(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        process = await run("-m", "app", "serve", PORT=busy.getsockname()[1])
        assert await process.end() not in {0, 2}
    assert "address already in use" in process.said()
    assert "Traceback" not in process.said()


async def test_a_fault_of_the_configuration_exits_with_2(run: Run) -> None:
    process = await run("-m", "app", "serve", PORT="http", WORKERS=2)
    assert await process.end() == 2
    assert "❌ PORT: " in process.said()
    assert "Traceback" not in process.said()


async def test_the_health_check_tells_whether_it_answers(serve: Serve, run: Run) -> None:
    gateway = await serve(ALLOWED_HOSTS="api.example.com")
    assert await (await run("-m", "app.healthcheck", PORT=gateway.port, HOST="0.0.0.0")).end() == 0
    gateway.process.process.terminate()
    await gateway.process.end()
    assert await (await run("-m", "app.healthcheck", PORT=gateway.port)).end() == 1


@pytest.fixture
async def redis_url() -> AsyncIterator[str]:
    """A Redis of our own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", stdout=asyncio.subprocess.PIPE
    )
    await Process(server).read_until("Ready to accept connections")
    yield f"redis://127.0.0.1:{port}"
    server.kill()
    await server.wait()


async def count_keys(url: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"DBSIZE\r\n")
    answer = await reader.readline()
    writer.close()
    return int(answer.removeprefix(b":"))


async def test_two_workers_share_the_port_the_rules_and_the_limits(serve: Serve, redis_url: str) -> None:
    gateway = await serve(WORKERS=2, REDIS_URL=redis_url, RATE_LIMIT_REQUESTS=5)
    answer = await gateway.exchange(b"GET /health HTTP/1.1\r\n\r\n")
    assert b'"error_code":"VALIDATION_ERROR"' in answer
    request = (
        f"GET /api/v1/tb/whoami HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nConnection: close\r\n\r\n".encode()
    )
    statuses = {int((await gateway.exchange(request)).split()[1]) for _ in range(12)}
    # How many are admitted is tested elsewhere: on a busy machine a worker may count locally for a while.
    assert statuses == {200, 429}
    async with asyncio.timeout(60):
        while not await count_keys(redis_url):
            await gateway.exchange(request)
    gateway.process.process.terminate()
    assert await gateway.process.end() == 0


def test_draining_ends_before_a_supervisor_loses_patience() -> None:
    """Docker's and Kubernetes' documented grace here is 30 s."""
    assert SHUTDOWN_SECONDS < 30


@pytest.mark.parametrize("debug", ["true", "false"])
async def test_a_websocket_leaves_neither_key_nor_path_in_the_log(serve: Serve, debug: str) -> None:
    """uvicorn tells of each with path and query, and at DEBUG with all headers."""
    gateway = await serve(DEBUG=debug)
    upgrade = (
        "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    for key in (KEY, "nobodys-key-0123456789"):
        head = f"GET /api/v1/tb/a-secret-name?api_key={key} HTTP/1.1\r\n{upgrade}X-API-Key: {key}\r\n\r\n"
        answer = await gateway.exchange(head.encode())
        assert answer.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 403 ", b"HTTP/1.1 404 "))
    # An unknown key is refused in the one shape.
    assert b"AUTHENTICATION_FAILED" in answer
    assert b"x-request-id: " in answer
    gateway.process.process.send_signal(signal.SIGTERM)
    await gateway.process.end()
    said = gateway.process.said()
    assert "unknown_key" in said
    for secret in (KEY, "nobodys-key", "a-secret-name", "api_key"):
        assert secret not in said
