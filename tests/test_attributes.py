"""Attributes over HTTP."""

from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator

API = "/api/v1/tb"
PATH = f"{API}/devices/name:Test Device A1/attributes"
UNKNOWN = "00000000-0000-0000-0000-000000000007"
T = 1_760_000_000_000


def device_id(simulator: Simulator, name: str = "Test Device A1") -> str:
    return next(device.id for device in simulator.world.every("DEVICE") if device.body["name"] == name)


@pytest.mark.parametrize(("scope", "theirs"), [("server", "SERVER_SCOPE"), ("shared", "SHARED_SCOPE")])
async def test_attributes_are_written_read_and_deleted(
    gateway: httpx.AsyncClient, simulator: Simulator, scope: str, theirs: str
) -> None:
    values = {
        "serial": "SN-1",
        "limit": 30.5,
        "on": True,
        "cfg": {"a": [1]},
        "list": [1, "2"],
        "n": 9007199254740993,
    }
    answer = await gateway.post(f"{PATH}/{scope}", json=values)
    body = answer.json()
    assert answer.status_code == 201
    assert body.pop("timestamp") > T
    assert body == {
        "status": "success",
        "device_id": device_id(simulator),
        "scope": theirs,
        "attributes_uploaded": list(values),
        "count": 6,
        "message": "Stored 6 attributes.",
        "warnings": [],
    }

    read = (await gateway.get(f"{PATH}/{scope}")).json()
    assert (read["device_id"], read["scope"]) == (device_id(simulator), theirs)
    assert {key: read["data"][key]["value"] for key in values} == values
    assert read["data"]["serial"].keys() == {"value", "last_update_ts"}
    assert read["data"]["serial"]["last_update_ts"] > T

    some = (await gateway.get(f"{PATH}/{scope}?keys=serial,nope,limit,serial")).json()["data"]
    assert some.keys() == {"serial", "limit"}

    gone = (await gateway.delete(f"{PATH}/{scope}?keys=serial,limit,limit")).json()
    assert (gone["attributes_deleted"], gone["count"], gone["scope"]) == (["serial", "limit"], 2, theirs)
    assert "serial" not in (await gateway.get(f"{PATH}/{scope}")).json()["data"]


async def test_all_scopes_come_in_one_answer(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    await gateway.post(f"{PATH}/server", json={"a": 1})
    await gateway.post(f"{PATH}/shared", json={"b": 2})
    simulator.world.attributes.save(device_id(simulator), "CLIENT_SCOPE", {"c": 3})
    body = (await gateway.get(PATH)).json()
    values = {
        scope: {key: entry["value"] for key, entry in found.items()} for scope, found in body["data"].items()
    }
    assert values.keys() == {"SERVER_SCOPE", "SHARED_SCOPE", "CLIENT_SCOPE"}
    assert (values["SERVER_SCOPE"]["a"], values["SHARED_SCOPE"], values["CLIENT_SCOPE"]) == (
        1,
        {"b": 2},
        {"c": 3},
    )


async def test_client_attributes_are_the_devices_own(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.world.attributes.save(device_id(simulator), "CLIENT_SCOPE", {"c": 3})
    assert (await gateway.get(f"{PATH}/client")).json()["data"]["c"]["value"] == 3
    refused = await gateway.post(f"{PATH}/client", json={"c": 4})
    assert (refused.status_code, refused.json()["details"]["field"]) == (422, "scope")
    assert "written by the device" in refused.json()["details"]["issue"]
    assert (await gateway.delete(f"{PATH}/client?keys=c")).status_code == 200
    assert (await gateway.get(f"{PATH}/client")).json()["data"] == {}


async def test_an_unknown_scope_is_refused(gateway: httpx.AsyncClient) -> None:
    for answer in (
        await gateway.get(f"{PATH}/SERVER"),
        await gateway.post(f"{PATH}/other", json={"a": 1}),
        await gateway.delete(f"{PATH}/all?keys=a"),
    ):
        assert (answer.status_code, answer.json()["details"]["field"]) == (422, "scope")


@pytest.mark.parametrize(
    ("body", "field", "issue"),
    [
        (b"", "attributes", "empty request body"),
        (b"{}", "attributes", "empty request body"),
        (b"[]", "attributes", "empty request body"),
        (b"null", "attributes", "empty request body"),
        (b'[{"a":1}]', "attributes", "must be a JSON object"),
        (b"5", "attributes", "must be a JSON object"),
        (b'{"a":null}', "a", "must not be null"),
        (b'{"":1}', "attributes", "the key is empty"),
        (b'{"a,b":1}', "a,b", "comma"),
        (b'{"a":"\\u0000"}', "a", "NUL"),
        (b"{oops", "body", "not valid JSON"),
        (b'{"a":NaN}', "body", "not valid JSON"),
    ],
)
async def test_what_cannot_be_an_attribute_is_refused(
    gateway: httpx.AsyncClient, body: bytes, field: str, issue: str
) -> None:
    answer = await gateway.post(f"{PATH}/server", content=body)
    details = answer.json()["details"]
    assert (answer.status_code, details["field"]) == (400, field)
    assert issue in details["issue"]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (b'"1.2"', 1.2),
        (b'"0042"', 42),
        (b"0.30000000000000004", 0.3),
        (b"123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
async def test_what_thingsboard_changes_is_named(
    gateway: httpx.AsyncClient, sent: bytes, stored: Any
) -> None:
    answer = await gateway.post(f"{PATH}/shared", content=b'{"fw":' + sent + b',"x":1}')
    assert (answer.status_code, [entry["key"] for entry in answer.json()["warnings"]]) == (201, ["fw"])
    assert (await gateway.get(f"{PATH}/shared")).json()["data"]["fw"]["value"] == stored


async def test_only_json_is_read(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(f"{PATH}/server", content=b"a=1", headers={"content-type": "text/plain"})
    assert answer.status_code == 415


async def test_an_unknown_device_is_not_found(gateway: httpx.AsyncClient) -> None:
    path = f"{API}/devices/{UNKNOWN}/attributes"
    for answer in (
        await gateway.get(path),
        await gateway.get(f"{path}/server"),
        await gateway.post(f"{path}/server", json={"a": 1}),
        await gateway.delete(f"{path}/server?keys=a"),
    ):
        assert answer.status_code == 404


async def test_another_customers_device_is_not_found(
    customer_gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    path = f"{API}/devices/{device_id(simulator, 'Test Device B1')}/attributes"
    assert (await customer_gateway.get(path)).status_code == 404
    assert (await customer_gateway.post(f"{path}/server", json={"a": 1})).status_code == 404


async def test_deleting_needs_keys(gateway: httpx.AsyncClient) -> None:
    assert (await gateway.delete(f"{PATH}/server")).status_code == 422
    assert (await gateway.delete(f"{PATH}/server?keys=,")).status_code == 400


async def test_assets_have_attributes_too(gateway: httpx.AsyncClient) -> None:
    asset = (await gateway.post(f"{API}/assets", json={"name": "house"})).json()["data"]["id"]["id"]
    path = f"{API}/assets/name:house/attributes"
    assert (await gateway.post(f"{path}/server", json={"floors": 3})).json()["asset_id"] == asset
    assert (await gateway.get(f"{path}/server")).json()["data"]["floors"]["value"] == 3
    assert (await gateway.get(path)).json()["asset_id"] == asset
    assert (await gateway.delete(f"{path}/server?keys=floors")).json()["asset_id"] == asset
