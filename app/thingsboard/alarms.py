"""Alarms: lists of them, one of them, and what is done about it."""

from dataclasses import dataclass
from typing import Any

from app.errors import UpstreamGarbled
from app.thingsboard.connection import Connection, Query, decode, expect_object
from app.thingsboard.pages import Page, read_page
from app.thingsboard.queries import entity_list

#: What a row of a query holds beside the alarm: fields of its entity.
ROW_FIELDS = frozenset({"entityId", "latest"})


@dataclass(frozen=True, slots=True)
class AlarmSearch:
    """Which alarms, in which order, and which page of them.

    Args:
        statuses: of ACTIVE, CLEARED, ACK and UNACK; an alarm must have all of them.
        severities: an alarm has one of them; empty: any.
        kind: the exact type.
        start_ms: the earliest time of creation, in ms since the epoch.
        end_ms: the first time of creation that is too late.
        sort: ThingsBoard's name of the field.
        order: ASC or DESC.
    """

    page: int
    page_size: int
    statuses: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    kind: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    sort: str = "createdTime"
    order: str = "DESC"

    @property
    def last_ms(self) -> int | None:
        """The latest time of creation: ThingsBoard's end is inclusive, and 0 is none in its queries."""
        return None if self.end_ms is None else max(1, self.end_ms - 1)

    def as_query(self) -> Query:
        """Return ThingsBoard's parameters of a list."""
        return {
            "page": self.page,
            "pageSize": self.page_size,
            "statusList": self.statuses,
            "severityList": self.severities,
            # Twice: ThingsBoard (Spring) takes a single value for a list and cuts it at its commas.
            "typeList": None if self.kind is None else (self.kind, self.kind),
            "startTime": self.start_ms,
            "endTime": self.last_ms,
            "sortProperty": self.sort,
            "sortOrder": self.order,
        }

    def as_page_link(self) -> dict[str, Any]:
        """Return the part of a query that says the same."""
        link = {
            "page": self.page,
            "pageSize": self.page_size,
            "statusList": self.statuses,
            "severityList": self.severities,
            "typeList": () if self.kind is None else (self.kind,),
            "sortOrder": {"key": {"type": "ALARM_FIELD", "key": self.sort}, "direction": self.order},
        }
        times = {"startTs": self.start_ms, "endTs": self.last_ms}
        return link | {name: time for name, time in times.items() if time is not None}


class AlarmCalls:
    """The calls for alarms, each begun by the entity that is its originator."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list_page(self, search: AlarmSearch) -> Page:
        """Return one page of the alarms that the account may see."""
        return await self._connection.get_page("/api/v2/alarms", query=search.as_query())

    async def find(
        self, entity_filter: dict[str, Any], key_filters: list[dict[str, Any]], search: AlarmSearch
    ) -> Page:
        """Return one page of the alarms whose originator is among the entities that a query finds.

        ThingsBoard searches the 10,000 oldest of these entities (`max_entities_per_alarm_subscription`).
        """
        body = {
            "entityFilter": entity_filter,
            "keyFilters": key_filters,
            "pageLink": search.as_page_link(),
            # ThingsBoard fails without the lists, and searches no text unless asked to.
            "alarmFields": [{"type": "ALARM_FIELD", "key": "createdTime"}],
            "entityFields": [{"type": "ENTITY_FIELD", "key": "name"}],
            "latestValues": [],
        }
        page = read_page(await self._connection.post_json("/api/alarmsQuery/find", body, is_one_object=False))
        return page.holding([_alarm_in(row) for row in page.items])

    async def of_device(self, device_id: str, search: AlarmSearch) -> Page:
        """Return one page of a device's own alarms, or raise NotFound when there is no such device.

        ThingsBoard's list by device is not asked: it also holds what others propagate to the device, without
        a look at whether the account may see them.
        """
        page = await self.find(entity_list("DEVICE", [device_id]), [], search)
        if not page.total_elements:
            # A query finds nothing for a device that is missing or another's.
            expect_object(await self._connection.get_json(f"/api/device/{device_id}"))
        return page

    async def get(self, alarm_id: str) -> dict[str, Any]:
        """Return one alarm, or raise NotFound."""
        return expect_object(await self._connection.get_json(f"/api/alarm/info/{alarm_id}"))

    async def acknowledge(self, alarm_id: str) -> dict[str, Any]:
        """Acknowledge an alarm and return it; Conflict when that has been done already."""
        return await self._change(alarm_id, "ack")

    async def clear(self, alarm_id: str) -> dict[str, Any]:
        """Clear an alarm and return it; Conflict when that has been done already."""
        return await self._change(alarm_id, "clear")

    async def _change(self, alarm_id: str, verb: str) -> dict[str, Any]:
        # Not repeated: the second time it would be a conflict with the first.
        return expect_object(decode(await self._connection.call("POST", f"/api/alarm/{alarm_id}/{verb}")))


def _alarm_in(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UpstreamGarbled(note="not_an_alarm")
    return {name: value for name, value in row.items() if name not in ROW_FIELDS}
