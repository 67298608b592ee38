"""Leaves a ThingsBoard that only times out alone for a moment, then probes it with one call."""

import random
import time
from collections.abc import Callable

from app.errors import BreakerOpen

#: Consecutive time-outs that open it. Refused connections fail at once and cost nothing, so they do not
#: count: after a restart the first call that gets through is served.
THRESHOLD = 5
#: Longest pause between probes, and what chance takes off it, so that workers do not probe together.
OPEN_SECONDS = 2.0
JITTER = 0.25


class Breaker:
    """Closed, or open: calls are refused but for one probe after each pause. One an upstream and process.

    A probe that hangs does not hold up the next one: it may go out on a connection that nobody answers any
    more while ThingsBoard is back. Any answer closes it.

    Args:
        threshold: consecutive time-outs that open it.
    """

    def __init__(
        self,
        *,
        threshold: int = THRESHOLD,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._threshold, self._clock, self._chance = threshold, clock, chance
        self._timeouts = 0
        self._probe_at = 0.0
        #: How often it has opened; a probe that fails does not count.
        self.openings = 0

    @property
    def is_open(self) -> bool:
        """Tell whether ThingsBoard is left alone but for probes."""
        return self._timeouts >= self._threshold

    def before(self) -> int:
        """Let a call through and return when it began, for `timed_out`.

        Raises:
            BreakerOpen: with the time until the next probe.
        """
        if self.is_open:
            now = self._clock()
            if now < self._probe_at:
                raise BreakerOpen(retry_after=max(self._probe_at - now, 1.0), note="breaker_open")
            self._pause(now)
        return self.openings

    def answered(self) -> None:
        """Note that ThingsBoard answered, whatever it said."""
        self._timeouts = 0

    def timed_out(self, began: int) -> None:
        """Note a call that got no answer in time.

        Args:
            began: what `before` returned. A call from before it last opened says nothing new: thousands of
                them would keep it shut long after ThingsBoard is back.
        """
        if self.is_open or began != self.openings:
            return
        self._timeouts += 1
        if self._timeouts == self._threshold:
            self.openings += 1
            self._pause(self._clock())

    def _pause(self, now: float) -> None:
        self._probe_at = now + OPEN_SECONDS * (1 - JITTER * self._chance())
