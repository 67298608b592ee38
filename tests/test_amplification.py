"""How many calls at ThingsBoard one request can cause: a row for every operation of the document.

Calls for many devices cost in proportion to what they name; `BY_DEVICE` has the price of one device. What
ThingsBoard answers is bounded in bytes for every call (`BODY_LIMIT`), what callers send by the body limit.
Queries and counts have an allowance (`app/services/allowance.py`): `WORST_QUERIES` try to exceed it.
"""

import json
from typing import Any

import httpx
import pytest

from app.openapi import EXAMPLES
from app.openapi_examples import BOILER, BUILDING
from app.services.allowance import MOST_CALLS, MOST_CALLS_OF_MANY
from tb_simulator.makers import make_device
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tests.alarm_world import raise_alarm
from tests.documented import DOCUMENT
from tests.telemetry_world import load

BASE = "/api/v1/tb"
DEVICE, ASSET = "name:Test Device A1", "name:Amplified"
MISSING = "0b5e7d20-0000-11f1-8bad-23cb275c33c1"
NOW, DAY, HOUR, MINUTE = 1_767_225_600_000, 86_400_000, 3_600_000, 60_000
POINTS = 5_000
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
#: Status and calls of the most expensive request of its kind, with its object addressed by name.
CALLS: dict[str, tuple[int, int]] = {
    "get_root": (200, 0),
    "get_health": (200, 0),
    "get_health_v1": (200, 0),
    "get_liveness": (200, 0),
    "get_readiness": (200, 1),
    "get_whoami": (200, 0),
    "list_devices": (200, 1),
    "create_device": (201, 1),
    "get_device": (200, 2),
    "update_device": (200, 3),
    "delete_device": (200, 2),
    "get_device_credentials": (200, 2),
    "list_device_types": (200, 1),
    "list_assets": (200, 1),
    "create_asset": (201, 1),
    "get_asset": (200, 2),
    "update_asset": (200, 3),
    "delete_asset": (200, 2),
    "list_asset_types": (200, 1),
    "list_telemetry_keys": (200, 2),
    "list_asset_telemetry_keys": (200, 2),
    "get_latest_telemetry": (200, 2),
    "get_asset_latest_telemetry": (200, 2),
    "upload_telemetry": (201, 2),
    "upload_asset_telemetry": (201, 2),
    "delete_telemetry": (200, 5),
    "delete_asset_telemetry": (200, 5),
    # The whole history: a call for each page of points, which the caller gets and has to read.
    "get_telemetry": (200, 4),
    "get_asset_telemetry": (200, 4),
    "export_telemetry": (200, 4),
    "export_asset_telemetry": (200, 4),
    "count_telemetry": (200, 5),
    "count_asset_telemetry": (200, 5),
    # 8,760 hours of a year: ThingsBoard answers 700 intervals a call, and a zone changes twice a year. See
    # `WORST_QUERIES` for what costs more.
    "query_telemetry": (200, 15),
    "query_asset_telemetry": (200, 15),
    "get_all_attributes": (200, 4),
    "get_all_asset_attributes": (200, 4),
    "get_attributes": (200, 2),
    "get_asset_attributes": (200, 2),
    "upload_attributes": (201, 2),
    "upload_asset_attributes": (201, 2),
    "delete_attributes": (200, 2),
    "delete_asset_attributes": (200, 2),
    "list_relations": (200, 2),
    "create_relation": (201, 3),
    "delete_relation": (200, 3),
    "get_graph": (200, 3),
    "list_alarms": (200, 1),
    "list_device_alarms": (200, 2),
    "get_alarm": (200, 1),
    "acknowledge_alarm": (200, 1),
    "clear_alarm": (200, 1),
    "send_oneway_rpc": (409, 2),
    "send_twoway_rpc": (409, 2),
    "send_persistent_rpc": (202, 2),
    "set_light": (409, 2),
    "list_rpcs": (200, 2),
    "get_rpc": (404, 1),
    "delete_rpc": (404, 1),
}
#: Calls for each device that one request names: at most 1,000 devices, 100, and what fits into 16 MiB.
#: `RATE_LIMIT_BULK_COST=devices` makes each of them count as a request. Queries: `MOST_OF_MANY`.
BY_DEVICE = {
    "get_latest_telemetry_of_devices": 2,
    "query_telemetry_of_devices": 3,
    "upload_bulk_telemetry": 2,
}
#: They do not end: one WebSocket for all who listen, and checked reads for each device, of 100 at most.
STREAMS = {"stream_telemetry", "stream_telemetry_of_devices", "stream_rpc_events"}
PARAMETERS = {
    "device_id": DEVICE,
    "asset_id": ASSET,
    "root_id": DEVICE,
    "entity_id": DEVICE,
    "from_id": ASSET,
    "to_id": DEVICE,
    "rpc_id": MISSING,
    "scope": "server",
    "keys": "temperature",
    "entity_type": "DEVICE",
    "root_type": "DEVICE",
    "from_type": "ASSET",
    "to_type": "DEVICE",
    "page_size": "1000",
    "start_ts": str(NOW - 365 * DAY),
    "end_ts": str(NOW + DAY),
    "max_depth": "50",
    "hard_node_limit": "10000",
}
#: Those whose meaning is another one elsewhere.
OF_OPERATION = {
    "get_graph": {"direction": "BOTH"},
    "list_relations": {"direction": "FROM"},
    "delete_relation": {"type": "Contains"},
}
A_YEAR_OF_HOURS = {
    "keys": ["temperature"],
    "start_ts": NOW - 365 * DAY,
    "end_ts": NOW,
    "agg": "AVG",
    "interval": "hour",
    "time_zone": "America/Santiago",
    "limit": 10_000,
}
#: Calls of the most expensive query or count: the allowance, the name and the check of the object.
MOST_OF_ONE = MOST_CALLS + 2
#: Two years without a point, then every 37 days one, of which ThingsBoard's aggregates are all doubtful.
SPARSE = [(NOW - number * 37 * DAY, [0, "off", -1.5, True][number % 4]) for number in range(30)][::-1]
#: In every second hour a double below zero beside another value: ThingsBoard's MAX is wrong there.
HIDDEN = [point for n in range(0, 1_000, 2) for point in ((NOW + n * HOUR, -1.5), (NOW + n * HOUR + 1, True))]
LONG_AGO = NOW - 5 * 365 * DAY
WORST_QUERIES: dict[str, dict[str, Any]] = {
    "minutes of a sparse year": {"interval": MINUTE, "start_ts": NOW - 365 * DAY},
    "seconds of years, backwards": {"interval": 1_000, "start_ts": LONG_AGO, "order": "DESC", "agg": "SUM"},
    "every empty hour filled in": {"interval": "hour", "start_ts": 0, "fill": "null"},
    "months since the year 900, one by one": {
        "interval": "month",
        "start_ts": -3 * 10**13,
        "time_zone": "EST",
    },
    "smallest values": {"interval": HOUR, "start_ts": 0, "agg": "MIN"},
    "counts of mixed types": {"interval": MINUTE, "start_ts": NOW - 365 * DAY, "agg": "COUNT"},
    "hidden maxima": {"interval": HOUR, "start_ts": NOW, "end_ts": NOW + 1_000 * HOUR, "agg": "MAX"},
    "names with commas": {"interval": "day", "start_ts": LONG_AGO, "keys": [f"a,{n}" for n in range(40)]},
    "points of names with commas": {"agg": "NONE", "keys": [f"a,{n}" for n in range(100)]},
    "points of long names": {"agg": "NONE", "keys": [f"{n:03}{'€' * 252}" for n in range(100)]},
}
COMMAND = {"method": "reboot", "params": 1, "fail_fast": True}
RELATION = {
    "from": {"id": ASSET, "entity_type": "ASSET"},
    "to": {"id": DEVICE, "entity_type": "DEVICE"},
    "type": "Contains",
}
BODIES: dict[str, Any] = {
    "query_telemetry": A_YEAR_OF_HOURS,
    "query_asset_telemetry": A_YEAR_OF_HOURS,
    "send_oneway_rpc": COMMAND,
    "send_twoway_rpc": COMMAND,
    "set_light": {"state": "on", "verify": False},
    "create_relation": RELATION,
}


def test_every_operation_has_a_row() -> None:
    assert CALLS.keys() | BY_DEVICE.keys() | STREAMS == OPERATIONS.keys()
    assert max(calls for _, calls in CALLS.values()) < 100


@pytest.fixture
async def world(gateway: httpx.AsyncClient, simulator: Simulator) -> dict[str, str]:
    """A device and an asset with history, an alarm, a relation; a gateway that has logged in."""
    made = await gateway.post(f"{BASE}/assets", json={"name": "Amplified", "type": "test"})
    asset = made.json()["data"]["id"]["id"]
    device = next(each.id for each in simulator.world.every("DEVICE") if each.name == "Test Device A1")
    points = [Point("temperature", NOW - number * MINUTE, 20.5) for number in range(POINTS)]
    for each in (device, asset):
        simulator.world.telemetry.save(each, points)
    assert (await gateway.post(f"{BASE}/relations", json=RELATION)).status_code == 201
    return {"device": device, "asset": asset, "alarm": raise_alarm(simulator, device)}


def request_of(name: str, world: dict[str, str]) -> dict[str, Any]:
    """Return the arguments of the request that costs most."""
    method, path, operation = OPERATIONS[name]
    values = {**PARAMETERS, **OF_OPERATION.get(name, {}), "alarm_id": world["alarm"]}
    query = {}
    for each in operation.get("parameters", []):
        parameter = each.get("name")
        if parameter in values and each["in"] == "path":
            path = path.replace(f"{{{parameter}}}", values[parameter])
        elif parameter in values:
            query[parameter] = values[parameter]
    example = EXAMPLES.get(name, {}).get("request", {}).get("application/json")
    text = json.dumps(BODIES.get(name, example)).replace(BOILER, world["device"])
    return {
        "method": method,
        "url": path,
        "params": query,
        "json": json.loads(text.replace(BUILDING, world["asset"])),
    }


@pytest.mark.parametrize("name", sorted(CALLS))
async def test_a_request_costs_what_its_row_says(
    gateway: httpx.AsyncClient, simulator: Simulator, world: dict[str, str], name: str
) -> None:
    request = request_of(name, world)
    simulator.calls.clear()
    answer = await gateway.request(**request)
    status, most = CALLS[name]
    assert answer.status_code == status, answer.text
    assert simulator.calls.total() <= most, simulator.calls


@pytest.mark.parametrize("name", sorted(BY_DEVICE))
@pytest.mark.parametrize("devices", [1, 5])
async def test_many_devices_cost_in_proportion(
    gateway: httpx.AsyncClient, simulator: Simulator, name: str, devices: int
) -> None:
    names = [f"name:Test Device {letter}" for letter in ("A1", "A2", "A3", "B1", "C1")[:devices]]
    bodies: dict[str, Any] = {
        "get_latest_telemetry_of_devices": {"device_ids": names, "keys": ["temperature"]},
        "query_telemetry_of_devices": {"device_ids": names, "keys": ["temperature"]},
        "upload_bulk_telemetry": {each: {"temperature": 20.5} for each in names},
    }
    await gateway.get(f"{BASE}/devices")
    simulator.calls.clear()
    answer = await gateway.post(OPERATIONS[name][1], json=bodies[name])
    assert answer.status_code == 200, answer.text
    assert simulator.calls.total() <= BY_DEVICE[name] * devices, simulator.calls


@pytest.mark.parametrize("query", WORST_QUERIES.values(), ids=WORST_QUERIES.keys())
async def test_no_query_costs_more_than_its_allowance(
    gateway: httpx.AsyncClient, simulator: Simulator, world: dict[str, str], query: dict[str, Any]
) -> None:
    for key in ("sparse", "sparser"):
        load(simulator, world["device"], key, SPARSE)
    for number in range(10):
        load(simulator, world["device"], f"hidden {number}", HIDDEN)
    body = {"agg": "AVG", "end_ts": NOW + DAY, "limit": 10_000, "time_zone": "Africa/Casablanca", **query}
    simulator.calls.clear()
    answer = await gateway.post(f"{BASE}/devices/{DEVICE}/telemetry/query", json=body)
    assert answer.status_code == 200, answer.text
    assert simulator.calls.total() <= MOST_OF_ONE, simulator.calls
    assert MOST_OF_ONE < 100


@pytest.mark.parametrize("devices", [1, 9, 100])
async def test_no_query_of_many_devices_costs_more_than_their_allowance(
    gateway: httpx.AsyncClient, simulator: Simulator, devices: int
) -> None:
    ids = fleet(simulator, devices)
    for each in ids:
        load(simulator, each, "sparse", SPARSE)
    body = {
        "device_ids": [f"name:fleet {number}" for number in range(devices)],
        "agg": "AVG",
        "interval": 1_000,
        "start_ts": LONG_AGO,
        "end_ts": NOW + 1,
        "limit": 10_000,
    }
    await gateway.get(f"{BASE}/devices")
    simulator.calls.clear()
    answer = (await gateway.post(f"{BASE}/telemetry/query", json=body)).json()
    assert all(found["metadata"]["truncated"] for found in answer["data"].values())
    assert simulator.calls.total() <= min(MOST_OF_ONE * devices, MOST_CALLS_OF_MANY + 2 * devices)


USUAL = {
    "a year of days": ({"start_ts": NOW - 365 * DAY - 5 * HOUR, "interval": "day"}, 366, 11),
    "a month of hours": ({"start_ts": NOW - 31 * DAY, "interval": "hour"}, 744, 6),
}


@pytest.mark.parametrize(("query", "buckets", "calls"), USUAL.values(), ids=USUAL.keys())
async def test_the_usual_query_of_100_devices_is_one_answer(
    gateway: httpx.AsyncClient, simulator: Simulator, query: dict[str, Any], buckets: int, calls: int
) -> None:
    """Even where every average is 0, so that each has to be looked at twice."""
    ids = fleet(simulator, 100)
    for each in ids:
        load(simulator, each, "rain", [(ts, 0.0) for ts in range(query["start_ts"], NOW, query_step(query))])
    body = {"device_ids": ids, "end_ts": NOW, "agg": "AVG", "time_zone": "Europe/Berlin", **query}
    await gateway.get(f"{BASE}/devices")
    simulator.calls.clear()
    answer = (await gateway.post(f"{BASE}/telemetry/query", json=body)).json()
    assert len(answer["data"]) == 100
    for found in answer["data"].values():
        assert found["metadata"]["truncated"] is False
        assert found["metadata"]["total_points"] == buckets
    assert simulator.calls.total() <= calls * len(ids)


def query_step(query: dict[str, Any]) -> int:
    """Return how far points have to lie apart so that every bucket has one."""
    return HOUR if query["interval"] == "hour" else DAY // 2


#: Calls with as many keys as a request line holds, of those that answer more of them with more calls.
MANY_KEYS = {
    "get_latest_telemetry": 2,
    "get_telemetry": 38,
    "count_telemetry": 6,
    "delete_telemetry": 15,
    "get_attributes": 5,
    "delete_attributes": 5,
}


@pytest.mark.parametrize("name", sorted(MANY_KEYS))
async def test_many_names_in_a_request_line_cost_few_calls(
    gateway: httpx.AsyncClient, simulator: Simulator, world: dict[str, str], name: str
) -> None:
    request = request_of(name, world)
    request["params"]["keys"] = ",".join(f"{number:x}" for number in range(3_300))
    simulator.calls.clear()
    answer = await gateway.request(**request)
    assert answer.status_code == 200, answer.text
    assert simulator.calls.total() <= MANY_KEYS[name], simulator.calls


async def test_latest_values_cost_one_call_a_device_whatever_their_keys_are_called(
    gateway: httpx.AsyncClient, simulator: Simulator, world: dict[str, str]
) -> None:
    load(simulator, world["device"], "a,7", [(NOW, 5)])
    names = ["temperature", *(f"a,{number}" for number in range(99))]
    simulator.calls.clear()
    answer = await gateway.post(
        f"{BASE}/telemetry/latest", json={"device_ids": [world["device"]], "keys": names}
    )
    found = answer.json()["data"][world["device"]]
    assert {key: point["value"] for key, point in found.items() if point} == {"temperature": 20.5, "a,7": 5}
    assert list(found) == names
    assert simulator.calls.total() == 1


async def test_names_that_would_take_a_call_each_are_refused_where_they_take_too_many(
    gateway: httpx.AsyncClient, simulator: Simulator, world: dict[str, str]
) -> None:
    body = {"keys": [f"a,{number}" for number in range(41)], "agg": "AVG", "start_ts": NOW, "end_ts": NOW + 1}
    answer = await gateway.post(f"{BASE}/devices/{DEVICE}/telemetry/query", json=body)
    assert (answer.status_code, answer.json()["details"]["field"]) == (400, "keys")
    assert "41 calls" in answer.json()["details"]["issue"]


def fleet(simulator: Simulator, size: int) -> list[str]:
    tenant = next(entity.id for entity in simulator.world.every("TENANT") if entity.name == "Tenant")
    return [make_device(simulator.world, tenant, f"fleet {number}").id for number in range(size)]
