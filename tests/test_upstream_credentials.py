"""How the gateway logs in to ThingsBoard and stays logged in."""

import asyncio

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.conftest import SYSADMIN, GatewayFactory

DEVICES = "/api/v1/tb/devices"


async def test_twenty_callers_share_one_login(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    answers = await asyncio.gather(*(gateway.get(DEVICES) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert simulator.calls["POST /api/auth/login"] == 1


async def test_twenty_callers_share_one_refresh_after_an_expiry(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    await gateway.get(DEVICES)
    simulator.faults.expire_tokens()
    answers = await asyncio.gather(*(gateway.get(DEVICES) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert simulator.calls["POST /api/auth/token"] == 1
    assert simulator.calls["POST /api/auth/login"] == 1


async def test_a_changed_signing_key_costs_no_caller_an_error(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    await gateway.get(DEVICES)
    simulator.faults.change_signing_key()
    answers = await asyncio.gather(*(gateway.get(DEVICES) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert simulator.calls["POST /api/auth/login"] == 2


async def test_uploads_survive_an_expiry_too(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    """A 401 comes before anything is done, so even what may not be repeated is sent again."""
    await gateway.post(DEVICES, json={"name": "one"})
    simulator.faults.expire_tokens()
    assert (await gateway.post(DEVICES, json={"name": "two"})).status_code == 201


async def test_a_wrong_password_is_the_gateways_fault(
    make_gateway: GatewayFactory, simulator: Simulator
) -> None:
    gateway = make_gateway(tb_password="not-the-password")
    answers = [await gateway.get(DEVICES) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {502}
    assert {answer.json()["error_code"] for answer in answers} == {"UPSTREAM_ERROR"}
    # ThingsBoard locks accounts after repeated failures, so callers must not cause one each.
    assert simulator.calls["POST /api/auth/login"] == 1


async def test_a_system_administrator_is_refused_clearly(
    make_gateway: GatewayFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = make_gateway(tb_username=SYSADMIN[0], tb_password=SYSADMIN[1])
    assert (await gateway.get(DEVICES)).status_code == 502
    assert "system administrator" in capsys.readouterr().out


async def test_a_customer_user_lists_its_own_devices(customer_gateway: httpx.AsyncClient) -> None:
    answer = await customer_gateway.get(f"{DEVICES}?sort_by=name")
    assert [device["name"] for device in answer.json()["data"]] == [
        "Test Device A1",
        "Test Device A2",
        "Test Device A3",
    ]
    assert (await customer_gateway.get("/api/v1/tb/assets")).json()["data"] == []


async def test_a_customer_user_finds_its_own_devices_by_name_only(
    customer_gateway: httpx.AsyncClient, gateway: httpx.AsyncClient
) -> None:
    assert (await customer_gateway.get(f"{DEVICES}/name:Test Device A1")).status_code == 200
    others = await customer_gateway.get(f"{DEVICES}/name:Test Device B1")
    missing = await customer_gateway.get(f"{DEVICES}/name:No such device")
    assert (others.status_code, missing.status_code) == (404, 404)
    partial = await customer_gateway.get(f"{DEVICES}/name:Test Device A")
    assert partial.status_code == 404


async def test_anothers_device_looks_like_a_missing_one(
    customer_gateway: httpx.AsyncClient, gateway: httpx.AsyncClient
) -> None:
    foreign = (await gateway.get(f"{DEVICES}/name:Test Device B1")).json()["data"]["id"]["id"]
    unknown = "00000000-0000-0000-0000-000000000007"
    for path in ("", "/credentials", "/keys", "/telemetry/latest", "/attributes"):
        answers = [(await customer_gateway.get(f"{DEVICES}/{each}{path}")) for each in (foreign, unknown)]
        assert [answer.status_code for answer in answers] == [404, 404], path
        bodies = [answer.json() for answer in answers]
        for body in bodies:
            del body["timestamp"], body["request_id"]
        assert bodies[0] == bodies[1]


async def test_a_customer_user_cannot_make_devices(customer_gateway: httpx.AsyncClient) -> None:
    """It is not a missing key: the account behind the gateway lacks the right."""
    answer = await customer_gateway.post(DEVICES, json={"name": "mine"})
    assert answer.status_code == 403
    assert answer.json()["error_code"] == "AUTHORIZATION_FAILED"


async def test_a_thingsboard_api_key_works_in_place_of_a_login(
    make_gateway: GatewayFactory, simulator: Simulator
) -> None:
    async with httpx.AsyncClient(base_url=simulator.url) as thingsboard:
        credentials = {"username": "tenant@thingsboard.org", "password": "tenant"}
        token = (await thingsboard.post("/api/auth/login", json=credentials)).json()["token"]
        headers = {"X-Authorization": f"Bearer {token}"}
        user = (await thingsboard.get("/api/auth/user", headers=headers)).json()
        made = await thingsboard.post(
            "/api/apiKey",
            headers=headers,
            json={"description": "gateway", "enabled": True, "userId": user["id"], "expirationTime": 0},
        )
        key = made.json()
        gateway = make_gateway(tb_username=None, tb_password=None, tb_api_key=key["value"])
        assert (await gateway.get(DEVICES)).status_code == 200
        await thingsboard.put(f"/api/apiKey/{key['id']['id']}/enabled/false", headers=headers)
        refused = await gateway.get(DEVICES)
    assert (refused.status_code, refused.json()["error_code"]) == (502, "UPSTREAM_ERROR")
