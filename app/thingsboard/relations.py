"""Relations between entities."""

from typing import Any, Literal

from app.thingsboard.connection import Connection, acknowledge, expect_list

Direction = Literal["FROM", "TO"]


class RelationCalls:
    """One method a ThingsBoard call."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def walk(
        self, root_type: str, root_id: str, direction: Direction, *, levels: int
    ) -> list[dict[str, Any]]:
        """Return every relation within so many levels of the root; cycles once, names of one side.

        `POST /api/relations/info` exists in ThingsBoard 3.6 to 4.4 and checks the root: NotFound when it is
        missing or another's. FROM fills `toName`, TO fills `fromName` (recordings relations.json).
        """
        parameters = {
            "rootId": root_id,
            "rootType": root_type,
            "direction": direction,
            "relationTypeGroup": "COMMON",
            "maxLevel": levels,
            "fetchLastLevelOnly": False,
        }
        body = {"parameters": parameters, "filters": []}
        return expect_list(await self._connection.post_json("/api/relations/info", body))

    async def save(self, relation: dict[str, Any]) -> None:
        """Create a relation; creating it again changes nothing. NotFound when an end is missing."""
        acknowledge(await self._connection.call("POST", "/api/relation", json=relation, is_idempotent=True))

    async def delete(self, relation: dict[str, Any]) -> None:
        """Delete a relation, or raise NotFound."""
        query = {
            "fromId": relation["from"]["id"],
            "fromType": relation["from"]["entityType"],
            "relationType": relation["type"],
            "toId": relation["to"]["id"],
            "toType": relation["to"]["entityType"],
        }
        acknowledge(await self._connection.call("DELETE", "/api/relation", query=query))
