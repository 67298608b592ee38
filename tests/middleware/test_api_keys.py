"""Who may come in, and as whom."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.api.ops import PUBLIC_PATHS
from tests.conftest import API_KEY, GatewayFactory

DEVICES = "/api/v1/tb/devices"
READER, WRITER = "reader-key-0123456789", "writer-key-0123456789"
KeysFile = Callable[..., Path]


@pytest.fixture
def keyed(make_gateway: GatewayFactory, keys_file: KeysFile) -> httpx.AsyncClient:
    path = keys_file(reader=(READER, ["devices:read"]), writer=(WRITER, ["devices:write", "telemetry:write"]))
    client: httpx.AsyncClient = make_gateway(key=None, api_key=None, api_keys_file=path)
    return client


async def test_a_key_does_what_its_scopes_say_and_no_more(keyed: httpx.AsyncClient) -> None:
    assert (await keyed.get(DEVICES, headers={"X-API-Key": READER})).status_code == 200
    refused = await keyed.post(DEVICES, json={"name": "x"}, headers={"X-API-Key": READER})
    assert refused.status_code == 403
    assert refused.json()["error_code"] == "AUTHORIZATION_FAILED"
    assert refused.json()["details"]["missing_scopes"] == ["devices:write"]
    assert (await keyed.get(DEVICES, headers={"X-API-Key": WRITER})).status_code == 403


async def test_whoami_names_the_key_and_its_scopes(keyed: httpx.AsyncClient) -> None:
    body = (await keyed.get("/api/v1/tb/whoami", headers={"X-API-Key": WRITER})).json()
    assert (body["name"], body["id"]) == ("writer", "writer")
    assert body["scopes"] == ["devices:write", "telemetry:write"]
    assert body["limits"]["limit"] == 1_000_000
    assert WRITER not in str(body)


async def test_two_keys_in_one_request_are_refused(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.get(DEVICES, headers=[("X-API-Key", API_KEY), ("X-API-Key", API_KEY)])
    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == "X-API-Key"


async def test_a_key_in_the_url_does_not_count(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(key=None)
    for query in (f"api_key={API_KEY}", f"X-API-Key={API_KEY}"):
        assert (await gateway.get(f"{DEVICES}?{query}")).status_code == 401


async def test_authorization_is_ignored(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(key=None)
    assert (await gateway.get(DEVICES, headers={"Authorization": f"Bearer {API_KEY}"})).status_code == 401


@pytest.mark.parametrize("path", sorted(PUBLIC_PATHS))
async def test_public_paths_need_no_key(make_gateway: GatewayFactory, path: str) -> None:
    assert (await make_gateway(key=None).get(path)).status_code == 200


async def test_load_balancers_may_ask_without_a_body(make_gateway: GatewayFactory) -> None:
    answer = await make_gateway(key=None).head("/health/live")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("path", ["/health/", "/health//live", "/HEALTH", "/health/%2e%2e/nope"])
async def test_what_resembles_a_public_path_is_not_one(make_gateway: GatewayFactory, path: str) -> None:
    assert (await make_gateway(key=None).get(path)).status_code == 401


async def test_wrong_keys_are_limited_per_address_and_good_ones_pass(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway()
    wrong = {"X-API-Key": "wrong-key-0123456789"}
    statuses = [(await gateway.get(DEVICES, headers=wrong)).status_code for _ in range(22)]
    assert statuses == [401] * 20 + [429] * 2
    assert (await gateway.get(DEVICES)).status_code == 200


async def test_every_versioned_route_declares_its_scopes(gateway: httpx.AsyncClient) -> None:
    """A new route without a rule must not slip in: only whoami is open to any key."""
    document = (await gateway.get("/openapi.json")).json()
    unscoped = {
        operation["operationId"]
        for path, item in document["paths"].items()
        if path.startswith("/api/v1/tb")
        for operation in item.values()
        if not operation.get("x-required-scopes")
    }
    assert unscoped == {"get_whoami"}
