"""Leaves a ThingsBoard that only times out alone for a moment, then probes it with one call."""

import time
from collections.abc import Callable

from app.errors import BreakerOpen

#: Consecutive time-outs that open it. Refused connections fail at once and cost nothing, so they do not
#: count: after a restart the first call that gets through is served.
THRESHOLD = 5
OPEN_SECONDS = 2.0


class Breaker:
    """Closed, open (calls refused), or half-open (one probe under way). One an upstream and process."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._timeouts = 0
        self._open_until = 0.0
        self._is_probing = False
        #: How often it has opened; a probe that fails does not count.
        self.openings = 0

    @property
    def is_open(self) -> bool:
        """Tell whether ThingsBoard is left alone but for probes."""
        return self._timeouts >= THRESHOLD

    def before(self) -> None:
        """Let a call through, or raise BreakerOpen with the time left."""
        if not self.is_open:
            return
        wait = self._open_until - self._clock()
        if wait > 0 or self._is_probing:
            raise BreakerOpen(retry_after=max(wait, 1.0), note="breaker_open")
        self._is_probing = True

    def answered(self) -> None:
        """Note that ThingsBoard answered, whatever it said."""
        self._timeouts, self._is_probing = 0, False

    def timed_out(self) -> None:
        """Note a call that got no answer in time."""
        self._timeouts += 1
        self.openings += self._timeouts == THRESHOLD
        self._is_probing = False
        self._open_until = self._clock() + OPEN_SECONDS

    def abandoned(self) -> None:
        """Note a call that ended without telling anything (the caller left)."""
        self._is_probing = False
