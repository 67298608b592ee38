"""Relations: from our words to ThingsBoard's, with names looked up."""

import asyncio
from typing import Any

from app.errors import UnprocessableRequest
from app.schemas.relations import RelationBody, RelationEnd
from app.services.addressing import find_uuid, resolve
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.relations import Direction

#: Entity types whose names may be shown; users' and tenants' names are e-mail addresses.
SHOWN_TYPES = frozenset({"DEVICE", "ASSET", "ENTITY_VIEW", "CUSTOMER"})
NAMED_TYPES = frozenset({"DEVICE", "ASSET"})
#: ThingsBoard's words for a name that it could not fetch.
NO_NAME = "N/A"


async def resolve_any(upstream: ThingsBoardClient, entity_type: str, reference: str, field: str) -> str:
    """Return the UUID of an entity of any shown type; only devices and assets have names here.

    Raises:
        NotFound: the caller's key may not see it.
    """
    if entity_type in NAMED_TYPES:
        return await resolve(upstream, entity_type, reference, field)
    uuid = find_uuid(reference)
    if uuid is None:
        issue = f"must be a UUID: a {entity_type} cannot be addressed by name"
        raise UnprocessableRequest(f"{field}: {issue}", details={"field": field, "issue": issue})
    await upstream.check(entity_type, uuid)
    return uuid


async def list_of(
    upstream: ThingsBoardClient, entity_type: str, reference: str, direction: Direction
) -> list[dict[str, Any]]:
    """Return the relations that start (FROM) or end (TO) at an entity, with the other ends' names."""
    entity_id = await resolve_any(upstream, entity_type, reference, "entity_id")
    relations = await upstream.relations.walk(entity_type, entity_id, direction, levels=1)
    return [_with_shown_names(relation) for relation in relations]


def _with_shown_names(relation: dict[str, Any]) -> dict[str, Any]:
    hidden = {
        f"{end}Name": None
        for end in ("from", "to")
        if relation.get(end, {}).get("entityType") not in SHOWN_TYPES
        or shown_name(relation.get(f"{end}Name")) is None
    }
    return {**relation, **hidden}


def shown_name(name: str | None) -> str | None:
    """Return a name as ThingsBoard gave it, or None when it had none to give."""
    return None if name == NO_NAME else name


async def create(upstream: ThingsBoardClient, relation: RelationBody) -> dict[str, Any]:
    """Create a relation and return it with ids. NotFound when an end is missing or another's."""
    wire = await _to_wire(upstream, relation)
    await upstream.relations.save(wire)
    return _from_wire(wire)


async def delete(upstream: ThingsBoardClient, relation: RelationBody) -> dict[str, Any]:
    """Delete a relation and return it with ids, or raise NotFound."""
    wire = await _to_wire(upstream, relation)
    await upstream.relations.delete(wire)
    return _from_wire(wire)


async def _to_wire(upstream: ThingsBoardClient, relation: RelationBody) -> dict[str, Any]:
    async def end(given: RelationEnd, field: str) -> dict[str, str]:
        entity_id = await resolve_any(upstream, given.entity_type, given.id, f"{field}.id")
        return {"id": entity_id, "entityType": given.entity_type}

    start, to = await asyncio.gather(end(relation.from_, "from"), end(relation.to, "to"))
    return {"from": start, "to": to, "type": relation.type, "typeGroup": "COMMON"}


def _from_wire(wire: dict[str, Any]) -> dict[str, Any]:
    ends = {end: {"id": wire[end]["id"], "entity_type": wire[end]["entityType"]} for end in ("from", "to")}
    return {**ends, "type": wire["type"]}
