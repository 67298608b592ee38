"""Goes on within ThingsBoard's rate limit instead of failing on it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.errors import UpstreamBusy

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 4.0
#: Without a single call admitted for so long, ThingsBoard's limit is an error after all.
PATIENCE_SECONDS = 60.0

Result = TypeVar("Result")


class Pacer:
    """Repeats what ThingsBoard refused with 429, for all calls of one upload together.

    Refused calls cost nothing there, and its bucket refills continuously (facts, rate limit). So while it
    refuses, one call at a time tries again: after a wait that doubles with each refusal and halves with each
    success, until the way is open for all again.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._delay = 0.0
        self._last_success = 0.0
        self._turn = asyncio.Lock()

    async def run(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Return the result of the call, made as often as ThingsBoard's limit demands.

        Raises:
            UpstreamBusy: nothing was admitted for `PATIENCE_SECONDS`.
        """
        if not self._delay:
            try:
                return await call()
            except UpstreamBusy:
                if not self._delay:
                    self._delay, self._last_success = FIRST_DELAY_SECONDS, self._clock()
        while True:
            async with self._turn:
                await self._sleep(self._delay)
                try:
                    result = await call()
                except UpstreamBusy:
                    if self._clock() - self._last_success > PATIENCE_SECONDS:
                        raise
                    self._delay = min(LONGEST_DELAY_SECONDS, self._delay * 2 or FIRST_DELAY_SECONDS)
                    continue
                self._last_success = self._clock()
                self._delay = self._delay / 2 if self._delay > FIRST_DELAY_SECONDS / 4 else 0.0
                return result
