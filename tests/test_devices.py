"""Devices over HTTP."""

import httpx

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
