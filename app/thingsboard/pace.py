"""How fast ThingsBoard lets calls through, learned from what it refuses. Times are monotonic seconds.

It says 429 and nothing more. Its buckets refill continuously after a burst and refused calls cost nothing
(facts in rate_limit.json), so both when it refuses and when it refuses again a bucket is empty: what was
admitted in between is what was refilled. The reasons are in docs/adr/0011-fair-share.md.
"""

import math

from app.thingsboard.retry import EARNED_PER_CALL, MAXIMUM_SAVED

#: Where the search begins when nothing is known, in calls a second.
FIRST_RATE = 20.0
LEAST_RATE = 1 / 60
#: What is kept of the pace at a refusal, and of that again to begin with, so that the bucket gains something.
#: With 0.7 three processes on one bucket starve each other; with 0.9 they are refused half as often again.
KEPT = 0.85
CAUTION = 0.9
#: Periods without a refusal after which the limit counts as over. One is a second, or a call of a slow pace.
PERIODS_TO_OPEN = 10.0
#: While ThingsBoard admits nothing at all, a call tries again at least so often, as far as the purse goes.
TRIAL_SECONDS = 2.0
#: Refusals in a row after which the pace that was measured says nothing any more.
FORGOTTEN_AFTER = 10
#: Timers are late and coarse: so much of the pace may be made good.
SLACK_SECONDS = 0.01
TIMER_SECONDS = 0.001


class Pace:
    """Full speed until a refusal; then so many calls a second, a little more each second. One a tenant.

    The pace is found by doubling, measured at the next refusal, and from then on lowered by a part at each
    refusal. After each of them one call at a time finds out, until one is admitted. Several processes that
    share a bucket unseen come to share its refill that way. Refusals in a row are not of a bucket that is
    refilled: then the pace is looked for anew.
    """

    def __init__(self) -> None:
        self.is_limited = False
        #: How often ThingsBoard refused, not counting calls that had left before they could know.
        self.refusals = 0
        self._base, self._is_known = FIRST_RATE, False
        self._refused_at = self._next_at = 0.0
        #: When the first call after the last refusal was admitted.
        self._admitted_at = 0.0
        self._admitted = self._probes = 0
        self._is_probing = False
        #: Refusals since a call was admitted.
        self._in_vain = 0
        #: Calls that may leave beyond those that callers make, so that few are made again.
        self._purse = MAXIMUM_SAVED

    def rate(self, now: float) -> float:
        """Return the calls a second that may leave now; infinity while there is no limit."""
        if not self.is_limited:
            return math.inf
        periods = self._periods(now)
        if self._is_known:
            # Back to what was measured, slowly past it, then faster.
            growth = CAUTION + periods / 20 + (periods / 10) ** 2
        else:
            # A search that doubles, from the first call that is admitted.
            growth = 1.0 if self._is_probing else 2 ** min(periods, PERIODS_TO_OPEN)
        return self._base * growth

    def asked(self) -> None:
        """Note that a caller makes a call while there is a limit, whether or not it will be sent."""
        self._purse = min(MAXIMUM_SAVED, self._purse + 1 + EARNED_PER_CALL)
        self._hasten_trial()

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
        return max(0.0, self._next_at - now) + self._seconds_for(position - 1, now)

    def leave(self, now: float) -> int:
        """Note that a call leaves, and return its epoch: which refusals it knew of."""
        if self.is_limited:
            self._next_at = max(self._next_at, now - SLACK_SECONDS) + self._seconds_for(1, now)
            self._probes += self._is_probing
            self._purse = max(0.0, self._purse - 1)
        return self.refusals

    def admitted(self, epoch: int, now: float) -> None:
        """Note an answer that is no refusal."""
        self._admitted += 1
        if epoch == self.refusals and self._is_probing:
            self._is_probing, self._in_vain, self._admitted_at = False, 0, now
            if not self._is_known:
                if self._purse >= 1:
                    # Trials were soon; a limit of few calls a minute has no such purse.
                    self._base = max(self._base, 1 / TRIAL_SECONDS)
                self._next_at = min(self._next_at, now + self._seconds_for(1, now))

    def abandoned(self, epoch: int) -> None:
        """Note a call that ended without an answer."""
        if epoch == self.refusals:
            self._probes -= self._is_probing

    def refused(self, epoch: int, now: float) -> None:
        """Note a 429."""
        if epoch != self.refusals:
            return
        if not self.is_limited:
            self._purse = min(MAXIMUM_SAVED, self._purse + self._admitted * EARNED_PER_CALL)
        if self.refusals:
            self._base = max(LEAST_RATE, self._learn(now))
        self.refusals += 1
        self.is_limited = self._is_probing = True
        self._probes = self._admitted = 0
        self._refused_at = self._admitted_at = now
        self._next_at = now + 1 / self.rate(now)
        self._hasten_trial()

    def _learn(self, now: float) -> float:
        """Return the pace after a refusal that is not the first."""
        measured = self._admitted / max(now - self._refused_at, TIMER_SECONDS)
        if not self.is_limited:
            # Less than the limit was asked for in between, or as much as it is.
            return max(self._base, measured)
        if not self._admitted:
            # The pace has not been growing: it has been waiting for one call to be admitted.
            return self._wait_longer()
        if self._is_known:
            return KEPT * self.rate(now)
        self._is_known = True
        return max(measured, self.rate(now) / 2)

    def _wait_longer(self) -> float:
        self._in_vain += 1
        if self._in_vain >= FORGOTTEN_AFTER:
            self._is_known = False
        return self._base * (KEPT if self._is_known else 0.5)

    def _hasten_trial(self) -> None:
        """Let a call find out soon whether there is a pace again, if the purse pays for it."""
        if self._is_probing and not self._is_known and self._purse >= 1:
            self._next_at = min(self._next_at, self._refused_at + TRIAL_SECONDS)

    def _seconds_for(self, calls: int, now: float) -> float:
        """Return how long so many calls take."""
        rate = self.rate(now)
        # A pace that is still searched for doubles each second.
        return calls / rate if self._is_known else math.log2(1 + calls * math.log(2) / rate)

    def _periods(self, now: float) -> float:
        """Return the time without a refusal, in seconds; in calls while they are slower than one a second."""
        if self._is_known or self._is_probing:
            return (now - self._refused_at) * min(1.0, self._base)
        return now - self._admitted_at
