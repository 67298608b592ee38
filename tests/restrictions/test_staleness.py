"""What moves over the border of a restriction counts within the stated time."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from app.services.visibility import KEPT_SECONDS, MOST_KEPT, RECHECK_SECONDS
from tests.restrictions.world import BASE, House, view_of

LEAVING: dict[str, Callable[[House], None]] = {
    "customer": lambda house: house.give_to(house.lamp, house.bert),
    "type_of_customer": lambda house: house.retype(house.lamp, "meter"),
    "asset": lambda house: house.unrelate(house.floor, house.lamp),
    "asset_of_customer": lambda house: house.unrelate(house.floor, house.lamp),
}
RETURNING: dict[str, Callable[[House], None]] = {
    "customer": lambda house: house.give_to(house.lamp, house.anna),
    "type_of_customer": lambda house: house.retype(house.lamp, "lamp"),
    "asset": lambda house: house.relate(house.floor, house.lamp),
    "asset_of_customer": lambda house: house.relate(house.floor, house.lamp),
}


@pytest.mark.parametrize("name", LEAVING)
async def test_a_device_that_left_is_refused_after_the_stated_time_at_the_latest(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    client, path = getattr(keys, name), f"{BASE}/devices/{house.lamp}"
    assert (await client.get(path)).status_code == 200
    assert (await client.get(f"{BASE}/devices")).json()["pagination"]["total_elements"] >= 1
    LEAVING[name](house)
    # Seeing it again and again does not prolong it.
    for _ in range(4):
        keys.clock.seconds += KEPT_SECONDS / 4
        await client.get(f"{path}/keys")
    answers = [
        await client.get(path),
        await client.get(f"{path}/keys"),
        await client.get(f"{path}/telemetry"),
        await client.post(f"{path}/telemetry", json={"temperature": 1}),
        await client.post(f"{path}/attributes/server", json={"limit": 1}),
        await client.patch(path, json={"label": "mine"}),
        await client.delete(path),
        await client.get(f"{BASE}/devices/name:lamp"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    listed = (await client.get(f"{BASE}/devices")).json()["data"]
    assert house.lamp not in {item["id"]["id"] for item in listed}


@pytest.mark.parametrize("name", RETURNING)
async def test_a_device_that_came_is_seen_at_once_or_within_the_stated_time(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    client, path = getattr(keys, name), f"{BASE}/devices/{house.lamp}"
    LEAVING[name](house)
    assert (await client.get(path)).status_code == 404
    RETURNING[name](house)
    keys.clock.seconds += RECHECK_SECONDS if "asset" in name else 0
    assert (await client.get(path)).status_code == 200


async def test_an_object_itself_is_never_shown_after_it_left(keys: SimpleNamespace, house: House) -> None:
    """Reading it shows where it is now, however long the look-up would count."""
    path = f"{BASE}/devices/{house.lamp}"
    assert (await keys.customer.get(path)).status_code == 200
    house.give_to(house.lamp, house.bert)
    assert (await keys.customer.get(path)).status_code == 404
    assert (await keys.customer.patch(path, json={"label": "mine"})).status_code == 404


async def test_what_is_kept_is_bounded(keys: SimpleNamespace, house: House) -> None:
    visibility = view_of(keys.app, keys.given["customer"]).visibility
    for number in range(MOST_KEPT + 10):
        visibility._keep(("DEVICE", str(number)), 1e9)
    assert len(visibility._seen) == MOST_KEPT
    assert ("DEVICE", "0") not in visibility._seen
