"""Alarm lists of restricted keys: right alarms, totals, pages and order, of devices and assets together."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.services import restricted_alarms
from tb_simulator import alarms as thingsboard_alarms
from tb_simulator.server import Simulator
from tests.restrictions.world import BASE, NAMES, TS, House, told

SEVERITIES = ["CRITICAL", "MAJOR", "MINOR"]


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["id"]["id"] for item in answer.json()["data"]]


def fill(house: House) -> dict[str, dict[str, Any]]:
    """Give every device and asset some alarms, at times of their own, and return all by id."""
    entities = [e.id for kind in ("DEVICE", "ASSET") for e in house.world.every(kind)]
    for number in range(3):
        for at, entity_id in enumerate(entities):
            created = TS + number * len(entities) + at
            house.alarm_of(
                entity_id, f"kind {number}", createdTime=created, severity=SEVERITIES[(at + number) % 3]
            )
    return house.world.alarms.all


def expected_of(
    house: House, given: dict[str, Any], stored: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    seen = house.seen(given, "DEVICE") | house.seen(given, "ASSET")
    return {each: alarm for each, alarm in stored.items() if alarm["originator"]["id"] in seen}


@pytest.mark.parametrize("most", [10_000, 2], ids=["one query", "several queries"])
@pytest.mark.parametrize("name", NAMES)
async def test_pages_joined_are_the_alarms_of_what_the_key_sees(
    keys: SimpleNamespace, house: House, name: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ThingsBoard shows the alarms of a limited number of entities in one query."""
    monkeypatch.setattr(restricted_alarms, "MOST_ORIGINATORS", most)
    monkeypatch.setattr(thingsboard_alarms, "MOST_ORIGINATORS", most)
    expected = expected_of(house, keys.given[name], fill(house))
    client: httpx.AsyncClient = getattr(keys, name)
    for order, size in (("DESC", 4), ("ASC", 1000)):
        found: list[str] = []
        page, has_next = 0, True
        while has_next:
            query = {"page": page, "page_size": size, "sort_order": order}
            answer = await client.get(f"{BASE}/alarms", params=query)
            found += ids(answer)
            pagination = answer.json()["pagination"]
            assert pagination["total_elements"] == len(expected)
            assert pagination["total_pages"] == -(-len(expected) // size)
            page, has_next = page + 1, pagination["has_next"]
        newest = sorted(expected, key=lambda each: expected[each]["createdTime"], reverse=order == "DESC")
        assert found == newest
        assert ids(await client.get(f"{BASE}/alarms", params={**query, "page": page + 3})) == []


@pytest.mark.parametrize("name", ["types", "customer", "asset", "all"])
async def test_filters_and_orders_work_within_the_restriction(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    expected = expected_of(house, keys.given[name], fill(house))
    client: httpx.AsyncClient = getattr(keys, name)
    for query, fits in (
        ({"severity": "MAJOR"}, lambda alarm: alarm["severity"] == "MAJOR"),
        ({"type": "kind 1"}, lambda alarm: alarm["type"] == "kind 1"),
        ({"status": "CLEARED"}, lambda _: False),
        ({"start_ts": TS + 3, "end_ts": TS + 9}, lambda alarm: TS + 3 <= alarm["createdTime"] < TS + 9),
        ({"end_ts": 1}, lambda _: False),
    ):
        wanted = {each for each in expected if fits(expected[each])}
        assert set(ids(await client.get(f"{BASE}/alarms", params=query))) == wanted
    for field in ("type", "severity"):
        query = {"sort_by": field, "sort_order": "ASC", "page_size": 2}
        values = []
        for page in range(-(-len(expected) // 2)):
            answer = await client.get(f"{BASE}/alarms", params={**query, "page": page})
            values += [expected[each][field] for each in ids(answer)]
        assert values == sorted(alarm[field] for alarm in expected.values())


async def test_listed_alarms_are_as_keys_without_restriction_see_them(
    keys: SimpleNamespace, house: House
) -> None:
    fill(house)
    free = {item["id"]["id"]: item for item in (await keys.free.get(f"{BASE}/alarms")).json()["data"]}
    for name in ("asset", "types"):
        for item in (await getattr(keys, name).get(f"{BASE}/alarms")).json()["data"]:
            assert item == free[item["id"]["id"]]


async def test_one_query_is_enough_where_only_devices_have_alarms(
    keys: SimpleNamespace, house: House, simulator: Simulator
) -> None:
    for _ in range(5):
        house.alarm_of(house.lamp)
    await keys.customer.get(f"{BASE}/alarms")
    for page in (0, 2):
        simulator.calls.clear()
        query = {"page": page, "page_size": 2}
        assert len(ids(await keys.customer.get(f"{BASE}/alarms", params=query))) == (1 if page else 2)
        # One of devices, and one of assets, which have none.
        assert simulator.calls["POST /api/alarmsQuery/find"] == 2


async def test_a_list_that_is_put_together_ends_somewhere(
    keys: SimpleNamespace, house: House, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later pages are read from the beginning, some alarms a call."""
    monkeypatch.setattr(restricted_alarms, "MOST_MERGED", 8)
    monkeypatch.setattr(restricted_alarms, "READ_AHEAD", 3)
    expected = expected_of(house, keys.given["asset"], fill(house))
    assert len(expected) > 8
    simulator.calls.clear()
    assert len(ids(await keys.asset.get(f"{BASE}/alarms", params={"page": 1, "page_size": 4}))) == 4
    assert simulator.calls["POST /api/alarmsQuery/find"] <= 2 + 2 + 8 // 3
    answer = await keys.asset.get(f"{BASE}/alarms", params={"page": 2, "page_size": 4})
    assert (answer.status_code, answer.json()["details"]["field"]) == (400, "page")
    # A key of which one query holds all has no such end.
    assert len(ids(await keys.types.get(f"{BASE}/alarms", params={"page": 5, "page_size": 1}))) == 1


async def test_alarms_of_other_kinds_of_entity_are_hidden(keys: SimpleNamespace, house: House) -> None:
    """The key's own customer included: lists and single alarms show the same."""
    alarm = house.alarm_of(house.lamp)
    stored = house.world.alarms.all[alarm]
    for kind, entity_id in (("CUSTOMER", house.anna), ("ENTITY_VIEW", house.view)):
        stored["originator"] = {"entityType": kind, "id": entity_id}
        assert (await keys.free.get(f"{BASE}/alarms/{alarm}")).status_code == 200
        missing = await keys.customer.get(f"{BASE}/alarms/{house.view}")
        assert told(await keys.customer.get(f"{BASE}/alarms/{alarm}")) == told(missing)
        assert ids(await keys.customer.get(f"{BASE}/alarms")) == []


async def test_a_missing_alarm_costs_the_look_ups_of_a_hidden_one(
    keys: SimpleNamespace, house: House, simulator: Simulator
) -> None:
    """What differs is ThingsBoard's own time for the alarm, of which the id cannot be guessed."""
    hidden = house.alarm_of(house.spare)
    await keys.free.get(f"{BASE}/alarms/{hidden}")
    for name in ("types", "asset", "customer"):
        costs = []
        for alarm in (hidden if name != "customer" else house.alarm_of(house.meter), house.view):
            keys.clock.seconds += 11
            simulator.calls.clear()
            assert (await getattr(keys, name).get(f"{BASE}/alarms/{alarm}")).status_code == 404
            costs.append(+simulator.calls)
        assert costs[0] == costs[1]


@pytest.mark.parametrize("row", [{"entityId": {}, "latest": {}}, 5])
async def test_rows_that_are_no_alarms_are_faults_of_thingsboard(
    keys: SimpleNamespace, house: House, simulator: Simulator, row: Any
) -> None:
    page = {"data": [row], "totalPages": 1, "totalElements": 1, "hasNext": False}
    body = httpx.Response(200, json=page).text
    simulator.faults.status(200, path="alarmsQuery", body=body, content_type="application/json")
    answer = await keys.customer.get(f"{BASE}/alarms")
    assert (answer.status_code, answer.json()["error_code"]) == (502, "UPSTREAM_ERROR")
