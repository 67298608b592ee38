"""How fast ThingsBoard lets calls through, learned from what it refuses. Times are monotonic seconds.

It says 429 and nothing more. Its buckets refill continuously after a burst and refused calls cost nothing
(facts in rate_limit.json), so both when it refuses and when it refuses again a bucket is empty: what was
admitted in between is what was refilled. The reasons are in docs/adr/0011-fair-share.md.
"""

import math

#: Where the search begins when nothing is known, in calls a second.
FIRST_RATE = 20.0
LEAST_RATE = 1 / 60
#: What is kept of the pace at a refusal, and of that again to begin with, so that the bucket gains something.
#: With 0.7 three processes on one bucket starve each other; with 0.9 they are refused half as often again.
KEPT = 0.85
CAUTION = 0.9
#: Periods without a refusal after which the limit counts as over. One is a second, or a call of a slow pace.
PERIODS_TO_OPEN = 10.0
#: Timers are late and coarse: so much of the pace may be made good.
SLACK_SECONDS = 0.01
TIMER_SECONDS = 0.001


class Pace:
    """Full speed until a refusal; then so many calls a second, a little more each second. One a tenant.

    The pace is found by doubling, measured at the next refusal, and from then on lowered by a part at each
    refusal. After each of them one call at a time finds out, until one is admitted. Several processes that
    share a bucket unseen come to share its refill that way.
    """

    def __init__(self) -> None:
        self.is_limited = False
        #: How often ThingsBoard refused, not counting calls that had left before they could know.
        self.refusals = 0
        self._base, self._is_known = FIRST_RATE, False
        self._refused_at = self._next_at = 0.0
        self._admitted = self._probes = 0
        self._is_probing = False

    def rate(self, now: float) -> float:
        """Return the calls a second that may leave now; infinity while there is no limit."""
        if not self.is_limited:
            return math.inf
        periods = self._periods(now)
        # Nothing known: a search that doubles. Else back to what was measured, slowly past it, then faster.
        growth = CAUTION + periods / 20 + (periods / 10) ** 2 if self._is_known else 2**periods
        return self._base * growth

    def wait(self, now: float) -> float:
        """Return the seconds until a call may leave; infinity while another one finds out."""
        if not self.is_limited:
            return 0.0
        if self._is_probing and self._probes:
            return math.inf
        if self._periods(now) >= PERIODS_TO_OPEN:
            self.is_limited = self._is_probing = False
            return 0.0
        wait = self._next_at - now
        return wait if wait > TIMER_SECONDS else 0.0

    def estimate(self, position: int, now: float) -> float:
        """Return the seconds until the call at this place in the queue (1 is the first) may leave."""
        if not self.is_limited:
            return 0.0
        others, rate = position - 1, self.rate(now)
        # A pace that is still searched for doubles each period.
        slowness = min(1.0, self._base)
        doubling = math.log2(1 + others * slowness * math.log(2) / rate) / slowness
        return max(0.0, self._next_at - now) + (others / rate if self._is_known else doubling)

    def leave(self, now: float) -> int:
        """Note that a call leaves, and return its epoch: which refusals it knew of."""
        if self.is_limited:
            self._next_at = max(self._next_at, now - SLACK_SECONDS) + 1 / self.rate(now)
            self._probes += self._is_probing
        return self.refusals

    def admitted(self, epoch: int) -> None:
        """Note an answer that is no refusal."""
        self._admitted += 1
        if epoch == self.refusals:
            self._is_probing = False

    def abandoned(self, epoch: int) -> None:
        """Note a call that ended without an answer."""
        if epoch == self.refusals:
            self._probes -= self._is_probing

    def refused(self, epoch: int, now: float) -> None:
        """Note a 429."""
        if epoch != self.refusals:
            return
        if self.refusals:
            self._base = max(LEAST_RATE, self._learn(now))
        self.refusals += 1
        self.is_limited = self._is_probing = True
        self._probes = self._admitted = 0
        self._refused_at = now
        self._next_at = now + 1 / self.rate(now)

    def _learn(self, now: float) -> float:
        """Return the pace after a refusal that is not the first."""
        measured = self._admitted / max(now - self._refused_at, TIMER_SECONDS)
        if not self.is_limited:
            # Less than the limit was asked for in between, or as much as it is.
            return max(self._base, measured)
        if not self._admitted:
            # The pace has not been growing: it has been waiting for one call to be admitted.
            return self._base * (KEPT if self._is_known else 0.5)
        if self._is_known:
            return KEPT * self.rate(now)
        self._is_known = True
        return max(measured, self.rate(now) / 2)

    def _periods(self, now: float) -> float:
        return (now - self._refused_at) * min(1.0, self._base)
