"""A device on ThingsBoard's HTTP API for devices, and a ThingsBoard whose seconds are short."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator
from tb_simulator.world import Settings

BASE = "/api/v1/tb"
UNKNOWN = "00000000-0000-0000-0000-000000000007"
#: Time of ThingsBoard's, in ms, that no test waits out.
LONG = 100_000_000


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """ThingsBoard's 5 s are 0.05 s here. Devices become active at once when they speak."""
    async with Simulator(Settings(time_scale=0.01, active_lag_seconds=0.0)) as running:
        yield running


class HttpDevice:
    """A device that polls for commands."""

    def __init__(self, simulator: Simulator, name: str) -> None:
        self.simulator, self.name = simulator, name
        self.id = next(e.id for e in simulator.world.every("DEVICE") if e.name == name)
        token = simulator.world.credentials[self.id]["credentialsId"]
        self.path = f"{BASE}/devices/{self.id}"
        self._client = httpx.AsyncClient(base_url=f"{simulator.url}/api/v1/{token}", timeout=None)

    async def take(self, timeout_ms: int = LONG) -> dict[str, Any] | None:
        """Poll for a command; None: there was none in time."""
        answer = await self._client.get("/rpc", params={"timeout": timeout_ms})
        if answer.status_code == 408:
            return None
        message: dict[str, Any] = answer.json()
        return message

    async def answer(self, message: dict[str, Any], reply: bytes) -> None:
        assert (await self._client.post(f"/rpc/{message['id']}", content=reply)).status_code == 200

    async def obey(self, reply: bytes) -> dict[str, Any]:
        """Take one command, answer it and return it."""
        message = await self.take()
        assert message is not None
        await self.answer(message, reply)
        return message

    async def post(self, telemetry: Any) -> None:
        assert (await self._client.post("/telemetry", json=telemetry)).status_code == 200

    def is_polling(self) -> bool:
        return bool(self.simulator.world.rpcs._line(self.id).polls)

    async def polling(self) -> "asyncio.Task[dict[str, Any] | None]":
        """Begin to poll and return when ThingsBoard knows."""
        poll = asyncio.create_task(self.take())
        while not self.is_polling():  # noqa: ASYNC110 - turns of the loop, not a wait
            await asyncio.sleep(0)
        return poll

    async def aclose(self) -> None:
        await self._client.aclose()


@pytest.fixture
async def device(simulator: Simulator) -> AsyncIterator[HttpDevice]:
    """A device of Customer A."""
    found = HttpDevice(simulator, "Test Device A1")
    yield found
    await found.aclose()


@pytest.fixture
async def foreign(simulator: Simulator) -> AsyncIterator[HttpDevice]:
    """A device of Customer B, in the same tenant."""
    found = HttpDevice(simulator, "Test Device B1")
    yield found
    await found.aclose()
