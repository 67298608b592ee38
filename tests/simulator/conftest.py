"""A simulator and clients logged in to it."""

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from tb_simulator.server import Simulator
from tb_simulator.world import Settings

LogIn = Callable[[str, str], Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    settings = Settings(time_scale=0.002, active_lag_seconds=0.0)
    async with Simulator(settings) as running:
        yield running


@pytest.fixture
async def log_in(simulator: Simulator) -> AsyncIterator[LogIn]:
    clients: list[httpx.AsyncClient] = []

    async def log_in(user: str, password: str) -> httpx.AsyncClient:
        client = httpx.AsyncClient(base_url=simulator.url)
        clients.append(client)
        login = {"username": f"{user}@thingsboard.org", "password": password}
        tokens = (await client.post("/api/auth/login", json=login)).json()
        client.headers["X-Authorization"] = f"Bearer {tokens['token']}"
        client.headers["X-Refresh"] = tokens["refreshToken"]
        return client

    yield log_in
    for client in clients:
        await client.aclose()


@pytest.fixture
async def tenant(log_in: LogIn) -> httpx.AsyncClient:
    return await log_in("tenant", "tenant")


@pytest.fixture
async def customer(log_in: LogIn) -> httpx.AsyncClient:
    return await log_in("customer", "customer")


@pytest.fixture
def device_id(simulator: Simulator) -> str:
    """Return the id of a device that belongs to no customer."""
    world = simulator.world
    tenant_id = next(world.every("TENANT")).id
    device = world.find_by_name("DEVICE", tenant_id, "DHT11 Demo Device")
    assert device is not None
    return device.id


@pytest.fixture
def foreign_id(simulator: Simulator) -> str:
    """Return the id of another tenant's device."""
    return next(e.id for e in simulator.world.every("DEVICE") if e.name == "Second Tenant Device")
