"""Gateways in processes of their own, with one real Redis: they admit together what one would."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.processes import PATIENCE
from tests.redis_server import RedisServer, running_redis
from tests.replicas import replicas, running

KEY = "a-key-for-the-shared-limits-0001"
WHOAMI = "/api/v1/tb/whoami"
PROCESSES = 4


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with running_redis() as server:
        yield server


@pytest.fixture
async def gateways(simulator: Simulator, redis: RedisServer) -> AsyncIterator[list[httpx.AsyncClient]]:
    processes = replicas(PROCESSES, simulator, redis, API_KEY=KEY, RATE_LIMIT="50/hour;200/day")
    async with running(processes):
        clients = [
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{process.port}",
                headers={"X-API-Key": KEY},
                timeout=PATIENCE,
                trust_env=False,
                # Each is used at once: one that is silent for 10 s is closed, and with a hundred of them a
                # busy machine may take that long from connecting to sending.
                limits=httpx.Limits(max_connections=25),
            )
            for process in processes
        ]
        yield clients
        for client in clients:
            await client.aclose()


def crowd(gateways: list[httpx.AsyncClient], address: str, size: int) -> list[asyncio.Task[httpx.Response]]:
    """Let this many callers of one address come at once, spread over all processes."""
    return [
        asyncio.create_task(gateways[number % PROCESSES].get(WHOAMI, headers={"X-Forwarded-For": address}))
        for number in range(size)
    ]


async def statuses(callers: list[asyncio.Task[httpx.Response]]) -> Counter[int]:
    return Counter(answer.status_code for answer in await asyncio.gather(*callers))


async def all_are(gateways: list[httpx.AsyncClient], state: str) -> None:
    async with asyncio.timeout(PATIENCE):
        for gateway in gateways:
            while True:
                ready = (await gateway.get("/health/ready")).json()
                if ready["checks"]["redis"]["status"] == state:
                    break


async def test_four_processes_share_a_limit_through_the_loss_of_redis(
    gateways: list[httpx.AsyncClient], redis: RedisServer
) -> None:
    assert await statuses(crowd(gateways, "192.0.2.1", 200)) == {200: 50, 429: 150}

    # Lost in the middle of a crowd: nobody gets an error, and each process admits no more than all may.
    callers = crowd(gateways, "192.0.2.2", 400)
    await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)
    redis.kill()
    met = await statuses(callers)
    assert met.keys() <= {200, 429}
    assert 50 <= met[200] <= PROCESSES * 50
    await all_are(gateways, "down")
    assert await statuses(crowd(gateways, "192.0.2.3", 400)) == {200: PROCESSES * 50, 429: 200}

    await redis.start()
    await all_are(gateways, "up")
    assert await statuses(crowd(gateways, "192.0.2.4", 200)) == {200: 50, 429: 150}
