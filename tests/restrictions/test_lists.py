"""Lists: right objects, totals, pages and order, whatever else the caller asks for."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tb_simulator.attribute_store import SERVER
from tb_simulator.server import Simulator
from tb_simulator.world import Entity
from tests.restrictions.world import BASE, NAMES, House

KINDS = {"devices": "DEVICE", "assets": "ASSET"}


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["id"]["id"] for item in answer.json()["data"]]


@pytest.mark.parametrize("name", NAMES)
async def test_a_list_holds_what_the_key_sees(keys: SimpleNamespace, house: House, name: str) -> None:
    client: httpx.AsyncClient = getattr(keys, name)
    for plural, kind in KINDS.items():
        expected = house.seen(keys.given[name], kind)
        answer = await client.get(f"{BASE}/{plural}")
        assert sorted(ids(answer)) == sorted(expected)
        total = answer.json()["pagination"]["total_elements"]
        assert total == len(expected)
        types = {house.entity(each).body["type"] for each in expected}
        listed = (await client.get(f"{BASE}/{plural[:-1]}-types")).json()
        assert {entry["type"] for entry in listed["data"]} == types
        assert listed["pagination"]["total_elements"] == len(types)


FILTERS: dict[str, tuple[dict[str, Any], Callable[[House, Entity], bool]]] = {
    "text in a name": ({"text_search": "LOOSE"}, lambda h, e: "loose" in e.name.lower()),
    "text in a label": ({"text_search": "the lamp"}, lambda h, e: e.body["label"] == "the lamp"),
    "text in a type": (
        {"text_search": "thermo"},
        lambda h, e: "thermo" in f"{e.name} {e.body['label']} {e.body['type']}".lower(),
    ),
    "a type": ({"device_type": "meter"}, lambda h, e: e.body["type"] == "meter"),
    "another type": ({"device_type": "lamp"}, lambda h, e: e.body["type"] == "lamp"),
    "active": ({"active": "true"}, lambda h, e: h.world.attributes.is_active(e.id)),
    "not active": ({"active": "false"}, lambda h, e: not h.world.attributes.is_active(e.id)),
    "all at once": (
        {"active": "true", "device_type": "meter", "text_search": "meter"},
        lambda h, e: e.body["type"] == "meter" and h.world.attributes.is_active(e.id),
    ),
}


@pytest.mark.parametrize("wish", FILTERS)
async def test_filters_work_within_the_restriction(keys: SimpleNamespace, house: House, wish: str) -> None:
    query, fits = FILTERS[wish]
    for device in (house.meter, house.lamp):
        house.world.attributes.save(device, SERVER, {"active": True})
    for name in NAMES:
        expected = {
            device for device in house.seen(keys.given[name], "DEVICE") if fits(house, house.entity(device))
        }
        answer = await getattr(keys, name).get(f"{BASE}/devices", params=query)
        assert set(ids(answer)) == expected, name
        assert answer.json()["pagination"]["total_elements"] == len(expected)


@pytest.mark.parametrize("name", ["two_types", "customer", "asset", "types_of_customer"])
@pytest.mark.parametrize("order", ["ASC", "DESC"])
async def test_pages_are_cuts_of_the_ordered_list(
    keys: SimpleNamespace, house: House, name: str, order: str
) -> None:
    client: httpx.AsyncClient = getattr(keys, name)
    for number in range(5):
        house.add_device(f"extra {number}", "meter", house.bert, house.floor)
        house.add_device(f"more {number}", "lamp", house.anna, house.floor)
    expected = house.seen(keys.given[name], "DEVICE")
    for sort_by, field in (("name", "name"), ("created_time", "createdTime")):
        found: list[str] = []
        number, has_next = 0, True
        while has_next:
            wishes: dict[str, Any] = {"sort_by": sort_by, "sort_order": order, "page_size": 3, "page": number}
            answer = await client.get(f"{BASE}/devices", params=wishes)
            page = answer.json()["pagination"]
            assert page["total_elements"] == len(expected)
            assert page["total_pages"] == -(-len(expected) // 3)
            found += ids(answer)
            number, has_next = number + 1, page["has_next"]
        values = [house.entity(each).body[field] for each in found]
        assert values == sorted(values, reverse=order == "DESC")
        assert sorted(found) == sorted(expected)
        beyond = await client.get(f"{BASE}/devices", params={**wishes, "page": 99})
        assert (ids(beyond), beyond.json()["pagination"]["total_elements"]) == ([], len(expected))


async def test_listed_devices_are_thingsboard_s_own_and_say_whether_they_are_active(
    keys: SimpleNamespace, house: House
) -> None:
    house.world.attributes.save(house.lamp, SERVER, {"active": True})
    for name in ("devices", "two_types", "asset", "customer"):
        listed = (await getattr(keys, name).get(f"{BASE}/devices")).json()["data"]
        for device in listed:
            own = house.entity(device["id"]["id"]).body
            assert {key: device[key] for key in own} == own
            assert device["active"] is (device["id"]["id"] == house.lamp)


async def test_a_list_of_many_ids_is_read_in_calls_that_thingsboard_takes(
    keys: SimpleNamespace, house: House, simulator: Simulator
) -> None:
    """A request head of more than 8 KiB is refused by ThingsBoard's Tomcat."""
    for number in range(200):
        house.add_device(f"extra {number:03}", "lamp", house.anna, house.floor)
    simulator.calls.clear()
    answer = await keys.asset.get(f"{BASE}/devices", params={"sort_by": "name", "page_size": 1000})
    names = [item["name"] for item in answer.json()["data"]]
    assert names == sorted(names)
    assert len(names) == 202
    assert simulator.calls["GET /api/devices"] == 2


async def test_sorting_by_the_customer_s_title_works_within_a_restriction(
    keys: SimpleNamespace, house: House
) -> None:
    wishes = {"sort_by": "customer_title", "sort_order": "DESC"}
    assert ids(await keys.asset.get(f"{BASE}/devices", params=wishes)) == [house.meter, house.lamp]


async def test_entity_tags_of_restricted_lists_hold_and_end(keys: SimpleNamespace, house: House) -> None:
    first = await keys.types.get(f"{BASE}/devices")
    again = await keys.types.get(f"{BASE}/devices", headers={"If-None-Match": first.headers["etag"]})
    other = await keys.two_types.get(f"{BASE}/devices", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, other.status_code) == (304, 200)
