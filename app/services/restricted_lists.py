"""Lists of a restricted key: ThingsBoard searches, orders and counts, so that totals and pages are right."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from app.errors import NotFound
from app.services.visibility import Selection, Visibility
from app.thingsboard import queries
from app.thingsboard.connection import Query
from app.thingsboard.entities import EntityCalls
from app.thingsboard.pages import Page
from app.thingsboard.queries import QueryCalls

EMPTY = Page([], 0, 0, has_next=False)
#: Rows of one call when all that is seen has to be gone through.
ROWS_A_CALL = 5_000
#: Entity queries have another name for it.
SORT_FIELDS = {"customerTitle": "ownerName"}


class RestrictedLists:
    """Lists of one type of entity, for keys with the same restrictions."""

    def __init__(self, calls: EntityCalls, finder: QueryCalls, visibility: Visibility) -> None:
        self._calls, self._finder, self._visibility = calls, finder, visibility

    async def page(self, query: Query) -> Page:
        """Return one page; `query` holds the parameters of ThingsBoard's own list.

        Of a customer it is that customer's own list. Otherwise an entity query says which objects, in which
        order, and how many there are; they themselves are then read by their ids.
        """
        wanted = query.get("type")
        selection = await self._visibility.selection(
            self._calls.entity_type, None if wanted is None else str(wanted)
        )
        if selection.is_empty:
            return EMPTY
        if selection.customer is not None:
            return await self._page_of_customer(selection, query)
        active = query.get("active")
        text = query.get("textSearch")
        order = str(query.get("sortProperty") or "createdTime")
        found = await self._finder.find(
            self._filter(selection),
            key_filters=[
                *type_filters(selection),
                *([] if active is None else [queries.is_active(wanted=bool(active))]),
            ],
            fields=queries.SEARCHED_FIELDS,
            page=int(str(query["page"])),
            page_size=int(str(query["pageSize"])),
            text=None if text is None else str(text),
            order=(SORT_FIELDS.get(order, order), str(query.get("sortOrder") or "ASC")),
        )
        return found.holding(await self._objects(queries.ids_of(found)))

    async def _page_of_customer(self, selection: Selection, query: Query) -> Page:
        only_type = next(iter(selection.types)) if selection.types else None
        return await _or_empty(
            self._calls.list_of_customer(str(selection.customer), {**query, "type": only_type})
        )

    def _filter(self, selection: Selection) -> dict[str, Any]:
        kind = self._calls.entity_type
        if selection.ids is not None:
            return queries.entity_list(kind, list(selection.ids))
        return queries.devices_of_types(sorted(selection.types or ()))

    async def _objects(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the objects in the order of their ids, devices with `active` as in ThingsBoard's infos."""
        if self._calls.entity_type == "ASSET":
            found = await self._calls.get_many(ids)
            return [found[each] for each in ids if each in found]
        found, active = await asyncio.gather(self._calls.get_many(ids), self._finder.active_of_devices(ids))
        return [{**found[each], "active": active.get(each, False)} for each in ids if each in found]

    async def types(self) -> list[dict[str, Any]]:
        """Return ThingsBoard's entries of the types in use, without those of which nothing is seen."""
        selection = await self._visibility.selection(self._calls.entity_type)
        if selection.is_empty:
            return []
        names, listed = await asyncio.gather(self._type_names(selection), self._calls.types())
        return [entry for entry in listed if entry.get("type") in names]

    async def _type_names(self, selection: Selection) -> frozenset[str]:
        if selection.customer is not None:
            members = await self._visibility.members(self._calls.entity_type)
            in_use = frozenset(members.values())
            return in_use if selection.types is None else in_use & selection.types
        if selection.ids is None:
            return selection.types or frozenset()
        names: set[str] = set()
        number, has_next = 0, True
        while has_next:
            found = await self._finder.find(
                self._filter(selection),
                key_filters=type_filters(selection),
                fields=("name", "type"),
                page=number,
                page_size=ROWS_A_CALL,
            )
            names |= {queries.field_of(row, "type") for row in found.items}
            number, has_next = number + 1, found.has_next
        return frozenset(names)


def type_filters(selection: Selection) -> list[dict[str, Any]]:
    """Return what an entity query of these ids needs in order to keep to the types."""
    if selection.types is None or selection.ids is None:
        # Without ids the entity filter itself is one of types.
        return []
    return [queries.has_text("type", sorted(selection.types))]


async def _or_empty(listed: Awaitable[Page]) -> Page:
    """Return a customer's page; of a customer that is missing, or another account's, an empty one."""
    try:
        return await listed
    except NotFound:
        return EMPTY
