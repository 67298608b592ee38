"""Keys, latest values and counts over HTTP."""

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.telemetry_world import DEVICES, KEYS, PREFIX, START, UNKNOWN, VALUES, device_id, json_value, load

TYPED = {
    "int_min": -(2**63),
    "int_max": 2**63 - 1,
    "float": -0.1,
    "whole_float": 20.0,
    "flag": False,
    "text": "ON",
    "digits_beyond_int64": "123456789012345678901234567890",
    "empty": "",
}


async def test_keys_are_those_of_the_device(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    load(simulator, device, "temperature", [(START, 1)])
    load(simulator, device, "a,b", [(START, 1)])
    answer = (await gateway.get(f"{DEVICES}/{device}/keys")).json()
    assert (answer["device_id"], answer["keys"]) == (device, ["temperature", "a,b"])


async def test_latest_values_keep_their_types(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    for key, value in TYPED.items():
        load(simulator, device, key, [(START, value)])
    load(simulator, device, "object", [(START, json_value('{"a":[1,2]}'))])
    answer = (await gateway.get(f"{DEVICES}/name:Test Device A1/telemetry/latest")).json()
    expected = {**TYPED, "object": {"a": [1, 2]}}
    assert answer["data"] == {key: {"ts": START, "value": value} for key, value in expected.items()}
    assert all(type(answer["data"][key]["value"]) is type(value) for key, value in expected.items())
    assert (answer["device_id"], answer["keys_requested"]) == (device, list(expected))


async def test_an_unknown_key_is_null_and_doubles_are_asked_once(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    load(simulator, device, "temperature", [(START, 1), (START + 1, 2)])
    path = f"{DEVICES}/{device}/telemetry/latest?keys=temperature,nope,temperature"
    answer = (await gateway.get(path)).json()
    assert answer["keys_requested"] == ["temperature", "nope"]
    assert answer["data"] == {"temperature": {"ts": START + 1, "value": 2}, "nope": None}
    assert simulator.calls[VALUES] == 1


async def test_a_count_covers_the_whole_history_in_few_calls(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(START + n, n) for n in range(25_000)])
    load(simulator, device, "b", [(START + n, "x") for n in range(3)])
    load(simulator, device, "c,d", [(START, True)])
    answer = (await gateway.get(f"{DEVICES}/{device}/telemetry/count")).json()
    assert (answer["counts"], answer["total"]) == ({"a": 25_000, "b": 3, "c,d": 1}, 25_004)
    assert (answer["exact"], answer["at_least"]) == (True, [])

    simulator.calls.clear()
    path = f"{DEVICES}/{device}/telemetry/count?keys=a,nope&start_ts={START + 1}&end_ts={START + 11}"
    assert (await gateway.get(path)).json()["counts"] == {"a": 10, "nope": 0}
    assert simulator.calls[VALUES] == 2


async def test_an_asset_has_the_same_routes(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    made = await gateway.post(f"{PREFIX}/assets", json={"name": "hall"})
    asset = made.json()["data"]["id"]["id"]
    load(simulator, asset, "power", [(START, 12.5)])
    base = f"{PREFIX}/assets/name:hall"
    assert (await gateway.get(f"{base}/keys")).json()["asset_id"] == asset
    assert (await gateway.get(f"{base}/telemetry/latest")).json()["data"]["power"]["value"] == 12.5
    assert (await gateway.get(f"{base}/telemetry")).json()["data"] == {
        "power": [{"ts": START, "value": 12.5}]
    }
    assert (await gateway.get(f"{base}/telemetry/count")).json()["total"] == 1
    query = {"start_ts": START, "end_ts": START + 1}
    answer = await gateway.post(f"{base}/telemetry/query", json=query)
    assert (answer.json()["asset_id"], answer.json()["metadata"]["total_points"]) == (asset, 1)
    export = await gateway.get(f"{base}/telemetry/export")
    assert export.headers["content-disposition"] == f'attachment; filename="telemetry-{asset}.csv"'


READS = {
    "keys": ("GET", "/keys", None),
    "latest": ("GET", "/telemetry/latest", None),
    "latest of a key": ("GET", "/telemetry/latest?keys=secret", None),
    "latest of a key with a comma": ("GET", "/telemetry/latest?keys=a,secret", None),
    "json": ("GET", "/telemetry?keys=secret", None),
    "csv": ("GET", "/telemetry?keys=secret&format=csv", None),
    "jsonl": ("GET", "/telemetry?keys=secret&format=jsonl", None),
    "xlsx": ("GET", "/telemetry?keys=secret&format=xlsx", None),
    "all keys": ("GET", "/telemetry", None),
    "wide export": ("GET", "/telemetry/export?layout=wide&keys=secret", None),
    "xlsx export": ("GET", "/telemetry/export?format=xlsx", None),
    "count": ("GET", "/telemetry/count?keys=secret", None),
    "points": ("POST", "/telemetry/query", {"keys": ["secret"], "start_ts": START, "end_ts": START + 9}),
    "aggregate": ("POST", "/telemetry/query", {"keys": ["secret"], "start_ts": START, "agg": "SUM"}),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("whose", ["another customer's", "nobody's"])
async def test_what_a_credential_may_not_see_is_a_404_in_every_form(
    customer_gateway: httpx.AsyncClient, simulator: Simulator, read: tuple, whose: str
) -> None:
    """ThingsBoard itself would answer: its history route checks nothing."""
    device = device_id(simulator, "Test Device B1") if whose != "nobody's" else UNKNOWN
    simulator.world.telemetry.load(device, "secret", [START], [42])
    method, path, body = read
    answer = await customer_gateway.request(method, f"{DEVICES}/{device}{path}", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_NOT_FOUND")
    assert "42" not in answer.text.replace(answer.json()["request_id"], "").replace(
        str(answer.json()["timestamp"]), ""
    )


async def test_many_devices_keep_another_customers_to_themselves(
    customer_gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    own, foreign = device_id(simulator), device_id(simulator, "Test Device B1")
    for device in (own, foreign):
        load(simulator, device, "secret", [(START, 42)])
    bodies = {
        "latest": [
            {"device_ids": [own, foreign], "keys": ["secret"], "types": "inferred"},
            {"device_ids": [own, foreign]},
        ],
        "query": [{"device_ids": [own, foreign], "start_ts": START, "end_ts": START + 1}],
    }
    for path, variants in bodies.items():
        for body in variants:
            answer = (await customer_gateway.post(f"{PREFIX}/telemetry/{path}", json=body)).json()
            assert set(answer["data"]) == {own}
            assert answer["errors"][foreign]["status"] == 404


async def test_the_check_is_remembered_for_a_moment(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(START, 1)])
    await gateway.get(f"{DEVICES}/{device}/telemetry?keys=a")
    await gateway.get(f"{DEVICES}/{device}/telemetry?keys=a")
    assert simulator.calls[KEYS] == 1
    load(simulator, device, "new", [(START, 1)])
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry?keys=new")
    assert answer.json()["data"] == {"new": [{"ts": START, "value": 1}]}
    assert simulator.calls[KEYS] == 2


BAD_READS = {
    "empty keys": ("/telemetry?keys=", 422, "keys"),
    "commas only": ("/telemetry/latest?keys=,,", 422, "keys"),
    "seconds": ("/telemetry?start_ts=1760000000", 400, "start_ts"),
    "end before start": (f"/telemetry/count?start_ts={START}&end_ts={START}", 400, "end_ts"),
    "no time": ("/telemetry/export?end_ts=yesterday", 400, "end_ts"),
    "unknown format": ("/telemetry?format=pdf", 422, "format"),
    "json has no layout": ("/telemetry?layout=wide", 400, "layout"),
    "jsonl is raw anyway": ("/telemetry/export?format=jsonl&raw=true", 400, "raw"),
    "unknown parameter": ("/telemetry?startTs=1", 422, "startTs"),
    "export is no json": ("/telemetry/export?format=json", 422, "format"),
}


@pytest.mark.parametrize(("path", "status", "field"), BAD_READS.values(), ids=BAD_READS.keys())
async def test_a_senseless_read_names_the_field(
    gateway: httpx.AsyncClient, simulator: Simulator, path: str, status: int, field: str
) -> None:
    answer = await gateway.get(f"{DEVICES}/{device_id(simulator)}{path}")
    assert (answer.status_code, answer.json()["details"]["field"]) == (status, field)
    assert simulator.calls[VALUES] == 0
