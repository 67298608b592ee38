"""How an upload lives with ThingsBoard's rate limit, and with its slowness."""

import asyncio
from collections.abc import Callable

import pytest

from app.errors import BreakerOpen, GatewayError, NotFound, UpstreamBusy, UpstreamFailed, UpstreamTimeout
from app.services.pacing import LONGEST_DELAY_SECONDS, PATIENCE_SECONDS, Pacer
from app.thingsboard.client import UPLOAD_REPEATS
from app.thingsboard.retry import ATTEMPTS, RetryBudget

WORKERS = 16


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

    def pacer(self) -> Pacer:
        repeats = RetryBudget(UPLOAD_REPEATS)
        return Pacer(WORKERS, repeats=repeats, clock=self.clock, sleep=self.sleep)


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


class Crowded:
    """A ThingsBoard that is too slow while more than so many calls are under way."""

    def __init__(self, error: Callable[[], GatewayError], *, bearable: int) -> None:
        self.error, self.bearable = error, bearable
        self.running = self.most = self.failed = self.made = 0

    async def call(self) -> str:
        self.made += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        is_crowded = self.running > self.bearable
        await asyncio.sleep(0)
        self.running -= 1
        if is_crowded:
            self.failed += 1
            raise self.error()
        return "stored"


def unavailable() -> GatewayError:
    return UpstreamFailed(note="upstream_503")


async def test_nothing_is_lost_and_little_is_refused() -> None:
    time = Time()
    bucket = Bucket(time, rate=10, burst=20)
    pacer = time.pacer()
    waiting = iter(range(300))

    async def worker() -> int:
        done = 0
        for _ in waiting:
            assert await pacer.run(bucket.call) == "stored"
            done += 1
        return done

    assert sum(await asyncio.gather(*(worker() for _ in range(WORKERS)))) == 300
    # 20 at once and then 10 a second: the ideal is 28 s.
    assert time.now < 60
    assert bucket.refused < 300


@pytest.mark.parametrize("error", [UpstreamBusy, BreakerOpen, UpstreamTimeout, unavailable])
async def test_patience_ends_and_from_then_on_nothing_is_asked(error: Callable[[], GatewayError]) -> None:
    time, pacer, calls = Time(), None, 0

    async def refused() -> None:
        nonlocal calls
        calls += 1
        raise error()

    pacer = time.pacer()
    failed = 0
    while time.now <= PATIENCE_SECONDS:
        with pytest.raises(type(error())):
            await pacer.run(refused, is_repeatable=True)
        failed += 1
    assert time.now < PATIENCE_SECONDS + 2 * LONGEST_DELAY_SECONDS
    assert max(time.slept) <= LONGEST_DELAY_SECONDS
    before = calls
    with pytest.raises(type(error())):
        await pacer.run(refused, is_repeatable=True)
    assert calls == before
    assert failed < 20


async def test_who_waits_when_patience_ends_is_told_too() -> None:
    time = Time()
    pacer = time.pacer()

    async def refused() -> None:
        raise UpstreamBusy

    outcomes = await asyncio.gather(*(pacer.run(refused) for _ in range(50)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {UpstreamBusy}
    assert len({id(outcome) for outcome in outcomes}) == 50
    assert time.now < PATIENCE_SECONDS + 2 * LONGEST_DELAY_SECONDS


async def test_other_errors_are_not_repeated() -> None:
    time, calls = Time(), 0

    async def missing() -> None:
        nonlocal calls
        calls += 1
        raise NotFound

    with pytest.raises(NotFound):
        await time.pacer().run(missing, is_repeatable=True)
    assert (calls, time.slept) == (1, [])


@pytest.mark.parametrize("error", [UpstreamTimeout, unavailable])
async def test_slowness_means_fewer_at_once_and_then_more_again(error: Callable[[], GatewayError]) -> None:
    time = Time()
    thingsboard = Crowded(error, bearable=4)
    pacer = time.pacer()
    waiting = iter(range(400))
    lost = 0

    async def worker() -> None:
        nonlocal lost
        for _ in waiting:
            try:
                await pacer.run(thingsboard.call, is_repeatable=True)
            except GatewayError:
                lost += 1

    await asyncio.gather(*(worker() for _ in range(WORKERS)))
    # All begin at once and fail; from then on it settles around what ThingsBoard bears.
    assert thingsboard.most == WORKERS
    assert thingsboard.failed < 80
    assert lost < 10
    assert thingsboard.made <= 400 * 1.1 + 2 * WORKERS
    thingsboard.bearable, thingsboard.most = WORKERS, 0
    waiting = iter(range(600))
    await asyncio.gather(*(worker() for _ in range(WORKERS)))
    assert thingsboard.most == WORKERS


@pytest.mark.parametrize(("is_repeatable", "calls"), [(True, ATTEMPTS), (False, 1), (None, 1)])
async def test_what_may_have_been_carried_out_is_repeated_only_if_that_does_no_harm(
    is_repeatable: bool | None, calls: int
) -> None:
    made = 0

    async def slow() -> None:
        nonlocal made
        made += 1
        raise UpstreamTimeout

    with pytest.raises(UpstreamTimeout):
        await Time().pacer().run(slow, is_repeatable=is_repeatable)
    assert made == calls


async def test_what_was_refused_is_repeated_whatever_it_is() -> None:
    answers = iter([UpstreamBusy(), BreakerOpen(), UpstreamBusy()])

    async def call() -> str:
        for error in answers:
            raise error
        return "stored"

    assert await Time().pacer().run(call, is_repeatable=False) == "stored"


async def test_who_is_cancelled_while_waiting_leaves_its_place_to_others() -> None:
    has_waited, time = asyncio.Event(), Time()

    async def sleep(seconds: float) -> None:
        if not has_waited.is_set():
            has_waited.set()
            await asyncio.Event().wait()
        await time.sleep(seconds)

    pacer = Pacer(WORKERS, clock=time.clock, sleep=sleep)
    answers = iter([UpstreamBusy()])

    async def call() -> str:
        for error in answers:
            raise error
        return "stored"

    impatient = asyncio.create_task(pacer.run(call))
    await has_waited.wait()
    patient = asyncio.create_task(pacer.run(call))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == "stored"


async def test_an_unknown_device_is_an_answer_too() -> None:
    """While the limit is used up, a call that is admitted and finds nothing is still admitted."""
    time = Time()
    pacer = time.pacer()
    answers = iter([UpstreamBusy(), NotFound()] * 100)

    async def call() -> None:
        raise next(answers)

    for _ in range(60):
        with pytest.raises(NotFound):
            await pacer.run(call, is_repeatable=True)
        time.now += 10
