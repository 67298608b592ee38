"""Lights are switched by command and confirmed by telemetry; faults on the way become sentences."""

import asyncio

import httpx
import pytest

from examples.smart_home.errors import (
    DeviceOffline,
    DeviceSilent,
    GatewayFailed,
    GatewayUnavailable,
    NotFound,
    SmartHomeError,
)
from examples.smart_home.gateway import Gateway
from tb_simulator.demo import SILENT_CODE, SILENT_ROOM, SampleDevices
from tb_simulator.server import Simulator
from tests.smart_home.conftest import Person, Product

DEVICE = "6d70d525-c327-4d65-982f-70d1b9682f3a"


async def room_of(person: Person, number: int = 0) -> str:
    identifier: str = (await person.add_room(await person.add_home(), number))["id"]
    return identifier


async def test_a_light_is_switched_and_confirmed_by_the_device(
    product: Product, simulator: Simulator, devices: SampleDevices
) -> None:
    alice = await product.person()
    room = await room_of(alice)
    for state in ("on", "off"):
        answer = await alice.call("POST", f"/rooms/{room}/light", json={"state": state})
        assert (answer["state"], answer["verified"]) == (state, True)
        assert answer["observed"]["value"] is (state == "on")
        stored = simulator.world.telemetry.latest(devices.devices[0].id)["light"]
        assert stored[1] is (state == "on")
    latest = await alice.call("GET", f"/rooms/{room}/latest")
    assert latest["values"]["light"]["value"] is False


@pytest.mark.parametrize("body", [{}, {"state": "dim"}, {"state": True}, {"state": "on", "device": "x"}])
async def test_a_command_that_makes_no_sense_reaches_no_device(
    product: Product, simulator: Simulator, body: dict[str, object]
) -> None:
    alice = await product.person()
    room = await room_of(alice)
    await alice.call("POST", f"/rooms/{room}/light", 422, json=body)
    assert not [call for call in simulator.calls if "rpc" in call]


async def test_an_offline_device_is_told_as_such(product: Product, simulator: Simulator) -> None:
    """ThingsBoard says so after its own wait, of at least five seconds on its clock."""
    simulator.world.settings.time_scale = 0.01
    alice = await product.person()
    body = {"name": "Garage", "device": f"Demo {SILENT_ROOM}", "claim_code": SILENT_CODE}
    room = await alice.call("POST", f"/homes/{await alice.add_home()}/rooms", 201, json=body)
    refused = await alice.client.post(f"/rooms/{room['id']}/light", json={"state": "on"}, timeout=30)
    assert refused.status_code == 409
    assert refused.json()["error_code"] == "DEVICE_OFFLINE"
    assert refused.json()["message"] == DeviceOffline.message


def refusal(status: int, code: str, **more: object) -> httpx.Response:
    body = {"status": status, "message": "secret of the gateway", "error_code": code, "details": None}
    headers = {"Retry-After": "7"} if status in {429, 503} else {}
    return httpx.Response(status, json=body | more, headers=headers)


@pytest.mark.parametrize(
    ("answer", "expected", "retry_after"),
    [
        (refusal(404, "RESOURCE_NOT_FOUND"), NotFound, None),
        (refusal(409, "DEVICE_OFFLINE", details={"outcome": "offline"}), DeviceOffline, None),
        (refusal(504, "UPSTREAM_TIMEOUT", details={"outcome": "timeout"}), DeviceSilent, None),
        (refusal(504, "UPSTREAM_TIMEOUT"), GatewayUnavailable, 1),
        (refusal(503, "UPSTREAM_UNAVAILABLE"), GatewayUnavailable, 7),
        (refusal(429, "RATE_LIMIT_EXCEEDED"), GatewayUnavailable, 7),
        (refusal(401, "AUTHENTICATION_FAILED"), GatewayFailed, None),
        (refusal(403, "AUTHORIZATION_FAILED"), GatewayFailed, None),
        (refusal(500, "INTERNAL_ERROR"), GatewayFailed, None),
        (httpx.Response(200, text="<html>"), GatewayFailed, None),
        (httpx.Response(200, json=[]), GatewayFailed, None),
        (httpx.ConnectError("refused"), GatewayUnavailable, 1),
        (httpx.ReadTimeout("slow"), GatewayUnavailable, 1),
    ],
)
async def test_what_the_gateway_refuses_is_told_in_our_words(
    answer: httpx.Response | Exception, expected: type[SmartHomeError], retry_after: int | None
) -> None:
    """A fault of our key or of the gateway never looks like the user's mistake."""

    def respond(request: httpx.Request) -> httpx.Response:
        assert request.headers["X-API-Key"] == "the-key"
        if isinstance(answer, Exception):
            raise answer
        return answer

    gateway = Gateway("http://gateway", "the-key", transport=httpx.MockTransport(respond))
    with pytest.raises(SmartHomeError) as told:
        await gateway.query(DEVICE, {})  # type: ignore[arg-type]
    assert type(told.value) is expected
    assert told.value.retry_after == retry_after
    assert "secret" not in told.value.message
    await gateway.aclose()


async def test_while_the_gateway_is_away_people_can_still_log_in(lonely: Product) -> None:
    alice = await lonely.person()
    home = await alice.add_home()
    refused = await alice.client.post(
        f"/homes/{home}/rooms", json={"name": "x", "device": "y", "claim_code": "z"}
    )
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert await alice.call("GET", f"/homes/{home}/rooms") == []
    assert await alice.call("GET", f"/homes/{home}/latest") == []


async def test_one_slow_home_does_not_stop_another(product: Product, simulator: Simulator) -> None:
    alice, bob = await product.person("alice"), await product.person("bob")
    hers, his = await room_of(alice, 0), await room_of(bob, 1)
    answers = await asyncio.gather(
        *(alice.client.post(f"/rooms/{hers}/light", json={"state": "on"}) for _ in range(3)),
        *(bob.client.post(f"/rooms/{his}/light", json={"state": "on"}) for _ in range(3)),
    )
    assert {answer.status_code for answer in answers} == {200}
