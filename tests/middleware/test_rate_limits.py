"""How often a caller may come."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from app import redis_counters
from tests.conftest import GatewayFactory
from tests.redis_server import RedisServer, running_redis

WHOAMI = "/api/v1/tb/whoami"


async def test_exactly_so_many_of_a_crowd_pass(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(rate_limit_requests=20)
    answers = await asyncio.gather(*(gateway.get(WHOAMI) for _ in range(70)))
    assert sorted(answer.status_code for answer in answers) == [200] * 20 + [429] * 50


async def test_the_headers_tell_where_a_caller_stands(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(rate_limit_requests=2, rate_limit_window=30)
    first, second, third = [await gateway.get(WHOAMI) for _ in range(3)]
    assert [answer.headers["x-ratelimit-remaining"] for answer in (first, second, third)] == ["1", "0", "0"]
    assert first.headers["x-ratelimit-limit"] == "2"
    assert first.headers["ratelimit-policy"] == '"default";q=2;w=30'
    assert first.headers["ratelimit"].startswith('"default";r=1;t=')
    assert third.status_code == 429
    assert 1 <= int(third.headers["retry-after"]) <= 30
    assert third.json()["details"]["limited_by"] == "gateway"


async def test_addresses_are_counted_apart(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(rate_limit_requests=1)
    other = make_gateway(rate_limit_requests=1, peer="192.0.2.9")
    other._transport = httpx.ASGITransport(app=gateway.app, client=("192.0.2.9", 1))
    assert [(await gateway.get(WHOAMI)).status_code for _ in range(2)] == [200, 429]
    assert (await other.get(WHOAMI)).status_code == 200


async def test_a_spoofed_forwarding_header_changes_nothing(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(rate_limit_requests=3)
    answers = [
        await gateway.get(WHOAMI, headers={"X-Forwarded-For": f"198.51.100.{number}"}) for number in range(5)
    ]
    assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2


async def test_a_trusted_proxy_is_believed_about_its_own_hop_only(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(rate_limit_requests=2, trusted_proxies="127.0.0.1,10.0.0.0/8", peer="127.0.0.1")

    async def status(forwarded: str) -> int:
        return (await gateway.get(WHOAMI, headers={"X-Forwarded-For": forwarded})).status_code

    # The caller 203.0.113.5 invents what stands left of it; the proxies append the truth.
    assert [await status(f"198.51.100.{n}, 203.0.113.5, 10.1.1.1") for n in range(3)] == [200, 200, 429]
    assert await status("203.0.113.6") == 200


async def test_public_paths_are_not_counted(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(rate_limit_requests=1)
    answers = [await gateway.get("/health") for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    assert "x-ratelimit-limit" not in answers[0].headers


async def test_ipv6_neighbours_share_a_limit(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(rate_limit_requests=1, peer="2001:db8::1")
    assert (await gateway.get(WHOAMI)).status_code == 200
    gateway._transport = httpx.ASGITransport(app=gateway.app, client=("2001:db8::2", 1))
    assert (await gateway.get(WHOAMI)).status_code == 429


@pytest.fixture
async def redis_server() -> AsyncIterator[RedisServer]:
    async with running_redis() as server:
        yield server


async def test_two_gateways_share_a_limit_through_redis(
    make_gateway: GatewayFactory,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A machine busy with other tests may take longer than callers should ever wait.
    monkeypatch.setattr(redis_counters, "SILENCE_SECONDS", 10.0)
    gateways = [make_gateway(rate_limit_requests=20, redis_url=redis_server.url) for _ in range(2)]
    answers = await asyncio.gather(*(gateways[n % 2].get(WHOAMI) for n in range(70)))
    assert sorted(answer.status_code for answer in answers) == [200] * 20 + [429] * 50
    ready = (await gateways[0].get("/health/ready")).json()
    assert ready["checks"]["redis"] == {"status": "up"}


async def test_a_lost_redis_costs_no_caller_an_error(
    make_gateway: GatewayFactory,
    redis_server: RedisServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gateway = make_gateway(rate_limit_requests=5, redis_url=redis_server.url)
    assert (await gateway.get(WHOAMI)).status_code == 200
    redis_server.kill()
    answers = [await gateway.get(WHOAMI) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 3  # Counting goes on.
    assert capsys.readouterr().out.count("redis_unavailable") == 1
    ready = (await gateway.get("/health/ready")).json()
    assert ready["checks"]["redis"]["status"] == "down"
