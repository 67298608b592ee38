"""Identical reads that are under way at the same time share one ThingsBoard call.

Nothing is kept once a call has ended: this is no cache. The reasons are in docs/adr/0006-shared-reads.md.
"""

import asyncio
import copy
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from app.errors import GatewayError

#: What a call brings, shared by its callers as it came: they do not change it.
T = TypeVar("T")

#: Method, target and body: whoever asks the same in these gets the same.
Read = tuple[str, str, bytes | None]


@dataclass(slots=True, eq=False)
class _Call(Generic[T]):
    """One call under way and those who wait for it."""

    task: asyncio.Task[None] | None = None
    waiting: set[asyncio.Future[None]] = field(default_factory=set)
    outcome: T | Exception | None = None


class SharedReads(Generic[T]):
    """The reads under way of one connection, that is, of one credential. For one event loop.

    The call runs in a task of its own, so it outlives each single caller; it is cancelled when the last one
    has left.

    Args:
        fetch: makes the call and returns what its callers share, something that nobody changes.
    """

    def __init__(self, fetch: Callable[[str, str, bytes | None], Coroutine[Any, Any, T]]) -> None:
        self._fetch = fetch
        self._joinable: dict[Read, _Call[T]] = {}
        #: Reads that made a call, and those that joined one.
        self.begun = self.joined = 0

    async def get(self, read: Read) -> T:
        """Join the same read where one is under way, or begin it.

        Raises:
            GatewayError: what the call raised, an exception object of each caller's own.
        """
        call = self._joinable.get(read)
        if call is None:
            call = self._joinable[read] = _Call()
            call.task = asyncio.create_task(self._run(read, call))
            self.begun += 1
        else:
            self.joined += 1
        return await self._join(read, call)

    def end(self) -> None:
        """Let nobody join what is under way: it may hold what was true before a write."""
        self._joinable.clear()

    async def _join(self, read: Read, call: _Call[T]) -> T:
        # A future for each caller: cancelling who waits on a future cancels the future.
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call.waiting.add(finished)
        try:
            await finished
        finally:
            call.waiting.remove(finished)
            if not call.waiting:
                self._abandon(read, call)
        if call.outcome is None:
            # Something else than its callers cancelled the call: the end of the event loop.
            raise asyncio.CancelledError
        if isinstance(call.outcome, Exception):
            raise own_copy(call.outcome)
        return call.outcome

    async def _run(self, read: Read, call: _Call[T]) -> None:
        try:
            call.outcome = await self._fetch(*read)
        except Exception as error:  # noqa: BLE001 - the callers raise it
            call.outcome = error
        finally:
            self._close(read, call)
            for finished in call.waiting:
                if not finished.done():
                    finished.set_result(None)

    def _abandon(self, read: Read, call: _Call[T]) -> None:
        """Cancel what nobody waits for; nothing happens to a call that has ended."""
        self._close(read, call)
        if call.task is not None:
            call.task.cancel()

    def _close(self, read: Read, call: _Call[T]) -> None:
        # After a write another call may stand in this one's place.
        if self._joinable.get(read) is call:
            del self._joinable[read]


def own_copy(error: Exception) -> Exception:
    """Return an error that its receiver may change: services add `details` to what they raise on."""
    if not isinstance(error, GatewayError):
        return error
    mine = copy.deepcopy(error)
    mine.__cause__ = error
    return mine
