"""Entity queries as restricted keys need them: predicates made of others, owners, order and pages."""

from typing import Any

import httpx
import pytest

from tb_simulator.makers import make_device
from tb_simulator.server import Simulator

DEVICES = {"type": "entityType", "entityType": "DEVICE"}


def is_text(field: str, *texts: str) -> dict[str, Any]:
    each = [{"type": "STRING", "operation": "EQUAL", "value": {"defaultValue": text}} for text in texts]
    return {
        "key": {"type": "ENTITY_FIELD", "key": field},
        "valueType": "STRING",
        "predicate": {"type": "COMPLEX", "operation": "OR", "predicates": each},
    }


async def find(client: httpx.AsyncClient, entity_filter: dict[str, Any], **more: Any) -> Any:
    field = {"type": "ENTITY_FIELD", "key": "name"}
    link = {"page": 0, "pageSize": 100, "sortOrder": {"key": field, "direction": "ASC"}}
    fields = [
        field,
        {"type": "ENTITY_FIELD", "key": "ownerName"},
        {"type": "ENTITY_FIELD", "key": "ownerType"},
    ]
    body = {
        "entityFilter": entity_filter,
        "entityFields": fields,
        "pageLink": link | more.pop("pageLink", {}),
    }
    answer = await client.post("/api/entitiesQuery/find", json={**body, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def values(found: Any, field: str) -> list[str]:
    return [row["latest"]["ENTITY_FIELD"][field]["value"] for row in found["data"]]


async def test_a_predicate_may_be_made_of_others(tenant: httpx.AsyncClient) -> None:
    either = is_text("name", "Thermostat T1", "Test Device B1", "nobody")
    found = await find(tenant, DEVICES, keyFilters=[either])
    assert values(found, "name") == ["Test Device B1", "Thermostat T1"]
    either["predicate"]["operation"] = "AND"
    assert (await find(tenant, DEVICES, keyFilters=[either]))["totalElements"] == 0
    both = [is_text("type", "thermostat"), is_text("name", "Thermostat T1", "Test Device B1")]
    assert values(await find(tenant, DEVICES, keyFilters=both), "name") == ["Thermostat T1"]


async def test_text_is_compared_as_it_is_unless_case_is_to_be_ignored(tenant: httpx.AsyncClient) -> None:
    named = is_text("name", "thermostat t1")
    assert (await find(tenant, DEVICES, keyFilters=[named]))["totalElements"] == 0
    named["predicate"]["predicates"][0]["ignoreCase"] = True
    assert (await find(tenant, DEVICES, keyFilters=[named]))["totalElements"] == 1


async def test_owners_are_customers_or_the_tenant(tenant: httpx.AsyncClient) -> None:
    found = await find(tenant, DEVICES, keyFilters=[is_text("name", "Test Device B1", "Thermostat T1")])
    assert values(found, "ownerName") == ["Customer B", "Tenant"]
    assert values(found, "ownerType") == ["CUSTOMER", "TENANT"]


@pytest.mark.parametrize("wanted", [True, False])
async def test_attributes_filter_by_truth(
    tenant: httpx.AsyncClient, simulator: Simulator, *, wanted: bool
) -> None:
    world = simulator.world
    device = make_device(world, next(world.every("TENANT")).id, "a device that is awake")
    world.attributes.save(device.id, "SERVER_SCOPE", {"active": True})
    active = {
        "key": {"type": "SERVER_ATTRIBUTE", "key": "active"},
        "valueType": "BOOLEAN",
        "predicate": {"type": "BOOLEAN", "operation": "EQUAL", "value": {"defaultValue": wanted}},
    }
    found = await find(tenant, DEVICES, keyFilters=[active])
    assert (values(found, "name") == [device.name]) is wanted
    everything = await find(tenant, DEVICES)
    assert found["totalElements"] == (1 if wanted else everything["totalElements"] - 1)


async def test_types_and_lists_are_paged_in_order(tenant: httpx.AsyncClient, simulator: Simulator) -> None:
    world = simulator.world
    tenant_id = next(world.every("TENANT")).id
    made = [make_device(world, tenant_id, f"q {number}", kind="queried").id for number in range(5)]
    for entity_filter in (
        {"type": "deviceType", "deviceTypes": ["queried", "unknown"], "deviceNameFilter": ""},
        {"type": "entityList", "entityType": "DEVICE", "entityList": made},
    ):
        for page, expected in ((0, ["q 0", "q 1"]), (2, ["q 4"]), (3, [])):
            found = await find(tenant, entity_filter, pageLink={"pageSize": 2, "page": page})
            assert values(found, "name") == expected
            assert (found["totalElements"], found["totalPages"]) == (5, 3)
            assert found["hasNext"] is (page < 2)
    nobody = {"type": "entityList", "entityType": "DEVICE", "entityList": []}
    body = {"entityFilter": nobody, "pageLink": {"page": 0, "pageSize": 1}}
    assert (await tenant.post("/api/entitiesQuery/find", json=body)).status_code == 500
