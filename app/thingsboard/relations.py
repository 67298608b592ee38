"""Relations between entities."""

from typing import Any, Literal

from app.errors import UpstreamGarbled
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
        body = _walk_from(root_type, root_id, direction, levels)
        return expect_list(await self._connection.post_json("/api/relations/info", body))

    async def below(self, root_type: str, root_id: str) -> frozenset[tuple[str, str]]:
        """Return type and id of whatever a walk FROM the root reaches, however deep ThingsBoard walks.

        Raises:
            NotFound: the root is missing or another's.
        """
        # Without names: ThingsBoard looks them up one by one.
        answer = await self._connection.post_json("/api/relations", _walk_from(root_type, root_id, "FROM", 0))
        try:
            return frozenset((each["to"]["entityType"], each["to"]["id"]) for each in expect_list(answer))
        except (KeyError, TypeError):
            raise UpstreamGarbled(note="not_a_relation") from None

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


def _walk_from(root_type: str, root_id: str, direction: Direction, levels: int) -> dict[str, Any]:
    """Return the body of a walk; 0 levels are as many as there are."""
    parameters = {
        "rootId": root_id,
        "rootType": root_type,
        "direction": direction,
        "relationTypeGroup": "COMMON",
        "maxLevel": levels,
        "fetchLastLevelOnly": False,
    }
    return {"parameters": parameters, "filters": []}
