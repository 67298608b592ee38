"""Arrivals, answers, callers who leave and time that passes, in any order, against a list that does the same.

The oracle keeps what waits as plain lists and says who must be in flight and who must have been refused.
"""

import asyncio
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.errors import Overloaded
from app.thingsboard import fair_queue
from app.thingsboard.fair_queue import FairQueue, Turn
from tests.virtual_time import VirtualTime

KEYS = st.sampled_from(["a", "a", "a", "b", "c", ""])
PICK = st.integers(0, 30)
PATIENCE = st.sampled_from([5.0, 50.0, 1_000.0])


@dataclass(eq=False)
class Call:
    """A caller and its call."""

    key: str
    until: float
    task: asyncio.Task[Turn]


class FairQueueModel(RuleBasedStateMachine):
    """No place is lost, no bound exceeded, nobody is overtaken twice by one key."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTime()
        self.slots = 0
        #: The oracle: what is in flight, and what waits, keys in the order of their next turns.
        self.flying: list[Call] = []
        self.lines: dict[str, list[Call]] = {}
        self.overtaken: dict[Call, list[str]] = {}

    @initialize(slots=st.integers(1, 20))
    def build(self, slots: int) -> None:
        self.slots = slots
        self.queue = FairQueue(slots)

    # What the oracle says.

    def may_start(self, key: str) -> bool:
        held = sum(call.key == key for call in self.flying)
        return held < fair_queue.GENEROSITY * (self.slots - len(self.flying))

    def serve(self) -> None:
        while ready := [key for key in self.lines if self.may_start(key)]:
            key = ready[0]
            line = self.lines.pop(key)
            call = line.pop(0)
            if line:
                self.lines[key] = line
            self.flying.append(call)
            self.note_overtaking(call)

    def note_overtaking(self, call: Call) -> None:
        """Who could have started and had to see another key's call go first, must not see that twice."""
        self.overtaken.pop(call, None)
        for key, line in self.lines.items():
            if key != call.key and self.may_start(key):
                seen = self.overtaken.setdefault(line[0], [])
                assert call.key not in seen
                seen.append(call.key)

    def forget(self, call: Call) -> None:
        line = self.lines[call.key]
        line.remove(call)
        if not line:
            del self.lines[call.key]

    # What happens.

    @rule(key=KEYS, patience=PATIENCE)
    def a_call_comes(self, key: str, patience: float) -> None:
        now = self.loop.time()
        call = Call(key, now + patience, self.loop.create_task(self.enter(key, now + patience)))
        self.lines.setdefault(key, []).append(call)
        self.serve()
        self.loop.settle()

    async def enter(self, key: str, until: float) -> Turn:
        # How long calls take is another test's business: here only time refuses, not an estimate.
        self.queue._call_seconds = 0.0
        return self.queue.take(key, self.loop.time()) or await self.queue.wait(key, until)

    def end(self, turn: Turn, *, is_refused: bool | None = False) -> None:
        async def end() -> None:
            self.queue.end(turn, self.loop.time(), is_refused=is_refused)

        self.loop.run_until_complete(end())

    @precondition(lambda self: self.flying)
    @rule(pick=PICK, is_refused=st.sampled_from([False, False, None]))
    def an_answer_comes(self, pick: int, is_refused: bool | None) -> None:
        call = self.flying.pop(pick % len(self.flying))
        turn = call.task.result()
        self.end(turn, is_refused=is_refused)
        self.serve()
        self.loop.settle()

    @precondition(lambda self: self.lines)
    @rule(pick=PICK)
    def a_waiting_caller_leaves(self, pick: int) -> None:
        waiting = [call for line in self.lines.values() for call in line]
        call = waiting[pick % len(waiting)]
        call.task.cancel()
        self.forget(call)
        self.serve()
        self.loop.settle()

    @precondition(lambda self: self.flying and self.lines)
    @rule(pick=PICK)
    def a_caller_leaves_when_its_turn_has_just_come(self, pick: int) -> None:
        ended = self.flying.pop(pick % len(self.flying))
        turn = ended.task.result()
        before = list(self.flying)
        self.serve()
        gone = [call for call in self.flying if call not in before]

        async def end_and_leave() -> None:
            self.queue.end(turn, self.loop.time(), is_refused=False)
            for call in gone:
                call.task.cancel()

        self.loop.run_until_complete(end_and_leave())
        for call in gone:
            self.flying.remove(call)
        self.serve()
        self.loop.settle()

    @precondition(lambda self: self.flying and self.lines)
    @rule(pick=PICK, count=st.integers(1, 5))
    def callers_leave_just_before_an_answer_comes(self, pick: int, count: int) -> None:
        ended = self.flying.pop(pick % len(self.flying))
        gone = [call for line in self.lines.values() for call in line][:count]
        for call in gone:
            self.forget(call)
        self.serve()

        async def leave_and_end() -> None:
            for call in gone:
                call.task.cancel()
            self.queue.end(ended.task.result(), self.loop.time(), is_refused=False)

        self.loop.run_until_complete(leave_and_end())
        self.loop.settle()

    @rule(seconds=st.sampled_from([1.0, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.settle(seconds)
        late = [
            call for line in self.lines.values() for call in line if call.until <= self.loop.time() + 1e-9
        ]
        for call in late:
            assert isinstance(call.task.exception(), Overloaded)
            self.forget(call)

    # What must be so.

    @invariant()
    def the_queue_says_what_the_oracle_says(self) -> None:
        if not self.slots:
            return
        assert self.queue.in_flight == len(self.flying) <= self.slots
        assert self.queue.waiting == sum(map(len, self.lines.values()))
        assert all(call.task.done() for call in self.flying)
        assert not any(call.task.done() for line in self.lines.values() for call in line)

    @invariant()
    def something_is_left_for_a_key_that_comes_later(self) -> None:
        keys = {call.key for call in self.flying}
        if self.slots > fair_queue.GENEROSITY and len(keys) == 1:
            assert len(self.flying) < self.slots

    def teardown(self) -> None:
        try:
            while self.flying:
                self.an_answer_comes(0, None)
            assert not self.lines
            if self.slots:
                assert not self.queue._held
                assert not self.queue._lines
        finally:
            self.loop.close()


TestFairQueue = FairQueueModel.TestCase
TestFairQueue.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
