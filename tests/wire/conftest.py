"""`python -m app serve` as a process, in front of the simulator."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import free_port
from tb_simulator.server import Simulator
from tests.no_secrets import leaks_in
from tests.processes import Process, environment
from tests.redis_server import running_redis

KEY = "a-key-for-the-served-gateway-0001"

Run = Callable[..., Awaitable[Process]]


@pytest.fixture
async def run(simulator: Simulator, tmp_path: Path) -> AsyncIterator[Run]:
    """Run a command in front of the simulator, from a directory without `.env`."""
    started: list[Process] = []

    async def start(*command: str, **variables: Any) -> Process:
        values = environment(
            **{
                "TB_HOST": simulator.url,
                "TB_USERNAME": "tenant@thingsboard.org",
                "TB_PASSWORD": "tenant",
                "API_KEY": KEY,
                **variables,
            }
        )
        started.append(await Process.start(sys.executable, *command, folder=tmp_path, environment=values))
        return started[-1]

    yield start
    for command in started:
        await command.kill()
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


@pytest.fixture
async def serve(run: Run) -> Callable[..., Awaitable[Served]]:
    """Start the gateway and wait until it listens."""

    async def start(**variables: Any) -> Served:
        port = free_port()
        process = await run("-m", "app", "serve", PORT=port, **variables)
        await process.read_until("gateway_ready")
        return Served(process, port)

    return start


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def redis_url() -> AsyncIterator[str]:
    """A Redis of our own."""
    async with running_redis() as server:
        yield server.url
