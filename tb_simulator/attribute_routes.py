"""Attribute routes (attributes.json)."""

from typing import Any

from tb_simulator.access import checked_plain
from tb_simulator.answers import EMPTY, Answer, PlainError, bad_request, ok, server_error
from tb_simulator.attribute_store import CLIENT, SCOPES
from tb_simulator.payloads import attribute_values, check_key
from tb_simulator.routing import ANYONE, Call, Routes
from tb_simulator.telemetry_routes import requested_keys
from tb_simulator.values import UnparsableValueError, as_typed, load_json
from tb_simulator.world import Entity

routes = Routes()

_BASE = "/api/plugins/telemetry/{entityType}/{id}"
_DEVICE_BASE = "/api/plugins/telemetry/{id}"


def _scope(call: Call) -> str:
    scope = call.params["scope"]
    if scope not in SCOPES:
        raise bad_request(
            "Method parameter 'scope': Failed to convert value of type 'java.lang.String' to required type "
            "'org.thingsboard.server.common.data.AttributeScope'; Failed to convert from type "
            "[java.lang.String] to type [@io.swagger.v3.oas.annotations.Parameter "
            "@org.springframework.web.bind.annotation.PathVariable "
            f"org.thingsboard.server.common.data.AttributeScope] for value [{scope}]",
        )
    return scope


def _entity(call: Call) -> Entity:
    return checked_plain(call, call.params.get("entityType", "DEVICE"), call.params["id"])


@routes.post(f"{_BASE}/attributes/{{scope}}", f"{_BASE}/{{scope}}", f"{_DEVICE_BASE}/{{scope}}", who=ANYONE)
def save_attributes(call: Call) -> Answer:
    """Store attributes; the client scope belongs to the device."""
    scope = _scope(call)
    if scope == CLIENT:
        raise PlainError(400, f"Invalid scope: {scope}")
    try:
        payload = load_json(call.body)
    except ValueError:
        raise PlainError(400, "Invalid JSON") from None
    if not isinstance(payload, dict):
        raise PlainError(400, "Request is not a JSON object")
    try:
        values = attribute_values(payload)
    except UnparsableValueError as error:
        raise server_error(str(error)) from None
    if not values:
        raise PlainError(400, "No attributes data found in request body!")
    for key in values:
        check_key(key)
    call.world.attributes.save(_entity(call).id, scope, values)
    return EMPTY


def _rows(call: Call, scopes: tuple[str, ...]) -> list[dict[str, Any]]:
    entity, keys = _entity(call), set(requested_keys(call))
    return [
        {"lastUpdateTs": ts, "key": key, "value": as_typed(value)}
        for scope in scopes
        for key, (ts, value) in call.world.attributes.of(entity.id, scope).items()
        if not keys or key in keys
    ]


@routes.get(f"{_BASE}/values/attributes", who=ANYONE)
def all_attributes(call: Call) -> Answer:
    """Return the attributes of all scopes, unnamed."""
    return ok(_rows(call, SCOPES))


@routes.get(f"{_BASE}/values/attributes/{{scope}}", who=ANYONE)
def attributes_of_scope(call: Call) -> Answer:
    """Return the attributes of a scope; unknown keys are missing."""
    return ok(_rows(call, (_scope(call),)))


@routes.get(f"{_BASE}/keys/attributes", who=ANYONE)
def all_attribute_keys(call: Call) -> Answer:
    """Return the attribute keys of all scopes."""
    return ok(list(dict.fromkeys(row["key"] for row in _rows(call, SCOPES))))


@routes.get(f"{_BASE}/keys/attributes/{{scope}}", who=ANYONE)
def attribute_keys_of_scope(call: Call) -> Answer:
    """Return the attribute keys of a scope."""
    return ok([row["key"] for row in _rows(call, (_scope(call),))])


@routes.delete(f"{_BASE}/{{scope}}", f"{_DEVICE_BASE}/{{scope}}", who=ANYONE)
def delete_attributes(call: Call) -> Answer:
    """Delete attributes; unknown keys are no error."""
    scope, keys = _scope(call), requested_keys(call)
    if not keys:
        raise PlainError(400, "Empty keys: []")
    call.world.attributes.delete(_entity(call).id, scope, keys)
    return EMPTY
