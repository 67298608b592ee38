"""Counts what may be guessed at: log-ins and sign-ups of a client address, claim codes of a user."""

import ipaddress
import time

from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from examples.smart_home.errors import TooManyAttempts


class Attempts:
    """One limit, such as ``10/minute``, for each of whoever tries."""

    def __init__(self, limit: str) -> None:
        self._limit = parse(limit)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def count(self, who: str) -> None:
        """Count one.

        Raises:
            TooManyAttempts: the limit is used up; nothing was counted.
        """
        if not await self._limiter.hit(self._limit, who):
            window = await self._limiter.get_window_stats(self._limit, who)
            raise TooManyAttempts(retry_after=max(1, round(window.reset_time - time.time())))


def place_of(address: str | None) -> str:
    """Return what an address counts as: IPv6 by /64, which is what one customer gets."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
