"""What waits for one browser."""

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Any

Event = dict[str, Any]

MOST_EVENTS = 500
RESYNC: Event = {"type": "resync"}


class EventQueue:
    """A bounded queue: when it is full, the oldest event of the same key gives way.

    A browser that missed something is told ``resync`` before anything else, to read again what it shows.
    """

    def __init__(self, most: int = MOST_EVENTS) -> None:
        self._most = most
        self._events: deque[tuple[Hashable, Event]] = deque()
        self._filled = asyncio.Event()
        self._missed = False

    def put(self, key: Hashable, event: Event) -> None:
        """Add an event, at once."""
        if len(self._events) >= self._most:
            self._drop(key)
        self._events.append((key, event))
        self._filled.set()

    def _drop(self, key: Hashable) -> None:
        self._missed = True
        for index, (other, _) in enumerate(self._events):
            if other == key:
                del self._events[index]
                return
        self._events.popleft()

    async def get(self) -> Event:
        """Return the next event, waiting for one."""
        await self._filled.wait()
        if self._missed:
            self._missed = False
            return RESYNC
        _, event = self._events.popleft()
        if not self._events:
            self._filled.clear()
        return event
