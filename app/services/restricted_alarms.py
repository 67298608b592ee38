"""Alarms as a restricted key sees them: those whose originator is a device or asset that it sees."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from app.errors import InvalidRequest, NotFound, UpstreamGarbled
from app.services.restricted_lists import EMPTY, ROWS_A_CALL, type_filters
from app.services.visibility import NOBODY, Visibility, not_visible
from app.thingsboard import queries
from app.thingsboard.alarms import AlarmCalls, AlarmSearch
from app.thingsboard.entities import EntityType
from app.thingsboard.pages import Page
from app.thingsboard.queries import QueryCalls

ORIGINATORS: tuple[EntityType, ...] = ("DEVICE", "ASSET")
#: Entities of which one query shows the alarms (`AlarmCalls.find`).
MOST_ORIGINATORS = 10_000
#: How far a list reaches that has to be put together from several: each is read up to there.
MOST_MERGED = 10_000
#: Alarms of one call while lists are read up to a later page.
READ_AHEAD = 1_000

#: Entity filter and key filters of one query.
Source = tuple[dict[str, Any], list[dict[str, Any]]]


class RestrictedAlarms(AlarmCalls):
    """None of the parent's own members is set: a call that is not below cannot work."""

    def __init__(self, calls: AlarmCalls, finder: QueryCalls, visibility: Visibility) -> None:
        self._calls, self._finder, self._visibility = calls, finder, visibility

    async def list_page(self, search: AlarmSearch) -> Page:
        """Return one page of the alarms of what the key sees.

        Raises:
            InvalidRequest: the page lies beyond what can be put together.
        """
        found = await asyncio.gather(*(self._sources(kind) for kind in ORIGINATORS))
        sources = [source for each in found for source in each]
        pages = await self._pages(sources, search)
        filled = [(source, page) for source, page in zip(sources, pages, strict=True) if page.total_elements]
        if len(filled) <= 1:
            return filled[0][1] if filled else EMPTY
        return await self._merged([source for source, _ in filled], [page for _, page in filled], search)

    async def of_device(self, device_id: str, search: AlarmSearch) -> Page:
        """Return one page of a device's own alarms, or raise NotFound."""
        await self._visibility.check("DEVICE", device_id)
        return await self._calls.of_device(device_id, search)

    async def get(self, alarm_id: str) -> dict[str, Any]:
        """Return one alarm, or raise NotFound."""
        try:
            alarm = await self._calls.get(alarm_id)
            kind, originator = alarm["originator"]["entityType"], alarm["originator"]["id"]
        except NotFound:
            # Looked up all the same, so that a missing alarm is refused like another's.
            alarm, kind, originator = None, "DEVICE", NOBODY
        except (KeyError, TypeError):
            raise UpstreamGarbled(note="not_an_alarm") from None
        if kind not in ORIGINATORS:
            kind, originator = "DEVICE", NOBODY
        if not await self._visibility.sees(kind, originator) or alarm is None:
            raise not_visible("ALARM", alarm_id)
        return alarm

    async def acknowledge(self, alarm_id: str) -> dict[str, Any]:
        """Acknowledge an alarm, or raise NotFound."""
        await self.get(alarm_id)
        return await self._calls.acknowledge(alarm_id)

    async def clear(self, alarm_id: str) -> dict[str, Any]:
        """Clear an alarm, or raise NotFound."""
        await self.get(alarm_id)
        return await self._calls.clear(alarm_id)

    async def _sources(self, kind: EntityType) -> list[Source]:
        """Return queries that together hold all entities of one type which the key sees."""
        selection = await self._visibility.selection(kind)
        if selection.is_empty:
            return []
        ids: Sequence[str] | None = None if selection.ids is None else sorted(selection.ids)
        if selection.customer is not None:
            members = await self._visibility.members(kind)
            ids = sorted(
                each for each, kept in members.items() if selection.types is None or kept in selection.types
            )
        elif ids is None:
            wanted = queries.devices_of_types(sorted(selection.types or ()))
            if (await self._finder.find(wanted, page_size=1)).total_elements <= MOST_ORIGINATORS:
                return [(wanted, [])]
            ids = await self._ids(wanted)
        return [
            (queries.entity_list(kind, ids[start : start + MOST_ORIGINATORS]), type_filters(selection))
            for start in range(0, len(ids), MOST_ORIGINATORS)
        ]

    async def _ids(self, wanted: dict[str, Any]) -> list[str]:
        ids: list[str] = []
        number, has_next = 0, True
        while has_next:
            page = await self._finder.find(wanted, page=number, page_size=ROWS_A_CALL)
            ids += queries.ids_of(page)
            number, has_next = number + 1, page.has_next
        return ids

    async def _pages(self, sources: Sequence[Source], search: AlarmSearch) -> list[Page]:
        return await asyncio.gather(*(self._calls.find(*source, search) for source in sources))

    async def _merged(self, sources: Sequence[Source], pages: Sequence[Page], search: AlarmSearch) -> Page:
        """Cut a page out of several lists, each of which ThingsBoard has ordered."""
        size, total = search.page_size, sum(page.total_elements for page in pages)
        start, end, total_pages = search.page * size, (search.page + 1) * size, -(-total // size)
        if start >= total:
            return Page([], total_pages, total, has_next=False)
        if end > MOST_MERGED:
            issue = f"lies beyond the first {MOST_MERGED:,} alarms: ask for a shorter range of times"
            raise InvalidRequest(f"page: {issue}", details={"field": "page", "issue": issue})
        if search.page == 0:
            lines = [
                _Line(self._calls, source, search, first)
                for source, first in zip(sources, pages, strict=True)
            ]
        else:
            from_start = replace(search, page=0, page_size=READ_AHEAD)
            lines = [_Line(self._calls, source, from_start) for source in sources]
        try:
            items = [alarm async for alarm in _in_order(lines, search, start, end)]
        except (KeyError, TypeError):
            raise UpstreamGarbled(note="not_an_alarm") from None
        return Page(items, total_pages, total, search.page + 1 < total_pages)


class _Line:
    """The alarms of one source in ThingsBoard's order, read some at a time.

    Args:
        first: the first page, where it has been read.
    """

    def __init__(
        self, calls: AlarmCalls, source: Source, search: AlarmSearch, first: Page | None = None
    ) -> None:
        self._calls, self._source, self._search, self._page = calls, source, search, first
        self.waiting = deque(first.items if first is not None and isinstance(first.items, list) else ())

    async def is_filled(self) -> bool:
        """Read on where nothing is left, and tell whether another alarm waits."""
        if not self.waiting and (self._page is None or self._page.has_next):
            if self._page is not None:
                self._search = replace(self._search, page=self._search.page + 1)
            self._page = await self._calls.find(*self._source, self._search)
            self.waiting.extend(self._page.items if isinstance(self._page.items, list) else ())
        return bool(self.waiting)


async def _in_order(
    lines: Sequence[_Line], search: AlarmSearch, start: int, end: int
) -> AsyncIterator[dict[str, Any]]:
    """Yield the alarms from `start` to `end` of all lines together.

    The next one is always the first of a line, in whatever way ThingsBoard's database compares texts: pages
    joined hold each alarm once.
    """
    first = max if search.order == "DESC" else min
    for number in range(end):
        filled = [line for line in lines if await line.is_filled()]
        if not filled:
            return
        alarm = first(filled, key=lambda line: line.waiting[0][search.sort]).waiting.popleft()
        if number >= start:
            yield alarm
