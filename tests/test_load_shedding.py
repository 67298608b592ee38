"""How much of the load a worker takes on, measurement by measurement: no clock, no event loop."""

from collections import deque
from dataclasses import dataclass, field

import pytest

from app.load_shedding import (
    ALWAYS_A_SECOND,
    BEARABLE_SECONDS,
    CALM_SECONDS,
    EVERY_SECONDS,
    LASTING_SECONDS,
    NEVER_REFUSED,
    LoadShedding,
)
from app.metrics.requests import RequestMetrics

TARGET = b"/api/v1/tb/devices?page=1"
LATE, PUNCTUAL = BEARABLE_SECONDS * 1.5, 0.0
TICKS_A_SECOND = round(1 / EVERY_SECONDS)


@dataclass
class Worker:
    """What load shedding sees of a worker."""

    requests: RequestMetrics = field(default_factory=lambda: RequestMetrics(lambda _: None))
    queue_stands: bool = False

    def __post_init__(self) -> None:
        self.load = LoadShedding(self.requests, lambda _: self.queue_stands)

    def offer(self, requests: int) -> int:
        """Return how many of these are admitted, all of which are served at once."""
        return sum(self.load.admits(TARGET) for _ in range(requests))

    def measure(self, lag: float, *, seconds: float = EVERY_SECONDS, requests: int = 0) -> None:
        """Let time pass, so much of it at a time as between two measurements."""
        for _ in range(round(seconds / EVERY_SECONDS)):
            self.offer(requests)
            self.load.observe(lag, EVERY_SECONDS)

    def overload(self) -> None:
        self.measure(LATE, seconds=LASTING_SECONDS + 2 * EVERY_SECONDS, requests=50)
        assert self.load.is_shedding


def test_nobody_is_refused_while_the_loop_is_punctual() -> None:
    worker = Worker()
    worker.measure(PUNCTUAL, seconds=60, requests=500)
    assert worker.offer(1_000) == 1_000
    assert worker.load.refused == 0


def test_a_long_piece_of_work_is_no_overload() -> None:
    """An export's piece of 0.3 s, again and again, with as long a pause after it."""
    worker = Worker()
    for _ in range(100):
        worker.load.observe(0.3, 0.3 + EVERY_SECONDS)
        worker.measure(PUNCTUAL, seconds=0.4, requests=50)
        assert not worker.load.is_shedding
    assert worker.load.refused == 0


def test_a_standstill_is_no_overload() -> None:
    """Of the whole machine, or of one blocking call."""
    worker = Worker()
    worker.offer(500)
    for _ in range(4):
        worker.load.observe(20.0, 20.0)
    assert not worker.load.is_shedding


def test_lasting_lateness_is_an_overload() -> None:
    worker = Worker()
    worker.measure(LATE, seconds=LASTING_SECONDS - EVERY_SECONDS, requests=50)
    assert worker.offer(100) == 100
    worker.overload()
    assert 0 < worker.offer(100) < 100


def test_a_queue_that_stands_beside_a_busy_loop_is_an_overload() -> None:
    """Answers that nobody has read yet hold the places of calls that wait."""
    worker = Worker(queue_stands=True)
    worker.measure(BEARABLE_SECONDS / 4, seconds=2 * LASTING_SECONDS, requests=50)
    assert worker.load.is_shedding


def test_a_queue_that_stands_beside_an_idle_loop_is_not() -> None:
    """ThingsBoard is slow: the queue refuses what would wait too long, and nothing else has to be."""
    worker = Worker(queue_stands=True)
    worker.measure(BEARABLE_SECONDS / 20, seconds=60, requests=50)
    assert not worker.load.is_shedding


def test_a_busy_loop_without_a_queue_is_not() -> None:
    """Exports may take all the time there is: others wait for a piece of each, which they can bear."""
    worker = Worker()
    worker.measure(BEARABLE_SECONDS * 0.9, seconds=60, requests=50)
    assert not worker.load.is_shedding


def test_refusals_are_spread_evenly() -> None:
    worker = Worker()
    worker.overload()
    worker.load.share = 1 / 3
    admitted = [worker.load.admits(TARGET) for _ in range(300)]
    assert 99 <= sum(admitted) <= 101
    assert all(1 <= sum(admitted[start : start + 6]) <= 3 for start in range(0, 300, 6))


@pytest.mark.parametrize("target", sorted(NEVER_REFUSED))
def test_operators_are_never_refused(target: bytes) -> None:
    worker = Worker()
    worker.load.share = 1e-9
    assert all(worker.load.admits(asked) for asked in [target, target + b"?strict=1"] * 10)
    assert not worker.load.admits(target + b"/more")


def test_what_refusing_does_not_help_is_not_refused_altogether() -> None:
    """Something else takes all the time: whoever still comes is not made to pay for it."""
    worker = Worker()
    arrivals = 2 * ALWAYS_A_SECOND // TICKS_A_SECOND
    worker.measure(LATE, seconds=60, requests=arrivals)
    admitted = sum(worker.offer(arrivals) for _ in range(TICKS_A_SECOND))
    assert admitted == pytest.approx(ALWAYS_A_SECOND, rel=0.05)


def test_fewer_than_that_are_all_admitted() -> None:
    worker = Worker()
    worker.measure(LATE, seconds=60, requests=ALWAYS_A_SECOND // TICKS_A_SECOND)
    assert worker.load.refused == 0


def test_it_is_over_when_nobody_had_to_be_refused_for_a_while() -> None:
    worker = Worker()
    worker.overload()
    while worker.load.share < 1.0:
        worker.measure(PUNCTUAL, requests=50)
    worker.measure(PUNCTUAL, seconds=CALM_SECONDS - 3 * EVERY_SECONDS, requests=50)
    assert worker.load.is_shedding
    worker.measure(PUNCTUAL, seconds=5 * EVERY_SECONDS, requests=50)
    assert not worker.load.is_shedding
    refused = worker.load.refused
    worker.measure(PUNCTUAL, seconds=10, requests=500)
    assert worker.load.refused == refused > 0


def test_while_it_lasts_lateness_counts_at_once() -> None:
    """Not only after a second, as when it begins: load that goes up and down would be late for most of it."""
    worker = Worker()
    worker.overload()
    while worker.load.share < 1.0:
        worker.measure(PUNCTUAL, requests=50)
    worker.measure(LATE, requests=50)
    assert worker.load.share < 1.0


@pytest.mark.parametrize(("share", "seconds"), [(0.9, 2), (0.5, 2), (0.3, 4), (0.01, 10)])
def test_the_more_are_refused_the_later_they_may_come_again(share: float, seconds: int) -> None:
    worker = Worker()
    worker.load.share = share
    refusal = worker.load.refusal([])
    assert (refusal.status, refusal.error_code, refusal.retry_after) == (503, "OVERLOADED", seconds)


@dataclass
class Core:
    """A worker whose requests wait in one line for its CPU, which takes so many ms for each."""

    serving_ms: float
    refusing_ms: float
    worker: Worker = field(default_factory=Worker)
    #: When each request that waits came, in seconds.
    line: deque[float] = field(default_factory=deque)
    waits: list[float] = field(default_factory=list)

    def run(self, rate: float, seconds: float) -> None:
        """Let so many requests a second come for so long."""
        now = arrived = 0.0
        while now < seconds:
            began, now = now, now + EVERY_SECONDS
            spent = 0.0
            while arrived < now:
                if self.worker.load.admits(TARGET):
                    self.line.append(arrived)
                    self.worker.requests.in_flight += 1
                else:
                    spent += self.refusing_ms / 1_000
                arrived += 1 / rate
            while self.line and spent < EVERY_SECONDS:
                spent += self.serving_ms / 1_000
                self.waits.append(max(0.0, began + spent - self.line.popleft()))
                self.worker.requests.in_flight -= 1
            self.worker.load.observe(len(self.line) * self.serving_ms / 1_000, EVERY_SECONDS)


SECONDS, CAPACITY, REFUSAL_SHARE = 30.0, 1_000.0, 0.1


@pytest.mark.parametrize("times", [1.2, 2.0, 4.0])
def test_what_a_core_can_serve_is_served_in_time_whatever_comes(times: float) -> None:
    core = Core(1_000 / CAPACITY, REFUSAL_SHARE * 1_000 / CAPACITY)
    core.run(times * CAPACITY, SECONDS)
    # What is left of the core when the others have been refused.
    possible = (1 - times * REFUSAL_SHARE) / (1 - REFUSAL_SHARE)
    in_time = sum(wait < 1 for wait in core.waits)
    assert in_time > 0.75 * possible * CAPACITY * SECONDS
    assert max(core.waits[len(core.waits) // 2 :]) < 0.6


def test_without_it_nobody_would_be_served_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.load_shedding.LASTING_SECONDS", float("inf"))
    core = Core(1_000 / CAPACITY, REFUSAL_SHARE * 1_000 / CAPACITY)
    core.run(2 * CAPACITY, SECONDS)
    assert sum(wait < 1 for wait in core.waits) < 0.1 * CAPACITY * SECONDS


@pytest.mark.parametrize("times", [0.5, 0.9, 1.0])
def test_what_a_core_can_serve_is_not_refused(times: float) -> None:
    core = Core(1_000 / CAPACITY, REFUSAL_SHARE * 1_000 / CAPACITY)
    core.run(times * CAPACITY, SECONDS)
    assert core.worker.load.refused == 0
