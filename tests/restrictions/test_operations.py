"""Every operation of the document, called with another's object: a new one without a rule here fails."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from app.openapi import EXAMPLES
from tests.restrictions.world import BASE, MISSING, House, told

DOCUMENT = json.loads((Path(__file__).parents[2] / "tb_api_sdk_openapi.json").read_text())
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if path.startswith(BASE)
}
#: Parameters that name an object, and of which type it is.
NAMING = {
    "device_id": "DEVICE",
    "asset_id": "ASSET",
    "root_id": "DEVICE",
    "entity_id": "DEVICE",
    "alarm_id": "ALARM",
}
#: An alarm is seen with its originator.
ORIGINATORS = {"ALARM": ("DEVICE", "ASSET")}
#: Parameters that are needed, or that say of which type the named object is.
OTHERS = {"keys": "temperature", "scope": "server", "root_type": "DEVICE", "entity_type": "DEVICE"}
RESTRICTIONS = ("devices", "types", "customer", "asset")

Send = Callable[[str], dict[str, Any]]


def relation_body(reference: str, house: House, visible: str) -> dict[str, Any]:
    ends = {
        side: {"entity_type": "DEVICE", "id": each} for side, each in (("from", visible), ("to", reference))
    }
    return {**ends, "type": "Contains"}


#: Objects in bodies: what makes a body with this object, and where the answer speaks of it.
IN_BODIES: dict[str, Callable[[str, House, str], dict[str, Any]]] = {
    "create_relation": relation_body,
    "delete_relation": relation_body,
}
#: An answer for each object: the entry of one that is hidden is that of one that is missing.
BY_DEVICE: dict[str, tuple[Callable[[str], Any], str]] = {
    "get_latest_telemetry_of_devices": (lambda r: {"device_ids": [r], "keys": ["temperature"]}, "errors"),
    "query_telemetry_of_devices": (lambda r: {"device_ids": [r], "keys": ["temperature"]}, "errors"),
    "upload_bulk_telemetry": (lambda r: {r: {"temperature": 1}}, "results"),
}
#: Commands to devices: no device of these tests ever comes for one, and `fail_fast` says so at once.
COMMANDS = {"send_oneway_rpc", "send_twoway_rpc", "send_persistent_rpc", "set_light"}
#: They name what is stored for a device; `tests/rpc/test_visibility.py` says who sees it.
STORED = {"get_rpc", "delete_rpc", "stream_rpc_events"}
#: They name no object; `test_lists.py` and `test_writes.py` say what they hold and make.
LISTS = {"list_devices", "list_assets", "list_device_types", "list_asset_types", "list_alarms"}
MAKERS = {"create_device", "create_asset"}
NO_OBJECTS = {"get_whoami"}
#: They do not end, so `tests/live/test_rights.py` calls them at a real server.
STREAMS = {"stream_telemetry", "stream_telemetry_of_devices"}


def parameters_of(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    refs = (each for each in operation.get("parameters", []) if "name" in each)
    return {each["name"]: each for each in refs}


def test_every_operation_has_a_rule() -> None:
    """A parameter or body that names objects in another way belongs into the tables above."""
    named = {
        name
        for name, (_, _, operation) in OPERATIONS.items()
        if any(
            parameter in NAMING and (each["in"] == "path" or each.get("required"))
            for parameter, each in parameters_of(operation).items()
        )
    }
    named -= STREAMS
    by_body = set(IN_BODIES) | set(BY_DEVICE) | STORED | STREAMS
    assert not named & (by_body | LISTS | MAKERS | NO_OBJECTS)
    assert named | by_body | LISTS | MAKERS | NO_OBJECTS == set(OPERATIONS)
    for name in named:
        _, path, operation = OPERATIONS[name]
        for parameter, each in parameters_of(operation).items():
            known = parameter in NAMING or parameter in OTHERS or not each.get("required")
            assert known, f"{name}: what is {parameter} of {path}?"
            assert parameter in NAMING or not parameter.endswith(("_id", "_ids")), f"{name}: {parameter}"


def test_every_route_is_an_operation(keys: SimpleNamespace) -> None:
    """What the document does not list is not called below: HEAD is asked for beside each GET."""
    routes = {
        (method, route.path)
        for route in iter_route_contexts(keys.app.routes)
        for method in route.methods or ()
        if (route.path or "").startswith(BASE)
    }
    listed = {(method, path) for method, path, _ in OPERATIONS.values()}
    assert {(method, path) for method, path in routes - listed if method != "HEAD"} == set()
    assert {("GET", path) for method, path in routes if method == "HEAD"} <= listed


async def call(client: httpx.AsyncClient, name: str, reference: str) -> httpx.Response:
    """Call an operation whose parameters name an object; `name` may begin with another method."""
    method, path, operation = OPERATIONS[name.removeprefix("HEAD ")]
    query: dict[str, str] = {}
    for parameter, each in parameters_of(operation).items():
        value = reference if parameter in NAMING else OTHERS.get(parameter)
        if value is not None and each["in"] == "path":
            path = path.replace(f"{{{parameter}}}", value)
        elif value is not None:
            query[parameter] = value
    example = EXAMPLES.get(name, {}).get("request", {}).get("application/json")
    if name in COMMANDS:
        example = {**example, "fail_fast": True}
    if name.startswith("HEAD "):
        return await client.head(path, params=query)
    return await client.request(method, path, params=query, json=example)


def kind_of(name: str) -> str:
    parameters = parameters_of(OPERATIONS[name][2])
    return next(kind for parameter, kind in NAMING.items() if parameter in parameters)


def references(house: House, kind: str, entity_id: str) -> list[str]:
    """Return what callers may write for an entity, or for an alarm of it."""
    alarm = house.alarm_of(entity_id)
    return [alarm] if kind == "ALARM" else [entity_id, f"name:{house.entity(entity_id).name}"]


def is_served(name: str, answer: httpx.Response) -> bool:
    """Tell whether the object was found and the operation went its way."""
    if name in COMMANDS:
        return bool(answer.json()["error_code"] == "DEVICE_OFFLINE")
    return answer.status_code < 300


NAMED = sorted(
    set(OPERATIONS) - set(IN_BODIES) - set(BY_DEVICE) - STORED - STREAMS - LISTS - MAKERS - NO_OBJECTS
)


@pytest.mark.parametrize("name", NAMED)
async def test_another_s_object_is_a_missing_one_and_the_own_one_is_served(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    kind = kind_of(name)
    kinds = ORIGINATORS.get(kind, (kind,))
    served = 0
    for restriction in RESTRICTIONS:
        client, given = getattr(keys, restriction), keys.given[restriction]
        own = set().union(*(house.seen(given, each) for each in kinds))
        hidden = sorted(set().union(*(house.seen({}, each) for each in kinds)) - own)
        expected = told(await call(client, name, MISSING))
        assert expected[0] == 404
        headless = told(await call(client, f"HEAD {name}", MISSING))
        assert headless[0] in {404, 405}
        second = [house.second] if "DEVICE" in kinds else []
        for entity_id in [*hidden, *second]:
            entity_name = house.entity(entity_id).name
            for reference in references(house, kind, entity_id):
                answer = await call(client, name, reference)
                assert told(answer) == expected, (restriction, reference)
                assert told(await call(client, f"HEAD {name}", reference)) == headless
                assert entity_name not in answer.text
        for entity_id in sorted(own)[:1]:
            answer = await call(client, name, references(house, kind, entity_id)[0])
            assert is_served(name, answer), (restriction, answer.text)
            served += 1
    assert served


@pytest.mark.parametrize("name", sorted(IN_BODIES))
async def test_another_s_object_in_a_body_is_a_missing_one(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    method, path, _ = OPERATIONS[name]
    make = IN_BODIES[name]
    for restriction in RESTRICTIONS:
        client, given = getattr(keys, restriction), keys.given[restriction]
        own = sorted(house.seen(given, "DEVICE"))
        missing = await client.request(method, path, json=make(MISSING, house, own[0]))
        assert missing.status_code == 404
        for hidden in sorted(house.seen({}, "DEVICE") - set(own)):
            for reference in (hidden, f"name:{house.entity(hidden).name}"):
                house.relate(own[0], hidden)
                answer = await client.request(method, path, json=make(reference, house, own[0]))
                assert told(answer) == told(missing)
        house.relate(own[0], own[-1])
        answer = await client.request(method, path, json=make(own[-1], house, own[0]))
        assert answer.status_code < 300


@pytest.mark.parametrize("name", sorted(BY_DEVICE))
async def test_another_s_object_among_many_is_a_missing_one(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    method, path, _ = OPERATIONS[name]
    make, member = BY_DEVICE[name]
    for restriction in RESTRICTIONS:
        client, given = getattr(keys, restriction), keys.given[restriction]
        own = house.seen(given, "DEVICE")
        missing = (await client.request(method, path, json=make(MISSING))).json()
        refusal = missing[member][MISSING]
        assert refusal["error_code"] == "RESOURCE_NOT_FOUND"
        refusal.pop("device_id", None)
        for device in sorted(house.seen({}, "DEVICE")):
            for reference in (device, f"name:{house.entity(device).name}"):
                answer = (await client.request(method, path, json=make(reference))).json()
                if device in own:
                    assert answer["status"] == "success"
                    assert "error_code" not in answer.get("errors", {}).get(reference, {})
                else:
                    entry = answer[member][reference]
                    # It may repeat the id that was sent, and tells none that was not.
                    assert entry.pop("device_id", None) in {None, reference}
                    assert entry == refusal
                    assert device not in json.dumps(answer).replace(f'"{reference}"', "")


@pytest.mark.parametrize("name", sorted(LISTS | NO_OBJECTS))
async def test_operations_without_objects_tell_nothing_of_hidden_ones(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    method, path, _ = OPERATIONS[name]
    for kind in ("DEVICE", "ASSET"):
        for entity_id in house.seen({}, kind):
            house.alarm_of(entity_id)
    for restriction in RESTRICTIONS:
        client, given = getattr(keys, restriction), keys.given[restriction]
        answer = await client.request(method, path)
        assert answer.status_code == 200
        allowed = json.dumps(given)
        for kind in ("DEVICE", "ASSET"):
            for hidden in house.seen({}, kind) - house.seen(given, kind):
                assert hidden not in answer.text or hidden in allowed
                assert f'"name":"{house.entity(hidden).name}"' not in answer.text
