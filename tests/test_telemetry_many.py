"""Telemetry of many devices in one call."""

from typing import Any

import httpx
import pytest

from tb_simulator.makers import make_device
from tb_simulator.server import Simulator
from tests.conftest import GatewayFactory
from tests.telemetry_world import DEVICES, PREFIX, START, UNKNOWN, VALUES, device_id, json_value, load

LATEST, QUERY = f"{PREFIX}/telemetry/latest", f"{PREFIX}/telemetry/query"
FIND = "POST /api/entitiesQuery/find"


def fleet(simulator: Simulator, size: int) -> list[str]:
    tenant = next(entity.id for entity in simulator.world.every("TENANT") if entity.name == "Tenant")
    made = [make_device(simulator.world, tenant, f"fleet {n}").id for n in range(size)]
    for number, device in enumerate(made):
        load(simulator, device, "temperature", [(START, number)])
    return made


async def test_strict_latest_is_a_call_a_device(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    ids = fleet(simulator, 50)
    answer = (await gateway.post(LATEST, json={"device_ids": [*ids, *ids]})).json()
    assert answer["data"] == {
        device: {"temperature": {"ts": START, "value": number}} for number, device in enumerate(ids)
    }
    assert (answer["errors"], answer["device_ids"]) == ({}, {device: device for device in ids})
    assert simulator.calls[VALUES] == 50


async def test_inferred_latest_of_500_devices_is_one_query(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    ids = fleet(simulator, 500)
    await gateway.get(f"{PREFIX}/devices")
    simulator.calls.clear()
    body = {"device_ids": ids, "keys": ["temperature", "nope"], "types": "inferred"}
    answer = (await gateway.post(LATEST, json=body)).json()
    assert len(answer["data"]) == 500
    assert answer["data"][ids[7]] == {"temperature": {"ts": START, "value": 7}, "nope": None}
    assert sum(simulator.calls.values()) <= 3
    assert simulator.calls[FIND] == 1


INFERRED = {
    "true": (True, True),
    "text": ("ON", "ON"),
    "int": (9_007_199_254_740_993, 9_007_199_254_740_993),
    "negative": (-4, -4),
    "float": (-0.25, -0.25),
    "java exponent": (12_345_678.5, 12_345_678.5),
    "tiny": (1.5e-7, 1.5e-7),
    "beyond int64": ("123456789012345678901234567890", "123456789012345678901234567890"),
    "long decimal": ("0.30000000000000004", "0.30000000000000004"),
    "object": (json_value('{"a":[1]}'), {"a": [1]}),
    "no object": ("{oops", "{oops"),
    "empty": ("", ""),
    "not a number": ("NaN", "NaN"),
    "a small double": (-5e-05, -5e-05),
    "a large double": (1.25e15, 1.25e15),
    "a double without decimals": (25.0, 25),
    "text with an exponent": ("1e-05", 1e-05),
    "a double as Java writes it": ("1.5E-7", 1.5e-07),
    "text beyond doubles": ("1e+999", "1e+999"),
    "text like an exponent": ("1e5e", "1e5e"),
}


@pytest.mark.parametrize(("stored", "expected"), INFERRED.values(), ids=INFERRED.keys())
async def test_inferred_types_are_read_from_the_text(
    gateway: httpx.AsyncClient, simulator: Simulator, stored: Any, expected: Any
) -> None:
    device = device_id(simulator)
    load(simulator, device, "k", [(START, stored)])
    body = {"device_ids": [device], "keys": ["k"], "types": "inferred"}
    point = (await gateway.post(LATEST, json=body)).json()["data"][device]["k"]
    assert repr(point["value"]) == repr(expected)


@pytest.mark.parametrize("types", ["strict", "inferred"])
async def test_one_bad_device_never_fails_the_others(
    gateway: httpx.AsyncClient, simulator: Simulator, types: str
) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(START, 1)])
    good = [device, device.upper(), "name:Test Device A1"]
    bad = {UNKNOWN: 404, "name:nobody": 404, "not-a-uuid": 422}
    body = {"device_ids": [*good, *bad], "keys": ["a"], "types": types}
    answer = (await gateway.post(LATEST, json=body)).json()
    assert answer["data"] == {name: {"a": {"ts": START, "value": 1}} for name in good}
    assert {name: error["status"] for name, error in answer["errors"].items()} == bad
    assert answer["errors"]["name:nobody"]["error_code"] == "RESOURCE_NOT_FOUND"
    assert {answer["device_ids"][name] for name in good} == {device}


async def test_inferred_needs_keys(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    body = {"device_ids": [device_id(simulator)], "types": "inferred"}
    answer = await gateway.post(LATEST, json=body)
    assert (answer.status_code, answer.json()["details"]["field"]) == (400, "keys")


BAD_BODIES = [{}, {"device_ids": []}, {"device_ids": ["x"] * 1001}, {"device_ids": [""]}, {"device_ids": "x"}]


@pytest.mark.parametrize("body", BAD_BODIES, ids=["none", "empty", "too many", "nameless", "text"])
async def test_the_devices_have_to_be_named(gateway: httpx.AsyncClient, body: dict[str, Any]) -> None:
    for path in (LATEST, QUERY):
        answer = await gateway.post(path, json=body)
        assert answer.status_code == 422
        assert answer.json()["details"]["field"].startswith("device_ids")


@pytest.mark.parametrize(("fault", "status"), [(500, 502), (504, 504), (429, 429)])
async def test_a_fault_that_strikes_all_is_the_answer(
    make_gateway: GatewayFactory, simulator: Simulator, fault: int, status: int
) -> None:
    gateway = make_gateway(tb_queue_seconds=0)
    ids = fleet(simulator, 3)
    simulator.faults.status(fault, path="plugins/telemetry")
    for path, body in ((LATEST, {"device_ids": ids}), (QUERY, {"device_ids": ids})):
        assert (await gateway.post(path, json=body)).status_code == status


async def test_a_fault_that_strikes_one_is_its_own(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    ids = fleet(simulator, 3)
    simulator.faults.status(500, path=f"telemetry/DEVICE/{ids[1]}")
    for path in (LATEST, QUERY):
        answer = (await gateway.post(path, json={"device_ids": ids})).json()
        assert set(answer["data"]) == {ids[0], ids[2]}
        assert answer["errors"][ids[1]]["status"] == 502


async def test_one_query_for_many_devices(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    ids = fleet(simulator, 3)
    query = {"start_ts": START, "end_ts": START + 1000, "agg": "MAX", "interval": 1000}
    body = {"device_ids": [*ids, "name:fleet 0", UNKNOWN], **query}
    answer = (await gateway.post(QUERY, json=body)).json()
    point = {"ts": START, "end_ts": START + 1000}
    for number, device in enumerate(ids):
        found = answer["data"][device]
        assert found["device_id"] == device
        assert found["data"] == {"temperature": [{**point, "value": number}]}
        assert found["metadata"]["total_points"] == 1
        assert found["warnings"] == []
    assert answer["data"]["name:fleet 0"] == answer["data"][ids[0]]
    assert answer["errors"][UNKNOWN]["status"] == 404


async def test_the_points_of_an_answer_are_shared_and_the_cursor_goes_on_alone(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    ids = fleet(simulator, 20)
    for device in ids:
        load(simulator, device, "temperature", [(START + n, n) for n in range(5_100)])
    query = {"keys": ["temperature"], "start_ts": START, "end_ts": START + 10_000, "limit": 10_000}
    answer = (await gateway.post(QUERY, json={"device_ids": ids, **query})).json()
    found = answer["data"][ids[3]]
    assert (found["query"]["limit"], found["metadata"]["truncated"]) == (5_000, True)
    rest = {**query, "cursor": found["metadata"]["next_cursor"]}
    page = (await gateway.post(f"{DEVICES}/{ids[3]}/telemetry/query", json=rest)).json()
    assert [point["value"] for point in page["data"]["temperature"]] == list(range(5_000, 5_100))


async def test_a_senseless_query_fails_as_a_whole(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    body = {"device_ids": [device_id(simulator)], "interval": "day"}
    answer = await gateway.post(QUERY, json=body)
    assert (answer.status_code, answer.json()["details"]["field"]) == (400, "interval")
    answer = await gateway.post(QUERY, json={"device_ids": [device_id(simulator)], "cursor": "x"})
    assert (answer.status_code, answer.json()["details"]["field"]) == (422, "cursor")
