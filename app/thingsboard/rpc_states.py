"""The states of stored RPCs as they change. ThingsBoard pushes none of them (facts): they are polled."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from app.errors import GatewayError, NotFound, UpstreamGarbled
from app.thingsboard.shared_reads import own_copy

Record = dict[str, Any]

#: Seconds between two looks: at first, by how much it grows while nothing changes, and at most.
FIRST_SECONDS, GROWTH, LONGEST_SECONDS = 0.25, 1.5, 2.0
#: So many failed looks in a row end it: two minutes, in which ThingsBoard has restarted twice.
MOST_FAILURES = 60
#: What ThingsBoard says nothing about any more.
DELETED = "DELETED"
FINAL = frozenset({"SUCCESSFUL", "FAILED", "EXPIRED", DELETED})


def status_of(record: Record) -> str:
    """Return ThingsBoard's name of the state."""
    if not isinstance(record.get("status"), str):
        raise UpstreamGarbled(note="not_an_rpc")
    return str(record["status"])


def is_oneway(record: Record) -> bool:
    """Tell whether the device is not asked for a reply."""
    return record["request"].get("oneway") is True


def is_final(record: Record) -> bool:
    """Tell whether nothing comes after this state. A one-way RPC ends when it is delivered (facts)."""
    status = status_of(record)
    return status in FINAL or (status == "DELIVERED" and is_oneway(record))


class RpcStates:
    """Follows stored RPCs of one upstream: one poller an RPC, however many listen to it.

    Args:
        read: returns a record, or raises NotFound.
        check: raises NotFound when the account may no longer see the record's device.
    """

    def __init__(
        self, read: Callable[[str], Awaitable[Record]], check: Callable[[Record], Awaitable[None]]
    ) -> None:
        self._read, self._check = read, check
        self._followed: dict[str, _Followed] = {}

    @property
    def pollers(self) -> int:
        """Return how many RPCs are followed."""
        return len(self._followed)

    async def follow(self, known: Record) -> AsyncGenerator[Record, None]:
        """Yield the state now (2 s old at most) and each later one, at last the final one.

        States that did not last from one look to the next are missed. When the RPC is gone, or its device is
        for this account, the last record has the status DELETED.

        Args:
            known: the record as it was just read.

        Raises:
            GatewayError: ThingsBoard could not be asked for two minutes.
        """
        if is_final(known):
            yield known
            return
        rpc_id = str(known["id"]["id"])
        followed = self._followed.get(rpc_id)
        if followed is None:
            followed = self._followed[rpc_id] = _Followed(known)
            followed.task = asyncio.create_task(self._poll(rpc_id, followed))
        followed.listeners += 1
        try:
            seen, is_over = -1, False
            while not is_over:
                seen, record = await followed.later_than(seen)
                is_over = is_final(record)
                yield record
        finally:
            followed.listeners -= 1
            if not followed.listeners and followed.task is not None:
                self._forget(rpc_id, followed)
                followed.task.cancel()

    def _forget(self, rpc_id: str, followed: "_Followed") -> None:
        """Let the next listener begin anew."""
        if self._followed.get(rpc_id) is followed:
            del self._followed[rpc_id]

    async def _poll(self, rpc_id: str, followed: "_Followed") -> None:
        wait, failures = FIRST_SECONDS, 0
        while not is_final(followed.record):
            await asyncio.sleep(wait)
            wait = min(wait * GROWTH, LONGEST_SECONDS)
            try:
                changed = await self._look(rpc_id, followed.record)
            except GatewayError as error:
                failures += 1
                if failures < MOST_FAILURES:
                    continue
                self._forget(rpc_id, followed)
                followed.fail(error)
                return
            failures = 0
            if changed is not None:
                wait = FIRST_SECONDS
                followed.tell(changed)
        self._forget(rpc_id, followed)

    async def _look(self, rpc_id: str, known: Record) -> Record | None:
        """Return the record if it has changed."""
        try:
            record = await self._read(rpc_id)
            if status_of(record) == status_of(known):
                return None
            # The permission may have gone since the stream began; this record alone would show it.
            await self._check(record)
        except NotFound:
            return {**known, "status": DELETED}
        return record

    async def aclose(self) -> None:
        """End all pollers."""
        tasks = [each.task for each in self._followed.values() if each.task is not None]
        self._followed.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Followed:
    """One RPC, its newest record, and who waits for a newer one."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.listeners = 0
        self.task: asyncio.Task[None] | None = None
        self._number = 0
        self._error: GatewayError | None = None
        self._changed = asyncio.Event()

    async def later_than(self, number: int) -> tuple[int, Record]:
        """Return the newest record and its number as soon as that is beyond the given one."""
        while self._number <= number:
            if self._error is not None:
                raise own_copy(self._error)
            await self._changed.wait()
        return self._number, self.record

    def tell(self, record: Record) -> None:
        """Wake all who listen."""
        self.record = record
        self._number += 1
        self._wake()

    def fail(self, error: GatewayError) -> None:
        """End it for all who listen."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
