"""Commands that are stored until the device comes: their states, their lists, their end."""

import asyncio
from typing import Any

import httpx
import pytest

from app.times import now_ms
from tb_simulator.server import Simulator
from tests.rpc.conftest import BASE, HttpDevice

COMMAND = {"method": "setLight", "params": {"on": [True, None]}}
HOUR_MS = 3_600_000


async def store(gateway: httpx.AsyncClient, device: HttpDevice, **more: Any) -> str:
    answer = await gateway.post(f"{device.path}/rpc/persistent", json={**COMMAND, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["rpc_id"])


async def read(gateway: httpx.AsyncClient, rpc_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await gateway.get(f"{BASE}/rpc/{rpc_id}")).json()["data"]
    return found


async def test_a_stored_command_is_queued_and_found_where_the_answer_says(
    gateway: httpx.AsyncClient, device: HttpDevice
) -> None:
    before = now_ms()
    answer = await gateway.post(f"{device.path}/rpc/persistent", json=COMMAND)
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"{BASE}/rpc/{body['rpc_id']}"
    assert (body["device_id"], body["outcome"], body["response"]) == (device.id, "queued", None)
    assert type(body["elapsed_ms"]) is int
    assert before + HOUR_MS <= body["expires_ts"] <= now_ms() + HOUR_MS
    found = (await gateway.get(answer.headers["Location"])).json()["data"]
    assert found["id"]["id"] == body["rpc_id"]
    assert found["request"]["body"] == COMMAND
    assert found["expirationTime"] == body["expires_ts"]
    assert (found["status"], found["outcome"], found["is_final"]) == ("QUEUED", "queued", False)


@pytest.mark.parametrize("way", ["oneway", "twoway"])
async def test_a_wait_beyond_25_seconds_is_stored_for_as_long(
    gateway: httpx.AsyncClient, device: HttpDevice, way: str
) -> None:
    before = now_ms()
    answer = await gateway.post(f"{device.path}/rpc/{way}", json={**COMMAND, "timeout": 25_001})
    assert (answer.status_code, answer.json()["outcome"]) == (202, "queued")
    found = await read(gateway, answer.json()["rpc_id"])
    assert before + 25_001 <= found["expirationTime"] <= now_ms() + 25_001
    assert found["request"]["oneway"] is (way == "oneway")


async def test_its_expiry_can_be_chosen(gateway: httpx.AsyncClient, device: HttpDevice) -> None:
    body = {**COMMAND, "timeout": 60_000, "expires_in": 600_000}
    before = now_ms()
    answer = await gateway.post(f"{device.path}/rpc/twoway", json=body)
    assert before + 600_000 <= answer.json()["expires_ts"] <= now_ms() + 600_000


@pytest.mark.parametrize(
    ("oneway", "reply", "status", "outcome", "response"),
    [
        (False, b'{"ok":1}', "SUCCESSFUL", "answered", {"ok": 1}),
        (False, b"null", "SUCCESSFUL", "answered", None),
        (False, b"oops", "SUCCESSFUL", "answered", {"error": "oops"}),
        (True, None, "DELIVERED", "sent", None),
    ],
)
async def test_it_is_delivered_when_the_device_comes(
    gateway: httpx.AsyncClient,
    device: HttpDevice,
    oneway: bool,
    reply: bytes | None,
    status: str,
    outcome: str,
    response: Any,
) -> None:
    rpc_id = await store(gateway, device, oneway=oneway, expires_in=HOUR_MS)
    message = await device.take()
    assert message is not None
    assert message["params"] == COMMAND["params"]
    if reply is not None:
        delivered = await read(gateway, rpc_id)
        assert (delivered["status"], delivered["outcome"], delivered["is_final"]) == (
            "DELIVERED",
            "sent",
            False,
        )
        await device.answer(message, reply)
    found = await read(gateway, rpc_id)
    assert (found["status"], found["outcome"], found["response"]) == (status, outcome, response)
    assert found["is_final"] is True


async def test_it_expires(gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator) -> None:
    rpc_id = await store(gateway, device, expires_in=1_000)
    record = simulator.world.rpcs.record(rpc_id)
    assert record is not None
    while record["status"] == "QUEUED":  # noqa: ASYNC110 - turns of the loop, not a wait
        await asyncio.sleep(0)
    found = await read(gateway, rpc_id)
    assert (found["status"], found["outcome"], found["is_final"]) == ("EXPIRED", "timeout", True)
    assert await device.take(timeout_ms=100) is None


async def test_one_that_has_expired_on_arrival_is_the_caller_s_to_mend(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    simulator.faults.status(504, path="/api/rpc/", body="", content_type="")
    answer = await gateway.post(f"{device.path}/rpc/persistent", json=COMMAND)
    assert (answer.status_code, answer.json()["details"]["field"]) == (400, "expires_in")


async def test_a_proxy_s_timeout_is_not_the_caller_s_fault(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    simulator.faults.status(504, path="/api/rpc/", body="<html>Gateway Time-out</html>")
    answer = await gateway.post(f"{device.path}/rpc/persistent", json=COMMAND)
    assert (answer.status_code, answer.json()["error_code"]) == (504, "UPSTREAM_TIMEOUT")


async def test_lists_have_pages_an_order_and_a_filter(gateway: httpx.AsyncClient, device: HttpDevice) -> None:
    ids = [await store(gateway, device, expires_in=HOUR_MS) for _ in range(5)]
    await device.obey(b"1")
    seen: list[str] = []
    for page in range(3):
        answer = await gateway.get(f"{device.path}/rpc", params={"page": page, "page_size": 2})
        body = answer.json()
        seen += [each["id"]["id"] for each in body["data"]]
        assert body["pagination"] == {
            "page": page,
            "page_size": 2,
            "total_pages": 3,
            "total_elements": 5,
            "has_next": page < 2,
        }
    assert sorted(seen) == sorted(ids)
    done = (await gateway.get(f"{device.path}/rpc?status=SUCCESSFUL")).json()["data"]
    assert [(each["id"]["id"], each["outcome"], each["response"]) for each in done] == [
        (ids[0], "answered", 1)
    ]
    assert done[0]["request"]["body"]["params"] == COMMAND["params"]
    waiting = (await gateway.get(f"{device.path}/rpc?status=QUEUED&sort_order=ASC")).json()
    assert {each["id"]["id"] for each in waiting["data"]} == set(ids[1:])


async def test_one_that_is_deleted_is_not_delivered(gateway: httpx.AsyncClient, device: HttpDevice) -> None:
    rpc_id = await store(gateway, device)
    answer = (await gateway.delete(f"{BASE}/rpc/{rpc_id}")).json()
    assert (answer["rpc_id"], answer["device_id"]) == (rpc_id, device.id)
    assert (await gateway.get(f"{BASE}/rpc/{rpc_id}")).status_code == 404
    assert (await gateway.delete(f"{BASE}/rpc/{rpc_id}")).status_code == 404
    assert await device.take(timeout_ms=100) is None


async def test_what_others_have_stored_is_shown_as_it_is(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    """ThingsBoard keeps parameters as text, and other clients may have written any text there."""
    rpc_id = await store(gateway, device)
    record = simulator.world.rpcs.record(rpc_id)
    assert record is not None
    for text, shown in (("oops", "oops"), ("[1]", [1]), ('"x"', "x"), ("null", None), ("", "")):
        record["request"]["body"]["params"] = text
        assert (await read(gateway, rpc_id))["request"]["body"]["params"] == shown
