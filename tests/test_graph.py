"""Relations and the graph they make."""

import httpx
import pytest

from tb_simulator.server import Simulator

BASE = "/api/v1/tb"


async def make(gateway: httpx.AsyncClient, plural: str, name: str) -> str:
    answer = await gateway.post(f"{BASE}/{plural}", json={"name": name})
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]["id"]["id"]


async def relate(
    gateway: httpx.AsyncClient, start: tuple[str, str], end: tuple[str, str], relation_type: str = "Contains"
) -> None:
    answer = await gateway.post(
        f"{BASE}/relations",
        json={
            "from": {"entity_type": start[0], "id": start[1]},
            "to": {"entity_type": end[0], "id": end[1]},
            "type": relation_type,
        },
    )
    assert answer.status_code == 201, answer.text


@pytest.fixture
async def house(gateway: httpx.AsyncClient) -> dict[str, str]:
    """Building > floor > two devices, and a way back from a device to the building."""
    ids = {
        "building": await make(gateway, "assets", "g-building"),
        "floor": await make(gateway, "assets", "g-floor"),
        "lamp": await make(gateway, "devices", "g-lamp"),
        "meter": await make(gateway, "devices", "g-meter"),
    }
    await relate(gateway, ("ASSET", ids["building"]), ("ASSET", ids["floor"]))
    await relate(gateway, ("ASSET", ids["floor"]), ("DEVICE", ids["lamp"]))
    await relate(gateway, ("ASSET", ids["floor"]), ("DEVICE", ids["meter"]), "Manages")
    await relate(gateway, ("DEVICE", ids["lamp"]), ("ASSET", ids["building"]), "BelongsTo")
    return ids


async def test_a_building_with_a_cycle_is_walked_once(
    gateway: httpx.AsyncClient, simulator: Simulator, house: dict[str, str]
) -> None:
    simulator.calls.clear()
    graph = (await gateway.get(f"{BASE}/graph/{house['building']}?root_type=ASSET")).json()
    assert sum(simulator.calls.values()) <= 3
    assert graph["root"] == {"id": house["building"], "type": "ASSET", "name": "g-building"}
    assert {(node["name"], node["depth"]) for node in graph["nodes"]} == {
        ("g-building", 0),
        ("g-floor", 1),
        ("g-lamp", 2),
        ("g-meter", 2),
    }
    assert {(edge["from"], edge["to"], edge["relation_type"]) for edge in graph["edges"]} == {
        (house["building"], house["floor"], "Contains"),
        (house["floor"], house["lamp"], "Contains"),
        (house["floor"], house["meter"], "Manages"),
        (house["lamp"], house["building"], "BelongsTo"),
    }
    assert (graph["depth"], graph["truncated"]) == (2, False)


async def test_both_directions_join_what_lies_above_and_below(
    gateway: httpx.AsyncClient, simulator: Simulator, house: dict[str, str]
) -> None:
    await gateway.get(f"{BASE}/assets")  # The gateway asks once who it is.
    simulator.calls.clear()
    graph = (await gateway.get(f"{BASE}/graph/name:g-floor?direction=BOTH&max_depth=1")).json()
    assert sum(simulator.calls.values()) <= 3
    assert {node["name"] for node in graph["nodes"]} == {"g-floor", "g-building", "g-lamp", "g-meter"}


async def test_types_prune_after_the_walk(gateway: httpx.AsyncClient, house: dict[str, str]) -> None:
    graph = (await gateway.get(f"{BASE}/graph/{house['building']}?types=Contains")).json()
    assert {node["name"] for node in graph["nodes"]} == {"g-building", "g-floor", "g-lamp"}
    only_far = (await gateway.get(f"{BASE}/graph/{house['building']}?types=Manages")).json()
    assert [node["name"] for node in only_far["nodes"]] == ["g-building"]


async def test_a_node_limit_cuts_the_farthest_and_says_so(
    gateway: httpx.AsyncClient, house: dict[str, str]
) -> None:
    graph = (await gateway.get(f"{BASE}/graph/{house['building']}?hard_node_limit=2")).json()
    assert [node["name"] for node in graph["nodes"]] == ["g-building", "g-floor"]
    assert graph["truncated"] is True
    assert {edge["to"] for edge in graph["edges"]} == {house["floor"]}


@pytest.mark.parametrize("root_type", ["ASSET", "DEVICE", "CUSTOMER", "ENTITY_VIEW"])
async def test_an_unknown_root_is_not_found(gateway: httpx.AsyncClient, root_type: str) -> None:
    unknown = "00000000-0000-0000-0000-000000000007"
    answer = await gateway.get(f"{BASE}/graph/{unknown}?root_type={root_type}")
    assert answer.status_code == 404, answer.text


async def test_relations_are_listed_with_names_and_deleted(
    gateway: httpx.AsyncClient, house: dict[str, str]
) -> None:
    query = f"{BASE}/relations?entity_id={house['floor']}&entity_type=ASSET"
    below = (await gateway.get(f"{query}&direction=FROM")).json()
    assert {relation["toName"] for relation in below["data"]} == {"g-lamp", "g-meter"}
    above = (await gateway.get(f"{query}&direction=TO")).json()
    assert [relation["fromName"] for relation in above["data"]] == ["g-building"]

    named = {
        "from_id": house["floor"],
        "from_type": "ASSET",
        "to_id": "name:g-meter",
        "to_type": "DEVICE",
        "type": "Manages",
    }
    assert (await gateway.delete(f"{BASE}/relations", params=named)).status_code == 200
    assert (await gateway.delete(f"{BASE}/relations", params=named)).status_code == 404
    body = {
        "from": {"entity_type": "ASSET", "id": house["floor"]},
        "to": {"entity_type": "DEVICE", "id": house["lamp"]},
        "type": "Contains",
    }
    assert (await gateway.request("DELETE", f"{BASE}/relations", json=body)).status_code == 200
    assert (await gateway.get(f"{query}&direction=FROM")).json()["data"] == []


async def test_a_relation_to_nothing_is_not_found(gateway: httpx.AsyncClient, house: dict[str, str]) -> None:
    answer = await gateway.post(
        f"{BASE}/relations",
        json={
            "from": {"entity_type": "ASSET", "id": house["floor"]},
            "to": {"entity_type": "DEVICE", "id": "00000000-0000-0000-0000-000000000007"},
            "type": "Contains",
        },
    )
    assert answer.status_code == 404


async def test_deleting_without_all_five_names_says_what_is_missing(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.delete(f"{BASE}/relations", params={"type": "Contains"})
    assert answer.status_code == 422
    assert answer.json()["details"]["field"].startswith("from")


async def test_a_name_that_thingsboard_cannot_fetch_is_null(
    gateway: httpx.AsyncClient, simulator: Simulator, house: dict[str, str]
) -> None:
    """It answers "N/A", which is nobody's name."""
    lamp = simulator.world.find("DEVICE", house["lamp"])
    assert lamp is not None
    lamp.name = ""
    graph = (await gateway.get(f"{BASE}/graph/{house['building']}?root_type=ASSET")).json()
    assert {node["id"]: node["name"] for node in graph["nodes"]}[house["lamp"]] is None
    path = f"{BASE}/relations?entity_id={house['floor']}&entity_type=ASSET&direction=FROM"
    names = {
        relation["to"]["id"]: relation["toName"] for relation in (await gateway.get(path)).json()["data"]
    }
    assert names == {house["lamp"]: None, house["meter"]: "g-meter"}
