"""Making, changing and deleting: a key neither reaches beyond its restriction nor moves objects over it."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.restrictions.world import BASE, MISSING, NAMES, House

FIELDS = ("devices", "device_types", "customer", "asset")


@pytest.mark.parametrize("name", NAMES)
async def test_a_restricted_key_makes_only_what_it_is_sure_to_see(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    client: httpx.AsyncClient = getattr(keys, name)
    given = keys.given[name]
    for kind in ("lamp", "meter", "no such type", None):
        body = {"name": f"new {kind}"} | ({"type": kind} if kind else {})
        answer = await client.post(f"{BASE}/devices", json=body)
        if set(given) == {"device_types"} and kind in given["device_types"]:
            assert answer.status_code == 201
            assert (await client.get(answer.headers["location"])).status_code == 200
        else:
            assert answer.status_code == 403
            fault = answer.json()
            assert fault["error_code"] == "AUTHORIZATION_FAILED"
            assert fault["details"] == {
                "issue": "the key is restricted",
                "restricted_by": [f for f in FIELDS if f in given],
            }
        made = await client.post(f"{BASE}/assets", json=body)
        assert made.status_code == 403
    names = {entity.name for kind in ("DEVICE", "ASSET") for entity in house.world.every(kind)}
    assert "new None" not in names


async def test_a_change_may_not_move_a_device_over_the_border(keys: SimpleNamespace, house: House) -> None:
    path = f"{BASE}/devices/{house.meter}"
    assert (await keys.types.patch(path, json={"label": "mine"})).status_code == 200
    assert (await keys.types.patch(path, json={"type": "meter"})).status_code == 200
    refused = await keys.types.patch(path, json={"type": "lamp", "label": "away"})
    assert refused.status_code == 403
    assert refused.json()["details"]["restricted_by"] == ["device_types"]
    assert house.entity(house.meter).body["label"] == "mine"
    assert (await keys.two_types.patch(path, json={"type": "thermostat"})).status_code == 200
    entering = await keys.types.patch(f"{BASE}/devices/{house.lamp}", json={"type": "meter"})
    assert entering.status_code == 404
    # Who is not restricted by type may change it.
    assert (await keys.asset.patch(f"{BASE}/devices/{house.lamp}", json={"type": "meter"})).status_code == 200
    assert (await keys.customer.patch(f"{BASE}/assets/{house.floor}", json={"type": "x"})).status_code == 200


@pytest.mark.parametrize("name", NAMES)
async def test_nothing_hidden_is_changed_or_deleted(keys: SimpleNamespace, house: House, name: str) -> None:
    client: httpx.AsyncClient = getattr(keys, name)
    for kind, plural in (("DEVICE", "devices"), ("ASSET", "assets")):
        hidden = house.seen({}, kind) - house.seen(keys.given[name], kind)
        before = {each: dict(house.entity(each).body) for each in hidden}
        for entity_id in hidden:
            path = f"{BASE}/{plural}/{entity_id}"
            written = [
                await client.patch(path, json={"label": "taken"}),
                await client.post(f"{path}/telemetry", json={"temperature": 1}),
                await client.post(f"{path}/attributes/server", json={"limit": 1}),
                await client.delete(f"{path}/attributes/server", params={"keys": "active"}),
                await client.delete(f"{path}/telemetry", params={"keys": "temperature"}),
                await client.delete(path),
            ]
            assert {answer.status_code for answer in written} == {404}
            assert house.entity(entity_id).body == before[entity_id]
            assert not house.world.attributes.of(entity_id, "SERVER_SCOPE").keys() - {"active"}
            if kind == "DEVICE":
                assert house.world.telemetry.latest(entity_id)["temperature"][1] == 20.5


async def test_a_bulk_upload_stores_what_the_key_sees(keys: SimpleNamespace, house: House) -> None:
    stored = [house.lamp, "name:loose meter"]
    refused = [house.meter, MISSING, "name:meter", "name:nobody"]
    every = [*stored, *refused]
    lines = "".join(f"{reference},1760000000001,bulk,1\n" for reference in every)
    ndjson = "".join(
        f'{{"device_id":"{reference}","ts":1760000000001,"values":{{"bulk":1}}}}\n' for reference in every
    )
    forms: list[dict[str, Any]] = [
        {"json": {reference: {"bulk": 1} for reference in every}},
        {"content": ndjson, "headers": {"Content-Type": "application/x-ndjson"}},
        {"content": f"device_id,ts,key,value\n{lines}", "headers": {"Content-Type": "text/csv"}},
    ]
    for form in forms:
        answer = await keys.devices.post(f"{BASE}/telemetry/bulk", **form)
        assert answer.status_code == 207, answer.text
        results = answer.json()["results"]
        assert {name for name in every if results[name]["status"] == "success"} == set(stored)
        for hidden, missing in ((house.meter, MISSING), ("name:meter", "name:nobody")):
            told = [
                {**results[name], "device_id": name == results[name]["device_id"]}
                for name in (hidden, missing)
            ]
            assert told[0] == told[1]
        assert results["name:meter"]["device_id"] is None
    assert "bulk" not in house.world.telemetry.latest(house.meter)


async def test_what_is_hidden_is_refused_before_the_body_is_read(keys: SimpleNamespace, house: House) -> None:
    """So it is for a missing device: what is wrong with a body does not tell them apart."""
    for device in (house.meter, MISSING):
        for path, body in (
            ("telemetry", b"{"),
            ("attributes/server", b"{"),
            ("telemetry/query", b'{"keys":5}'),
        ):
            answer = await keys.devices.post(f"{BASE}/devices/{device}/{path}", content=body)
            assert answer.status_code == 404, path
