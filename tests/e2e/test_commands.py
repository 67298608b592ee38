"""Commands to a device on ThingsBoard's HTTP API for devices: answered, fetched in silence, never fetched."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.e2e.conftest import Made, Upstream

COMMAND = {"method": "setLight", "params": {"on": True}, "timeout": 25_000}
#: What ThingsBoard waits at least, in ms.
SHORTEST = 5_000


@asynccontextmanager
async def device_api(
    served: httpx.AsyncClient, upstream: Upstream, device: Made
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the device's own API."""
    credentials = (await served.get(f"/devices/{device.id}/credentials")).json()["data"]
    base = f"{upstream.url}/api/v1/{credentials['credentialsId']}"
    async with httpx.AsyncClient(base_url=base, timeout=60) as client:
        yield client


async def take(device: httpx.AsyncClient, timeout_ms: int = 30_000) -> dict[str, Any] | None:
    """Poll for a command; None: there was none in time."""
    answer = await device.get("/rpc", params={"timeout": timeout_ms})
    if answer.status_code == 408:
        return None
    message: dict[str, Any] = answer.json()
    return message


async def obey(device: httpx.AsyncClient, reply: Any, telemetry: Any = None) -> dict[str, Any]:
    message = await take(device)
    assert message is not None
    if telemetry is not None:
        assert (await device.post("/telemetry", json=telemetry)).status_code == 200
    assert (await device.post(f"/rpc/{message['id']}", json=reply)).status_code == 200
    return message


async def test_a_device_that_began_to_poll_a_second_ago_answers(
    served: httpx.AsyncClient, upstream: Upstream, make: Any
) -> None:
    """Its attribute `active` may still be false then."""
    device = await make()
    async with device_api(served, upstream, device) as api:
        obeying = asyncio.create_task(obey(api, {"on": True, "was": None}))
        await asyncio.sleep(1)
        answer = await served.post(f"/devices/{device.id}/rpc/twoway", json=COMMAND)
        assert answer.status_code == 200, answer.text
        assert answer.json()["outcome"] == "answered"
        assert answer.json()["response"] == {"on": True, "was": None}
        message = await obeying
        assert (message["method"], message["params"]) == ("setLight", {"on": True})

        fetched, sent = await asyncio.gather(
            take(api), served.post(f"/devices/{device.id}/rpc/oneway", json=COMMAND)
        )
        assert fetched is not None
        assert (sent.status_code, sent.json()["outcome"]) == (200, "sent")


async def test_offline_and_silent_are_told_apart(
    served: httpx.AsyncClient, upstream: Upstream, make: Any
) -> None:
    absent, mute = await make(), await make()
    async with device_api(served, upstream, mute) as api:
        fetching = asyncio.create_task(take(api))
        await asyncio.sleep(1)
        body = {**COMMAND, "timeout": SHORTEST}
        offline, silent = await asyncio.gather(
            served.post(f"/devices/{absent.id}/rpc/twoway", json=body),
            served.post(f"/devices/{mute.id}/rpc/twoway", json=body),
        )
        assert await fetching is not None
    assert (offline.status_code, offline.json()["error_code"]) == (409, "DEVICE_OFFLINE")
    assert offline.json()["details"]["outcome"] == "offline"
    assert (silent.status_code, silent.json()["error_code"]) == (504, "UPSTREAM_TIMEOUT")
    assert silent.json()["details"]["outcome"] == "timeout"


async def test_fail_fast_refuses_sooner_than_thingsboard_and_sends_nothing(
    served: httpx.AsyncClient, upstream: Upstream, make: Any
) -> None:
    device = await make()
    path = f"/devices/{device.id}"
    # ThingsBoard writes it a moment after it has made the device.
    while not (await served.get(f"{path}/attributes/server?keys=active")).json()["data"]:  # noqa: ASYNC110 - it asks
        await asyncio.sleep(0.1)
    answer = await served.post(f"{path}/rpc/twoway", json={**COMMAND, "fail_fast": True})
    assert (answer.status_code, answer.json()["error_code"]) == (409, "DEVICE_OFFLINE")
    assert answer.json()["details"]["elapsed_ms"] < SHORTEST
    async with device_api(served, upstream, device) as api:
        assert await take(api, timeout_ms=2_000) is None


async def test_a_light_is_verified_by_its_telemetry(
    served: httpx.AsyncClient, upstream: Upstream, make: Any
) -> None:
    device = await make()
    async with device_api(served, upstream, device) as api:
        for state, is_on in (("on", True), ("off", False)):
            message, answer = await asyncio.gather(
                obey(api, {"ok": True}, {"light": state}),
                served.post(f"/devices/{device.id}/light", json={"state": state, "timeout": 25_000}),
            )
            assert answer.status_code == 200, answer.text
            assert (message["method"], message["params"]) == ("setLight", {"on": is_on})
            assert answer.json()["verified"] is True
            assert answer.json()["observed"]["value"] == state


async def test_a_stored_command_waits_for_its_device_and_tells_its_states(
    served: httpx.AsyncClient, upstream: Upstream, make: Any
) -> None:
    device = await make()
    stored = await served.post(f"/devices/{device.id}/rpc/persistent", json=COMMAND)
    assert (stored.status_code, stored.json()["outcome"]) == (202, "queued")
    rpc_id = stored.json()["rpc_id"]
    assert stored.headers["Location"].endswith(f"/rpc/{rpc_id}")
    states: list[dict[str, Any]] = []
    async with (
        served.stream("GET", f"/rpc/{rpc_id}/events") as answer,
        device_api(served, upstream, device) as api,
    ):
        assert answer.status_code == 200
        obeying: asyncio.Task[dict[str, Any]] | None = None
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line.removeprefix("data: ")))
                obeying = obeying or asyncio.create_task(obey(api, [1, "two"]))
    assert obeying is not None
    assert (await obeying)["params"] == {"on": True}
    assert states[0]["status"] == "QUEUED"
    assert (states[-1]["status"], states[-1]["outcome"], states[-1]["is_final"]) == (
        "SUCCESSFUL",
        "answered",
        True,
    )
    assert states[-1]["response"] == [1, "two"]
    listed = (await served.get(f"/devices/{device.id}/rpc?status=SUCCESSFUL")).json()["data"]
    assert [(each["id"]["id"], each["request"]["body"]["params"]) for each in listed] == [
        (rpc_id, {"on": True})
    ]
    assert (await served.delete(f"/rpc/{rpc_id}")).status_code == 200
    assert (await served.get(f"/rpc/{rpc_id}")).status_code == 404


async def test_a_customer_user_commands_no_device_of_the_tenant(
    served: httpx.AsyncClient, served_customer: httpx.AsyncClient, make: Any
) -> None:
    device = await make()
    rpc_id = (await served.post(f"/devices/{device.id}/rpc/persistent", json=COMMAND)).json()["rpc_id"]
    refused = [
        await served_customer.post(f"/devices/{device.id}/rpc/twoway", json=COMMAND),
        await served_customer.post(f"/devices/{device.id}/rpc/persistent", json=COMMAND),
        await served_customer.post(f"/devices/{device.id}/light", json={"state": "on"}),
        await served_customer.get(f"/devices/{device.id}/rpc"),
        await served_customer.get(f"/rpc/{rpc_id}"),
        await served_customer.get(f"/rpc/{rpc_id}/events"),
        await served_customer.delete(f"/rpc/{rpc_id}"),
    ]
    assert [answer.status_code for answer in refused] == [404] * 7
    assert (await served.get(f"/rpc/{rpc_id}")).json()["data"]["status"] == "QUEUED"
