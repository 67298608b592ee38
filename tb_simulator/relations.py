"""Relation routes (relations.json)."""

from typing import Any

from tb_simulator.access import can_read, check_entity_type, check_uuid, checked
from tb_simulator.answers import EMPTY, Answer, bad_request, not_found, ok, server_error
from tb_simulator.relation_store import Node, Relation, RelationKey, matching
from tb_simulator.routing import Call, Routes
from tb_simulator.world_types import reference

routes = Routes()

_DIRECTIONS = ("FROM", "TO")


def _shown(relation: Relation, names: dict[str, Any] | None = None) -> dict[str, Any]:
    key = relation.key
    return {
        "from": reference(*key.source),
        "to": reference(*key.target),
        "type": key.type,
        "typeGroup": key.group,
        "version": relation.version,
        **(names or {}),
        "additionalInfo": relation.info,
    }


def _readable(call: Call, relations: list[Relation]) -> list[Relation]:
    """Leave out, as ThingsBoard does, what leads to entities the caller may not read."""
    return [r for r in relations if can_read(call, *r.key.source) and can_read(call, *r.key.target)]


def _name(call: Call, node: Node) -> str:
    """Return an entity's name, or ThingsBoard's words for one that it cannot fetch."""
    entity = call.world.find(*node)
    return (entity and entity.name) or "N/A"


def _with_names(call: Call, relations: list[Relation], direction: str) -> Answer:
    """Answer relations with the names of their far ends only: the root's name is never there."""
    shown = []
    for relation in _readable(call, relations):
        far = _name(call, relation.end(direction))
        is_from = direction == "FROM"
        names = {"fromName": None if is_from else far, "toName": far if is_from else None}
        shown.append(_shown(relation, names))
    return ok(shown)


def _node(call: Call, body: dict[str, Any], side: str) -> Node:
    end = body.get(side) or {}
    if not isinstance(end, dict) or not end.get("id") or not end.get("entityType"):
        raise bad_request(f"Relation {side} should be specified!")
    return _checked_node(call, str(end["entityType"]), str(end["id"]))


def _checked_node(call: Call, kind: str, identifier: str) -> Node:
    if kind == "TENANT" and identifier == call.user.tenant:
        return kind, identifier
    entity = checked(call, check_entity_type(kind), identifier)
    return entity.kind, entity.id


def _query_key(call: Call) -> RelationKey:
    ends = []
    for side in ("from", "to"):
        kind, identifier = call.arg(f"{side}Type"), call.arg(f"{side}Id")
        if not kind or not identifier:
            raise server_error(
                f"Required request parameter '{side}Id' for method parameter type String is not present"
            )
        ends.append((check_entity_type(kind), check_uuid(identifier)))
    group = call.arg("relationTypeGroup") or "COMMON"
    return RelationKey(ends[0], ends[1], call.arg("relationType") or "", group)


@routes.post("/api/relation")
def save_relation(call: Call) -> Answer:
    """Save a relation; saving it again is no error."""
    body = call.json_object()
    if not body.get("type"):
        raise bad_request("Relation type should be specified!")
    source, target = _node(call, body, "from"), _node(call, body, "to")
    key = RelationKey(source, target, str(body["type"]), body.get("typeGroup") or "COMMON")
    call.world.relations.save(key, body.get("additionalInfo"))
    return EMPTY


@routes.get("/api/relation")
def one_relation(call: Call) -> Answer:
    """Return one relation."""
    relation = call.world.relations.find(_query_key(call))
    if relation is None or not _readable(call, [relation]):
        raise not_found()
    return ok(_shown(relation))


@routes.delete("/api/relation")
def delete_relation(call: Call) -> Answer:
    """Delete a relation; a missing one is a 404."""
    key = _query_key(call)
    for node in (key.source, key.target):
        _checked_node(call, *node)
    if not call.world.relations.delete(key):
        raise not_found()
    return EMPTY


def _near(call: Call, node: Node, direction: str) -> list[Relation]:
    group, kind = call.arg("relationTypeGroup") or "COMMON", call.arg("relationType")
    found = call.world.relations.leaving(_checked_node(call, *node), direction, group)
    return [relation for relation in found if not kind or relation.key.type == kind]


def _query_form(call: Call) -> tuple[list[Relation], str]:
    for direction, side in (("FROM", "from"), ("TO", "to")):
        kind, identifier = call.arg(f"{side}Type"), call.arg(f"{side}Id")
        if kind and identifier:
            return _near(call, (check_entity_type(kind), identifier), direction), direction
    raise bad_request("Either 'fromId' and 'fromType' or 'toId' and 'toType' should be specified!")


def _path_form(call: Call, direction: str) -> list[Relation]:
    return _near(call, (check_entity_type(call.params["entityType"]), call.params["id"]), direction)


@routes.get("/api/relations")
def relations_by_query(call: Call) -> Answer:
    """Return the relations from or to an entity (4.3's query form)."""
    found, _ = _query_form(call)
    return ok([_shown(relation) for relation in _readable(call, found)])


@routes.get("/api/relations/info")
def relation_infos_by_query(call: Call) -> Answer:
    """Return the relations from or to an entity with names (4.3's query form)."""
    return _with_names(call, *_query_form(call))


@routes.get("/api/relations/from/{entityType}/{id}")
def relations_from(call: Call) -> Answer:
    """Return the relations from an entity."""
    return ok([_shown(relation) for relation in _readable(call, _path_form(call, "FROM"))])


@routes.get("/api/relations/to/{entityType}/{id}")
def relations_to(call: Call) -> Answer:
    """Return the relations to an entity."""
    return ok([_shown(relation) for relation in _readable(call, _path_form(call, "TO"))])


@routes.get("/api/relations/info/from/{entityType}/{id}")
def relation_infos_from(call: Call) -> Answer:
    """Return the relations from an entity with the names they lead to."""
    return _with_names(call, _path_form(call, "FROM"), "FROM")


@routes.get("/api/relations/info/to/{entityType}/{id}")
def relation_infos_to(call: Call) -> Answer:
    """Return the relations to an entity with the names they come from."""
    return _with_names(call, _path_form(call, "TO"), "TO")


def _walked(call: Call) -> tuple[list[Relation], str]:
    body = call.json_object()
    parameters = body.get("parameters") or {}
    direction = parameters.get("direction")
    if direction not in _DIRECTIONS:
        raise server_error(
            "JSON parse error: Cannot deserialize value of type "
            "`org.thingsboard.server.common.data.relation.EntitySearchDirection` from String "
            f'"{direction}": not one of the values accepted for Enum class: [FROM, TO]',
        )
    root = _checked_node(
        call, check_entity_type(str(parameters.get("rootType"))), str(parameters.get("rootId"))
    )
    relations = call.world.relations.walk(
        root,
        direction,
        levels=parameters.get("maxLevel") or 0,
        group=parameters.get("relationTypeGroup") or "COMMON",
        last_only=bool(parameters.get("fetchLastLevelOnly")),
    )
    return matching(relations, body.get("filters") or [], direction), direction


@routes.post("/api/relations")
def relations_query(call: Call) -> Answer:
    """Walk from a root through many levels; cycles come once."""
    found, _ = _walked(call)
    return ok([_shown(relation) for relation in _readable(call, found)])


@routes.post("/api/relations/info")
def relation_infos_query(call: Call) -> Answer:
    """Walk from a root through many levels, with the names of the far ends."""
    return _with_names(call, *_walked(call))
