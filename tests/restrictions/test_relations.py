"""Relations and graphs: nothing that the key does not see is in them, not even as a number."""

import itertools
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.restrictions.world import BASE, MISSING, NAMES, House

Edge = tuple[str, str, str]


def edges_of(house: House) -> list[tuple[tuple[str, str], tuple[str, str], str]]:
    every = [e for kind in ("DEVICE", "ASSET") for e in house.world.every(kind, house.tenant)]
    relations = [r for e in every for r in house.world.relations.leaving((e.kind, e.id), "FROM")]
    return [(r.key.source, r.key.target, r.key.type) for r in relations]


def expected_graph(
    house: House, given: dict[str, Any], root: tuple[str, str], direction: str, depth: int
) -> tuple[dict[str, int], set[Edge]]:
    """Walk by hand, over relations of which both ends are seen."""
    seen_edges = [
        edge for edge in edges_of(house) if all(house.sees(given, *end) for end in (edge[0], edge[1]))
    ]
    depths, edges, waiting = {root[1]: 0}, set(), [root]
    for node in waiting:
        if depths[node[1]] == depth:
            continue
        for start, end, kind in seen_edges:
            near, far = (start, end) if direction == "FROM" else (end, start)
            if near == node:
                edges.add((start[1], end[1], kind))
                if far[1] not in depths:
                    depths[far[1]] = depths[node[1]] + 1
                    waiting.append(far)
    return depths, edges


@pytest.mark.parametrize("name", ["free", *NAMES])
async def test_a_graph_holds_what_the_key_sees_and_reaches_over_what_it_sees(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    client: httpx.AsyncClient = getattr(keys, name)
    given = keys.given[name]
    house.relate(house.lamp, house.spare, "Feeds")
    house.relate(house.spare, house.loose, "Feeds")
    for root, direction, depth in itertools.product(
        (house.building, house.floor, house.lamp, house.loose, house.shed), ("FROM", "TO"), (1, 5)
    ):
        key = house.key(root)
        query: dict[str, Any] = {"root_type": key[0], "direction": direction, "max_depth": depth}
        answer = await client.get(f"{BASE}/graph/{root}", params=query)
        if not house.sees(given, *key):
            assert answer.status_code == 404
            continue
        graph = answer.json()
        depths, edges = expected_graph(house, given, key, direction, depth)
        assert {node["id"]: node["depth"] for node in graph["nodes"]} == depths
        assert {(e["from"], e["to"], e["relation_type"]) for e in graph["edges"]} == edges
        assert graph["depth"] == max(depths.values())
        assert graph["truncated"] is False


async def test_what_is_hidden_does_not_truncate_a_graph(keys: SimpleNamespace, house: House) -> None:
    query: dict[str, Any] = {"hard_node_limit": 3}
    for number in range(5):
        house.add_device(f"hidden {number}", "meter", house.bert, house.building)
    full = (await keys.free.get(f"{BASE}/graph/{house.building}", params=query)).json()
    pruned = (await keys.asset_of_customer.get(f"{BASE}/graph/{house.building}", params=query)).json()
    assert (full["truncated"], pruned["truncated"]) == (True, False)
    assert {node["name"] for node in pruned["nodes"]} == {"building", "floor", "lamp"}


@pytest.mark.parametrize("name", ["free", *NAMES])
async def test_relations_are_listed_when_both_ends_are_seen(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    given = keys.given[name]
    for entity_id in (house.building, house.floor, house.lamp, house.meter, house.shed):
        key = house.key(entity_id)
        for direction, near in (("FROM", 0), ("TO", 1)):
            query = {"entity_id": entity_id, "entity_type": key[0], "direction": direction}
            answer = await getattr(keys, name).get(f"{BASE}/relations", params=query)
            if not house.sees(given, *key):
                assert answer.status_code == 404
                continue
            expected = {
                (edge[0][1], edge[1][1])
                for edge in edges_of(house)
                if edge[near] == key and all(house.sees(given, *end) for end in edge[:2])
            }
            listed = answer.json()
            assert {(r["from"]["id"], r["to"]["id"]) for r in listed["data"]} == expected
            assert listed["pagination"]["total_elements"] == len(expected)


def relation(house: House, start: tuple[str, str], end: tuple[str, str]) -> dict[str, Any]:
    ends = {"from": start, "to": end}
    return {
        **{side: {"entity_type": kind, "id": entity_id} for side, (kind, entity_id) in ends.items()},
        "type": "Made",
    }


@pytest.mark.parametrize("name", NAMES)
async def test_relations_are_written_and_deleted_when_both_ends_are_seen(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    client: httpx.AsyncClient = getattr(keys, name)
    given = keys.given[name]
    objects = [house.key(each) for each in (house.floor, house.lamp, house.meter, house.loose)]
    for start, end in itertools.permutations([*objects, ("DEVICE", MISSING)], 2):
        keys.clock.seconds += 20
        allowed = house.sees(given, *start) and house.sees(given, *end)
        body = relation(house, start, end)
        made = await client.post(f"{BASE}/relations", json=body)
        assert made.status_code == (201 if allowed else 404)
        deleted = await client.request("DELETE", f"{BASE}/relations", json=body)
        assert deleted.status_code == (200 if allowed else 404)
        by_query = {
            "from_id": start[1],
            "from_type": start[0],
            "to_id": end[1],
            "to_type": end[0],
            "type": "Made",
        }
        assert (await client.delete(f"{BASE}/relations", params=by_query)).status_code == 404


async def test_customers_and_entity_views_are_hidden_except_the_key_s_own_customer(
    keys: SimpleNamespace, house: House
) -> None:
    for customer in (house.anna, house.bert):
        house.relate(house.building, customer)
    house.relate_to_view(house.building)
    free = (await keys.free.get(f"{BASE}/graph/{house.building}")).json()
    assert {node["type"] for node in free["nodes"]} == {"ASSET", "DEVICE", "CUSTOMER", "ENTITY_VIEW"}
    for name in ("asset", "customer", "asset_of_customer"):
        graph = (await getattr(keys, name).get(f"{BASE}/graph/{house.building}")).json()
        others = {n["id"] for n in graph["nodes"] if n["type"] not in {"ASSET", "DEVICE"}}
        assert others == ({house.anna} if "customer" in name else set())
        for root_type, root, is_seen in (
            ("CUSTOMER", house.anna, "customer" in name),
            ("CUSTOMER", house.bert, False),
            ("CUSTOMER", MISSING, False),
            ("ENTITY_VIEW", house.view, False),
            ("ENTITY_VIEW", MISSING, False),
        ):
            query = {"root_type": root_type}
            answer = await getattr(keys, name).get(f"{BASE}/graph/{root}", params=query)
            assert (answer.status_code == 200) is is_seen, (name, root_type)
