"""Lights: what the telemetry says after the command, and that nothing from before it counts."""

import asyncio
from typing import Any

import httpx
import pytest

from app.services import light
from app.times import now_ms
from tb_simulator.server import Simulator
from tests.conftest import GatewayFactory
from tests.rpc.conftest import BASE, UNKNOWN, HttpDevice

ON = {"state": "on", "timeout": 25_000}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes, comes long before."""
    monkeypatch.setattr(light, "VERIFY_SECONDS", 60.0)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(light, "VERIFY_SECONDS", 2.0)


async def switch(
    gateway: httpx.AsyncClient, device: HttpDevice, body: dict[str, Any], *telemetry: Any, later: Any = None
) -> tuple[dict[str, Any], httpx.Response]:
    """Switch a light that posts telemetry before it replies, and more when it has replied."""

    async def obey() -> dict[str, Any]:
        message = await device.take()
        assert message is not None
        for each in telemetry:
            await device.post(each)
        await device.answer(message, b'{"ok":true}')
        if later is not None:
            await device.post(later)
        return message

    message, answer = await asyncio.gather(obey(), gateway.post(f"{device.path}/light", json=body))
    return message, answer


@pytest.mark.parametrize(
    ("state", "value"),
    [
        *(("on", value) for value in (True, 1, 1.0, "on", "ON", "true", "True")),
        *(("off", value) for value in (False, 0, 0.0, "off", "Off", "false")),
    ],
)
async def test_a_light_is_verified_by_its_telemetry(
    gateway: httpx.AsyncClient, device: HttpDevice, state: str, value: Any
) -> None:
    before = now_ms()
    message, answer = await switch(gateway, device, {**ON, "state": state}, later={"light": value})
    assert (message["method"], message["params"]) == ("setLight", {"on": state == "on"})
    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert (body["device_id"], body["outcome"], body["response"]) == (device.id, "answered", {"ok": True})
    assert body["verified"] is True
    assert body["observed"]["value"] == value
    assert body["observed"]["ts"] >= before


async def test_what_comes_before_the_reply_counts(gateway: httpx.AsyncClient, device: HttpDevice) -> None:
    _, answer = await switch(gateway, device, ON, {"light": "on"})
    assert answer.json()["verified"] is True


async def test_the_first_point_may_still_be_the_old_state(
    gateway: httpx.AsyncClient, device: HttpDevice
) -> None:
    _, answer = await switch(gateway, device, ON, {"light": "off", "other": "on"}, later={"light": "on"})
    body = answer.json()
    assert (body["verified"], body["observed"]["value"]) == (True, "on")


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("value", ["off", False, 0, "dim", 2, "", {"on": True}, [1]], ids=str)
async def test_a_light_that_says_otherwise_is_not_verified(
    gateway: httpx.AsyncClient, device: HttpDevice, value: Any
) -> None:
    _, answer = await switch(gateway, device, ON, {"light": value})
    body = answer.json()
    assert (answer.status_code, body["outcome"], body["verified"]) == (200, "answered", False)
    assert body["observed"]["value"] == value


@pytest.mark.usefixtures("_impatient")
async def test_nothing_from_before_the_command_counts(gateway: httpx.AsyncClient, device: HttpDevice) -> None:
    """Neither the newest value of before, nor one of before that comes only now."""
    await device.post({"light": "on"})
    late = {"ts": now_ms() - 60_000, "values": {"light": "on"}}
    newer_than_the_newest = {"ts": now_ms(), "values": {"light": "on"}}
    await asyncio.sleep(0.01)
    _, answer = await switch(gateway, device, ON, late, newer_than_the_newest)
    body = answer.json()
    assert (body["outcome"], body["verified"], body["observed"]) == ("answered", False, None)


async def test_another_key_may_hold_the_state(gateway: httpx.AsyncClient, device: HttpDevice) -> None:
    _, answer = await switch(gateway, device, {**ON, "key": "lamp 1"}, {"lamp 1": "on"})
    assert answer.json()["verified"] is True


async def test_without_verification_the_reply_counts(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    _, answer = await switch(gateway, device, {**ON, "verify": False})
    body = answer.json()
    assert (body["outcome"], body["verified"], body["observed"]) == ("answered", None, None)
    assert simulator.calls["WS /api/ws"] == 0


async def test_an_offline_light_is_a_409(gateway: httpx.AsyncClient, device: HttpDevice) -> None:
    answer = await gateway.post(f"{device.path}/light", json={"state": "on", "timeout": 5_000})
    assert (answer.status_code, answer.json()["details"]["outcome"]) == (409, "offline")


async def test_fail_fast_sends_nothing_to_an_inactive_light(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    simulator.world.attributes.save(device.id, "SERVER_SCOPE", {"active": False})
    answer = await gateway.post(f"{device.path}/light", json={"state": "on", "fail_fast": True})
    assert (answer.status_code, answer.json()["error_code"]) == (409, "DEVICE_OFFLINE")
    assert not [call for call in simulator.calls if "/rpc/" in call]


async def test_without_a_live_feed_nothing_is_sent(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    simulator.faults.status(403, method="WS")
    answer = await gateway.post(f"{device.path}/light", json=ON)
    assert answer.status_code in {502, 503, 504}
    assert not [call for call in simulator.calls if "/rpc/" in call]


async def test_a_customer_user_switches_its_own_light_only(
    customer_gateway: httpx.AsyncClient, device: HttpDevice, foreign: HttpDevice, simulator: Simulator
) -> None:
    _, answer = await switch(customer_gateway, device, ON, {"light": True})
    assert answer.json()["verified"] is True
    refused = await customer_gateway.post(f"{foreign.path}/light", json=ON)
    assert refused.status_code == 404
    assert not simulator.world.rpcs._line(foreign.id).queued


async def test_a_light_needs_both_scopes(
    make_gateway: GatewayFactory, keys_file: Any, device: HttpDevice
) -> None:
    path = keys_file(
        sender=("a-key-that-only-sends", ["rpc:send"]), reader=("a-key-that-only-reads", ["telemetry:read"])
    )
    for key, missing in (("a-key-that-only-sends", "telemetry:read"), ("a-key-that-only-reads", "rpc:send")):
        client = make_gateway(api_key=None, key=key, api_keys_file=path)
        answer = await client.post(f"{device.path}/light", json=ON)
        assert (answer.status_code, answer.json()["details"]["missing_scopes"]) == (403, [missing])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "state"),
        ({"state": "ON"}, "state"),
        ({"state": True}, "state"),
        ({"state": "on", "verify": "yes"}, "verify"),
        ({"state": "on", "key": ""}, "key"),
        ({"state": "on", "key": "k" * 256}, "key"),
        ({"state": "on", "key": 5}, "key"),
        ({"state": "on", "timeout": 4_999}, "timeout"),
        ({"state": "on", "timeout": 25_001}, "timeout"),
        ({"state": "on", "brightness": 5}, "brightness"),
    ],
    ids=str,
)
async def test_what_is_no_state_of_a_light_is_refused(
    gateway: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await gateway.post(f"{BASE}/devices/{UNKNOWN}/light", json=body)
    assert (answer.status_code, answer.json()["details"]["field"]) == (422, field)
