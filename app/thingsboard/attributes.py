"""Attributes of devices and assets."""

from collections.abc import Sequence
from typing import Any, Literal

from app.thingsboard.connection import Connection, acknowledge, expect_list
from app.thingsboard.errors import keys_in
from app.thingsboard.telemetry import ROOT, joined_keys

AttributeScope = Literal["SERVER_SCOPE", "SHARED_SCOPE", "CLIENT_SCOPE"]
SCOPES: tuple[AttributeScope, ...] = ("SERVER_SCOPE", "SHARED_SCOPE", "CLIENT_SCOPE")


class AttributeCalls:
    """One method a ThingsBoard call."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(
        self, entity_type: str, entity_id: str, scope: AttributeScope, keys: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return `[{"key","value","lastUpdateTs"}]`, of all keys when `keys` is None."""
        path = f"{ROOT}/{entity_type}/{entity_id}/values/attributes/{scope}"
        if keys is None:
            return expect_list(await self._connection.get_json(path))
        rows: list[dict[str, Any]] = []
        for joined in joined_keys(keys):
            rows += expect_list(await self._connection.get_json(path, query={"keys": joined}))
        return rows

    async def save(self, entity_type: str, entity_id: str, scope: AttributeScope, body: bytes) -> None:
        """Write attributes; `body` is a JSON object. Repeatable: the same values again change nothing."""
        path = f"{ROOT}/{entity_type}/{entity_id}/attributes/{scope}"
        with keys_in("attributes"):
            acknowledge(await self._connection.call("POST", path, body=body, is_idempotent=True))

    async def delete(
        self, entity_type: str, entity_id: str, scope: AttributeScope, keys: Sequence[str]
    ) -> None:
        """Delete attributes; unknown keys are no error in ThingsBoard."""
        path = f"{ROOT}/{entity_type}/{entity_id}/{scope}"
        for joined in joined_keys(keys):
            answer = await self._connection.call("DELETE", path, query={"keys": joined}, is_idempotent=True)
            acknowledge(answer)
