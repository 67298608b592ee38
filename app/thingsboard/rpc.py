"""Remote calls to devices: sent and awaited, or stored until the device comes.

Those that wait go through version 1 of ThingsBoard's routes: it tells a device that did not fetch the command
(409) from one that fetched it and said nothing (408); version 2 says 504 to both (recordings rpc.json).
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from app.errors import InvalidRequest, NotAllowed, NotFound, UpstreamGarbled
from app.thingsboard.connection import (
    Connection,
    Query,
    acknowledge,
    checked,
    decode,
    expect_object,
    json_text,
)
from app.thingsboard.entities import EntityCalls
from app.thingsboard.pages import Page, read_page
from app.thingsboard.rpc_states import RpcStates
from app.thingsboard.transport import Answer
from app.thingsboard.waiting_calls import WaitingCalls

SENDING, STORED = "/api/plugins/rpc", "/api/rpc"
OK, NOT_ACCEPTABLE, REQUEST_TIMEOUT, CONFLICT, GATEWAY_TIMEOUT = 200, 406, 408, 409, 504


class Silence(Enum):
    """Why there is no reply."""

    #: The device did not fetch the command in time.
    OFFLINE = CONFLICT
    #: It fetched the command and did not answer in time.
    SILENT = REQUEST_TIMEOUT
    #: It answered something that is not JSON.
    UNREADABLE = NOT_ACCEPTABLE


@dataclass(frozen=True, slots=True)
class Command:
    """What a device is told. `params` is anything that JSON can hold."""

    method: str
    params: Any
    is_oneway: bool = False

    @property
    def way(self) -> str:
        """ThingsBoard's word for it."""
        return "oneway" if self.is_oneway else "twoway"


class RpcCalls:
    """One method a ThingsBoard call, and the check that ThingsBoard leaves out."""

    def __init__(self, connection: Connection, waiting: WaitingCalls, devices: EntityCalls) -> None:
        self._connection, self._waiting, self._devices = connection, waiting, devices
        self._states = RpcStates(self._read, self._check)

    @property
    def in_flight(self) -> int:
        """Return how many commands wait for their devices now."""
        return self._waiting.in_flight

    async def send(self, device_id: str, command: Command, *, timeout_ms: int) -> orjson.Fragment | Silence:
        """Send a command, wait for the device, and return its reply as it came; null for a one-way command.

        A caller who leaves does not stop it: ThingsBoard goes on trying until `timeout_ms` are over.

        Args:
            timeout_ms: ThingsBoard waits at least 5,000 and at most 30,000.

        Raises:
            NotFound: there is no such device, or not for this account.
        """
        path = f"{SENDING}/{command.way}/{device_id}"
        body = orjson.dumps({"method": command.method, "params": command.params, "timeout": timeout_ms})
        try:
            answer = await self._waiting.post(path, body, wait_seconds=timeout_ms / 1000)
        finally:
            # What the device did shows in what is read from now on.
            self._connection.end_reads()
        if answer.status in {silence.value for silence in Silence}:
            return Silence(answer.status)
        checked(answer, is_one_object=True)
        if command.is_oneway:
            acknowledge(answer)
            return orjson.Fragment(b"null")
        return _reply(answer)

    async def store(self, device_id: str, command: Command, *, expires_ts: int) -> str:
        """Store a command until the device comes, at most until `expires_ts` (ms), and return its id.

        Raises:
            NotFound: there is no such device, or not for this account.
            InvalidRequest: by ThingsBoard's clock it has expired already.
        """
        body = orjson.dumps(
            {
                "method": command.method,
                "params": command.params,
                "persistent": True,
                "expirationTime": expires_ts,
            }
        )
        path = f"{STORED}/{command.way}/{device_id}"
        answer = await self._waiting.post(path, body, wait_seconds=0)
        if answer.status == GATEWAY_TIMEOUT and not answer.body:
            issue = "is over already by ThingsBoard's clock"
            raise InvalidRequest(f"expires_in: {issue}", details={"field": "expires_in", "issue": issue})
        stored = expect_object(decode(checked(answer, is_one_object=True)))
        if not isinstance(stored.get("rpcId"), str):
            raise UpstreamGarbled(note="not_an_rpc")
        return str(stored["rpcId"])

    async def list_page(self, device_id: str, query: Query) -> Page:
        """Return one page of a device's stored RPCs, or raise NotFound: this list ThingsBoard does check."""
        path = f"{STORED}/persistent/device/{device_id}"
        page = read_page(await self._connection.get_json(path, query=query))
        return page.holding([_with_params(record) for record in page.items])

    async def get(self, rpc_id: str) -> dict[str, Any]:
        """Return a stored RPC of a device that the account may see, or raise NotFound."""
        record = await self._read(rpc_id)
        await self._check(record)
        return record

    async def delete(self, rpc_id: str) -> dict[str, Any]:
        """Delete a stored RPC and return what it was. One that waits is no longer delivered.

        Raises:
            NotFound: there is none, or not for this account.
            NotAllowed: ThingsBoard lets no customer user do it, not even on devices of its own.
        """
        record = await self.get(rpc_id)
        try:
            acknowledge(await self._connection.call("DELETE", f"{STORED}/persistent/{rpc_id}"))
        except NotFound:
            # ThingsBoard's 403 looks like that too. If it is really gone, this says so.
            await self.get(rpc_id)
            raise NotAllowed(
                "ThingsBoard does not let the gateway's account delete stored RPCs.", note="upstream_403"
            ) from None
        return record

    def follow(self, known: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield each later state of a stored RPC until the final one; see `RpcStates.follow`."""
        return self._states.follow(known)

    async def _read(self, rpc_id: str) -> dict[str, Any]:
        """Read it, whoever's it is: ThingsBoard asks for the tenant only (facts, permissions)."""
        return _with_params(await self._connection.get_json(f"{STORED}/persistent/{rpc_id}"))

    async def _check(self, record: dict[str, Any]) -> None:
        """Raise NotFound unless the account may read the device."""
        await self._devices.get(device_of(record))

    async def aclose(self) -> None:
        """Stop following and close the connections."""
        await self._states.aclose()
        await self._waiting.aclose()


def device_of(record: dict[str, Any]) -> str:
    """Return the id of the device that a stored RPC is for."""
    device = record.get("deviceId")
    if not isinstance(device, dict) or not isinstance(device.get("id"), str):
        raise UpstreamGarbled(note="not_an_rpc")
    return str(device["id"])


def _reply(answer: Answer) -> orjson.Fragment:
    """Return the device's reply, byte for byte: decoding would round what no double can hold."""
    if not answer.body:
        return orjson.Fragment(b"null")
    decode(answer)
    return orjson.Fragment(json_text(answer))


def _with_params(record: Any) -> dict[str, Any]:
    """Return ThingsBoard's record with `params` as JSON: it keeps them as text (recordings)."""
    read = expect_object(record)
    try:
        request = read["request"]
        body = dict(request["body"])
    except (KeyError, TypeError, ValueError):
        raise UpstreamGarbled(note="not_an_rpc") from None
    if isinstance(body.get("params"), str):
        try:
            body["params"] = orjson.Fragment(_json(body["params"]))
        except orjson.JSONDecodeError:
            # Another client of ThingsBoard's: what it wrote is what there is.
            return read
    return {**read, "request": {**request, "body": body}}


def _json(text: str) -> bytes:
    orjson.loads(text)
    return text.encode()
