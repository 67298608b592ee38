"""ThingsBoard's REST limit of a tenant: full buckets at first, then continuous refill (rate_limit.json)."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    capacity: float
    seconds: float
    tokens: float
    filled_at: float

    def refill(self, now: float) -> None:
        gained = (now - self.filled_at) * self.capacity / self.seconds
        self.tokens = min(self.capacity, self.tokens + gained)
        self.filled_at = now


class RateLimits:
    """The buckets of each limited tenant; JWTs, API keys and customer users of a tenant share them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, list[_Bucket]] = {}

    @property
    def active(self) -> bool:
        """True when any tenant is limited."""
        return bool(self._buckets)

    def configure(self, tenant: str, limits: str | None) -> None:
        """Set ``"3:1,10:60"`` (3 a second and 10 a minute), or no limit with None."""
        self._buckets.pop(tenant, None)
        if not limits:
            return
        now = self._clock()
        pairs = [part.split(":") for part in limits.split(",")]
        self._buckets[tenant] = [_Bucket(float(n), float(s), float(n), now) for n, s in pairs]

    def admit(self, tenant: str) -> bool:
        """Take one call from all buckets of a tenant; a refused call costs nothing."""
        buckets = self._buckets.get(tenant)
        if not buckets:
            return True
        now = self._clock()
        for bucket in buckets:
            bucket.refill(now)
        if any(bucket.tokens < 1 for bucket in buckets):
            return False
        for bucket in buckets:
            bucket.tokens -= 1
        return True
