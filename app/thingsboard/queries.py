"""Entity queries: many entities in one call, every value as text."""

from collections.abc import Sequence
from typing import Any

from app.thingsboard.connection import Connection
from app.thingsboard.pages import read_page


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
        body = {
            "entityFilter": {"type": "entityList", "entityType": "DEVICE", "entityList": list(device_ids)},
            "entityFields": [{"type": "ENTITY_FIELD", "key": "name"}],
            "latestValues": [{"type": "TIME_SERIES", "key": key} for key in keys],
            "pageLink": {
                "page": 0,
                "pageSize": len(device_ids),
                "sortOrder": {"key": {"type": "ENTITY_FIELD", "key": "name"}, "direction": "ASC"},
            },
        }
        answer = await self._connection.post_json("/api/entitiesQuery/find", body, is_one_object=False)
        page = read_page(answer)
        return {item["entityId"]["id"]: item["latest"].get("TIME_SERIES", {}) for item in page.items}
