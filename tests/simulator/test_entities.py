"""Entities, relations and queries beyond what was recorded."""

from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point

PAGE = {"pageSize": 100, "page": 0}


async def create(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    return (await client.post(path, json=body)).json()


async def find(client: httpx.AsyncClient, entity_filter: dict[str, Any], **more: Any) -> Any:
    link = {"page": 0, "pageSize": 100, **more.pop("pageLink", {})}
    fields = [{"type": "ENTITY_FIELD", "key": key} for key in ("name", "entityType")]
    body = {"entityFilter": entity_filter, "entityFields": fields, "pageLink": link, **more}
    answer = await client.post("/api/entitiesQuery/find", json=body)
    return answer.json()


def names(found: Any) -> list[str]:
    return [row["latest"]["ENTITY_FIELD"]["name"]["value"] for row in found["data"]]


async def test_a_device_can_be_made_with_its_token(simulator: Simulator, tenant: httpx.AsyncClient) -> None:
    made = (await tenant.post("/api/device?accessToken=mine", json={"name": "d"})).json()
    assert simulator.world.device_of_token["mine"] == made["id"]["id"]
    assert (await tenant.post("/api/device?accessToken=mine", json={"name": "e"})).status_code == 400


async def test_a_device_changes_its_name_type_and_customer(tenant: httpx.AsyncClient) -> None:
    made = await create(tenant, "/api/device", name="d")
    customer = await create(tenant, "/api/customer", title="New")
    changed = await create(tenant, "/api/device", **{**made, "name": "e", "type": "new"})
    assert (changed["name"], changed["type"], changed["version"]) == ("e", "new", 2)
    path = f"/api/customer/{customer['id']['id']}/device/{made['id']['id']}"
    assert (await tenant.post(path)).json()["customerId"] == customer["id"]
    listed = await tenant.get(f"/api/customer/{customer['id']['id']}/deviceInfos", params=PAGE)
    assert listed.json()["data"][0]["customerTitle"] == "New"
    assert (await tenant.delete(f"/api/customer/device/{made['id']['id']}")).status_code == 200
    assert (await tenant.delete(f"/api/customer/{customer['id']['id']}")).status_code == 200
    by_name = [await tenant.get("/api/tenant/devices", params={"deviceName": name}) for name in ("d", "e")]
    assert [answer.status_code for answer in by_name] == [404, 200]


async def test_a_deleted_device_leaves_nothing(
    simulator: Simulator, tenant: httpx.AsyncClient, device_id: str
) -> None:
    simulator.world.telemetry.save(device_id, [Point("k", 1, 1)])
    assert (await tenant.delete(f"/api/device/{device_id}")).status_code == 200
    assert simulator.world.telemetry.series(device_id, "k") is None
    assert (await tenant.get(f"/api/device/{device_id}")).status_code == 404


async def test_devices_by_ids_leaves_out_what_may_not_be_seen(
    tenant: httpx.AsyncClient, customer: httpx.AsyncClient, device_id: str, foreign_id: str
) -> None:
    ids = {"deviceIds": f"{device_id},{foreign_id}"}
    assert [d["id"]["id"] for d in (await tenant.get("/api/devices", params=ids)).json()] == [device_id]
    assert (await customer.get("/api/devices", params=ids)).json() == []
    assert (await tenant.get("/api/devices")).status_code == 500
    assert (await tenant.get("/api/devices?deviceIds=")).status_code == 400


async def test_assets_have_names_types_infos_and_customers(tenant: httpx.AsyncClient) -> None:
    asset = await create(tenant, "/api/asset", name="a", type="room", label="l")
    identifier = asset["id"]["id"]
    assert (await tenant.get("/api/asset/types")).json()[0]["type"] == "room"
    assert (await tenant.get("/api/tenant/assets?assetName=a")).json() == asset
    assert (await tenant.get("/api/tenant/assets?assetName=b")).status_code == 404
    assert (await tenant.get(f"/api/asset/info/{identifier}")).json()["assetProfileName"] == "room"
    infos = await tenant.get("/api/tenant/assetInfos", params={**PAGE, "textSearch": "ROOM"})
    assert infos.json()["totalElements"] == 1
    assert len((await tenant.get("/api/assets", params={"assetIds": identifier})).json()) == 1
    customers = (await tenant.get("/api/customers", params={**PAGE, "sortProperty": "title"})).json()["data"]
    assert [c["title"] for c in customers] == ["Customer A", "Customer B", "Customer C"]
    owner = customers[0]["id"]["id"]
    assert (await tenant.post(f"/api/customer/{owner}/asset/{identifier}")).status_code == 200
    listed = await tenant.get(f"/api/customer/{owner}/assetInfos", params=PAGE)
    assert listed.json()["data"][0]["customerTitle"] == "Customer A"
    assert (await tenant.delete(f"/api/customer/asset/{identifier}")).status_code == 200


async def test_customers_and_entity_views_keep_their_names_apart(tenant: httpx.AsyncClient) -> None:
    for path, field in (("/api/customer", "title"), ("/api/entityView", "name")):
        made = await create(tenant, path, **{field: "one"})
        assert (await tenant.post(path, json={field: "one"})).status_code == 400
        assert (await tenant.post(path, json={})).status_code == 400
        changed = await create(tenant, path, **{**made, field: "two"})
        assert (changed["name"], changed["version"]) == ("two", 2)
        item = f"{path}/{made['id']['id']}"
        assert (await tenant.get(item)).json()[field] == "two"
        assert (await tenant.delete(item)).status_code == 200
        assert (await tenant.get(item)).status_code == 404


async def test_profiles_are_read_one_by_one(tenant: httpx.AsyncClient) -> None:
    for kind in ("asset", "device"):
        default = (await tenant.get(f"/api/{kind}ProfileInfo/default")).json()
        assert default["name"] == "default"
        assert (await tenant.get(f"/api/{kind}ProfileInfos", params=PAGE)).status_code == 200
        assert (await tenant.get(f"/api/{kind}Profile/names")).status_code == 200
    assert (await tenant.get(f"/api/deviceProfile/{default['id']['id']}")).json()["default"] is True
    assert (await tenant.get(f"/api/deviceProfileInfo/{default['id']['id']}")).json() == default


@pytest.fixture
async def ring(tenant: httpx.AsyncClient) -> list[dict[str, str]]:
    """Return three assets that contain each other in a circle."""
    assets = [(await create(tenant, "/api/asset", name=f"ring {n}"))["id"] for n in range(3)]
    for source, target in zip(assets, assets[1:] + assets[:1], strict=True):
        await tenant.post("/api/relation", json={"from": source, "to": target, "type": "Contains"})
    return assets


async def test_a_cycle_comes_once(tenant: httpx.AsyncClient, ring: list[dict[str, str]]) -> None:
    root = {"rootId": ring[0]["id"], "rootType": "ASSET", "direction": "FROM", "maxLevel": 0}
    walked = (await tenant.post("/api/relations", json={"parameters": root, "filters": []})).json()
    assert len(walked) == 3
    query = {"type": "relationsQuery", "rootEntity": ring[0], "direction": "TO", "maxLevel": 0, "filters": []}
    assert sorted(names(await find(tenant, query))) == ["ring 1", "ring 2"]


async def test_one_relation_and_the_ways_to_it(tenant: httpx.AsyncClient, ring: list[dict[str, str]]) -> None:
    ends = {"fromType": "ASSET", "toType": "ASSET", "fromId": ring[0]["id"], "toId": ring[1]["id"]}
    one = await tenant.get("/api/relation", params={**ends, "relationType": "Contains"})
    assert one.json()["to"]["id"] == ring[1]["id"]
    assert (await tenant.get("/api/relation", params={**ends, "relationType": "No"})).status_code == 404
    assert (await tenant.get(f"/api/relations/to/ASSET/{ring[1]['id']}")).json() == [one.json()]
    named = (await tenant.get(f"/api/relations/info/to/ASSET/{ring[1]['id']}")).json()
    assert (named[0]["fromName"], named[0]["toName"]) == ("ring 0", None)
    assert (await tenant.get("/api/relations")).status_code == 400
    assert (await tenant.post("/api/relation", json={"type": "x"})).status_code == 400
    assert (await tenant.post("/api/relation", json={})).status_code == 400
    assert (await tenant.delete("/api/relation")).status_code == 500


async def test_filters_by_name_and_single_entity(tenant: httpx.AsyncClient, device_id: str) -> None:
    by_name = {"type": "entityName", "entityType": "DEVICE", "entityNameFilter": "test device"}
    order = {"sortOrder": {"key": {"type": "ENTITY_FIELD", "key": "name"}, "direction": "DESC"}}
    found = await find(tenant, by_name, pageLink={**order, "pageSize": 2})
    assert (names(found), found["totalElements"]) == (["Test Device C1", "Test Device B1"], 5)
    single = {"type": "singleEntity", "singleEntity": {"entityType": "DEVICE", "id": device_id}}
    assert names(await find(tenant, single)) == ["DHT11 Demo Device"]
    thermostats = {"type": "deviceType", "deviceType": "thermostat", "deviceNameFilter": "Thermostat T2"}
    assert names(await find(tenant, thermostats)) == ["Thermostat T2"]
    assert names(await find(tenant, by_name, pageLink={"textSearch": "b1"})) == ["Test Device B1"]
    empty = {"type": "entityList", "entityType": "DEVICE", "entityList": []}
    assert (await find(tenant, empty))["status"] == 500


@pytest.mark.parametrize(
    ("kind", "operation", "value", "found"),
    [
        ("NUMERIC", "GREATER", 20, True),
        ("NUMERIC", "LESS_OR_EQUAL", 20, False),
        ("STRING", "EQUAL", "21.5", True),
        ("STRING", "STARTS_WITH", "22", False),
        ("STRING", "CONTAINS", "1.", True),
    ],
)
async def test_key_filters(
    simulator: Simulator,
    tenant: httpx.AsyncClient,
    device_id: str,
    kind: str,
    operation: str,
    value: Any,
    found: Any,
) -> None:
    simulator.world.telemetry.save(device_id, [Point("t", 1, 21.5)])
    predicate = {"type": kind, "operation": operation, "value": {"defaultValue": value}}
    key_filter = {"key": {"type": "TIME_SERIES", "key": "t"}, "valueType": kind, "predicate": predicate}
    every = {"type": "entityType", "entityType": "DEVICE"}
    sort = {"sortOrder": {"key": {"type": "TIME_SERIES", "key": "t"}, "direction": "DESC"}}
    answer = await find(tenant, every, keyFilters=[key_filter], pageLink=sort)
    assert ("DHT11 Demo Device" in names(answer)) is found
    unknown = {**key_filter, "predicate": {"type": kind, "operation": "NOPE"}}
    assert (await find(tenant, every, keyFilters=[unknown]))["status"] == 500


async def test_infos_sort_by_what_only_they_have(tenant: httpx.AsyncClient) -> None:
    query = {**PAGE, "sortProperty": "deviceProfileName", "sortOrder": "DESC"}
    infos = (await tenant.get("/api/tenant/deviceInfos", params=query)).json()["data"]
    assert infos[0]["deviceProfileName"] == "thermostat"


async def test_attribute_keys_of_all_scopes(tenant: httpx.AsyncClient, device_id: str) -> None:
    path = f"/api/plugins/telemetry/DEVICE/{device_id}"
    await tenant.post(f"{path}/attributes/SHARED_SCOPE", json={"a,b": 1})
    assert (await tenant.get(f"{path}/keys/attributes")).json() == ["active", "a,b"]
    assert (await tenant.delete(f"{path}/SHARED_SCOPE", params={"key": "a,b"})).status_code == 200
    assert (await tenant.get(f"{path}/keys/attributes")).json() == ["active"]
