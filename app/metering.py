"""What a call costs beyond the one request that it is."""

from collections.abc import Callable

from app.counters import Counters
from app.errors import InvalidRequest, RateLimited
from app.quotas import Quota, Standing, blocking
from app.security_events import note_once


def exceeded(
    quota: Quota,
    standing: Standing,
    counted: str,
    *,
    cost: int = 1,
    message: str | None = None,
    key_id: str | None = None,
) -> RateLimited:
    """Say which window refused, and when all of them will admit this cost.

    Args:
        counted: under what the caller is counted.
        key_id: of the key that was refused, if the limit is one of refused keys.
    """
    window, wait = blocking(quota, standing, cost)
    note_once(
        "limit_reached",
        (quota.scope, counted, key_id or ""),
        wait,
        counted_by=quota.scope,
        limit=window.amount,
        window_seconds=window.seconds,
        **({} if key_id is None else {"key_id": key_id}),
    )
    return RateLimited(
        message or f"Rate limit exceeded: {window.amount} requests per {window.seconds} seconds.",
        retry_after=wait,
        details={
            "limited_by": "gateway",
            "counted_by": quota.scope,
            "limit": window.amount,
            "window_seconds": window.seconds,
        },
    )


class Meter:
    """Charges the devices of one call, or connection, to the limit of its caller; the first one is paid for.

    Args:
        tell: called with where the caller stands after each charge.
    """

    def __init__(
        self, counters: Counters, quota: Quota, key: str, tell: Callable[[Quota, Standing], None]
    ) -> None:
        self._counters, self._quota, self._key, self._tell = counters, quota, key, tell
        self._prepaid = 1

    async def charge(self, devices: int, field: str) -> None:
        """Charge all the devices of a call together.

        Args:
            field: where the caller named them.

        Raises:
            RateLimited: they do not all fit into what is left; nothing was charged.
            InvalidRequest: so many would never fit.
        """
        most = self._quota.most_at_once
        if devices > most:
            issue = f"names {devices} devices, and the rate limit admits {most} at once: split the call"
            details = {"field": field, "issue": issue, "limited_by": "gateway", "limit": most}
            raise InvalidRequest(f"{field}: {issue}", details=details)
        cost, self._prepaid = devices - self._prepaid, 0
        if cost > 0:
            standing = await self._take(cost)
            if not standing.granted:
                # The next attempt is a request again, so it needs room for all of them.
                raise exceeded(self._quota, standing, self._key, cost=devices)

    async def grant(self, devices: int) -> tuple[int, RateLimited | None]:
        """Charge as many of these devices as fit into what is left; return how many, and why not the rest."""
        free = min(self._prepaid, devices)
        self._prepaid -= free
        if devices == free:
            return devices, None
        standing = await self._take(devices - free, partly=True)
        granted = free + standing.granted
        return granted, None if granted == devices else exceeded(self._quota, standing, self._key)

    async def _take(self, cost: int, *, partly: bool = False) -> Standing:
        standing = await self._counters.take(self._quota, self._key, cost, partly=partly)
        self._tell(self._quota, standing)
        return standing
