"""More calls than can be served, for longer than a burst lasts. Time is virtual."""

import asyncio
from math import inf

import pytest

from app.errors import Overloaded
from app.thingsboard import fair_queue
from app.thingsboard.fair_queue import FairQueue
from tests.virtual_time import run

SECONDS = 60
#: One key has seven of eight places, and a call takes half a second.
PLACES, CALL_SECONDS, BEARABLE = 8, 0.5, 14
#: Callers give up sooner than a queue may let them wait.
GIVES_UP, MAY_WAIT = 5, 10


async def overloaded(queue: FairQueue) -> list[tuple[float, float]]:
    """Call ten times as often as can be served; return when each good answer came, and how long it took."""
    clock = asyncio.get_running_loop().time
    good: list[tuple[float, float]] = []

    async def call() -> None:
        came = clock()
        try:
            async with asyncio.timeout(GIVES_UP):
                turn = queue.take("a", came) or await queue.wait("a", came + MAY_WAIT)
                try:
                    await asyncio.sleep(CALL_SECONDS)
                finally:
                    queue.end(turn, clock(), is_refused=False)
        except (Overloaded, TimeoutError):
            return
        good.append((clock(), clock() - came))

    calls = []
    for _ in range(SECONDS * BEARABLE * 10):
        calls.append(asyncio.create_task(call()))
        await asyncio.sleep(0.1 / BEARABLE)
    await asyncio.gather(*calls)
    return good


def test_ten_times_too_many_calls_leave_as_many_good_answers_as_there_can_be() -> None:
    queue = FairQueue(PLACES)
    good = run(overloaded(queue))
    assert len(good) > 0.95 * SECONDS * BEARABLE
    assert max(took for came, took in good if came > SECONDS / 2) < GIVES_UP / 2
    assert queue.counts.too_late > SECONDS * BEARABLE
    assert (queue.waiting, queue.in_flight) == (0, 0)


def test_without_that_care_most_turns_would_come_just_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the care is for; if this fails, it may be left out."""
    monkeypatch.setattr(fair_queue, "STANDING_SECONDS", inf)
    assert len(run(overloaded(FairQueue(PLACES)))) < 0.6 * SECONDS * BEARABLE


def test_a_burst_waits_as_long_as_it_may() -> None:
    """It is over when it is served; nobody of it is refused."""

    async def burst() -> float:
        clock = asyncio.get_running_loop().time
        queue = FairQueue(PLACES)

        async def call() -> None:
            turn = queue.take("a", clock()) or await queue.wait("a", clock() + MAY_WAIT)
            await asyncio.sleep(CALL_SECONDS)
            queue.end(turn, clock(), is_refused=False)

        await asyncio.gather(*(call() for _ in range(7 * 15)))
        return clock()

    assert run(burst()) == pytest.approx(15 * CALL_SECONDS)
