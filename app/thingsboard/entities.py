"""Devices and assets: the same calls under different names."""

from asyncio import gather
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.errors import NotFound, UpstreamGarbled
from app.thingsboard.connection import Connection, Query, acknowledge, decode, expect_list, expect_object
from app.thingsboard.identity import IdentitySource
from app.thingsboard.pages import Page, read_page
from app.thingsboard.telemetry import joined_keys

#: Page size when a customer user's objects are searched for an exact name.
SEARCH_PAGE_SIZE = 100

EntityType = Literal["DEVICE", "ASSET"]


@dataclass(frozen=True, slots=True)
class Routes:
    """ThingsBoard's names for one kind of entity."""

    one: str
    many: str
    ids_parameter: str
    listed: str
    by_name: str
    name_parameter: str
    types: str


ROUTES: dict[EntityType, Routes] = {
    "DEVICE": Routes(
        "/api/device",
        "/api/devices",
        "deviceIds",
        "deviceInfos",
        "devices",
        "deviceName",
        "/api/device/types",
    ),
    "ASSET": Routes(
        "/api/asset", "/api/assets", "assetIds", "assets", "assets", "assetName", "/api/asset/types"
    ),
}


class EntityCalls:
    """The calls of one kind of entity.

    Args:
        forget: told the type and id of what is being deleted, so that nothing remembered outlives it.
    """

    def __init__(
        self,
        connection: Connection,
        identity: IdentitySource,
        entity_type: EntityType,
        forget: Callable[[str, str], None],
    ) -> None:
        self._connection, self._identity, self._forget = connection, identity, forget
        self.entity_type: EntityType = entity_type
        self._routes = ROUTES[entity_type]

    async def list_page(self, query: Query) -> Page:
        """Return one page of what the account may see; `query` holds ThingsBoard's own parameters."""
        identity = await self._identity.get()
        path = identity.scoped(self._routes.listed)
        return await self._connection.get_page(path, query=query)

    async def list_of_customer(self, customer_id: str, query: Query) -> Page:
        """Return one page of a customer's objects, or raise NotFound: missing, or not for this account."""
        path = f"/api/customer/{customer_id}/{self._routes.listed}"
        return read_page(await self._connection.get_json(path, query=query))

    async def get(self, entity_id: str) -> dict[str, Any]:
        """Return one object, or raise NotFound."""
        return expect_object(await self._connection.get_json(f"{self._routes.one}/{entity_id}"))

    async def get_many(self, entity_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return objects by id, without order; those that the account may not see are absent."""
        calls = [
            self._connection.get_json(
                self._routes.many, query={self._routes.ids_parameter: joined}, is_one_object=False
            )
            for joined in joined_keys(entity_ids)
        ]
        try:
            return {item["id"]["id"]: item for found in await gather(*calls) for item in expect_list(found)}
        except (KeyError, TypeError):
            raise UpstreamGarbled(note="not_an_entity") from None

    async def get_by_name(self, name: str) -> dict[str, Any]:
        """Return the object with exactly this name, or raise NotFound."""
        identity = await self._identity.get()
        path = identity.scoped(self._routes.by_name)
        if identity.customer_id is None:
            query: Query = {self._routes.name_parameter: name}
            return expect_object(await self._connection.get_json(path, query=query))
        return await self._search(path, name)

    async def id_by_name(self, name: str) -> str:
        """Return the id of the object with exactly this name, or raise NotFound."""
        try:
            return str((await self.get_by_name(name))["id"]["id"])
        except (KeyError, TypeError):
            raise UpstreamGarbled(note="not_an_entity") from None

    async def _search(self, path: str, name: str) -> dict[str, Any]:
        # Customer users have no route by name: search for the text and take the exact match.
        number = 0
        while True:
            query: Query = {"pageSize": SEARCH_PAGE_SIZE, "page": number, "textSearch": name}
            page = read_page(await self._connection.get_json(path, query=query))
            for item in page.items:
                if item.get("name") == name:
                    return item
            if not page.has_next:
                raise NotFound
            number += 1

    async def save(self, entity: dict[str, Any]) -> dict[str, Any]:
        """Create (no `id`) or update an object and return it as stored; Conflict when the name is taken."""
        answer = await self._connection.call(
            "POST", self._routes.one, json=entity, is_idempotent="id" in entity, is_one_object="id" in entity
        )
        return expect_object(decode(answer))

    async def delete(self, entity_id: str) -> None:
        """Delete one object, or raise NotFound."""
        try:
            acknowledge(await self._connection.call("DELETE", f"{self._routes.one}/{entity_id}"))
        finally:
            self._forget(self.entity_type, entity_id)

    async def types(self) -> list[dict[str, Any]]:
        """Return the types that the account's objects have."""
        return expect_list(await self._connection.get_json(self._routes.types, is_one_object=False))


class DeviceCalls(EntityCalls):
    """What only devices have."""

    async def credentials(self, device_id: str) -> dict[str, Any]:
        """Return the device's access credentials: a secret."""
        return expect_object(await self._connection.get_json(f"/api/device/{device_id}/credentials"))
