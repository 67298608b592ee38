"""Creating and updating devices and assets: what their two routes have in common."""

from collections.abc import Callable
from typing import Any

from tb_simulator.access import checked, title
from tb_simulator.answers import EMPTY, Answer, ApiError, bad_request
from tb_simulator.makers import profile_for
from tb_simulator.payloads import MARKUP, utf16_length
from tb_simulator.routing import Call
from tb_simulator.world import Entity

LONGEST_TEXT = 255
_PROFILE_FIELDS = {"DEVICE": "deviceProfileId", "ASSET": "assetProfileId"}


def checked_name(call: Call, kind: str, body: dict[str, Any]) -> str:
    """Return the name a body gives, or raise ThingsBoard's 400 for none or a used one (devices.json)."""
    name = body.get("name")
    if not isinstance(name, str) or not name.strip():
        raise bad_request(f"{title(kind)} name should be specified!")
    for field in ("name", "type", "label"):
        _check_text(field, body.get(field))
    known = call.world.find_by_name(kind, call.user.tenant, name)
    if known is not None and known.id != (body.get("id") or {}).get("id"):
        raise bad_request(f"{title(kind)} with such name already exists!")
    return name


def delete(call: Call, kind: str) -> Answer:
    """Delete an entity, unless an entity view shows it."""
    entity = checked(call, kind, call.params["id"])
    views = call.world.every("ENTITY_VIEW", entity.tenant)
    if any((view.body["entityId"] or {}).get("id") == entity.id for view in views):
        what = "has entity views or is referenced in calculated fields"
        raise bad_request(f"Can't delete {title(kind).lower()} that {what}!")
    call.world.remove(entity)
    return EMPTY


def _check_text(field: str, text: Any) -> None:
    """Refuse markup and long text, as ThingsBoard's validation of fields does."""
    if isinstance(text, str) and MARKUP.search(text):
        raise bad_request(f"Validation error: {field} is malformed")
    if isinstance(text, str) and utf16_length(text) > LONGEST_TEXT:
        raise bad_request(f"Validation error: {field} length must be equal or less than {LONGEST_TEXT}")


def type_name(call: Call, kind: str, body: dict[str, Any]) -> str:
    """Return the type a body asks for: its type, else the name of its profile, else the default."""
    wanted = body.get("type")
    if wanted:
        return str(wanted)
    profile_id = (body.get(_PROFILE_FIELDS[kind]) or {}).get("id")
    profile = call.world.find(f"{kind}_PROFILE", profile_id) if profile_id else None
    return profile.name if profile else "default"


def customer_of(body: dict[str, Any], default: str) -> str:
    """Return the customer a body assigns."""
    return str((body.get("customerId") or {}).get("id") or default)


def update(call: Call, kind: str, body: dict[str, Any], more_fields: tuple[str, ...]) -> Entity:
    """Change an entity; a version other than the stored one is a 409 (devices.json)."""
    entity = checked(call, kind, str(body["id"].get("id")))
    name = checked_name(call, kind, body)
    if body.get("version") not in {None, entity.body["version"]}:
        raise ApiError(409, f"{title(kind)} was already changed by someone else", 35)
    before = entity.body["type"]
    wanted = type_name(call, kind, body)
    if wanted == before and body.get(_PROFILE_FIELDS[kind]):
        wanted = type_name(call, kind, {**body, "type": None})
    profile = profile_for(call.world, kind, entity.tenant, wanted)
    changes = {field: body[field] for field in ("label", "additionalInfo", *more_fields) if field in body}
    entity.customer = customer_of(body, entity.customer or "")
    changes |= {"name": name, "type": profile.name, _PROFILE_FIELDS[kind]: profile.body["id"]}
    changes["customerId"] = {"entityType": "CUSTOMER", "id": entity.customer}
    changes["version"] = entity.body["version"] + 1
    entity.body |= changes
    call.world.rename(entity, name)
    return entity


def save(
    call: Call, kind: str, create: Callable[[str, str, dict[str, Any]], Entity], *more_fields: str
) -> Entity:
    """Create an entity, or update it when the body has an id."""
    body = call.json_object()
    if body.get("id"):
        return update(call, kind, body, more_fields)
    name = checked_name(call, kind, body)
    return create(name, type_name(call, kind, body), body)
