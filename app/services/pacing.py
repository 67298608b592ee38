"""Goes at the pace that ThingsBoard can keep, instead of failing on its limits or making things worse."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.context import PATIENCE
from app.deadline import in_time, time_left
from app.errors import BreakerOpen, GatewayError, Overloaded, UpstreamBusy, UpstreamError, UpstreamTimeout
from app.thingsboard.retry import ATTEMPTS, RetryBudget
from app.thingsboard.shared_reads import own_copy

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 4.0
#: Without a single success for so long, ThingsBoard's limit or slowness is an error after all.
PATIENCE_SECONDS = 60.0
#: Successes at most that it takes to try one more at once: ThingsBoard that bears four of sixteen then fails
#: at one call in twenty.
MOST_CAUTION = 32

#: They are raised before anything was carried out.
NOT_CARRIED_OUT = (UpstreamBusy, BreakerOpen, Overloaded)

Result = TypeVar("Result")


class Pacer:
    """Repeats what ThingsBoard refused or was too slow for, for all calls of one upload or export together.

    The calls wait their turn longer than others do, so ThingsBoard's rate limit is the queue's business
    (`app/thingsboard/fair_queue.py`) until that has no turn for them in time. Then one call at a time tries
    again, as when the breaker is open; after a time-out half as many as before. Each waits first: the wait
    doubles with each failure and halves with each success. When it is gone, successes let one call more in,
    until the way is open for all again; the more failures there were, the more successes that takes.

    Args:
        repeats: the purse of all uploads to a ThingsBoard: of one each, small ones would repeat everything.
    """

    def __init__(
        self,
        at_once: int = 1,
        *,
        repeats: RetryBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._at_once = at_once
        self._clock, self._sleep = clock, sleep
        self._is_open = True
        self._allowed, self._running, self._delay = at_once, 0, 0.0
        self._has_room = asyncio.Event()
        #: Successes that let one call more in, and how many there were.
        self._caution, self._successes = 1, 0
        #: Failures of calls that began before the last one of these say nothing new.
        self._slowdowns = 0
        self._last_success = 0.0
        self._repeats = repeats or RetryBudget()
        self._lost: GatewayError | None = None

    async def run(
        self, call: Callable[[], Awaitable[Result]], *, is_repeatable: bool | None = None
    ) -> Result:
        """Return the result of the call, made as often as ThingsBoard demands.

        Args:
            is_repeatable: whether it may be made again after it may have been carried out, which is done
                `ATTEMPTS` times at most and within a budget; None leaves all but the 429 to the caller.

        Raises:
            GatewayError: another failure of the call, or one of these when nothing succeeded for
                `PATIENCE_SECONDS`; from then on no call is made any more.
        """
        self._repeats.earn()
        attempts = 0
        while True:
            is_paced = not self._is_open
            if is_paced:
                await in_time(self._wait_for_turn())
            slowdowns = self._slowdowns
            patience = PATIENCE.set(PATIENCE_SECONDS)
            try:
                result = await call()
            except GatewayError as error:
                attempts += not isinstance(error, NOT_CARRIED_OUT)
                if not self._is_worth_repeating(error, is_repeatable, attempts, slowdowns):
                    raise
            else:
                if is_paced:
                    self._speed_up()
                return result
            finally:
                PATIENCE.reset(patience)
                if is_paced:
                    self._leave()

    def _is_worth_repeating(
        self, error: GatewayError, is_repeatable: bool | None, attempts: int, slowdowns: int
    ) -> bool:
        """Slow down for what says that ThingsBoard cannot keep up, and decide on trying once more."""
        if is_repeatable is None and not isinstance(error, UpstreamBusy):
            return False
        if isinstance(error, NOT_CARRIED_OUT):
            self._slow_down(slowdowns, allowed=1)
            is_worth_it = (error.retry_after or 0) < time_left()
        elif is_too_slow(error):
            self._slow_down(slowdowns, allowed=self._allowed // 2)
            is_worth_it = bool(is_repeatable) and attempts < ATTEMPTS and self._repeats.spend()
        else:
            if not self._is_open and not isinstance(error, UpstreamError):
                # ThingsBoard has taken the call and answered it.
                self._speed_up()
            return False
        if self._clock() - self._last_success > PATIENCE_SECONDS:
            self._lost = error
        return is_worth_it and self._lost is None

    async def _wait_for_turn(self) -> None:
        while self._running >= self._allowed and self._lost is None:
            self._has_room.clear()
            await self._has_room.wait()
        if self._lost is not None:
            raise own_copy(self._lost)
        self._running += 1
        try:
            await self._sleep(self._delay)
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        self._running -= 1
        self._has_room.set()

    def _slow_down(self, slowdowns: int, *, allowed: int) -> None:
        if self._is_open:
            self._is_open, self._last_success = False, self._clock()
        if slowdowns == self._slowdowns:
            self._slowdowns += 1
            self._allowed = max(1, allowed)
            self._delay = min(LONGEST_DELAY_SECONDS, self._delay * 2 or FIRST_DELAY_SECONDS)
            self._caution, self._successes = min(MOST_CAUTION, self._caution * 2), 0

    def _speed_up(self) -> None:
        self._last_success = self._clock()
        if self._delay > FIRST_DELAY_SECONDS / 4:
            self._delay /= 2
            return
        self._delay = 0.0
        self._successes += 1
        if self._successes < self._caution:
            return
        self._successes = 0
        self._allowed += 1
        if self._allowed >= self._at_once:
            self._is_open, self._caution = True, 1


def is_too_slow(error: GatewayError) -> bool:
    """Tell whether asking less at a time may help: time-outs, and the 503 of a proxy in between."""
    return isinstance(error, UpstreamTimeout) or error.note == "upstream_503"
