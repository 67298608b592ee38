"""The queue's rules one by one; all of them together are in test_fair_queue_model.py. Time is virtual."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from app.errors import Overloaded, UpstreamBusy
from app.thingsboard import fair_queue
from app.thingsboard.fair_queue import FairQueue, Turn
from tests.virtual_time import VirtualTime

FAR = 1e6


@pytest.fixture
def loop() -> Iterator[VirtualTime]:
    loop = VirtualTime()
    yield loop
    loop.close()


class Callers:
    """Calls of several keys; who gets a turn is written down, and keeps it until told otherwise."""

    def __init__(self, loop: VirtualTime, in_flight: int) -> None:
        self.loop, self.queue = loop, FairQueue(in_flight)
        self.order: list[str] = []
        self.turns: list[Turn] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def come(self, *names: str, until: float = FAR, is_return: bool = False) -> asyncio.Task[Any]:
        """Let calls come; the letter of a name is its key."""
        for name in names:
            self.tasks.append(self.loop.create_task(self._call(name, until, is_return=is_return)))
        self.loop.settle()
        return self.tasks[-1]

    async def _call(self, name: str, until: float, *, is_return: bool) -> None:
        turn = self.queue.take(name[0], self.loop.time())
        turn = turn or await self.queue.wait(name[0], until, is_return=is_return)
        self.order.append(name)
        self.turns.append(turn)

    def answer(self, count: int = 1, *, after: float = 0.0, is_refused: bool | None = False) -> None:
        """Answer the oldest calls in flight, one after the other."""
        for _ in range(count):
            self.loop.settle(after)
            self.end(is_refused=is_refused)
            self.loop.settle()

    def end(self, *, is_refused: bool | None = False) -> None:
        """Answer the oldest call in flight; nobody has heard of it yet."""

        async def end() -> None:
            self.queue.end(self.turns.pop(0), self.loop.time(), is_refused=is_refused)

        self.loop.run_until_complete(end())

    def leave_when_served(self, gone: asyncio.Task[Any]) -> None:
        """Answer the oldest call in flight, and let the next one's caller leave before it hears of that."""

        async def end() -> None:
            self.queue.end(self.turns.pop(0), self.loop.time(), is_refused=False)
            gone.cancel()

        self.loop.run_until_complete(end())

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.loop.settle()


MakeCallers = Callable[[int], Callers]


@pytest.fixture
def make_callers(loop: VirtualTime) -> Iterator[MakeCallers]:
    made: list[Callers] = []

    def make(in_flight: int) -> Callers:
        made.append(Callers(loop, in_flight))
        return made[-1]

    yield make
    for callers in made:
        callers.close()


@pytest.fixture
def one_at_a_time(make_callers: MakeCallers) -> Callers:
    return make_callers(1)


def test_keys_take_turns_and_each_is_served_in_order(one_at_a_time: Callers) -> None:
    one_at_a_time.come("a1", "a2", "a3", "a4", "b1", "b2", "c1", "a5")
    one_at_a_time.answer(7)
    assert one_at_a_time.order == ["a1", "a2", "b1", "c1", "a3", "b2", "a4", "a5"]


def test_the_gateways_own_work_has_a_turn_like_a_key(one_at_a_time: Callers) -> None:
    queue = one_at_a_time.queue
    one_at_a_time.come("a1", "a2", "a3")
    own = one_at_a_time.loop.create_task(queue.wait("", FAR))
    one_at_a_time.answer(2)
    assert own.done()
    assert queue.in_flight == 1


def test_one_key_leaves_something_to_the_next_to_come(make_callers: MakeCallers) -> None:
    callers = make_callers(64)
    callers.come(*(f"a{n}" for n in range(100)))
    assert (callers.queue.in_flight, callers.queue.waiting) == (56, 44)
    callers.come("b1", "b2")
    assert callers.order[-2:] == ["b1", "b2"]
    callers.answer(56)
    assert callers.queue.in_flight == 46


def test_many_keys_at_once_use_every_place(make_callers: MakeCallers) -> None:
    callers = make_callers(10)
    callers.come(*(f"{key}{n}" for key in "abcdefghij" for n in range(3)))
    assert callers.queue.in_flight == 10


def test_one_key_cannot_fill_the_queue(one_at_a_time: Callers, loop: VirtualTime) -> None:
    own = fair_queue.MAXIMUM_WAITING * fair_queue.GENEROSITY // (fair_queue.GENEROSITY + 1)
    one_at_a_time.come(*["a"] * (own + 1))
    assert one_at_a_time.queue.waiting == own
    refused = one_at_a_time.come("a")
    error = refused.exception()
    assert isinstance(error, Overloaded)
    assert (error.note, error.retry_after) == ("upstream_queue_full", 1.0)
    assert not one_at_a_time.come("b").done()
    # Whoever has had a place before gets it back.
    assert not one_at_a_time.come("a", is_return=True).done()
    assert one_at_a_time.queue.counts.full == 1


def test_the_queue_has_an_end(one_at_a_time: Callers) -> None:
    one_at_a_time.come(*(chr(0x4E00 + n) for n in range(fair_queue.MAXIMUM_WAITING + 2)))
    assert one_at_a_time.queue.waiting == fair_queue.MAXIMUM_WAITING
    assert isinstance(one_at_a_time.tasks[-1].exception(), Overloaded)


def test_a_turn_that_comes_too_late_is_none(one_at_a_time: Callers, loop: VirtualTime) -> None:
    one_at_a_time.come("a1")
    late = one_at_a_time.come("a2", until=3.0)
    loop.settle(2.9)
    assert not late.done()
    loop.settle(0.2)
    error = late.exception()
    assert isinstance(error, Overloaded)
    assert error.note == "upstream_queue_slow"
    one_at_a_time.answer()
    assert one_at_a_time.queue.in_flight == 0
    assert one_at_a_time.queue.counts.too_late == 1


def test_a_turn_that_would_come_too_late_is_refused_at_once(
    one_at_a_time: Callers, loop: VirtualTime
) -> None:
    """Calls take four seconds: the third in the queue would wait for longer than it will."""
    one_at_a_time.come("a")
    for _ in range(60):
        one_at_a_time.come("a")
        one_at_a_time.answer(after=4.0)
    one_at_a_time.come("a")
    assert not one_at_a_time.come("a", until=loop.time() + 10).done()
    error = one_at_a_time.come("a", until=loop.time() + 10).exception()
    assert isinstance(error, Overloaded)
    assert 11 < (error.retry_after or 0) < 13
    # It is next but one.
    assert not one_at_a_time.come("b", until=loop.time() + 10).done()


def test_time_outs_count_as_slow_and_what_ends_at_once_does_not(
    one_at_a_time: Callers, loop: VirtualTime
) -> None:
    one_at_a_time.come("a1")
    one_at_a_time.answer(after=16.0, is_refused=None)
    slow = one_at_a_time.queue._call_seconds
    assert slow == pytest.approx(1.0)
    one_at_a_time.come("a2")
    one_at_a_time.answer(is_refused=None)
    assert one_at_a_time.queue._call_seconds == slow


def test_nobody_waits_who_will_not(one_at_a_time: Callers, loop: VirtualTime) -> None:
    one_at_a_time.come("a1")
    assert isinstance(one_at_a_time.come("a2", until=loop.time()).exception(), Overloaded)


def test_a_caller_who_leaves_leaves_no_hole(one_at_a_time: Callers, loop: VirtualTime) -> None:
    one_at_a_time.come("a1", "a2", "b1", "a3")
    for gone in one_at_a_time.tasks[1:3]:
        gone.cancel()
    loop.settle()
    one_at_a_time.answer()
    assert one_at_a_time.order == ["a1", "a3"]
    one_at_a_time.answer()
    queue = one_at_a_time.queue
    assert (queue.in_flight, queue.waiting, queue._lines, queue._held) == (0, 0, {}, {})


def test_a_place_given_to_a_caller_who_is_just_leaving_goes_on(
    one_at_a_time: Callers, loop: VirtualTime
) -> None:
    one_at_a_time.come("a1", "a2", "b1")
    one_at_a_time.leave_when_served(one_at_a_time.tasks[1])
    loop.settle()
    assert one_at_a_time.order == ["a1", "b1"]
    assert one_at_a_time.queue.in_flight == 1


def test_a_place_is_not_given_to_a_caller_who_has_just_left(
    one_at_a_time: Callers, loop: VirtualTime
) -> None:
    one_at_a_time.come("a1", "a2", "a3", "b1")
    one_at_a_time.tasks[1].cancel()
    one_at_a_time.answer()
    assert one_at_a_time.order == ["a1", "a3"]
    assert (one_at_a_time.queue.in_flight, one_at_a_time.queue.waiting) == (1, 1)


class TestThingsBoardsLimit:
    """429: what has returned goes first within its key, at the pace, one at a time until one is admitted."""

    def test_what_was_refused_goes_again_before_others_of_its_key(
        self, make_callers: MakeCallers, loop: VirtualTime
    ) -> None:
        callers = make_callers(8)
        callers.come("a1", "a2", "a3")
        callers.answer(3, is_refused=True)
        callers.order.clear()
        callers.come("a4", "b1")
        callers.come("a1", "a2", "a3", is_return=True)
        for _ in range(6):
            loop.settle(1.0)
            while callers.turns:
                callers.answer()
        assert callers.order == ["a1", "b1", "a2", "a3", "a4"]
        assert callers.queue.counts.upstream_refusals == 3

    def test_one_call_finds_out_while_the_others_wait(
        self, make_callers: MakeCallers, loop: VirtualTime
    ) -> None:
        callers = make_callers(8)
        callers.come("a1")
        callers.answer(is_refused=True)
        callers.come("a2", "b1", "c1")
        loop.settle(60.0)
        assert callers.order == ["a1", "a2"]
        callers.answer()
        loop.settle(5.0)
        assert callers.order == ["a1", "a2", "b1", "c1"]

    def test_a_probe_that_is_given_up_hands_on_its_role(
        self, make_callers: MakeCallers, loop: VirtualTime
    ) -> None:
        callers = make_callers(8)
        callers.come("a1")
        callers.answer(is_refused=True)
        callers.come("a2", "b1")
        loop.settle(1.0)
        callers.answer(is_refused=None)
        loop.settle(1.0)
        assert callers.order == ["a1", "a2", "b1"]

    def test_who_would_wait_too_long_is_told_at_once_whose_limit_it_is(
        self, make_callers: MakeCallers, loop: VirtualTime
    ) -> None:
        callers = make_callers(8)
        for seconds in (0.0, 1.0, 1.0):
            # Once admitted and once refused: the pace is known then, and it is slow.
            callers.come("a1")
            callers.answer(after=seconds)
            callers.come("a1")
            callers.answer(is_refused=True)
        rate = callers.queue.pace.rate(loop.time())
        callers.come(*["a"] * int(rate * 10 - 2), until=loop.time() + 10)
        assert callers.queue.waiting == int(rate * 10 - 2)
        error = callers.come(*["a"] * 5, until=loop.time() + 10).exception()
        assert isinstance(error, UpstreamBusy)
        assert error.details == {"limited_by": "thingsboard"}
        assert error.retry_after == pytest.approx(10, abs=1)
        assert not callers.come("b", until=loop.time() + 10).done()
        assert 1 <= callers.queue.counts.limited < 5

    def test_the_wait_ends_although_nothing_is_admitted(
        self, make_callers: MakeCallers, loop: VirtualTime
    ) -> None:
        callers = make_callers(8)
        callers.come("a1")
        callers.answer(is_refused=True)
        waiting = callers.come("a2", "a3", until=loop.time() + 10)
        loop.settle(11.0)
        error = waiting.exception()
        assert isinstance(error, UpstreamBusy)
        assert (error.retry_after or 0) >= 1


def test_calls_that_must_not_wait_are_served_again_after_a_refusal(loop: VirtualTime) -> None:
    """`TB_QUEUE_SECONDS=0`: nothing ever waits, so nothing but a new call can find out."""
    queue = FairQueue(4)
    turn = queue.take("a", loop.time())
    assert turn is not None
    queue.end(turn, loop.time(), is_refused=True)
    assert queue.take("a", loop.time()) is None
    loop.settle(1.0)
    probe = queue.take("a", loop.time())
    assert probe is not None
    assert queue.take("b", loop.time()) is None
    queue.end(probe, loop.time(), is_refused=False)
    loop.settle(60.0)
    assert queue.take("b", loop.time()) is not None
    assert not queue.pace.is_limited


def test_an_undisturbed_call_leaves_no_trace(loop: VirtualTime) -> None:
    queue = FairQueue(4)
    for _ in range(100):
        turn = queue.take("a", loop.time())
        assert turn is not None
        queue.end(turn, loop.time(), is_refused=False)
    assert (queue.in_flight, queue.waiting, queue._held, queue.counts.waited) == (0, 0, {}, 0)


def test_uvloops_handles_of_what_is_due_at_once_disturb_nobody() -> None:
    """It makes no timer of them, so they cannot tell when they are due. A busy loop is late that often."""

    async def story() -> None:
        queue, now = FairQueue(1), asyncio.get_running_loop().time()
        for moment in (now - 1, now - 2, now - 1):
            queue._serve_at(moment)
        await asyncio.sleep(0)
        assert queue._timer is None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())
