"""Devices over HTTP."""

import asyncio

import httpx

from tb_simulator.server import Simulator

DEVICES = "/api/v1/tb/devices"


async def test_a_device_is_made_found_by_name_changed_and_deleted(gateway: httpx.AsyncClient) -> None:
    made = await gateway.post(DEVICES, json={"name": "boiler", "label": "cellar"})
    assert made.status_code == 201
    device_id = made.json()["data"]["id"]["id"]
    assert made.headers["location"] == f"{DEVICES}/{device_id}"

    found = await gateway.get(f"{DEVICES}/name:boiler")
    assert found.json()["data"]["id"]["id"] == device_id
    changed = await gateway.patch(f"{DEVICES}/name:boiler", json={"label": "attic"})
    assert changed.json()["data"]["label"] == "attic"
    assert (await gateway.delete(f"{DEVICES}/{device_id}")).status_code == 200
    assert (await gateway.get(f"{DEVICES}/{device_id}")).status_code == 404


async def test_a_taken_name_is_a_conflict(gateway: httpx.AsyncClient) -> None:
    await gateway.post(DEVICES, json={"name": "twice"})
    answer = await gateway.post(DEVICES, json={"name": "twice"})
    assert (answer.status_code, answer.json()["error_code"]) == (409, "CONFLICT")


async def test_a_new_type_moves_the_device_to_another_profile(gateway: httpx.AsyncClient) -> None:
    await gateway.post(DEVICES, json={"name": "moving"})
    before = (await gateway.get(f"{DEVICES}/name:moving")).json()["data"]
    after = (await gateway.patch(f"{DEVICES}/name:moving", json={"type": "pump"})).json()["data"]
    assert after["type"] == "pump"
    assert after["deviceProfileId"] != before["deviceProfileId"]


async def test_lists_are_sorted_by_either_spelling_and_by_creation_alone(gateway: httpx.AsyncClient) -> None:
    async def names(query: str) -> list[str]:
        return [device["name"] for device in (await gateway.get(f"{DEVICES}?{query}")).json()["data"]]

    by_name = await names("sort_by=name")
    assert by_name == sorted(by_name)
    assert await names("sort_by=name&sort_order=desc") == by_name[::-1]
    oldest_first = await names("sort_by=createdTime")
    assert oldest_first == await names("sort_by=created_time&sort_order=ASC")
    assert await names("sort_order=DESC") == await names("sort_by=created_time&sort_order=DESC")


async def test_a_patch_without_a_field_or_with_a_null_name_is_refused(gateway: httpx.AsyncClient) -> None:
    await gateway.post(DEVICES, json={"name": "patched", "label": "x"})
    for changes, field in (({}, "body"), ({"name": None}, "name"), ({"type": None}, "type")):
        answer = await gateway.patch(f"{DEVICES}/name:patched", json=changes)
        assert (answer.status_code, answer.json()["details"]["field"]) == (400, field)
    cleared = await gateway.patch(f"{DEVICES}/name:patched", json={"label": None})
    assert cleared.json()["data"]["label"] is None


async def test_two_changes_at_once_do_not_overwrite_each_other(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    """ThingsBoard's version decides: the second writer is told, nothing is lost."""
    await gateway.post(DEVICES, json={"name": "raced"})
    simulator.faults.latency(0.05, path="/api/device$", method="POST", count=2)
    answers = await asyncio.gather(
        gateway.patch(f"{DEVICES}/name:raced", json={"label": "one"}),
        gateway.patch(f"{DEVICES}/name:raced", json={"additional_info": {"n": 2}}),
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_device_types_are_listed_in_pages(gateway: httpx.AsyncClient) -> None:
    body = (await gateway.get("/api/v1/tb/device-types?page_size=1")).json()
    assert [each["type"] for each in body["data"]] == ["default"]
    assert body["pagination"]["has_next"] is True
