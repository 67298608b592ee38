"""How an upload lives with ThingsBoard's rate limit."""

import asyncio

import pytest

from app.errors import NotFound, UpstreamBusy
from app.services.pacing import LONGEST_DELAY_SECONDS, PATIENCE_SECONDS, Pacer


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Bucket:
    """ThingsBoard's limit: so many calls a second, refilled continuously, refusals free."""

    def __init__(self, time: Time, *, rate: float, burst: int) -> None:
        self.time, self.rate, self.burst = time, rate, burst
        self.tokens, self.at, self.refused = float(burst), 0.0, 0

    async def call(self) -> str:
        self.tokens = min(self.burst, self.tokens + (self.time.now - self.at) * self.rate)
        self.at = self.time.now
        if self.tokens < 1:
            self.refused += 1
            raise UpstreamBusy
        self.tokens -= 1
        return "stored"


async def test_nothing_is_lost_and_little_is_refused() -> None:
    time = Time()
    bucket = Bucket(time, rate=10, burst=20)
    pacer = Pacer(clock=time.clock, sleep=time.sleep)
    waiting = iter(range(300))

    async def worker() -> int:
        done = 0
        for _ in waiting:
            assert await pacer.run(bucket.call) == "stored"
            done += 1
        return done

    assert sum(await asyncio.gather(*(worker() for _ in range(16)))) == 300
    # 20 at once and then 10 a second: the ideal is 28 s.
    assert time.now < 60
    assert bucket.refused < 300


async def test_patience_ends() -> None:
    time = Time()

    async def refused() -> None:
        raise UpstreamBusy

    with pytest.raises(UpstreamBusy):
        await Pacer(clock=time.clock, sleep=time.sleep).run(refused)
    assert PATIENCE_SECONDS < time.now < PATIENCE_SECONDS + 2 * LONGEST_DELAY_SECONDS
    assert max(time.slept) <= LONGEST_DELAY_SECONDS


async def test_other_errors_are_not_repeated() -> None:
    time, calls = Time(), 0

    async def missing() -> None:
        nonlocal calls
        calls += 1
        raise NotFound

    with pytest.raises(NotFound):
        await Pacer(clock=time.clock, sleep=time.sleep).run(missing)
    assert (calls, time.slept) == (1, [])
