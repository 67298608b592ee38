"""Gateways in processes of their own, with one real Redis: they admit together what one would."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tb_simulator.server import Simulator
from tests.redis_server import RedisServer, free_port, running_redis

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "a-key-for-the-shared-limits-0001"
WHOAMI = "/api/v1/tb/whoami"
PROCESSES = 4
PATIENCE = 60
#: A machine busy with other tests may be silent longer than callers should ever wait.
SERVE = """
import sys
from app import redis_counters
from app.cli import main
redis_counters.SILENCE_SECONDS = 10.0
redis_counters.RETRY_SECONDS = 0.1
sys.exit(main(["serve"]))
"""


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with running_redis() as server:
        yield server


async def started(port: int, simulator: Simulator, redis: RedisServer) -> asyncio.subprocess.Process:
    ours = {name.upper() for name in Settings.model_fields}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVE,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ours}
        | {
            "TB_HOST": simulator.url,
            "TB_USERNAME": "tenant@thingsboard.org",
            "TB_PASSWORD": "tenant",
            "API_KEY": KEY,
            "PORT": str(port),
            "REDIS_URL": redis.url,
            "RATE_LIMIT": "50/hour;200/day",
            "TRUSTED_PROXIES": "127.0.0.1",
            "PYTHONUNBUFFERED": "1",
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout
    async with asyncio.timeout(PATIENCE):
        while b"Uvicorn running on" not in (line := await process.stdout.readline()):
            assert line, "the gateway has not started"
    return process


@pytest.fixture
async def gateways(simulator: Simulator, redis: RedisServer) -> AsyncIterator[list[httpx.AsyncClient]]:
    ports = [free_port() for _ in range(PROCESSES)]
    processes = await asyncio.gather(*(started(port, simulator, redis) for port in ports))
    # Their log lines must not fill the pipes.
    reading = [asyncio.create_task(process.stdout.read()) for process in processes if process.stdout]
    clients = [
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": KEY}, timeout=PATIENCE, trust_env=False
        )
        for port in ports
    ]
    yield clients
    for client in clients:
        await client.aclose()
    for process in processes:
        process.kill()
        await process.wait()
    await asyncio.gather(*reading)


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
