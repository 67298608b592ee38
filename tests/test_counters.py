"""Counting in memory: exact, all windows or none, bounded."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.counters import MAXIMUM_WINDOWS, MemoryCounters
from app.quotas import Quota, blocking, parse_quota
from tests.counting import QUOTAS, Oracle, attempts, pauses


class Clock:
    """Seconds; in steps of a ms that floats hold exactly enough."""

    def __init__(self) -> None:
        self.milliseconds = 1_000_000

    def __call__(self) -> float:
        return self.milliseconds / 1_000


class CountingInMemory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock, self.oracle = Clock(), Oracle()
        self.counters = MemoryCounters(clock=self.clock)

    @rule(attempt=attempts)
    def take(self, attempt: tuple[Quota, str, int, bool]) -> None:
        quota, key, cost, partly = attempt
        expected = self.oracle.take(quota, key, cost, self.clock.milliseconds, partly=partly)
        standing = self.counters.count(quota, key, cost, partly=partly)
        assert (standing.granted, standing.used) == (expected.granted, expected.used)
        assert tuple(round(left * 1_000) for left in standing.left) == expected.left_ms

    @rule(milliseconds=pauses)
    def pass_time(self, milliseconds: int) -> None:
        self.clock.milliseconds += milliseconds

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert self.counters.evicted == 0


TestCountingInMemory = CountingInMemory.TestCase


@given(
    st.sampled_from(QUOTAS), st.lists(st.tuples(st.integers(1, 3), pauses), max_size=30), st.integers(1, 3)
)
def test_who_waits_as_told_is_admitted(quota: Quota, before: list[tuple[int, int]], cost: int) -> None:
    clock = Clock()
    counters = MemoryCounters(clock=clock)
    for earlier, pause in before:
        counters.count(quota, "a", earlier)
        clock.milliseconds += pause
    cost = min(cost, quota.most_at_once)
    refused = counters.count(quota, "a", cost)
    if not refused.granted:
        # One more, for sums of floats may lie a hair beyond; callers are told whole seconds, rounded up.
        clock.milliseconds += round(blocking(quota, refused, cost)[1] * 1_000) + 1
        assert counters.count(quota, "a", cost).granted == cost


@given(st.sampled_from(QUOTAS), st.lists(pauses, max_size=20), st.lists(pauses, min_size=20, max_size=20))
def test_what_is_told_to_remain_is_admitted(quota: Quota, before: list[int], after: list[int]) -> None:
    clock = Clock()
    counters = MemoryCounters(clock=clock)
    for pause in before:
        counters.count(quota, "a")
        clock.milliseconds += pause
    standing = counters.count(quota, "a")
    rest = min(window.amount - used for window, used in zip(quota.windows, standing.used, strict=True))
    for pause in after[:rest]:
        clock.milliseconds += pause
        assert counters.count(quota, "a").granted


@given(st.lists(st.integers(0, 700), min_size=1, max_size=60))
def test_no_span_of_a_window_lets_twice_the_amount_pass(pauses: list[int]) -> None:
    clock = Clock()
    counters, quota = MemoryCounters(clock=clock), parse_quota("key", "3/second")
    admitted = []
    for pause in pauses:
        clock.milliseconds += pause
        admitted += [clock.milliseconds] * sum(counters.count(quota, "a").granted for _ in range(4))
    for first in admitted:
        assert sum(first <= at < first + 1_000 for at in admitted) <= 2 * 3 - 1


def test_a_refusal_uses_up_nothing() -> None:
    clock = Clock()
    counters, quota = MemoryCounters(clock=clock), parse_quota("key", "1/second;3/minute")
    answers = []
    for _ in range(3):
        answers += [counters.count(quota, "a").granted for _ in range(10)]
        clock.milliseconds += 1_000
    # The minute was charged for what the seconds admitted, not for 30 attempts.
    assert sum(answers) == 3
    assert counters.count(quota, "a").used == (0, 3)


async def test_a_crowd_gets_exactly_the_amount() -> None:
    counters, quota = MemoryCounters(), parse_quota("key", "20/hour;50/day")
    standings = await asyncio.gather(*(counters.take(quota, "a") for _ in range(70)))
    assert sum(standing.granted for standing in standings) == 20


async def test_all_is_taken_or_nothing_unless_a_part_will_do() -> None:
    counters, quota = MemoryCounters(), parse_quota("key", "3/hour")
    assert (await counters.take(quota, "a", 4)).granted == counters.count(quota, "a", 4).granted == 0
    assert (await counters.take(quota, "a", 4, partly=True))[:2] == (3, (3,))


def test_a_new_limit_of_a_key_goes_on_with_the_windows_it_shares() -> None:
    counters = MemoryCounters()
    for _ in range(3):
        counters.count(parse_quota("key", "5/minute"), "a")
    assert counters.count(parse_quota("key", "2/second;4/minute"), "a").used == (1, 4)
    assert counters.count(parse_quota("key", "2/minute"), "a").granted == 0


def test_more_addresses_than_are_remembered_leave_as_many_windows_as_are_allowed() -> None:
    counters, quota, mine = MemoryCounters(), parse_quota("address", "5/minute"), parse_quota("key", "2/hour")
    counters.count(mine, "a")
    addresses = 2 * MAXIMUM_WINDOWS
    for number in range(addresses):
        counters.count(quota, str(number))
    assert counters.remembered == MAXIMUM_WINDOWS + 1
    assert counters.evicted == addresses - MAXIMUM_WINDOWS
    # The newest are exact, and strangers push out only their like.
    assert counters.count(quota, str(addresses - 1)).used == (2,)
    assert counters.count(quota, str(addresses - MAXIMUM_WINDOWS)).used == (2,)
    assert counters.count(quota, "0").used == (1,)
    assert counters.count(mine, "a").used == (2,)


def test_each_length_has_its_own_bound() -> None:
    counters, quota = MemoryCounters(maximum=100), parse_quota("address", "5/minute;9/hour")
    for number in range(1_000):
        counters.count(quota, str(number))
    assert (counters.remembered, counters.evicted) == (200, 1_800)
    assert counters.count(quota, "900").used == (2, 2)
    assert counters.count(quota, "0").used == (1, 1)


def test_what_has_ended_makes_room_first() -> None:
    clock = Clock()
    counters, quota = MemoryCounters(maximum=100, clock=clock), parse_quota("address", "5/minute")
    for turn in range(20):
        for number in range(50):
            assert counters.count(quota, f"{turn % 3}-{number}").used == (1,)
        clock.milliseconds += 30_000
        # Of 50 + 50 running windows none was in the way of another.
        assert counters.evicted == 0
        assert counters.remembered <= 100


def test_a_window_that_is_learnt_goes_on_from_there() -> None:
    clock = Clock()
    counters, elsewhere = MemoryCounters(clock=clock), MemoryCounters(clock=clock)
    quota = parse_quota("address", "3/minute")
    for _ in range(2):
        counters.learn(quota, "a", elsewhere.count(quota, "a"))
    clock.milliseconds += 10_000
    assert counters.count(quota, "a").granted
    assert counters.count(quota, "a")[:3] == (0, (3,), (50.0,))
    clock.milliseconds += 50_000
    assert counters.count(quota, "a").granted
