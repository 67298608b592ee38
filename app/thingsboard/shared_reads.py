"""Identical reads that are under way at the same time share one ThingsBoard call.

Nothing is kept once a call has ended: this is no cache. The reasons are in docs/adr/0006-shared-reads.md.
"""

import asyncio
import copy
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from app.deadline import DEADLINE
from app.errors import GatewayError

#: What a call brings, shared by its callers as it came: they do not change it.
T = TypeVar("T")

#: Method, target and body: whoever asks the same in these gets the same.
Read = tuple[str, str, bytes | None]


@dataclass(slots=True, eq=False)
class Call:
    """What is asked of ThingsBoard, and whether it waits for its turn there."""

    method: str
    target: str
    body: bytes | None
    is_idempotent: bool
    is_waiting: bool = False


@dataclass(slots=True, eq=False)
class _Shared(Generic[T]):
    """One call under way and those who wait for it."""

    call: Call
    task: asyncio.Task[None] | None = None
    waiting: set[asyncio.Future[None]] = field(default_factory=set)
    outcome: T | Exception | None = None


class SharedReads(Generic[T]):
    """The reads under way of one connection, that is, of one credential. For one event loop.

    The call runs in a task of its own, so it outlives each single caller; it is cancelled when the last one
    has left, and knows none of their deadlines.

    Args:
        fetch: makes the call and returns what its callers share, something that nobody changes.
        late: makes the error of a caller whose deadline comes first.
    """

    def __init__(
        self, fetch: Callable[[Call], Coroutine[Any, Any, T]], late: Callable[[Call], GatewayError]
    ) -> None:
        self._fetch, self._late = fetch, late
        self._joinable: dict[Read, _Shared[T]] = {}
        #: Reads that made a call, and those that joined one.
        self.begun = self.joined = 0

    async def get(self, read: Read) -> T:
        """Join the same read where one is under way, or begin it.

        Raises:
            GatewayError: what the call raised, an exception object of each caller's own.
        """
        shared = self._joinable.get(read)
        if shared is None:
            shared = self._joinable[read] = _Shared(Call(*read, is_idempotent=True))
            shared.task = asyncio.create_task(self._run(read, shared))
            self.begun += 1
        else:
            self.joined += 1
        return await self._join(read, shared)

    def is_under_way(self, read: Read) -> bool:
        """Tell whether the same read can be joined."""
        return read in self._joinable

    def end(self) -> None:
        """Let nobody join what is under way: it may hold what was true before a write."""
        self._joinable.clear()

    async def _join(self, read: Read, shared: _Shared[T]) -> T:
        # A future for each caller: cancelling who waits on a future cancels the future.
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        shared.waiting.add(finished)
        deadline = DEADLINE.get()
        try:
            if deadline is None:
                await finished
            else:
                await deadline.wait(finished, partial(self._late, shared.call))
        finally:
            shared.waiting.remove(finished)
            if not shared.waiting:
                self._abandon(read, shared)
        if shared.outcome is None:
            # Something else than its callers cancelled the call: the end of the event loop.
            raise asyncio.CancelledError
        if isinstance(shared.outcome, Exception):
            raise own_copy(shared.outcome)
        return shared.outcome

    async def _run(self, read: Read, shared: _Shared[T]) -> None:
        DEADLINE.set(None)
        try:
            shared.outcome = await self._fetch(shared.call)
        except Exception as error:  # noqa: BLE001 - the callers raise it
            shared.outcome = error
        finally:
            self._close(read, shared)
            for finished in shared.waiting:
                if not finished.done():
                    finished.set_result(None)

    def _abandon(self, read: Read, shared: _Shared[T]) -> None:
        """Cancel what nobody waits for; nothing happens to a call that has ended."""
        self._close(read, shared)
        if shared.task is not None:
            shared.task.cancel()

    def _close(self, read: Read, shared: _Shared[T]) -> None:
        # After a write another call may stand in this one's place.
        if self._joinable.get(read) is shared:
            del self._joinable[read]


def own_copy(error: Exception) -> Exception:
    """Return an error that its receiver may change: services add `details` to what they raise on."""
    if not isinstance(error, GatewayError):
        return error
    mine = copy.deepcopy(error)
    mine.__cause__ = error
    return mine
