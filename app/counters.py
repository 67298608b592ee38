"""Counters for rate limits, behind the storage interface of `limits.aio`.

`limits`' own memory storage sweeps every key at each hit (2.2 ms of CPU at 100 addresses) and has no bound,
so this one expires by age and evicts beyond a bound. See `docs/adr/0002-rate-limits.md`.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

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
#: A reply may have arrived while a busy loop was late: let the loop take it before calling it missing.
GRACE_TURNS = 3
#: Counts a hit; the first one starts the window. Returns the total and the ms that are left.
COUNT = """
local count = redis.call('INCRBY', KEYS[1], ARGV[2])
if count == tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {count, redis.call('PTTL', KEYS[1])}
"""


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

    def learn(self, key: str, count: int, remaining_seconds: float) -> None:
        """Take over a window that is counted elsewhere."""
        now = self._clock()
        if key not in self._windows:
            self._make_room(now)
        self._windows[key] = (count, now + remaining_seconds)

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
    """Windows shared by all workers and replicas; counts in memory while Redis is away, and says so.

    One connection a process, one exchange at a time: what callers ask meanwhile goes together in the next.
    (A pool with the same time-out lost 1,570 of 3,000 hits to a storm of new connections.) The last known
    windows are kept in memory: they answer what the headers need, and they are where counting goes on when
    Redis is lost.
    """

    STORAGE_SCHEME = None

    def __init__(self, url: SecretStr, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        # Imported here: only deployments with Redis pay for it.
        from redis.asyncio import Redis  # noqa: PLC0415
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415

        self._redis = Redis.from_url(
            url.get_secret_value(),
            socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._known = MemoryStorage()
        self._clock, self._retry_at, self.is_up = clock, 0.0, True
        self._waiting: list[tuple[str, int, int, asyncio.Future[int]]] = []
        self._exchanging: asyncio.Task[None] | None = None

    @property
    def base_exceptions(self) -> type[Exception]:
        """Failures of Redis are answered from memory and never leave."""
        return ArithmeticError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count in Redis, or in memory while Redis is away."""
        if self._clock() < self._retry_at:
            return await self._known.incr(key, expiry, amount)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, expiry, amount, future))
        if self._exchanging is None:
            self._exchanging = asyncio.create_task(self._exchange_all())
        return await future

    async def _exchange_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    counts = await self._exchange([(key, expiry, amount) for key, expiry, amount, _ in batch])
                except Exception as error:  # noqa: BLE001 - redis-py raises many kinds; none may fail a request
                    self._failed(error)
                    counts = [await self._known.incr(key, expiry, amount) for key, expiry, amount, _ in batch]
                else:
                    self._worked()
                for (*_, future), count in zip(batch, counts, strict=True):
                    if not future.done():
                        future.set_result(count)
        finally:
            self._exchanging = None

    async def _exchange(self, hits: list[tuple[str, int, int]]) -> list[int]:
        pipe = self._redis.pipeline(transaction=False)
        for key, expiry, amount in hits:
            pipe.eval(COUNT, 1, f"tbgw:{{{key}}}", expiry * 1_000, amount)
        task = asyncio.ensure_future(pipe.execute())
        await asyncio.wait({task}, timeout=REDIS_TIMEOUT_SECONDS)
        for _ in range(GRACE_TURNS):
            if not task.done():
                await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            raise TimeoutError
        counts = []
        for (key, _, _), (count, remaining_ms) in zip(hits, task.result(), strict=True):
            self._known.learn(key, int(count), int(remaining_ms) / 1_000)
            counts.append(int(count))
        return counts

    def _failed(self, error: Exception) -> None:
        self._retry_at = self._clock() + REDIS_RETRY_SECONDS
        if self.is_up:
            log.error("redis_unavailable", error_type=type(error).__name__, limits="counted in this process")
        self.is_up = False

    def _worked(self) -> None:
        if not self.is_up:
            log.warning("redis_back")
        self.is_up = True

    async def get(self, key: str) -> int:
        """Return the count as of the last hit."""
        return await self._known.get(key)

    async def get_expiry(self, key: str) -> float:
        """Return the end of the window as of the last hit."""
        return await self._known.get_expiry(key)

    async def check(self) -> bool:
        """Tell whether Redis counts: a full one still answers PING."""
        try:
            await self._exchange([("check", 1, 1)])
        except Exception:  # noqa: BLE001 - whatever it is, it is down
            return False
        return True

    async def reset(self) -> int | None:
        """Forget what this process knows."""
        return await self._known.reset()

    async def clear(self, key: str) -> None:
        """Forget one key in this process."""
        await self._known.clear(key)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._redis.aclose()
