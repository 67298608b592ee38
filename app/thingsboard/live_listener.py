"""A queue of live events for code that reads them one by one."""

import asyncio
from collections import deque
from typing import Self

from app.thingsboard.live_events import LiveEvent

MOST_EVENTS = 10_000


class Listener:
    """An asynchronous iterator of events. One that is not read is dropped: the last event says so."""

    def __init__(self, most_events: int = MOST_EVENTS) -> None:
        self._events: deque[LiveEvent] = deque()
        self._most_events = most_events
        self._came = asyncio.Event()
        self._is_over = False

    def deliver(self, event: LiveEvent) -> None:
        """Take an event."""
        if self._is_over:
            return
        if len(self._events) >= self._most_events:
            self._events.clear()
            self._is_over = True
            event = LiveEvent("dropped", reason="events came faster than they were read")
        self._events.append(event)
        self._came.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LiveEvent:
        while not self._events:
            if self._is_over:
                raise StopAsyncIteration
            self._came.clear()
            await self._came.wait()
        return self._events.popleft()
