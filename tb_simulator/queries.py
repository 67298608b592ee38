"""Entity queries (entity_query.json, customer.json): many entities in one call, every value as text."""

from collections.abc import Callable, Iterable
from typing import Any

from tb_simulator.access import check_entity_type, check_uuid, may_use
from tb_simulator.answers import Answer, database_error, ok, server_error
from tb_simulator.attribute_store import CLIENT, SCOPES, SERVER, SHARED
from tb_simulator.pages import PageLink, page_data
from tb_simulator.relation_store import matching
from tb_simulator.routing import ANYONE, Call, Routes
from tb_simulator.values import as_query_text, as_text
from tb_simulator.world import Entity, World

routes = Routes()

_KNOWN_FILTERS = (
    "apiUsageState, assetSearchQuery, assetType, deviceSearchQuery, deviceType, edgeSearchQuery, edgeType, "
    "entityList, entityName, entityType, entityViewSearchQuery, entityViewType, relationsQuery, singleEntity"
)
_SCOPE_OF = {"SERVER_ATTRIBUTE": (SERVER,), "SHARED_ATTRIBUTE": (SHARED,), "CLIENT_ATTRIBUTE": (CLIENT,)}
_NOTHING = {"ts": 0, "value": ""}


def _by_id(world: World, reference: dict[str, Any]) -> list[Entity]:
    kind, identifier = (
        check_entity_type(str(reference.get("entityType"))),
        check_uuid(str(reference.get("id"))),
    )
    found = world.find(kind, identifier)
    return [found] if found else []


def _entity_list(call: Call, query: dict[str, Any]) -> Iterable[Entity]:
    ids = query.get("entityList") or []
    if not ids:
        raise database_error()
    kind = check_entity_type(str(query.get("entityType")))
    found = (call.world.find(kind, check_uuid(str(identifier))) for identifier in dict.fromkeys(ids))
    return [entity for entity in found if entity]


def _of_type(kind: str) -> Callable[[Call, dict[str, Any]], Iterable[Entity]]:
    field = kind.lower().replace("entity_view", "entityView")

    def select(call: Call, query: dict[str, Any]) -> Iterable[Entity]:
        types = set(query.get(f"{field}Types") or [query.get(f"{field}Type")])
        prefix = (query.get(f"{field}NameFilter") or "").replace("%", "").lower()
        for entity in call.world.every(kind, call.user.tenant):
            if entity.body["type"] in types and entity.name.lower().startswith(prefix):
                yield entity

    return select


def _entity_name(call: Call, query: dict[str, Any]) -> Iterable[Entity]:
    prefix = (query.get("entityNameFilter") or "").replace("%", "").lower()
    entities = call.world.every(check_entity_type(str(query.get("entityType"))), call.user.tenant)
    return (entity for entity in entities if entity.name.lower().startswith(prefix))


def _entity_type(call: Call, query: dict[str, Any]) -> Iterable[Entity]:
    return call.world.every(check_entity_type(str(query.get("entityType"))), call.user.tenant)


def _single_entity(call: Call, query: dict[str, Any]) -> Iterable[Entity]:
    return _by_id(call.world, query.get("singleEntity") or {})


def _related(call: Call, query: dict[str, Any]) -> Iterable[Entity]:
    """Return what a walk from the root reaches, each entity once, the root not."""
    roots = _by_id(call.world, query.get("rootEntity") or {})
    direction = query.get("direction") or "FROM"
    found: dict[str, Entity] = {}
    for root in roots:
        if root.tenant != call.user.tenant:
            continue
        relations = call.world.relations.walk(
            (root.kind, root.id),
            direction,
            levels=query.get("maxLevel") or 0,
            last_only=bool(query.get("fetchLastLevelOnly")),
        )
        for relation in matching(relations, query.get("filters") or [], direction):
            entity = call.world.find(*relation.end(direction))
            if entity and entity.id != root.id:
                found[entity.id] = entity
    return found.values()


_FILTERS: dict[str, Callable[[Call, dict[str, Any]], Iterable[Entity]]] = {
    "entityList": _entity_list,
    "deviceType": _of_type("DEVICE"),
    "assetType": _of_type("ASSET"),
    "entityViewType": _of_type("ENTITY_VIEW"),
    "entityName": _entity_name,
    "entityType": _entity_type,
    "singleEntity": _single_entity,
    "relationsQuery": _related,
}


def selected(call: Call, body: dict[str, Any]) -> list[Entity]:
    """Return the entities of a query's filter that the caller may see, after its key filters."""
    query = body.get("entityFilter") or {}
    select = _FILTERS.get(str(query.get("type")))
    if select is None:
        raise server_error(
            f"JSON parse error: Could not resolve type id '{query.get('type')}' as a subtype of "
            "`org.thingsboard.server.common.data.query.EntityFilter`: known type ids = "
            f"[{_KNOWN_FILTERS}] (for POJO property 'entityFilter')",
        )
    found = [e for e in select(call, query) if e.tenant == call.user.tenant and may_use(call.user, e)]
    for one in body.get("keyFilters") or []:
        found = [entity for entity in found if _passes(call.world, entity, one)]
    return found


def _field(world: World, entity: Entity, key: str) -> str:
    if key == "entityType":
        return entity.kind
    if key == "ownerType":
        return "CUSTOMER" if _owner(world, entity) else "TENANT"
    if key == "ownerName":
        owner = _owner(world, entity) or world.find("TENANT", entity.tenant)
        return owner.name if owner else ""
    value = entity.body.get(key)
    if value is None:
        return ""
    return as_text(value) if isinstance(value, bool | int | float | str) else str(value)


def _owner(world: World, entity: Entity) -> Entity | None:
    """Return the customer of an entity; without one the tenant owns it."""
    return world.find("CUSTOMER", entity.customer or "")


def value_of(world: World, entity: Entity, key: dict[str, Any], now: int) -> dict[str, Any]:
    """Return ``{"ts","value"}`` of a query key; time 0 and an empty text where there is nothing."""
    kind, name = str(key.get("type")), str(key.get("key"))
    if kind == "ENTITY_FIELD":
        return {"ts": now, "value": _field(world, entity, name)}
    if kind == "TIME_SERIES":
        known = world.telemetry.latest(entity.id).get(name)
    else:
        scopes = _SCOPE_OF.get(kind, SCOPES)
        stored = (world.attributes.of(entity.id, scope).get(name) for scope in scopes)
        known = next((value for value in stored if value), None)
    return {"ts": known[0], "value": as_query_text(known[1])} if known else _NOTHING


def _passes(world: World, entity: Entity, one: dict[str, Any]) -> bool:
    text = value_of(world, entity, one.get("key") or {}, 0)["value"]
    return _holds(text, one.get("predicate") or {})


def _holds(text: str, predicate: dict[str, Any]) -> bool:
    """Return whether a value fits a predicate, which may be made of others."""
    if predicate.get("type") == "COMPLEX":
        combine = any if predicate.get("operation") == "OR" else all
        return combine(_holds(text, each) for each in predicate.get("predicates") or [])
    wanted = predicate.get("value") or {}
    expected = wanted.get("defaultValue") if isinstance(wanted, dict) else wanted
    operation = _OPERATIONS.get(str(predicate.get("operation")))
    if operation is None:
        raise server_error(f"JSON parse error: unknown operation {predicate.get('operation')}")
    if predicate.get("type") == "NUMERIC":
        try:
            return operation(float(text), float(expected or 0))
        except ValueError:
            return False
    expected_text = as_text(expected) if expected is not None else ""
    if predicate.get("ignoreCase"):
        text, expected_text = text.lower(), expected_text.lower()
    return operation(text, expected_text)


_OPERATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "EQUAL": lambda a, b: a == b,
    "NOT_EQUAL": lambda a, b: a != b,
    "GREATER": lambda a, b: a > b,
    "LESS": lambda a, b: a < b,
    "GREATER_OR_EQUAL": lambda a, b: a >= b,
    "LESS_OR_EQUAL": lambda a, b: a <= b,
    "STARTS_WITH": lambda a, b: a.startswith(b),
    "ENDS_WITH": lambda a, b: a.endswith(b),
    "CONTAINS": lambda a, b: b in a,
    "NOT_CONTAINS": lambda a, b: b not in a,
    "IN": lambda a, b: a in b.split(","),
    "NOT_IN": lambda a, b: a not in b.split(","),
}


def row_of(world: World, entity: Entity, keys: list[dict[str, Any]], now: int) -> dict[str, Any]:
    """Return one entity of a query's answer."""
    latest: dict[str, dict[str, Any]] = {}
    for key in keys:
        latest.setdefault(str(key.get("type")), {})[str(key.get("key"))] = value_of(world, entity, key, now)
    return {"entityId": entity.body["id"], "latest": latest, "timeseries": {}, "aggLatest": {}}


def _found_by_text(world: World, entity: Entity, keys: list[dict[str, Any]], text: str) -> bool:
    return any(text in value_of(world, entity, key, 0)["value"].lower() for key in keys)


def _ordered(world: World, entities: list[Entity], order: dict[str, Any] | None) -> list[Entity]:
    entities = sorted(entities, key=lambda entity: entity.id)
    if not order:
        return entities
    key = order.get("key") or {}
    descending = str(order.get("direction") or "ASC").upper() == "DESC"

    def rank(entity: Entity) -> tuple[int, float, str]:
        text = value_of(world, entity, key, 0)["value"]
        if key.get("type") == "ENTITY_FIELD" and key.get("key") != "createdTime":
            return 1, 0.0, text
        try:
            return 0, float(text), ""
        except ValueError:
            return 1, 0.0, text

    return sorted(entities, key=rank, reverse=descending)


def find(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    """Return the page of entities that a query asks for; text search covers every requested field."""
    world, now = call.world, call.world.now()
    link = body.get("pageLink") or {}
    keys = [*(body.get("entityFields") or []), *(body.get("latestValues") or [])]
    entities = selected(call, body)
    text = str(link.get("textSearch") or "").lower()
    if text:
        entities = [entity for entity in entities if _found_by_text(world, entity, keys, text)]
    entities = _ordered(world, entities, link.get("sortOrder"))
    size, page = int(link.get("pageSize") or 0), int(link.get("page") or 0)
    if size < 1 or page < 0:
        raise server_error("Invalid page link")
    data = page_data(entities, PageLink(size, page, "", None, descending=False))
    data["data"] = [row_of(world, entity, keys, now) for entity in data["data"]]
    return data


@routes.post("/api/entitiesQuery/find", who=ANYONE)
def find_entities(call: Call) -> Answer:
    """Return a page of entities with fields and latest values."""
    if b"\\u0000" in call.body:
        # PostgreSQL has no text with such a character.
        raise database_error()
    return ok(find(call, call.json_object()))


@routes.post("/api/entitiesQuery/count", who=ANYONE)
def count_entities(call: Call) -> Answer:
    """Return how many entities a query finds."""
    return ok(len(selected(call, call.json_object())))
