"""Text that ThingsBoard cannot take, in keys, names and values: refused in our words, with the field."""

from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.telemetry_world import DEVICES, device_id

API = "/api/v1/tb"
DEVICE = f"{DEVICES}/name:Test Device A1"
T = 1_760_000_000_000
EMOJI = "\U0001f600"
MARKUP = "<script>alert(1)</script>"

NAMED_KEYS = {
    "NUL": ("a%00b", "NUL"),
    "long": ("k" * 256, "longer than 255"),
    "long in UTF-16": (EMOJI * 128, "longer than 255"),
    "second of two": (f"a,{'k' * 256}", "longer than 255"),
}


@pytest.mark.parametrize("route", ["telemetry/latest", "telemetry", "telemetry/export", "telemetry/count"])
@pytest.mark.parametrize(("keys", "issue"), NAMED_KEYS.values(), ids=NAMED_KEYS)
async def test_a_key_that_cannot_be_is_refused_where_it_is_read(
    gateway: httpx.AsyncClient, simulator: Simulator, route: str, keys: str, issue: str
) -> None:
    answer = await gateway.get(f"{DEVICES}/{device_id(simulator)}/{route}?keys={keys}")
    details = answer.json()["details"]
    assert (answer.status_code, details["field"]) == (422, "keys")
    assert issue in details["issue"]
    assert not any("timeseries" in call for call in simulator.calls)


async def test_the_longest_key_is_read(gateway: httpx.AsyncClient) -> None:
    key = EMOJI * 127 + "x"
    assert (await gateway.post(f"{DEVICE}/telemetry", json={key: 1})).status_code == 201
    answer = await gateway.get(f"{DEVICE}/telemetry/latest", params={"keys": key})
    assert answer.json()["data"][key]["value"] == 1


@pytest.mark.parametrize(
    "route", [f"{DEVICE}/telemetry/query", f"{API}/telemetry/query", f"{API}/telemetry/latest"]
)
@pytest.mark.parametrize(
    ("key", "issue"),
    [("a\0", "NUL"), (EMOJI * 128, "longer than 255"), (" \t", "blank"), ("k" * 256, "255")],
    ids=["NUL", "long in UTF-16", "blank", "long"],
)
async def test_a_key_that_cannot_be_is_refused_in_a_query(
    gateway: httpx.AsyncClient, route: str, key: str, issue: str
) -> None:
    body: dict[str, Any] = {"keys": ["a", key]}
    if "Test Device" not in route:
        body["device_ids"] = ["name:Test Device A1"]
    answer = await gateway.post(route, json=body)
    assert (answer.status_code, answer.json()["details"]["field"]) == (422, "keys.1")
    assert issue in answer.json()["details"]["issue"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("devices?text_search=a%00", "text_search"),
        ("assets?text_search=a%00", "text_search"),
        ("devices?device_type=a%00", "device_type"),
        ("assets?asset_type=a%00", "asset_type"),
        ("devices/name:a%00", "device_id"),
        ("assets/name:a%00/attributes", "asset_id"),
        ("relations?entity_id=name:a%00&entity_type=DEVICE", "entity_id"),
        ("relations?entity_id=00%00&entity_type=CUSTOMER", "entity_id"),
        ("graph/name:a%00?root_type=DEVICE", "root_id"),
        (f"devices/name:{'n' * 256}", "device_id"),
        (f"devices/name:{EMOJI * 128}", "device_id"),
    ],
)
async def test_text_that_cannot_be_is_refused_with_its_name(
    gateway: httpx.AsyncClient, simulator: Simulator, path: str, field: str
) -> None:
    answer = await gateway.get(f"{API}/{path}")
    assert (answer.status_code, answer.json()["details"]["field"]) == (422, field)


async def test_one_impossible_name_leaves_the_other_devices_alone(gateway: httpx.AsyncClient) -> None:
    names = ["name:Test Device A1", "name:a\0", f"name:{'n' * 256}"]
    body = (await gateway.post(f"{API}/telemetry/latest", json={"device_ids": names})).json()
    assert {name: error["status"] for name, error in body["errors"].items()} == dict.fromkeys(names[1:], 422)
    bulk = (await gateway.post(f"{API}/telemetry/bulk", json={name: {"a": 1} for name in names})).json()
    assert [bulk["results"][name]["status"] for name in names] == ["success", "error", "error"]


WRITES = [("telemetry", "telemetry_data"), ("attributes/server", "attributes")]


@pytest.mark.parametrize(("route", "field"), WRITES)
async def test_a_key_that_thingsboard_takes_for_markup_is_named_in_our_words(
    gateway: httpx.AsyncClient, route: str, field: str
) -> None:
    answer = await gateway.post(f"{DEVICE}/{route}", json={"a": 1, MARKUP: 2})
    issue = "a key looks like markup, which ThingsBoard refuses"
    assert (answer.status_code, answer.json()["error_code"]) == (400, "VALIDATION_ERROR")
    assert answer.json()["details"] == {"field": field, "issue": issue}
    assert answer.json()["message"] == f"{field}: {issue}"


async def test_markup_in_a_bulk_upload_is_named_for_its_device(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(f"{API}/telemetry/bulk", json={"name:Test Device A1": {MARKUP: 1}})
    result = answer.json()["results"]["name:Test Device A1"]
    assert (result["status"], result["error_code"]) == ("error", "VALIDATION_ERROR")
    assert "looks like markup" in result["error"]


@pytest.mark.parametrize(("route", "field"), WRITES)
@pytest.mark.parametrize("key", [" ", "\t\n", "\u00a0"])
async def test_a_blank_key_is_refused_before_it_is_sent(
    gateway: httpx.AsyncClient, route: str, field: str, key: str
) -> None:
    details = (await gateway.post(f"{DEVICE}/{route}", json={"a": 1, key: 2})).json()["details"]
    assert (details["field"], details["issue"]) == (key, "the key is blank")


@pytest.mark.parametrize(("route", "field"), WRITES)
async def test_text_beyond_a_column_of_postgresql_is_refused(
    gateway: httpx.AsyncClient, simulator: Simulator, route: str, field: str
) -> None:
    """In ThingsBoard it would fail the batch it is in, other callers' points with it."""
    text = "x" * 10_000_001
    answer = await gateway.post(f"{DEVICE}/{route}", json={"note": text})
    details = answer.json()["details"]
    assert (answer.status_code, details["field"]) == (400, "note")
    assert "more than 10000000 characters" in details["issue"]
    assert not any(call.startswith("POST /api/plugins") for call in simulator.calls)


async def test_text_as_long_as_a_column_and_longer_json_are_taken(gateway: httpx.AsyncClient) -> None:
    assert (await gateway.post(f"{DEVICE}/telemetry", json={"note": "x" * 10_000_000})).status_code == 201
    nested = {"note": {"x": "x" * 10_000_001}}
    assert (await gateway.post(f"{DEVICE}/telemetry", json=nested)).status_code == 201


@pytest.mark.parametrize("kind", ["devices", "assets"])
@pytest.mark.parametrize(
    ("fields", "field", "issue"),
    [
        ({"name": MARKUP}, "name", "looks like markup"),
        ({"name": "a", "label": "<b>b</b>"}, "label", "looks like markup"),
        ({"name": "a", "type": "<i>t</i>"}, "type", "looks like markup"),
        ({"name": EMOJI * 128}, "name", "longer than 255"),
        ({"name": "a", "label": EMOJI * 128}, "label", "longer than 255"),
    ],
)
async def test_faulty_text_of_an_entity_is_named_in_our_words(
    gateway: httpx.AsyncClient, kind: str, fields: dict[str, str], field: str, issue: str
) -> None:
    answer = await gateway.post(f"{API}/{kind}", json=fields)
    details = answer.json()["details"]
    assert (answer.status_code, details["field"]) == (400, field)
    assert issue in details["issue"]


async def test_a_device_that_an_entity_view_shows_is_still_in_use(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    async with httpx.AsyncClient(base_url=simulator.url) as client:
        login = {"username": "tenant@thingsboard.org", "password": "tenant"}
        token = (await client.post("/api/auth/login", json=login)).json()["token"]
        view = {"name": "view", "type": "default", "entityId": {"entityType": "DEVICE", "id": device}}
        headers = {"X-Authorization": f"Bearer {token}"}
        assert (await client.post("/api/entityView", json=view, headers=headers)).status_code == 200
    answer = await gateway.delete(f"{DEVICES}/{device}")
    assert (answer.status_code, answer.json()["error_code"]) == (400, "VALIDATION_ERROR")
    assert "still in use" in answer.json()["message"]
