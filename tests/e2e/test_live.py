"""Live data, end to end."""

import json
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.conftest import KEY_HEADER
from tests.live.reading import Events

T = 1_760_000_000_000


async def upload(client: httpx.AsyncClient, device: str, points: dict[str, list[dict[str, Any]]]) -> None:
    answer = await client.post(f"/devices/{device}/telemetry", json=points)
    assert answer.status_code == 201, answer.text


async def test_points_come_with_their_types_late_ones_and_new_keys_too(
    served: httpx.AsyncClient, make: Any
) -> None:
    device = (await make()).id
    await upload(served, device, {"k": [{"ts": T, "value": 1}]})
    async with served.stream("GET", f"/devices/{device}/telemetry/stream") as answer:
        events = Events(answer)
        assert await events.until("k", 1) == [1]
        values = [25.5, True, "text", {"a": 1}, 9_007_199_254_740_993]
        for number, value in enumerate(values):
            await upload(served, device, {f"new{number}": [{"ts": T, "value": value}]})
            assert (await events.until(f"new{number}", value))[-1] == value
        await upload(served, device, {"k": [{"ts": T - 5, "value": 2}]})
        assert await events.until("k", 2) == [2]
        await upload(served, device, {"k": [{"ts": T + n, "value": n} for n in (12, 10, 11)]})
        assert await events.until("k", 12) == [10, 11, 12]
        last_id = events.last_id
    await upload(served, device, {"k": [{"ts": T + n, "value": n} for n in (20, 21)]})
    headers = {"Last-Event-ID": last_id or ""}
    async with served.stream("GET", f"/devices/{device}/telemetry/stream", headers=headers) as answer:
        events = Events(answer)
        assert await events.until("k", 21) == [20, 21]
        await upload(served, device, {"k": [{"ts": T + 22, "value": 22}]})
        assert await events.until("k", 22) == [22]


async def test_attributes_come_when_they_change(served: httpx.AsyncClient, make: Any) -> None:
    device = (await make()).id
    target = f"/devices/{device}/telemetry/stream?attributes=true&first_values=false"
    async with served.stream("GET", target) as answer:
        events = Events(answer)
        written = await served.post(f"/devices/{device}/attributes/shared", json={"fw": "v2", "on": True})
        assert written.status_code == 201, written.text
        told = [await anext(events) for _ in range(2)]
    assert {(each.event, each.data["key"], each.data["value"]) for each in told} == {
        ("attribute", "fw", "v2"),
        ("attribute", "on", True),
    }


@pytest.mark.parametrize("query", ["", "?attributes=true"])
async def test_a_customer_user_hears_nothing_of_another_s_device(
    served: httpx.AsyncClient, served_customer: httpx.AsyncClient, make: Any, query: str
) -> None:
    device = (await make()).id
    answer = await served_customer.get(f"/devices/{device}/telemetry/stream{query}")
    assert answer.status_code == 404


async def test_devices_come_and_go_on_a_web_socket(served: httpx.AsyncClient, make: Any) -> None:
    one, other = (await make()).id, (await make()).id
    address = str(served.base_url).rstrip("/").replace("http", "ws") + "/ws"
    async with connect(address, additional_headers=KEY_HEADER) as socket:

        async def until(kind: str) -> dict[str, Any]:
            while True:
                frame: dict[str, Any] = json.loads(await socket.recv())
                if frame["type"] == kind:
                    return frame

        await socket.send(json.dumps({"type": "subscribe", "id": "a", "device_ids": [one, other]}))
        assert (await until("ack"))["id"] == "a"
        await upload(served, one, {"k": [{"ts": T, "value": 1.5}]})
        told = await until("telemetry")
        assert (told["device_id"], told["key"], told["value"]) == (one, "k", 1.5)
        await socket.send(json.dumps({"type": "unsubscribe", "device_ids": [one]}))
        await until("ack")
        await upload(served, one, {"k": [{"ts": T + 1, "value": 2.5}]})
        await upload(served, other, {"k": [{"ts": T, "value": 3.5}]})
        assert (await until("telemetry"))["value"] == 3.5
