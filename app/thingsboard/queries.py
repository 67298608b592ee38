"""Entity queries: many entities in one call, every value as text."""

from collections.abc import Sequence
from typing import Any

from app.errors import UpstreamGarbled
from app.thingsboard.connection import Connection
from app.thingsboard.pages import Page, read_page

#: What a list is searched for: text search covers every requested field.
SEARCHED_FIELDS = ("name", "label", "type")
#: ThingsBoard's name of the field, and ASC or DESC.
Order = tuple[str, str]
ACTIVE = {"type": "SERVER_ATTRIBUTE", "key": "active"}


class QueryCalls:
    """One method a ThingsBoard call."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def latest_of_devices(
        self, device_ids: Sequence[str], keys: Sequence[str]
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Return `{device id: {key: {"ts","value"}}}`; devices that the account may not see are absent.

        Values are text, a missing one is `""` at ts 0 (recordings entity_query.json). An empty list of ids
        would be a 500 in ThingsBoard, so nothing is asked then.
        """
        if not device_ids:
            return {}
        latest = [{"type": "TIME_SERIES", "key": key} for key in keys]
        page = await self.find(entity_list("DEVICE", device_ids), latest=latest, page_size=len(device_ids))
        return {item["entityId"]["id"]: item["latest"].get("TIME_SERIES", {}) for item in page.items}

    async def active_of_devices(self, device_ids: Sequence[str]) -> dict[str, bool]:
        """Return whether each device is active; devices that the account may not see are absent."""
        if not device_ids:
            return {}
        page = await self.find(entity_list("DEVICE", device_ids), latest=[ACTIVE], page_size=len(device_ids))
        found = {item["entityId"]["id"]: item["latest"] for item in page.items}
        return {
            device_id: latest.get("SERVER_ATTRIBUTE", {}).get("active", {}).get("value") == "true"
            for device_id, latest in found.items()
        }

    async def find(
        self,
        entity_filter: dict[str, Any],
        *,
        key_filters: Sequence[dict[str, Any]] = (),
        fields: Sequence[str] = ("name",),
        latest: Sequence[dict[str, str]] = (),
        page: int = 0,
        page_size: int,
        text: str | None = None,
        order: Order = ("name", "ASC"),
    ) -> Page:
        """Return a page of what a filter finds: `{"entityId","latest"}` each."""
        link: dict[str, Any] = {
            "page": page,
            "pageSize": page_size,
            "sortOrder": {"key": _field(order[0]), "direction": order[1]},
        }
        body = {
            "entityFilter": entity_filter,
            "keyFilters": list(key_filters),
            "entityFields": [_field(name) for name in fields],
            "latestValues": list(latest),
            "pageLink": link if text is None else {**link, "textSearch": text},
        }
        return read_page(
            await self._connection.post_json("/api/entitiesQuery/find", body, is_one_object=False)
        )


def ids_of(page: Page) -> list[str]:
    """Return the ids of the entities of a page of `find`."""
    try:
        return [item["entityId"]["id"] for item in page.items]
    except (KeyError, TypeError):
        raise UpstreamGarbled(note="not_an_entity") from None


def field_of(row: dict[str, Any], name: str) -> str:
    """Return the text of a field of one row of `find`."""
    try:
        return str(row["latest"]["ENTITY_FIELD"][name]["value"])
    except (KeyError, TypeError):
        raise UpstreamGarbled(note="not_an_entity") from None


def entity_list(entity_type: str, ids: Sequence[str]) -> dict[str, Any]:
    """Return the filter for some entities of one type. An empty one is a 500 in ThingsBoard."""
    return {"type": "entityList", "entityType": entity_type, "entityList": list(ids)}


def every(entity_type: str) -> dict[str, Any]:
    """Return the filter for all entities of one type."""
    return {"type": "entityType", "entityType": entity_type}


def devices_of_types(types: Sequence[str]) -> dict[str, Any]:
    """Return the filter for devices of some types."""
    return {"type": "deviceType", "deviceTypes": list(types), "deviceNameFilter": ""}


def has_text(field: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return the key filter for entities of which a field is exactly one of these texts."""
    equal = [
        {"type": "STRING", "operation": "EQUAL", "value": {"defaultValue": text}, "ignoreCase": False}
        for text in texts
    ]
    any_of = {"type": "COMPLEX", "operation": "OR", "predicates": equal}
    return {
        "key": _field(field),
        "valueType": "STRING",
        "predicate": equal[0] if len(equal) == 1 else any_of,
    }


def is_active(*, wanted: bool) -> dict[str, Any]:
    """Return the key filter for devices that are, or are not, active."""
    return {
        "key": ACTIVE,
        "valueType": "BOOLEAN",
        "predicate": {"type": "BOOLEAN", "operation": "EQUAL", "value": {"defaultValue": wanted}},
    }


def _field(name: str) -> dict[str, str]:
    return {"type": "ENTITY_FIELD", "key": name}
