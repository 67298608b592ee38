"""End to end: a served gateway in front of the simulator, or of the ThingsBoard named by TB_LIVE_*."""

import os
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.factory import create_app
from app.settings import Settings
from tb_simulator.server import Simulator
from tests.conftest import API_KEY, CUSTOMER, TENANT
from tests.documented import check_answer
from tests.serving import serve

BASE = "/api/v1/tb"
LIVE = {name: os.environ.get(f"TB_LIVE_{name}") for name in ("URL", "USERNAME", "PASSWORD")}


def pytest_report_header() -> str:
    if LIVE["URL"]:
        return "end-to-end upstream: the ThingsBoard named by TB_LIVE_URL"
    return "end-to-end upstream: simulator (TB_LIVE_URL, TB_LIVE_USERNAME, TB_LIVE_PASSWORD name a real one)"


@dataclass(frozen=True)
class Upstream:
    """Where ThingsBoard is and who may log in."""

    url: str
    tenant: tuple[str, str]
    customer: tuple[str, str]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    customer = (
        os.environ.get("TB_LIVE_CUSTOMER_USERNAME", CUSTOMER[0]),
        os.environ.get("TB_LIVE_CUSTOMER_PASSWORD", CUSTOMER[1]),
    )
    if LIVE["URL"]:
        tenant = (LIVE["USERNAME"] or TENANT[0], LIVE["PASSWORD"] or TENANT[1])
        yield Upstream(LIVE["URL"], tenant, customer)
        return
    async with Simulator() as simulator:
        yield Upstream(simulator.url, TENANT, CUSTOMER)


GatewayMaker = Callable[[tuple[str, str]], Any]


@pytest.fixture
async def served(upstream: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway with the tenant administrator's login."""
    async for client in serve_as(upstream, upstream.tenant):
        yield client


@pytest.fixture
async def served_customer(upstream: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway with a customer user's login."""
    async for client in serve_as(upstream, upstream.customer):
        yield client


async def serve_as(upstream: Upstream, login: tuple[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        _env_file=None,
        tb_host=upstream.url,
        tb_username=login[0],
        tb_password=login[1],
        api_key=API_KEY,
        rate_limit_requests=1_000_000,
    )
    async with (
        serve(create_app(settings)) as url,
        httpx.AsyncClient(
            base_url=url + BASE,
            headers={"X-API-Key": API_KEY},
            timeout=60,
            event_hooks={"response": [check_answer]},
        ) as client,
    ):
        yield client


@dataclass(frozen=True)
class Made:
    """An entity that a test made and that goes with it."""

    id: str
    name: str


@pytest.fixture
async def make(served: httpx.AsyncClient) -> AsyncIterator[Callable[..., Any]]:
    """Make devices and assets with names of their own; all are deleted at the end."""
    made: list[tuple[str, str]] = []

    async def one(plural: str = "devices", **fields: Any) -> Made:
        name = f"e2e-{uuid.uuid4().hex[:12]}"
        answer = await served.post(f"/{plural}", json={"name": name, **fields})
        assert answer.status_code == 201, answer.text
        entity = answer.json()["data"]
        made.append((plural, entity["id"]["id"]))
        return Made(entity["id"]["id"], entity["name"])

    yield one
    for plural, entity_id in reversed(made):
        await served.delete(f"/{plural}/{entity_id}")
