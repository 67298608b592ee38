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
        self.breaker = Breaker(clock=lambda: self.now)
        self.timeouts = 0
        self.opened_at = 0.0
        self.is_probing = False
        self.under_way = 0
        self.last_wait: float | None = 1.0

    def admitted(self) -> bool:
        try:
            self.breaker.before()
        except BreakerOpen as error:
            self.last_wait = error.retry_after
            return False
        return True

    @rule(seconds=st.integers(0, 8).map(lambda quarters: quarters / 4))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_call_is_made(self) -> None:
        expected = self.timeouts < THRESHOLD or (
            self.now >= self.opened_at + OPEN_SECONDS and not self.is_probing
        )
        assert self.admitted() == expected
        assert 1.0 <= (self.last_wait or 0) <= OPEN_SECONDS
        if expected:
            self.under_way += 1
            self.is_probing = self.timeouts >= THRESHOLD

    @precondition(lambda self: self.under_way)
    @rule()
    def a_call_is_answered(self) -> None:
        self.under_way -= 1
        self.breaker.answered()
        self.timeouts, self.is_probing = 0, False

    @precondition(lambda self: self.under_way)
    @rule()
    def a_call_times_out(self) -> None:
        self.under_way -= 1
        self.breaker.timed_out()
        self.timeouts += 1
        self.is_probing, self.opened_at = False, self.now

    @precondition(lambda self: self.under_way)
    @rule()
    def a_caller_leaves(self) -> None:
        self.under_way -= 1
        self.breaker.abandoned()
        self.is_probing = False

    @invariant()
    def it_never_stays_shut_for_ever(self) -> None:
        if not self.is_probing:
            before, self.now = self.now, self.now + OPEN_SECONDS
            assert self.admitted()
            self.breaker.abandoned()
            self.now = before


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
