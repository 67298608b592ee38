"""The breaker, as a state machine against a short oracle."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.errors import BreakerOpen
from app.thingsboard.breaker import OPEN_SECONDS, THRESHOLD, Breaker
from app.thingsboard.retry import MAXIMUM_SAVED, RetryBudget, delay_before


class BreakerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(clock=lambda: self.now, chance=lambda: 0.0)
        self.timeouts = self.openings = 0
        self.probe_at = 0.0
        #: For each call under way how often the breaker had opened when it began.
        self.under_way: list[int] = []
        self.last_wait: float | None = 1.0

    def admitted(self) -> int | None:
        try:
            return self.breaker.before()
        except BreakerOpen as error:
            self.last_wait = error.retry_after
            return None

    @rule(seconds=st.integers(0, 8).map(lambda quarters: quarters / 4))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_call_is_made(self) -> None:
        is_open = self.timeouts >= THRESHOLD
        began = self.admitted()
        assert (began is not None) == (not is_open or self.now >= self.probe_at)
        if began is not None:
            self.under_way.append(began)
            self.probe_at = self.now + OPEN_SECONDS
        else:
            assert self.last_wait == max(1.0, self.probe_at - self.now) <= OPEN_SECONDS

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0))
    def a_call_is_answered(self, which: int) -> None:
        self.under_way.pop(which % len(self.under_way))
        self.breaker.answered()
        self.timeouts = 0

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0))
    def a_call_times_out(self, which: int) -> None:
        began = self.under_way.pop(which % len(self.under_way))
        self.breaker.timed_out(began)
        if began == self.openings and self.timeouts < THRESHOLD:
            self.timeouts += 1
            if self.timeouts == THRESHOLD:
                self.openings += 1
                self.probe_at = self.now + OPEN_SECONDS

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0))
    def a_caller_leaves(self, which: int) -> None:
        """Nobody is told, and nothing waits for it."""
        self.under_way.pop(which % len(self.under_way))

    @invariant()
    def it_is_open_when_it_says_so(self) -> None:
        assert self.breaker.is_open == (self.timeouts >= THRESHOLD)
        assert self.breaker.openings == self.openings


TestBreaker = BreakerMachine.TestCase


def test_retries_are_a_tenth_of_the_calls() -> None:
    budget = RetryBudget()
    spent = 0
    for _ in range(1_000):
        budget.earn()
        spent += budget.spend()
    assert spent <= 1_000 * 0.1 + MAXIMUM_SAVED


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_waits_double_and_stay_in_bounds(attempt: int) -> None:
    waits = [delay_before(attempt) for _ in range(100)]
    longest = 0.05 * 2 ** (attempt - 1)
    assert all(longest / 2 <= wait <= longest for wait in waits)


def test_calls_from_before_keep_it_shut_no_longer() -> None:
    """64 calls of an outage time out one after the other: the probe goes out in time all the same."""
    now = 0.0
    breaker = Breaker(clock=lambda: now)
    calls = [breaker.before() for _ in range(64)]
    for number, began in enumerate(calls):
        now = number * 0.1
        breaker.timed_out(began)
    assert now > OPEN_SECONDS
    breaker.before()
    breaker.answered()
    for began in calls:
        breaker.timed_out(began)
    assert not breaker.is_open


def test_a_probe_that_hangs_does_not_hold_up_the_next() -> None:
    now = 0.0
    breaker = Breaker(clock=lambda: now)
    for _ in range(THRESHOLD):
        breaker.timed_out(breaker.before())
    for _ in range(3):
        now += OPEN_SECONDS
        breaker.before()
        with pytest.raises(BreakerOpen):
            breaker.before()


def test_workers_do_not_probe_together() -> None:
    waits = set()
    for _ in range(100):
        breaker = Breaker(clock=lambda: 0.0)
        for _ in range(THRESHOLD):
            breaker.timed_out(breaker.before())
        with pytest.raises(BreakerOpen) as refused:
            breaker.before()
        waits.add(refused.value.retry_after or 0.0)
    assert len(waits) > 90
    assert OPEN_SECONDS * 0.75 <= min(waits) <= max(waits) <= OPEN_SECONDS
