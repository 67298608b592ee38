"""A key reads and writes its own upstream and no other, on every route, whatever others have just read."""

import asyncio
import copy
import itertools
import json
from typing import Any

import httpx
import pytest

from app.openapi import EXAMPLES
from tb_simulator.timeseries import Point
from tb_simulator.world import Entity
from tests.restrictions.test_operations import (
    BY_DEVICE,
    LISTS,
    MAKERS,
    NAMED,
    NO_OBJECTS,
    OPERATIONS,
    call,
    is_served,
    kind_of,
)
from tests.restrictions.world import BASE, MISSING, TS, told
from tests.upstreams.conftest import Fleet, Site

HISTORY = {"keys": "temperature", "start_ts": str(TS - 1), "end_ts": str(TS + 1)}


def strangers(fleet: Fleet) -> list[tuple[Site, Site]]:
    """Return all pairs of which the first must see nothing of the second."""
    pairs = itertools.permutations(fleet.sites.values(), 2)
    return [(me, other) for me, other in pairs if not me.sees_those_of(other)]


def test_every_pair_of_accounts_is_told_apart(fleet: Fleet) -> None:
    """Only a tenant sees what belongs to its customer."""
    assert {(me.name, other.name) for me, other in strangers(fleet)} == {
        pair for pair in itertools.permutations(fleet.sites, 2) if pair != ("default", "guest")
    }


@pytest.mark.parametrize("name", NAMED)
async def test_a_foreign_object_is_a_missing_one(fleet: Fleet, name: str) -> None:
    """Also right after its owner has read it, which fills every cache there is."""
    kind = kind_of(name)
    for me, other in strangers(fleet):
        object_id = other.make(kind, f"{name} {me.name}")
        by_name = f"name:{name} {me.name} of {other.name}"
        references = (object_id,) if kind == "ALARM" else (object_id, by_name)
        expected = told(await call(me.client, name, MISSING))
        assert expected[0] == 404
        await answered_as(expected, me, name, references)
        owner = await call(other.client, name, object_id)
        # ThingsBoard lets no customer user change or delete its devices and assets.
        assert is_served(name, owner) or (other.is_customer and name.startswith(("delete_", "update_")))
        await answered_as(expected, me, name, references)


async def answered_as(expected: Any, me: Site, name: str, references: tuple[str, ...]) -> None:
    for reference in references:
        assert told(await call(me.client, name, reference)) == expected


@pytest.mark.parametrize("name", sorted(BY_DEVICE))
async def test_a_foreign_device_among_many_is_a_missing_one(fleet: Fleet, name: str) -> None:
    method, path, _ = OPERATIONS[name]
    make, member = BY_DEVICE[name]
    for me, other in strangers(fleet):
        mine, foreign = me.make("DEVICE", f"{name} {other.name}"), other.make("DEVICE", f"{name} {me.name}")
        assert (await other.client.request(method, path, json=make(foreign))).json()["status"] == "success"
        for reference in (foreign, f"name:{name} {me.name} of {other.name}"):
            answer = (await me.client.request(method, path, json=make(reference))).json()
            assert answer[member][reference]["error_code"] == "RESOURCE_NOT_FOUND"
        assert (await me.client.request(method, path, json=make(mine))).json()["status"] == "success"


async def test_no_operation_calls_another_thingsboard(fleet: Fleet) -> None:
    """Not even to ask: a ThingsBoard learns nothing of the others' names, ids and callers."""
    south, others = fleet["south"], [fleet["default"], fleet["north"], fleet["guest"]]
    for me, silent in [(south, fleet["default"]), *((each, south) for each in others)]:
        before = silent.calls
        mine = {kind: me.make(kind, f"an object for {silent.name}") for kind in ("DEVICE", "ASSET", "ALARM")}
        for name, (method, path, _) in OPERATIONS.items():
            if name in NAMED:
                await call(me.client, name, mine[kind_of(name)])
                await call(me.client, name, f"name:nobody knows {name}")
            else:
                example = EXAMPLES.get(name, {}).get("request", {}).get("application/json")
                await me.client.request(method, path, json=example)
        assert me.calls > len(OPERATIONS)
        assert silent.calls == before


@pytest.mark.parametrize("name", sorted(LISTS))
async def test_lists_hold_the_own_objects_only(fleet: Fleet, name: str) -> None:
    method, path, _ = OPERATIONS[name]
    for site in fleet.sites.values():
        for kind in ("DEVICE", "ASSET"):
            site.make(kind, "Listed")
    for me, other in strangers(fleet):
        answer = await me.client.request(method, path)
        assert answer.status_code == 200
        assert f"Listed of {other.name}" not in answer.text
        assert name.endswith("types") or f"Listed of {me.name}" in answer.text


@pytest.mark.parametrize("name", sorted(MAKERS))
async def test_what_a_key_makes_is_in_its_upstream_only(fleet: Fleet, name: str) -> None:
    _, path, _ = OPERATIONS[name]
    makers = [site for site in fleet.sites.values() if not site.is_customer]
    for site in makers:
        made = await site.client.post(path, json={"name": f"made by {site.name}"})
        assert made.status_code == 201, made.text
    for me, other in itertools.permutations(makers, 2):
        assert (await me.client.get(f"{path}/name:made by {other.name}")).status_code == 404


async def test_relations_cannot_reach_into_another_upstream(fleet: Fleet) -> None:
    for me, other in strangers(fleet):
        mine, foreign = me.make("DEVICE", f"to {other.name}"), other.make("DEVICE", f"from {me.name}")
        body = {
            "from": {"entity_type": "DEVICE", "id": mine},
            "to": {"entity_type": "DEVICE", "id": foreign},
            "type": "Contains",
        }
        for method in ("POST", "DELETE"):
            assert (await me.client.request(method, f"{BASE}/relations", json=body)).status_code == 404


async def test_the_unchecked_history_stays_closed_across_tenants(fleet: Fleet) -> None:
    """ThingsBoard itself would answer: only the checked read before it refuses (design, section 4)."""
    me, other = fleet["default"], fleet["north"]
    device = other.make("DEVICE", "secret")
    path = f"/api/plugins/telemetry/DEVICE/{device}/values/timeseries"
    login = {"username": "tenant@thingsboard.org", "password": "tenant"}
    async with httpx.AsyncClient(base_url=me.simulator.url) as thingsboard:
        token = (await thingsboard.post("/api/auth/login", json=login)).json()["token"]
        query = {"keys": "temperature", "startTs": TS - 1, "endTs": TS + 1}
        raw = await thingsboard.get(path, params=query, headers={"X-Authorization": f"Bearer {token}"})
        assert raw.json() == {"temperature": [{"ts": TS, "value": "20.5"}]}
    for suffix in ("telemetry", "telemetry/count", "telemetry/export"):
        url = f"{BASE}/devices/{device}/{suffix}"
        assert (await other.client.get(url, params=HISTORY)).status_code == 200
        assert (await me.client.get(url, params=HISTORY)).status_code == 404


async def test_one_id_in_two_upstreams_gives_each_its_own_data(fleet: Fleet) -> None:
    """A restored backup has the ids of its source; and nothing that is kept may go by the id alone."""
    original, restored = fleet["default"], fleet["south"]
    device = original.make("DEVICE", "Meter")
    entity = original.simulator.world.find("DEVICE", device)
    assert entity is not None
    body = copy.deepcopy(entity.body) | {"label": "restored"}
    world = restored.simulator.world
    world.add(Entity("DEVICE", body, tenant=restored.tenant, customer=entity.customer, name=entity.name))
    world.telemetry.save(device, [Point("temperature", TS, 99), Point("pressure", TS, 1)])
    path = f"{BASE}/devices/{device}"

    async def both(suffix: str = "", **options: Any) -> list[Any]:
        sites = (original, restored) * 3
        method = options.pop("method", "GET")
        answers = await asyncio.gather(
            *(each.client.request(method, path + suffix, **options) for each in sites)
        )
        bodies = [{**answer.json(), "timestamp": 0} for answer in answers]
        assert bodies[:2] * 2 == bodies[2:]
        return bodies[:2]

    labels = [answer["data"].get("label") for answer in await both()]
    assert labels == [None, "restored"]
    assert [len(answer["keys"]) for answer in await both("/keys")] == [1, 2]
    for _ in range(2):
        latest = await both("/telemetry/latest", params={"keys": "temperature"})
        assert [each["data"]["temperature"]["value"] for each in latest] == [20.5, 99]
        history = await both("/telemetry", params=HISTORY | {"keys": "temperature,pressure"})
        assert [each["data"]["temperature"][0]["value"] for each in history] == [20.5, 99]
        assert [len(each["data"]["pressure"]) for each in history] == [0, 1]
    await original.client.post(f"{path}/telemetry", json={"temperature": [{"ts": TS + 1, "value": 1}]})
    latest = await both("/telemetry/latest", params={"keys": "temperature"})
    assert [each["data"]["temperature"]["value"] for each in latest] == [1, 99]
    assert (await original.client.delete(path)).status_code < 300
    assert (await original.client.get(f"{path}/telemetry", params=HISTORY)).status_code == 404
    assert (await restored.client.get(f"{path}/telemetry", params=HISTORY)).status_code == 200


async def test_identical_reads_of_two_upstreams_are_two_calls(fleet: Fleet) -> None:
    """Both are held back until both are under way, so they would have shared one."""
    sites = [fleet["default"], fleet["north"], fleet["guest"], fleet["south"]]
    for site in sites:
        await site.client.get(f"{BASE}/devices")
    for simulator in {site.simulator for site in sites}:
        simulator.faults.latency(0.2, path="deviceInfos|types")
        simulator.calls.clear()
    answers = await asyncio.gather(*(site.client.get(f"{BASE}/device-types") for site in sites * 3))
    assert {answer.status_code for answer in answers} == {200}
    asked = [call for site in (sites[0], sites[3]) for call in site.simulator.calls.elements()]
    assert len(asked) == len(sites)


async def test_restricted_keys_stay_within_their_upstream(fleet: Fleet) -> None:
    """The same restriction on two upstreams is two restrictions, and what one may see the other need not."""
    default, south = fleet["default"], fleet["south"]
    device = default.make("DEVICE", "Lamp")
    hidden = {site.name: site.make("DEVICE", "Hidden") for site in (default, south)}
    text = fleet.key_file.read_text().replace("upstream =", f"devices = ['{device}']\nupstream =")
    fleet.key_file.write_text(text)
    await fleet.app.state.keys.poll(fleet.key_file)
    await settled(fleet)
    for _ in range(2):
        assert (await default.client.get(f"{BASE}/devices/{device}")).status_code == 200
        assert (await south.client.get(f"{BASE}/devices/{device}")).status_code == 404
    names = [item["name"] for item in (await default.client.get(f"{BASE}/devices")).json()["data"]]
    assert names == ["Lamp of default"]
    assert (await south.client.get(f"{BASE}/devices")).json()["data"] == []
    for site in (default, south):
        assert (await site.client.get(f"{BASE}/devices/{hidden[site.name]}")).status_code == 404


async def settled(fleet: Fleet) -> None:
    """Read the key file as often as it takes: one that has just changed is left to settle."""
    while not fleet.app.state.keys.generation:
        await fleet.app.state.keys.poll(fleet.key_file)


async def test_a_key_that_moves_is_served_by_its_new_upstream(fleet: Fleet) -> None:
    default, south = fleet["default"], fleet["south"]
    before, after = default.make("DEVICE", "Before"), south.make("DEVICE", "After")
    assert (await default.client.get(f"{BASE}/devices/{before}")).status_code == 200
    fleet.assign(default="south")
    await settled(fleet)
    assert (await default.client.get(f"{BASE}/whoami")).json()["upstream"] == "south"
    assert (await default.client.get(f"{BASE}/devices/{before}")).status_code == 404
    assert (await default.client.get(f"{BASE}/devices/{after}")).status_code == 200


async def test_a_reload_that_names_an_unknown_upstream_changes_nothing(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.assign(default="north")
    await settled(fleet)
    fleet.assign(default="nowhere")
    while fleet.app.state.keys.fault is None:
        await fleet.app.state.keys.poll(fleet.key_file)
    assert (await fleet["default"].client.get(f"{BASE}/whoami")).json()["upstream"] == "north"
    event = next(line for line in map(json.loads, capsys.readouterr().out.splitlines()) if "fault" in line)
    assert event["event"] == "keys_file_broken"
    assert event["fault"] == ("key default: upstream: unknown; known are default, guest, north, south")


@pytest.mark.parametrize("name", sorted(NO_OBJECTS))
async def test_each_key_is_told_its_upstream(fleet: Fleet, name: str) -> None:
    method, path, _ = OPERATIONS[name]
    for site in fleet.sites.values():
        assert (await site.client.request(method, path)).json()["upstream"] == site.name
