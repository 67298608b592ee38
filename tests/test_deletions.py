"""Deleting telemetry: latest values and key lists afterwards."""

from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.telemetry_world import DEVICES, KEYS, device_id, json_value, load

T = 1_760_000_000_000
DELETIONS = "DELETE /api/plugins/telemetry/DEVICE/{id}/timeseries/delete"
SAVES = "POST /api/plugins/telemetry/DEVICE/{id}/timeseries/ANY"


async def latest_after(
    gateway: httpx.AsyncClient, simulator: Simulator, times: list[int], query: str
) -> dict[str, Any]:
    """Store points at these times, delete, and return the latest value and the keys."""
    path = f"{DEVICES}/{device_id(simulator)}"
    await gateway.post(f"{path}/telemetry", json={"a": [{"ts": ts, "value": ts} for ts in times]})
    assert (await gateway.delete(f"{path}/telemetry?keys=a,never&{query}")).status_code == 200
    latest = (await gateway.get(f"{path}/telemetry/latest?keys=a")).json()["data"]["a"]
    return {"latest": latest, "keys": (await gateway.get(f"{path}/keys")).json()["keys"]}


@pytest.mark.parametrize(
    ("times", "query", "left"),
    [
        (list(range(T, T + 5)), f"start_ts={T + 3}", T + 2),
        (list(range(T, T + 5000, 1000)), f"start_ts={T + 3000}", T + 2000),
        ([T, T + 1], f"start_ts={T + 1}", T),
        ([T, T + 1], f"start_ts={T + 1}&end_ts={T + 2}", T),
        ([T, T + 1, T + 9], f"start_ts={T + 1}&end_ts={T + 2}", T + 9),
        ([-7, -5, T], f"start_ts={T}", -5),
        ([-7, -5, 5], f"start_ts={-6}", -7),
        ([-7, -1], f"start_ts={-1}", -7),
        ([-1, 0], "start_ts=0", -1),
        ([T, T + 1], f"start_ts={T}", None),
        ([T], "start_ts=0001-01-01T00:00:00Z", None),
    ],
)
async def test_latest_is_the_newest_point_that_is_left(
    gateway: httpx.AsyncClient, simulator: Simulator, times: list[int], query: str, left: int | None
) -> None:
    """ThingsBoard itself misses the millisecond before the range, and everything before 1970."""
    found = await latest_after(gateway, simulator, times, query)
    assert found["latest"] == (None if left is None else {"ts": left, "value": left})
    assert ("a" in found["keys"]) is (left is not None)
    assert "never" not in found["keys"]


@pytest.mark.parametrize(
    "value",
    [True, 7, -(2**63), 0.5, 1e300, "text", "0.30000000000000004", "123456789012345678901234567890"],
)
async def test_a_point_that_becomes_latest_again_keeps_its_type(
    gateway: httpx.AsyncClient, simulator: Simulator, value: Any
) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(T, value), (T + 1, 2)])
    await gateway.delete(f"{DEVICES}/{device}/telemetry?keys=a&start_ts={T + 1}")
    restored = simulator.world.telemetry.latest(device)["a"]
    assert (restored, type(restored[1])) == ((T, value), type(value))
    assert simulator.calls[SAVES] == 1


async def test_an_object_becomes_latest_again(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(T, json_value('{"x":[1,null,"é"]}')), (T + 1, 2)])
    await gateway.delete(f"{DEVICES}/{device}/telemetry?keys=a&start_ts={T + 1}")
    assert simulator.world.telemetry.latest(device)["a"] == (T, json_value('{"x":[1,null,"é"]}'))


async def test_a_value_that_could_not_be_written_back_as_it_is_stays_as_it_is(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    """Better no latest value than a changed history: whole numbers in objects may have any length."""
    device = device_id(simulator)
    stored = json_value('{"x":123456789012345678901234567890}')
    load(simulator, device, "a", [(T, stored), (T + 1, 2)])
    load(simulator, device, "b", [(T, 1), (T + 1, 2)])
    await gateway.delete(f"{DEVICES}/{device}/telemetry?keys=a,b&start_ts={T + 1}")
    assert simulator.world.telemetry.latest(device) == {"b": (T, 1)}
    series = simulator.world.telemetry.series(device, "a")
    assert series is not None
    assert (series.ts, series.values) == ([T], [stored])


async def test_nothing_is_written_when_thingsboard_has_found_the_newest_point(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(T, 1), (T + 10, 2)])
    await gateway.delete(f"{DEVICES}/{device}/telemetry?keys=a&start_ts={T + 5}")
    assert simulator.world.telemetry.latest(device) == {"a": (T, 1)}
    assert simulator.calls[SAVES] == 0


async def test_a_garbled_point_is_thingsboards_fault(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    simulator.faults.status(200, path="values/timeseries", method="GET", body='{"a":[{"value":1}]}')
    answer = await gateway.delete(f"{DEVICES}/{device}/telemetry?keys=a&start_ts={T}")
    assert (answer.status_code, answer.json()["error_code"]) == (502, "UPSTREAM_ERROR")


async def test_deleted_keys_are_missing_at_once(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    """What is remembered of a check of the keys must not outlive them."""
    path = f"{DEVICES}/{device_id(simulator)}/telemetry"
    await gateway.post(path, json={"a": 1, "b": 2})

    async def missing() -> Any:
        answer = await gateway.post(f"{path}/query", json={"keys": ["a", "b"]})
        return answer.json()["metadata"]["keys_missing"]

    assert await missing() == []
    await gateway.delete(f"{path}?keys=b")
    assert await missing() == ["b"]


@pytest.mark.parametrize("kind", ["devices", "assets"])
async def test_a_deleted_entity_is_not_found_at_once(
    gateway: httpx.AsyncClient, simulator: Simulator, kind: str
) -> None:
    """ThingsBoard's history checks nothing, and our check is remembered: it goes with the entity."""
    base = f"/api/v1/tb/{kind}"
    made = (await gateway.post(base, json={"name": "short-lived"})).json()["data"]["id"]["id"]
    path = f"{base}/{made}"
    await gateway.post(f"{path}/telemetry", json={"a": 1})
    assert (await gateway.get(f"{path}/telemetry?keys=a")).status_code == 200
    assert (await gateway.delete(path)).status_code == 200
    assert (await gateway.get(f"{path}/telemetry?keys=a")).status_code == 404


async def test_a_check_that_began_before_a_deletion_is_not_remembered(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    telemetry = gateway.app.state.upstreams["default"].client.telemetry  # type: ignore[attr-defined]  # set by `make_gateway`
    load(simulator, device, "a", [(T, 1)])
    transport = telemetry._connection.transport
    send = transport.send

    async def forgetful(*args: Any, **options: Any) -> Any:
        answer = await send(*args, **options)
        telemetry.forget("DEVICE", device)
        return answer

    transport.send = forgetful
    await telemetry.checked_keys("DEVICE", device, ["a"])
    transport.send = send
    simulator.calls.clear()
    await telemetry.checked_keys("DEVICE", device, ["a"])
    await telemetry.checked_keys("DEVICE", device, ["a"])
    assert simulator.calls[KEYS] == 1


MANY = [f"key-{number:04}-" + "ä" * 40 for number in range(60)]


async def test_more_keys_than_fit_a_request_line_are_deleted(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    path = f"{DEVICES}/{device}/telemetry"
    await gateway.post(path, json=dict.fromkeys(MANY, 1))
    answer = await gateway.delete(path, params={"keys": ",".join(MANY)})
    assert (answer.status_code, answer.json()["keys_deleted"]) == (200, MANY)
    assert simulator.world.telemetry.latest(device) == {}
    assert simulator.calls[DELETIONS] > 1


async def test_more_attributes_than_fit_a_request_line_are_read_and_deleted(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    path = f"{DEVICES}/{device_id(simulator)}/attributes/server"
    await gateway.post(path, json={**dict.fromkeys(MANY, 1), "kept": 2})
    read = await gateway.get(path, params={"keys": ",".join(MANY)})
    assert (read.status_code, list(read.json()["data"])) == (200, MANY)
    assert (await gateway.delete(path, params={"keys": ",".join(MANY)})).status_code == 200
    left = (await gateway.get(path)).json()["data"]
    assert "kept" in left
    assert not left.keys() & set(MANY)
