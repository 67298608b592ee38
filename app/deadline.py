"""How long the caller of a request waits for its answer to begin: what is left of `X-Request-Timeout`."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from math import inf
from typing import TypeVar

from app.errors import GatewayError, UpstreamTimeout

HEADER = "X-Request-Timeout"

Result = TypeVar("Result")


class Deadline:
    """One a request, shared by all of its tasks. Work for several callers is done without (`DEADLINE`).

    Args:
        at: a time of the event loop.
    """

    def __init__(self, at: float) -> None:
        #: None: the answer has begun, and takes its time.
        self.at: float | None = at
        self._limits: set[asyncio.Timeout] = set()

    def lift(self) -> None:
        """Let everything go on, what is under way included."""
        self.at = None
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(None)

    async def wait(self, awaitable: Awaitable[Result], late: Callable[[], GatewayError]) -> Result:
        """Return what the awaitable does, which is cancelled at the deadline, and not begun after it.

        Args:
            late: makes the error to raise then.
        """
        if time_left() <= 0:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()
            raise late()
        limit = asyncio.timeout_at(self.at)
        self._limits.add(limit)
        try:
            async with limit:
                return await awaitable
        except TimeoutError:
            if not limit.expired():
                raise
            raise late() from None
        finally:
            self._limits.discard(limit)


#: None: the caller has set no limit, or there is no single caller. Set for every request, as `TURN` is; tasks
#: that work for several callers set it to None, or the first one's would count for all.
DEADLINE: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def time_left() -> float:
    """Return the seconds until the deadline, infinity where there is none."""
    deadline = DEADLINE.get()
    if deadline is None or deadline.at is None:
        return inf
    return deadline.at - asyncio.get_running_loop().time()


def out_of_time() -> UpstreamTimeout:
    """Say that the caller's time was over before ThingsBoard had answered."""
    issue = "was over before ThingsBoard had answered"
    return UpstreamTimeout(
        f"{HEADER}: {issue}.", details={"field": HEADER, "issue": issue}, note="request_timeout"
    )


async def in_time(awaitable: Awaitable[Result], late: Callable[[], GatewayError] = out_of_time) -> Result:
    """Wait for something no longer than the caller does."""
    deadline = DEADLINE.get()
    return await (awaitable if deadline is None else deadline.wait(awaitable, late))
