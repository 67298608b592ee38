"""Pacers on ThingsBoard's rate limit as the simulator plays it: what gets through, how much is refused."""

import heapq
import math
import random
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from app.thingsboard import pace
from app.thingsboard.pace import Pace
from app.thingsboard.retry import MAXIMUM_SAVED
from tb_simulator.rate_limits import RateLimits

ANSWER_SECONDS = 0.01
IN_FLIGHT = 56


@dataclass(eq=False)
class Process:
    """A gateway that always has calls to make."""

    pace: Pace = field(default_factory=Pace)
    in_flight: int = 0
    wakes_at: float = -1.0
    sent: int = 0
    admitted: int = 0
    refused: int = 0


class World:
    """Some processes, one tenant's buckets, and a clock that moves from event to event."""

    def __init__(self, limits: str, processes: int) -> None:
        self.now = 0.0
        self.limits = RateLimits(lambda: self.now)
        self.limits.configure("tenant", limits)
        #: Whether every call is refused.
        self.is_shut = False
        self.processes = [Process() for _ in range(processes)]
        self._events: list[tuple[float, int, Process, Any]] = []
        self._numbers = count()
        self._random = random.Random(1)
        for number, process in enumerate(self.processes):
            self._plan(float(number), process, None)

    def run(self, seconds: float) -> None:
        """Let time pass, and count anew."""
        for process in self.processes:
            process.sent = process.admitted = process.refused = 0
        end = self.now + seconds
        while self._events[0][0] < end:
            self.now, _, process, answer = heapq.heappop(self._events)
            if answer is not None:
                self._answered(process, *answer)
            self._send(process)
        self.now = end

    def _answered(self, process: Process, epoch: int, is_admitted: bool) -> None:
        process.in_flight -= 1
        if is_admitted:
            process.pace.admitted(epoch, self.now)
            process.admitted += 1
            # There is always another call.
            process.pace.asked()
        else:
            process.pace.refused(epoch, self.now)
            process.refused += 1

    def _send(self, process: Process) -> None:
        while process.in_flight < IN_FLIGHT:
            wait = process.pace.wait(self.now)
            if wait > 0:
                if wait < math.inf and not self.now < process.wakes_at <= self.now + wait:
                    process.wakes_at = self.now + wait
                    self._plan(process.wakes_at, process, None)
                return
            epoch = process.pace.leave(self.now)
            process.in_flight += 1
            process.sent += 1
            answer = epoch, not self.is_shut and self.limits.admit("tenant")
            self._plan(self.now + ANSWER_SECONDS * self._random.uniform(0.7, 1.3), process, answer)

    def _plan(self, moment: float, process: Process, answer: Any) -> None:
        heapq.heappush(self._events, (moment, next(self._numbers), process, answer))

    @property
    def admitted(self) -> int:
        return sum(process.admitted for process in self.processes)

    @property
    def refused(self) -> int:
        return sum(process.refused for process in self.processes)


@pytest.mark.parametrize(
    ("limits", "refill", "refused"),
    [("10:1", 10, 0.2), ("100:1", 100, 0.02), ("50:1,600:60", 10, 0.1), ("10:60", 1 / 6, 1.5)],
)
def test_one_process_gets_what_is_refilled(limits: str, refill: float, refused: float) -> None:
    world = World(limits, 1)
    world.run(40)
    world.run(600 if refill < 1 else 60)
    assert world.admitted == pytest.approx(refill * (600 if refill < 1 else 60), rel=0.03, abs=2)
    assert world.refused <= refused * world.admitted


def test_the_way_there_loses_little() -> None:
    world = World("100:1", 1)
    world.run(10)
    assert world.admitted > 0.85 * (100 + 100 * 10)


@pytest.mark.parametrize(("limits", "refill"), [("10:1", 10), ("100:1", 100), ("2000:60", 33.3)])
def test_three_processes_that_do_not_know_of_each_other_share_a_bucket(limits: str, refill: float) -> None:
    world = World(limits, 3)
    world.run(60)
    for _ in range(4):
        world.run(30)
        assert world.admitted > 0.9 * 30 * refill
        assert world.refused < 0.6 * world.admitted
        # Nobody is pushed out.
        assert min(process.admitted for process in world.processes) > world.admitted / 20


def test_a_limit_that_ends_is_forgotten_within_seconds() -> None:
    world = World("20:1", 1)
    world.run(30)
    assert world.processes[0].pace.is_limited
    world.limits.configure("tenant", None)
    world.run(pace.PERIODS_TO_OPEN + 1)
    assert not world.processes[0].pace.is_limited
    world.run(1)
    assert world.admitted > 1_000


@pytest.mark.parametrize("limits", ["100:1", "1000000:1"], ids=["a pace is known", "nothing is known"])
@pytest.mark.parametrize("seconds", [1, 8, 60, 3_600])
def test_however_long_everything_was_refused_calls_are_admitted_again_within_seconds(
    limits: str, seconds: int
) -> None:
    world = World(limits, 1)
    world.run(20 if limits == "100:1" else 1)
    world.limits.configure("tenant", None)
    slow, world.is_shut = world.processes[0].pace, True
    sent = 0
    for _ in range(seconds):
        world.run(1)
        sent += world.processes[0].sent
        # A caller a second, who is refused in the end.
        slow.asked()
    # Those whose calls were in flight as it began count as callers, too.
    assert sent <= 1.1 * (seconds + IN_FLIGHT) + MAXIMUM_SAVED
    world.is_shut = False
    world.run(pace.TRIAL_SECONDS + 0.1)
    assert world.admitted
    world.run(4)
    assert world.admitted > 8
    world.run(pace.PERIODS_TO_OPEN - 4)
    assert not slow.is_limited


def test_a_lasting_refusal_costs_a_tenth_more_calls_than_callers_make() -> None:
    """One caller in ten seconds: more and more seldom does a call try what others have tried before."""
    world = World("1000000:1", 1)
    world.run(1)
    slow, world.is_shut = world.processes[0].pace, True
    world.run(100)
    sent = 0
    for _ in range(100):
        slow.asked()
        world.run(10)
        sent += world.processes[0].sent
    assert sent <= 1.1 * 100 + 1_000 * pace.LEAST_RATE


def test_a_limit_that_nobody_has_met_for_hours_has_an_estimate() -> None:
    slow = Pace()
    slow.refused(slow.leave(0.0), 0.0)
    slow.admitted(slow.leave(1.0), 1.0)
    assert slow.estimate(10, 100_000.0) < 1


def test_a_limit_that_is_changed_is_found_again() -> None:
    world = World("200:1", 1)
    world.run(30)
    for limits, refill in (("10:1", 10), ("300:1", 300), ("50:1", 50)):
        world.limits.configure("tenant", limits)
        world.run(40)
        world.run(20)
        assert world.admitted == pytest.approx(refill * 20, rel=0.15), limits


def test_after_a_refusal_one_call_at_a_time_finds_out() -> None:
    slow = Pace()
    slow.refused(slow.leave(0.0), 0.0)
    assert slow.wait(0.0) == pytest.approx(1 / pace.FIRST_RATE)
    probe = slow.leave(1.0)
    assert slow.wait(5.0) == math.inf
    slow.refused(probe, 5.0)
    other = slow.leave(6.0)
    assert slow.wait(7.0) == math.inf
    slow.abandoned(other)
    assert slow.wait(7.0) == 0.0
    slow.admitted(slow.leave(7.0), 7.0)
    assert slow.wait(8.0) == 0.0
    slow.leave(8.0)
    assert slow.wait(8.5) < 1


def test_calls_that_left_before_a_refusal_say_nothing_new() -> None:
    slow = Pace()
    epochs = [slow.leave(0.0) for _ in range(50)]
    for epoch in epochs:
        slow.refused(epoch, 0.1)
    assert slow.refusals == 1
    assert slow.rate(0.1) == pace.FIRST_RATE


def test_the_estimate_is_what_the_pace_says() -> None:
    slow = Pace()
    assert slow.estimate(1_000, 0.0) == 0.0
    slow.refused(slow.leave(0.0), 0.0)
    assert slow.estimate(1, 0.0) == pytest.approx(1 / pace.FIRST_RATE)
    # Twenty more while the pace doubles each second: 20, 40, ... a second.
    assert slow.estimate(21, 0.0) == pytest.approx(1 / 20 + math.log2(1 + math.log(2)))
    slow.admitted(slow.leave(1.0), 1.0)
    slow.refused(slow.leave(2.0), 2.0)
    rate = slow.rate(2.0)
    assert slow.estimate(11, 2.0) == pytest.approx(1 / rate + 10 / rate)
