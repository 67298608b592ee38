"""Remote calls on their way to devices: queues, long polls, timeouts and the states of persistent calls.

A persistent call goes QUEUED, DELIVERED, SUCCESSFUL; a one-way call ends at DELIVERED; what is never answered
ends at EXPIRED (facts, RPC).
"""

import asyncio
import uuid
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import orjson

from tb_simulator.world_types import reference

if TYPE_CHECKING:
    from tb_simulator.world import World

LARGEST_ANSWER = 64 * 1024


class Silence(Enum):
    """Why a call ended without an answer."""

    OFFLINE = "never delivered"
    SILENT = "delivered, never answered"


@dataclass(slots=True)
class Rpc:
    """One call to a device. ``expires_at`` is in milliseconds since the epoch."""

    device_id: str
    tenant: str
    method: str
    params: Any
    oneway: bool
    expires_at: int
    retries: int | None = None
    info: Any = None
    number: int = 0
    delivered: bool = False
    outcome: "asyncio.Future[bytes | Silence] | None" = None
    record: dict[str, Any] | None = None
    timer: asyncio.TimerHandle | None = None

    def message(self) -> dict[str, Any]:
        """Return what the device is told."""
        return {"id": self.number, "method": self.method, "params": self.params}

    def finish(self, result: bytes | Silence, status: str) -> None:
        """End the call: wake its caller, stop its timer, set the state of a persistent one."""
        if self.timer:
            self.timer.cancel()
        if self.outcome and not self.outcome.done():
            self.outcome.set_result(result)
        if self.record and self.record["status"] != status:
            self.record["status"] = status


class _Line:
    """What waits for one device, and the device's waiting polls."""

    def __init__(self) -> None:
        self.next_number = 0
        self.queued: deque[Rpc] = deque()
        self.unanswered: dict[int, Rpc] = {}
        self.polls: deque[asyncio.Future[Rpc]] = deque()


class RpcStore:
    """The calls on their way to devices, and the records of the persistent ones."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._lines: dict[str, _Line] = {}
        self._persistent: dict[str, Rpc] = {}

    def _line(self, device_id: str) -> _Line:
        return self._lines.setdefault(device_id, _Line())

    def send(self, rpc: Rpc, *, persistent: bool) -> Rpc:
        """Number a call and hand it to a waiting poll, or queue it until the device asks or time is up."""
        line = self._line(rpc.device_id)
        rpc.number, line.next_number = line.next_number, line.next_number + 1
        loop = asyncio.get_running_loop()
        rpc.outcome = loop.create_future()
        if persistent:
            self._make_record(rpc)
        scale = self._world.settings.time_scale
        wait = max(rpc.expires_at - self._world.now(), 0) / 1000 * scale
        rpc.timer = loop.call_later(wait, self._expire, rpc)
        while line.polls:
            poll = line.polls.popleft()
            if not poll.done():
                poll.set_result(rpc)
                self._delivered(line, rpc)
                return rpc
        line.queued.append(rpc)
        return rpc

    def _make_record(self, rpc: Rpc) -> None:
        identifier = str(uuid.uuid4())
        tenant, device = reference("TENANT", rpc.tenant), reference("DEVICE", rpc.device_id)
        params = orjson.dumps(rpc.params).decode()
        rpc.record = {
            "id": reference("RPC", identifier),
            "createdTime": self._world.now(),
            "tenantId": tenant,
            "deviceId": device,
            "expirationTime": rpc.expires_at,
            "request": {
                "id": identifier,
                "tenantId": tenant,
                "deviceId": device,
                "oneway": rpc.oneway,
                "expirationTime": rpc.expires_at,
                "body": {"method": rpc.method, "params": params},
                "persisted": True,
                "retries": rpc.retries,
            },
            "response": None,
            "status": "QUEUED",
            "additionalInfo": rpc.info,
        }
        self._persistent[identifier] = rpc

    def _delivered(self, line: _Line, rpc: Rpc) -> None:
        rpc.delivered = True
        if rpc.oneway:
            rpc.finish(b"", "DELIVERED")
            return
        line.unanswered[rpc.number] = rpc
        if rpc.record:
            rpc.record["status"] = "DELIVERED"

    def _expire(self, rpc: Rpc) -> None:
        self._withdraw(rpc)
        rpc.finish(Silence.SILENT if rpc.delivered else Silence.OFFLINE, "EXPIRED")

    def _withdraw(self, rpc: Rpc) -> None:
        line = self._line(rpc.device_id)
        line.unanswered.pop(rpc.number, None)
        if rpc in line.queued:
            line.queued.remove(rpc)

    async def poll(self, device_id: str, timeout_ms: int) -> Rpc | None:
        """Return the next call for a device, waiting for one; None when there is none in time."""
        line = self._line(device_id)
        if line.queued:
            rpc = line.queued.popleft()
            self._delivered(line, rpc)
            return rpc
        poll: asyncio.Future[Rpc] = asyncio.get_running_loop().create_future()
        line.polls.append(poll)
        try:
            return await asyncio.wait_for(poll, timeout_ms / 1000 * self._world.settings.time_scale)
        except TimeoutError:
            return None
        finally:
            if poll in line.polls:
                line.polls.remove(poll)

    def answer(self, device_id: str, number: int, body: bytes) -> None:
        """Take a device's answer; an empty or huge one is as good as silence (facts, RPC)."""
        if not body or len(body) > LARGEST_ANSWER:
            return
        rpc = self._line(device_id).unanswered.pop(number, None)
        if rpc is None:
            return
        if rpc.record:
            try:
                rpc.record["response"] = orjson.loads(body)
            except orjson.JSONDecodeError:
                rpc.record["response"] = {"error": body.decode("utf-8", "replace")}
        rpc.finish(body, "SUCCESSFUL")

    def record(self, identifier: str) -> dict[str, Any] | None:
        """Return a persistent call's record."""
        rpc = self._persistent.get(identifier)
        return rpc.record if rpc else None

    def records(self, device_id: str) -> list[dict[str, Any]]:
        """Return the persistent calls of a device, oldest first."""
        return [rpc.record for rpc in self._persistent.values() if rpc.device_id == device_id and rpc.record]

    def delete(self, identifier: str) -> None:
        """Delete a persistent call; a queued one is no longer delivered."""
        rpc = self._persistent.pop(identifier)
        self._withdraw(rpc)
        rpc.finish(Silence.OFFLINE, "DELETED")

    def forget(self, entity_id: str) -> None:
        """Drop the calls of a deleted device."""
        for identifier in [i for i, rpc in self._persistent.items() if rpc.device_id == entity_id]:
            self.delete(identifier)

    def close(self) -> None:
        """Stop all timers."""
        waiting = [*self._persistent.values()]
        for line in self._lines.values():
            waiting += [*line.queued, *line.unanswered.values()]
        for rpc in waiting:
            if rpc.timer:
                rpc.timer.cancel()
