"""Counters for rate limits, behind the storage interface of `limits.aio`.

`limits`' own memory storage sweeps every key at each hit (2.2 ms of CPU at 100 addresses) and has no bound,
so this one expires by age and evicts beyond a bound. See `docs/adr/0002-rate-limits.md`.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

import structlog
from limits.aio.storage import Storage
from pydantic import SecretStr

log = structlog.get_logger("counters")

#: Addresses remembered at once: about 20 MiB; the least recently started window goes first.
MAXIMUM_KEYS = 100_000
#: Redis answers in under a millisecond; a caller never waits longer than this for it.
REDIS_TIMEOUT_SECONDS = 0.05
#: After a failure Redis is left alone this long, or every request would pay the time-out.
REDIS_RETRY_SECONDS = 1.0
REDIS_CONNECTIONS = 8


class MemoryStorage(Storage):
    """Fixed windows in this process: exact, bounded, lost with the process."""

    STORAGE_SCHEME = None

    def __init__(self, *, maximum_keys: int = MAXIMUM_KEYS, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._maximum, self._clock = maximum_keys, clock
        self._windows: OrderedDict[str, tuple[int, float]] = OrderedDict()

    @property
    def base_exceptions(self) -> type[Exception]:
        """Nothing here can fail."""
        return ArithmeticError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count and return the total of the running window; the first hit starts it."""
        now = self._clock()
        count, expires = self._windows.get(key, (0, 0.0))
        if expires <= now:
            count, expires = 0, now + expiry
            self._windows.pop(key, None)
            self._make_room(now)
        self._windows[key] = (count + amount, expires)
        return count + amount

    def _make_room(self, now: float) -> None:
        # Windows of one length expire in the order of their start, which is the order of the dict.
        while self._windows:
            oldest = next(iter(self._windows))
            if self._windows[oldest][1] > now and len(self._windows) < self._maximum:
                return
            del self._windows[oldest]

    async def get(self, key: str) -> int:
        """Return the count of the running window, 0 when there is none."""
        count, expires = self._windows.get(key, (0, 0.0))
        return count if expires > self._clock() else 0

    async def get_expiry(self, key: str) -> float:
        """Return the end of the running window in seconds since the epoch."""
        return max(self._windows.get(key, (0, 0.0))[1], self._clock())

    async def check(self) -> bool:
        """Say that this storage works."""
        return True

    async def reset(self) -> int:
        """Forget everything."""
        count = len(self._windows)
        self._windows.clear()
        return count

    async def clear(self, key: str) -> None:
        """Forget one key."""
        self._windows.pop(key, None)


class RedisStorage(Storage):
    """Windows shared by all workers and replicas; counts in memory while Redis is away, and says so."""

    STORAGE_SCHEME = None

    def __init__(self, url: SecretStr, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        # Imported here: only deployments with Redis pay for it.
        from limits.aio.storage import RedisStorage as LimitsRedisStorage  # noqa: PLC0415
        from redis.asyncio import BlockingConnectionPool  # noqa: PLC0415
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415

        self._pool = BlockingConnectionPool.from_url(
            url.get_secret_value(),
            max_connections=REDIS_CONNECTIONS,
            timeout=REDIS_TIMEOUT_SECONDS,
            socket_timeout=REDIS_TIMEOUT_SECONDS,
            socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = LimitsRedisStorage(
            url.get_secret_value(),
            implementation="redispy",
            key_prefix="tbgw",
            connection_pool=self._pool,  # type: ignore[arg-type]  # documented, but typed as a plain option
        )
        self._memory = MemoryStorage()
        self._clock, self._retry_at, self.is_up = clock, 0.0, True

    @property
    def base_exceptions(self) -> type[Exception]:
        """Failures of Redis are answered from memory and never leave."""
        return ArithmeticError

    def _storage(self) -> Storage:
        return self._redis if self._clock() >= self._retry_at else self._memory

    def _failed(self, error: Exception) -> None:
        self._retry_at = self._clock() + REDIS_RETRY_SECONDS
        if self.is_up:
            log.error("redis_unavailable", error_type=type(error).__name__, limits="counted in this process")
        self.is_up = False

    def _worked(self) -> None:
        if not self.is_up:
            log.warning("redis_back")
        self.is_up = True

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count in Redis, or in memory while Redis is away."""
        if self._storage() is self._redis:
            try:
                count = await self._redis.incr(key, expiry, amount)
            except Exception as error:  # noqa: BLE001 - redis-py raises many kinds; none may fail a request
                self._failed(error)
            else:
                self._worked()
                return count
        return await self._memory.incr(key, expiry, amount)

    async def get(self, key: str) -> int:
        """Return the count, from where it is kept now."""
        if self._storage() is self._redis:
            try:
                return await self._redis.get(key)
            except Exception as error:  # noqa: BLE001 - as in incr
                self._failed(error)
        return await self._memory.get(key)

    async def get_expiry(self, key: str) -> float:
        """Return the end of the window, from where it is kept now."""
        if self._storage() is self._redis:
            try:
                return await self._redis.get_expiry(key)
            except Exception as error:  # noqa: BLE001 - as in incr
                self._failed(error)
        return await self._memory.get_expiry(key)

    async def check(self) -> bool:
        """Tell whether Redis answers."""
        with suppress(Exception):
            return await self._redis.check()
        return False

    async def reset(self) -> int | None:
        """Forget everything."""
        await self._memory.reset()
        return await self._redis.reset()

    async def clear(self, key: str) -> None:
        """Forget one key."""
        await self._memory.clear(key)
        await self._redis.clear(key)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()
