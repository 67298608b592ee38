"""Page links and page data: filtering, sorting and cutting lists as ThingsBoard's SQL does."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tb_simulator.answers import Answer, bad_request, database_error, ok, server_error
from tb_simulator.routing import Call
from tb_simulator.world import Entity

_MOST_CACHED_LISTS = 256

SortKeys = Mapping[str, Callable[[Any], Any]]


class PageLink(NamedTuple):
    """What part of a list is asked for."""

    size: int
    page: int
    text: str
    sort: str | None
    descending: bool


def page_link(call: Call) -> PageLink:
    """Return the call's page link, or raise the recorded errors (devices.json, "list ...")."""
    for name in ("pageSize", "page"):
        if call.arg(name) in {None, ""}:
            raise server_error(
                f"Required request parameter '{name}' for method parameter type int is not present"
            )
    size, page = call.number("pageSize", 0, kind="Integer") or 0, call.number("page", 0, kind="Integer") or 0
    if size < 1:
        raise bad_request(f"Incorrect page link page size '{size}'. Page size must be greater than zero.")
    if page < 0:
        raise bad_request(f"Incorrect page link page '{page}'. Page must be positive integer.")
    descending = (call.arg("sortOrder") or "ASC").upper() == "DESC"
    return PageLink(
        size, page, (call.arg("textSearch") or "").lower(), call.arg("sortProperty") or None, descending
    )


def page_data(rows: Sequence[Any], link: PageLink) -> dict[str, Any]:
    """Return one page of rows that are already in order; past the end it is empty."""
    start = link.page * link.size
    total = len(rows)
    return {
        "data": list(rows[start : start + link.size]),
        "totalPages": -(-total // link.size),
        "totalElements": total,
        "hasNext": start + link.size < total,
    }


def in_order(rows: Iterable[Entity], link: PageLink, sort_keys: SortKeys) -> list[Entity]:
    """Sort entities; without a property by the text of their ids, an unknown property is a 500."""
    if link.sort is None:
        return sorted(rows, key=lambda entity: entity.id)
    key = sort_keys.get(link.sort)
    if key is None:
        raise database_error()
    return sorted(sorted(rows, key=lambda entity: entity.id), key=key, reverse=link.descending)


def entity_page(call: Call, kind: str, select: "Selection") -> Answer:
    """Return a page of entities; the ordered list is kept until some entity changes."""
    link = page_link(call)
    key = (kind, select.owner, select.identity, link.text, link.sort, link.descending)
    rows = call.world.list_cache.get(key)
    if rows is None:
        if len(call.world.list_cache) >= _MOST_CACHED_LISTS:
            call.world.list_cache.clear()
        found = (
            entity for entity in call.world.every(kind, call.user.tenant) if select.takes(entity, link.text)
        )
        rows = call.world.list_cache[key] = in_order(found, link, select.sort_keys)
    page = page_data(rows, link)
    page["data"] = [select.show(entity) for entity in page["data"]]
    return ok(page)


class Selection(NamedTuple):
    """Which entities a list holds and how it shows them.

    ``identity`` must tell apart any two selections with the same owner and kind: it is part of a cache key.
    """

    owner: str
    identity: tuple[Any, ...]
    keep: Callable[[Entity], bool]
    searched: Callable[[Entity], Iterable[str | None]]
    sort_keys: SortKeys
    show: Callable[[Entity], Any] = lambda entity: entity.fragment

    def takes(self, entity: Entity, text: str) -> bool:
        """Return whether the list holds an entity."""
        if not self.keep(entity):
            return False
        return not text or any(value and text in value.lower() for value in self.searched(entity))


def text_key(name: str) -> Callable[[Entity], Any]:
    """Return a sort key for a text field; nulls come last, as in PostgreSQL."""

    def key(entity: Entity) -> tuple[bool, Any]:
        value = entity.body.get(name)
        return value is None, value if value is not None else ""

    return key


COMMON_SORT_KEYS: SortKeys = {
    "id": lambda entity: entity.id,
    "createdTime": text_key("createdTime"),
    "name": text_key("name"),
    "type": text_key("type"),
    "label": text_key("label"),
    "title": text_key("title"),
}
