"""`python -m app serve` as a process, in front of the simulator."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from tb_simulator.server import Simulator
from tests.no_secrets import leaks_in
from tests.redis_server import free_port, running_redis

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "a-key-for-the-served-gateway-0001"
PATIENCE = 30


class Process:
    """A running command, its log lines as they come: a pipe that nobody reads would stop it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._has_more = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            await self._note(line.decode())
        await self._note("")

    async def _note(self, line: str) -> None:
        async with self._has_more:
            self.lines.append(line)
            self._has_more.notify_all()

    async def read_until(self, text: str, times: int = 1) -> str:
        """Return the line that is the first, or the second and so on, to hold this text."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        async with asyncio.timeout(PATIENCE), self._has_more:
            await self._has_more.wait_for(lambda: len(found()) >= times or self._has_ended())
            assert len(found()) >= times, self.said()
        return found()[times - 1]

    async def end(self) -> int:
        """Read the rest and return the exit code."""
        async with asyncio.timeout(PATIENCE):
            await self._reading
            return await self.process.wait()

    def said(self) -> str:
        return "".join(self.lines)

    def _has_ended(self) -> bool:
        return bool(self.lines) and not self.lines[-1]


Run = Callable[..., Awaitable[Process]]


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
