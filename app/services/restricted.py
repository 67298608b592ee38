"""ThingsBoard as a restricted key sees it: the same calls, each of which asks the restriction first.

A route is given this in place of the upstream itself, so that it cannot forget the check. What is not
written here does not exist for a restricted key: a new call fails until it says how it is checked.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from app.context import Restrictions
from app.errors import NotAllowed
from app.security_events import note_denied_object
from app.services.restricted_alarms import RestrictedAlarms
from app.services.restricted_lists import RestrictedLists
from app.services.restricted_live import RestrictedLive
from app.services.restricted_rpc import RestrictedRpcs
from app.services.visibility import NOBODY, Visibility, not_visible
from app.thingsboard.attributes import AttributeCalls
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.connection import Query
from app.thingsboard.entities import DeviceCalls, EntityCalls
from app.thingsboard.pages import Page
from app.thingsboard.queries import QueryCalls, every, has_text, ids_of
from app.thingsboard.relations import Direction, RelationCalls
from app.thingsboard.telemetry import TelemetryCalls

#: Different restrictions whose decisions are kept: as many as a large key file has.
MOST_RESTRICTIONS = 1_000
#: What the methods of telemetry and attributes begin with.
ENTITY_PARAMETERS = ["entity_type", "entity_id"]


def restricted(upstream: ThingsBoardClient, restrictions: Restrictions) -> ThingsBoardClient:
    """Return the upstream as keys with these restrictions see it; the same object each time."""
    found = upstream.restricted.get(restrictions)
    if found is None:
        found = upstream.restricted[restrictions] = RestrictedClient(upstream, restrictions)
        if len(upstream.restricted) > MOST_RESTRICTIONS:
            upstream.restricted.popitem(last=False)
    return found


class RestrictedClient(ThingsBoardClient):
    """Connection, credential and what is remembered are the upstream's."""

    def __init__(self, upstream: ThingsBoardClient, restrictions: Restrictions) -> None:
        # The parent's constructor is left out: what it would set is only here if it is set below.
        self.visibility = Visibility(upstream, restrictions)
        self._upstream, self.repeats = upstream, upstream.repeats
        self.telemetry = cast("TelemetryCalls", Guarded(upstream.telemetry, self.visibility))
        self.attributes = cast("AttributeCalls", Guarded(upstream.attributes, self.visibility))
        self.devices = RestrictedDevices(upstream, upstream.devices, self.visibility)
        self.assets = RestrictedEntities(upstream, upstream.assets, self.visibility)
        self.relations = RestrictedRelations(upstream.relations, self.visibility)
        self.queries = RestrictedQueries(upstream.queries, self.visibility)
        self.live = RestrictedLive(upstream.live, self.visibility)
        self.alarms = RestrictedAlarms(upstream.alarms, upstream.queries, self.visibility)
        self.rpc = RestrictedRpcs(upstream.rpc, self.visibility)

    async def check(self, entity_type: str, entity_id: str) -> None:
        """Raise NotFound unless the key sees this entity."""
        await self.visibility.check(entity_type, entity_id)

    async def get_entity(self, entity_type: str, entity_id: str) -> dict[str, Any]:
        """Return the entity if the key sees it."""
        await self.visibility.check(entity_type, entity_id)
        return await self._upstream.get_entity(entity_type, entity_id)


class Guarded:
    """Calls that each begin with the type and id of the entity they are about, checked before each of them.

    Raises:
        TypeError: one of the calls begins otherwise: it needs a class of its own here.
    """

    def __init__(self, calls: object, visibility: Visibility) -> None:
        self._visibility = visibility
        for name, method in inspect.getmembers(calls, inspect.iscoroutinefunction):
            if not name.startswith("_"):
                if list(inspect.signature(method).parameters)[:2] != ENTITY_PARAMETERS:
                    raise TypeError(f"{name}: must begin with {ENTITY_PARAMETERS}")
                setattr(self, name, self._guard(method))

    def _guard(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def guarded(entity_type: str, entity_id: str, *args: Any, **more: Any) -> Any:
            await self._visibility.check(entity_type, entity_id)
            return await method(entity_type, entity_id, *args, **more)

        return guarded


class RestrictedEntities(EntityCalls):
    """Devices or assets. None of the parent's own members is set: a call that is not below cannot work."""

    def __init__(self, upstream: ThingsBoardClient, calls: EntityCalls, visibility: Visibility) -> None:
        self.entity_type = calls.entity_type
        self._calls, self._visibility, self._queries = calls, visibility, upstream.queries
        self._lists = RestrictedLists(calls, upstream.queries, visibility)

    async def list_page(self, query: Query) -> Page:
        """Return one page of what the key sees."""
        return await self._lists.page(query)

    async def types(self) -> list[dict[str, Any]]:
        """Return the types that the key's objects have."""
        return await self._lists.types()

    async def get(self, entity_id: str) -> dict[str, Any]:
        """Return one object, or raise NotFound."""
        await self._visibility.check(self.entity_type, entity_id)
        entity = await self._calls.get(entity_id)
        if not self._visibility.admits(self.entity_type, entity):
            # It has left the restriction within the last seconds.
            raise not_visible(self.entity_type, entity_id)
        return entity

    async def get_by_name(self, name: str) -> dict[str, Any]:
        """Return the object with exactly this name, or raise NotFound."""
        return await self.get(await self.id_by_name(name))

    async def id_by_name(self, name: str) -> str:
        """Return the id of the object with exactly this name, or raise NotFound."""
        page = await self._queries.find(
            every(self.entity_type), key_filters=[has_text("name", [name])], page_size=1
        )
        found = next(iter(ids_of(page)), NOBODY)
        await self._visibility.check(self.entity_type, found)
        return found

    async def save(self, entity: dict[str, Any]) -> dict[str, Any]:
        """Create or update an object that the key sees, and goes on seeing, afterwards."""
        if "id" in entity:
            await self._visibility.check(self.entity_type, entity["id"]["id"])
            is_seen = self._visibility.admits(self.entity_type, entity)
        else:
            is_seen = self._visibility.admits_new(self.entity_type, entity)
        if not is_seen:
            raise self._refusal(entity)
        return await self._calls.save(entity)

    def _refusal(self, entity: dict[str, Any]) -> NotAllowed:
        note_denied_object(self.entity_type, entity["id"]["id"] if "id" in entity else None)
        given = self._visibility.restrictions
        names = ("devices", "device_types", "customer", "asset")
        return NotAllowed(
            f"This API key is restricted, and the {self.entity_type.lower()} would be outside of that.",
            details={
                "issue": "the key is restricted",
                "restricted_by": [name for name in names if getattr(given, name) is not None],
            },
        )

    async def delete(self, entity_id: str) -> None:
        """Delete one object, or raise NotFound."""
        await self._visibility.check(self.entity_type, entity_id)
        await self._calls.delete(entity_id)


class RestrictedDevices(RestrictedEntities, DeviceCalls):
    """Devices."""

    def __init__(self, upstream: ThingsBoardClient, calls: DeviceCalls, visibility: Visibility) -> None:
        super().__init__(upstream, calls, visibility)
        self._devices = calls

    async def credentials(self, device_id: str) -> dict[str, Any]:
        """Return a device's access credentials: a secret."""
        await self._visibility.check("DEVICE", device_id)
        return await self._devices.credentials(device_id)


class RestrictedRelations(RelationCalls):
    """Relations of which the key sees both ends."""

    def __init__(self, calls: RelationCalls, visibility: Visibility) -> None:
        self._calls, self._visibility = calls, visibility

    async def walk(
        self, root_type: str, root_id: str, direction: Direction, *, levels: int
    ) -> list[dict[str, Any]]:
        """Return what a walk from a root finds between entities that the key sees.

        What is seen but reached only through the unseen is still in it: follow the relations from the root.
        """
        await self._visibility.check(root_type, root_id)
        found = await self._calls.walk(root_type, root_id, direction, levels=levels)
        seen = await self._visibility.seen(end for relation in found for end in _ends(relation))
        return [relation for relation in found if seen.issuperset(_ends(relation))]

    async def save(self, relation: dict[str, Any]) -> None:
        """Create a relation. NotFound when an end is missing or not seen."""
        await self._check(relation)
        await self._calls.save(relation)

    async def delete(self, relation: dict[str, Any]) -> None:
        """Delete a relation, or raise NotFound."""
        await self._check(relation)
        await self._calls.delete(relation)

    async def _check(self, relation: dict[str, Any]) -> None:
        ends = _ends(relation)
        seen = await self._visibility.seen(ends)
        for end in ends:
            if end not in seen:
                raise not_visible(*end)


class RestrictedQueries(QueryCalls):
    """Queries over devices that the key sees."""

    def __init__(self, calls: QueryCalls, visibility: Visibility) -> None:
        self._calls, self._visibility = calls, visibility

    async def latest_of_devices(
        self, device_ids: Sequence[str], keys: Sequence[str]
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Return the latest values of devices; those that the key does not see are absent."""
        seen = await self._visibility.seen(("DEVICE", device_id) for device_id in device_ids)
        ids = [device_id for device_id in device_ids if ("DEVICE", device_id) in seen]
        return await self._calls.latest_of_devices(ids, keys)


def _ends(relation: dict[str, Any]) -> tuple[tuple[str, str], tuple[str, str]]:
    start, to = relation["from"], relation["to"]
    return (start["entityType"], start["id"]), (to["entityType"], to["id"])
