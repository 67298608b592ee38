"""A request under way, and what happens to it when its caller leaves."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application


class RunningRequest:
    """One request of a connection and its task."""

    def __init__(self, cycle: RequestResponseCycle, task: asyncio.Task[None]) -> None:
        self._cycle, self._task = cycle, task

    @classmethod
    def start(
        cls,
        cycle: RequestResponseCycle,
        app: "ASGI3Application",
        loop: asyncio.AbstractEventLoop,
        tasks: set[asyncio.Task[None]],
    ) -> Self:
        """Run a request as uvicorn does, which keeps no task but in the set of all."""
        task = loop.create_task(cycle.run_asgi(partial(_until_left, cycle, app)))
        task.add_done_callback(tasks.discard)
        tasks.add(task)
        return cls(cycle, task)

    def abandon(self) -> None:
        """End it: its caller has left."""
        if self._cycle.response_complete:
            return
        # uvicorn tells the last of those that were sent ahead, which need not be the one that runs.
        self._cycle.disconnected = True
        self._cycle.message_event.set()
        # An answer that has begun listens for the end of its caller, and may have something to finish.
        if not self._cycle.response_started:
            self._task.cancel()


async def _until_left(
    cycle: RequestResponseCycle, app: "ASGI3Application", scope: Any, receive: Any, send: Any
) -> None:
    """Run the application; that a caller who has left cancels it is no failure to be logged."""
    try:
        await app(scope, receive, send)
    except asyncio.CancelledError:
        if not cycle.disconnected:
            raise
