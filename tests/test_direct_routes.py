"""The direct way into a route does what FastAPI's own way does: same ThingsBoard calls, same answers."""

import asyncio
import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRouter
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.direct import RouteIndex
from app.api.route import GatewayRoute, requires
from app.api.v1 import ROUTERS
from app.factory import create_app
from app.settings import Settings
from app.thingsboard.transport import Answer

KEY = "a-key-with-all-the-scopes"
SETTINGS = Settings(
    _env_file=None,
    tb_host="http://localhost",
    tb_api_key="tb_not_sent",
    api_key=KEY,
    rate_limit_requests=1_000_000,
)
DEVICE = "784f394c-42b6-435a-983c-b7beff2784f9"
#: The routes most requests are for. They must not fall back unnoticed.
HOT = {
    ("GET", "/api/v1/tb/devices"),
    ("GET", "/api/v1/tb/devices/{device_id}"),
    ("GET", "/api/v1/tb/devices/{device_id}/telemetry/latest"),
    ("GET", "/api/v1/tb/devices/{device_id}/attributes"),
    ("POST", "/api/v1/tb/devices/{device_id}/telemetry"),
    ("POST", "/api/v1/tb/telemetry/bulk"),
}
ROUTES = [
    (method, route)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, GatewayRoute)
    for method in route.methods or ()
]
VALUES = st.one_of(
    st.sampled_from(
        ["", "0", "1", "-1", "1e3", "true", "ASC", "asc", "DEVICE", "temperature,humidity", "2026-01-01"]
    ),
    st.integers(-5, 2**33).map(str),
    st.text(max_size=8),
)


class Recorded:
    """A transport that notes each call; the account is known, and everything else is an empty page."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bytes | None]] = []

    async def send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_seconds: float,
    ) -> Answer:
        self.calls.append((method, target, body))
        if target == "/api/auth/user":
            return Answer(200, "application/json", b'{"authority":"TENANT_ADMIN","tenantId":{"id":"t"}}')
        page = {"data": [], "totalPages": 0, "totalElements": 0, "hasNext": False}
        return Answer(200, "application/json", orjson.dumps(page))

    async def aclose(self) -> None:
        """Nothing is open."""


def no_route(index: RouteIndex, scope: Mapping[str, Any]) -> None:
    """What the index says when nothing is direct."""


@cache
def gateway(*, direct: bool) -> tuple[FastAPI, Recorded]:
    """Make both once: they see the same requests in the same order."""
    transport = Recorded()
    with pytest.MonkeyPatch.context() as patch:
        if not direct:
            patch.setattr(RouteIndex, "find", no_route)
        return create_app(SETTINGS, transport=transport), transport


def answer(method: str, target: str, body: bytes | None, *, direct: bool) -> tuple[Any, ...]:
    """Send one request; return what left the gateway on either side."""
    app, transport = gateway(direct=direct)
    transport.calls.clear()

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app, raise_app_exceptions=False),
            base_url="http://gateway",
            headers={"X-API-Key": KEY, "X-Request-ID": "the-same-in-both"},
        ) as client:
            return await client.request(method, target, content=body)

    response = asyncio.run(send())
    headers = {name: value for name, value in response.headers.items() if name != "x-ratelimit-reset"}
    # Seconds left in the window of each gateway, which did not begin at the same moment.
    headers["ratelimit"] = re.sub(r";t=\d+", "", headers.get("ratelimit", ""))
    if "server-timing" in headers:
        headers["server-timing"] = re.sub(r"[\d.]+", "", headers["server-timing"])
    content = re.sub(rb'"timestamp":\d+', b"", response.content)
    # The end of a range is now.
    calls = [(name, re.sub(r"endTs=\d+", "", path), body) for name, path, body in transport.calls]
    return response.status_code, headers, content, calls


@settings(deadline=None)
@given(data=st.data(), choice=st.sampled_from(ROUTES))
def test_both_ways_do_the_same(data: st.DataObject, choice: tuple[str, GatewayRoute]) -> None:
    method, route = choice
    path = route.path
    for name in route.param_convertors:
        value = data.draw(
            st.sampled_from([DEVICE, "name:Boiler", "nonsense", "server", "telemetry"]), label=name
        )
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    names = st.sampled_from([*sorted(route.query_names), "nonsense"])
    # Mostly few: each further one is likelier to be refused before anything else is looked at.
    pairs = data.draw(st.lists(st.tuples(names, VALUES), max_size=3), label="query")
    query = "&".join(f"{quote(name)}={quote(value, errors='replace')}" for name, value in pairs)
    body = data.draw(st.sampled_from([None, b"", b"{}", b"[", b'{"temperature":21.5}']), label="body")
    target = f"{path}?{query}" if query else path
    assert answer(method, target, body, direct=True) == answer(method, target, body, direct=False)


@pytest.mark.parametrize(
    "query", ["", "page=0", "page=", "page=x", "page_size=0", "page=1&page=2", "active=yes", "=&="]
)
def test_a_list_is_the_same_both_ways(query: str) -> None:
    target = f"/api/v1/tb/devices?{query}"
    assert answer("GET", target, None, direct=True) == answer("GET", target, None, direct=False)


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "HEAD"])
@pytest.mark.parametrize("path", ["/api/v1/tb/devices", f"/api/v1/tb/devices/{DEVICE}", "/api/v1/tb/nothing"])
def test_what_is_no_route_is_refused_the_same(method: str, path: str) -> None:
    assert answer(method, path, None, direct=True) == answer(method, path, None, direct=False)


def test_the_hot_routes_are_direct() -> None:
    index = RouteIndex()
    for router in ROUTERS:
        index.fill(router.routes)
    direct = set()
    for method, route in ROUTES:
        found = index.find({"method": method, "path": re.sub(r"\{\w+\}", DEVICE, route.path)})
        if found is not None and found.route is route:
            direct.add((method, route.path))
    assert direct >= HOT


def test_the_first_of_two_matching_routes_answers() -> None:
    router = APIRouter(route_class=GatewayRoute)

    async def endpoint() -> None:
        """Never called."""

    for path in ("/one/{id}", "/one/two", "/three/four", "/three/{id}"):
        router.add_api_route(path, endpoint, openapi_extra=requires())
    index = RouteIndex()
    index.fill(router.routes)
    found = [
        index.find({"method": "GET", "path": path}) for path in ("/one/two", "/three/four", "/three/five")
    ]
    assert [each and each.route.path for each in found] == ["/one/{id}", "/three/four", "/three/{id}"]
