"""Commands as a restricted key may send them: to the devices that it sees."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson

from app.services.visibility import Visibility
from app.thingsboard.connection import Query
from app.thingsboard.pages import Page
from app.thingsboard.rpc import Command, RpcCalls, Silence, device_of
from app.thingsboard.rpc_states import DELETED


class RestrictedRpcs(RpcCalls):
    """Commands to devices that the key sees, and what is stored of them."""

    def __init__(self, calls: RpcCalls, visibility: Visibility) -> None:
        self._calls, self._visibility = calls, visibility

    async def send(self, device_id: str, command: Command, *, timeout_ms: int) -> orjson.Fragment | Silence:
        """Send a command and wait for the device."""
        await self._visibility.check("DEVICE", device_id)
        return await self._calls.send(device_id, command, timeout_ms=timeout_ms)

    async def store(self, device_id: str, command: Command, *, expires_ts: int) -> str:
        """Store a command until the device comes."""
        await self._visibility.check("DEVICE", device_id)
        return await self._calls.store(device_id, command, expires_ts=expires_ts)

    async def list_page(self, device_id: str, query: Query) -> Page:
        """Return one page of a device's stored RPCs."""
        await self._visibility.check("DEVICE", device_id)
        return await self._calls.list_page(device_id, query)

    async def get(self, rpc_id: str) -> dict[str, Any]:
        """Return a stored RPC, or raise NotFound."""
        record = await self._calls.get(rpc_id)
        await self._visibility.check("DEVICE", device_of(record))
        return record

    async def delete(self, rpc_id: str) -> dict[str, Any]:
        """Delete a stored RPC and return what it was."""
        await self.get(rpc_id)
        return await self._calls.delete(rpc_id)

    async def follow(self, known: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the states of a stored RPC, for as long as the key sees the device."""
        async with aclosing(self._calls.follow(known)) as records:
            async for record in records:
                if not await self._visibility.sees("DEVICE", device_of(record)):
                    yield {**known, "status": DELETED}
                    return
                yield record
