"""Reads and writes in any order, with callers who leave, against a ThingsBoard that is one number a path.

The model says what callers may rely on; how many calls there are is checked beside it.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.errors import UpstreamError
from app.thingsboard.connection import Connection
from app.thingsboard.fair_queue import FairQueue
from app.thingsboard.transport import Answer

#: Mostly one: what can go wrong, goes wrong between calls of the same path.
PATHS = st.sampled_from(["/a", "/a", "/a", "/b"])
PICK = st.integers(0, 3)
#: Turns of the event loop after which nothing moves by itself any more.
TURNS = 12


@dataclass(eq=False)
class Call:
    """A call at ThingsBoard: it is carried out at one time and answered at a later one."""

    method: str
    path: str
    answer: asyncio.Future[Answer]
    epoch: int
    version: int | None = None


@dataclass(eq=False)
class Read:
    """A caller's read, and the oldest version it may be given."""

    path: str
    task: asyncio.Task[Any]
    floor: int


@dataclass
class World:
    """ThingsBoard, as a transport."""

    versions: dict[str, int] = field(default_factory=lambda: {"/a": 0, "/b": 0})
    calls: list[Call] = field(default_factory=list)
    #: Counts the beginnings and ends of writes.
    epoch: int = 0

    async def send(self, method: str, target: str, **_: Any) -> Answer:
        call = Call(method, target, asyncio.get_running_loop().create_future(), self.epoch)
        self.calls.append(call)
        try:
            return await call.answer
        finally:
            self.calls.remove(call)

    def carry_out(self, call: Call) -> None:
        if call.version is None:
            self.versions[call.path] += call.method == "POST"
            call.version = self.versions[call.path]

    async def aclose(self) -> None:
        """Nothing is open."""


class Key:
    """A credential without a login."""

    async def header(self) -> str:
        return "ApiKey x"

    async def renew(self, refused: str) -> bool:
        return False

    def renewed_in_vain(self) -> None:
        """Nothing is ever renewed."""


class SharedReadsModel(RuleBasedStateMachine):
    """Callers read their own writes, whoever leaves; and there are no more calls than there must be."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.connection = self.loop.run_until_complete(self._connect())
        self.reads: list[Read] = []
        self.writes: list[tuple[str, asyncio.Task[Any]]] = []
        #: The version that a caller has been told of.
        self.acknowledged = {"/a": 0, "/b": 0}

    async def _connect(self) -> Connection:
        return Connection(self.world, Key(), queue=FairQueue(1_000), timeout_seconds=60, queue_seconds=60)

    def settle(self) -> None:
        async def turn() -> None:
            for _ in range(TURNS):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())
        self._check_ended_reads()
        self._note_ended_writes()

    def _check_ended_reads(self) -> None:
        for read in [read for read in self.reads if read.task.done()]:
            self.reads.remove(read)
            if read.task.cancelled() or isinstance(read.task.exception(), UpstreamError):
                continue
            found = read.task.result()
            assert found["path"] == read.path
            assert read.floor <= found["version"] <= self.world.versions[read.path]

    def _note_ended_writes(self) -> None:
        for path, task in [each for each in self.writes if each[1].done()]:
            self.writes.remove((path, task))
            self.world.epoch += 1
            if not task.cancelled() and task.exception() is None:
                version = orjson.loads(task.result().body)["version"]
                self.acknowledged[path] = max(self.acknowledged[path], version)

    @rule(path=PATHS)
    def read(self, path: str) -> None:
        task = self.loop.create_task(self.connection.get_json(path))
        self.reads.append(Read(path, task, self.acknowledged[path]))
        self.settle()

    @rule(path=PATHS)
    def write(self, path: str) -> None:
        self.world.epoch += 1
        self.writes.append((path, self.loop.create_task(self.connection.call("POST", path))))
        self.settle()

    @precondition(lambda self: self.world.calls)
    @rule(pick=PICK)
    def thingsboard_carries_out(self, pick: int) -> None:
        self.world.carry_out(self.world.calls[pick % len(self.world.calls)])

    @precondition(lambda self: self.world.calls)
    @rule(pick=PICK, status=st.sampled_from([200, 200, 200, 500]))
    def thingsboard_answers(self, pick: int, status: int) -> None:
        call = self.world.calls[pick % len(self.world.calls)]
        self.world.carry_out(call)
        body = orjson.dumps({"path": call.path, "version": call.version})
        call.answer.set_result(Answer(status, "application/json", body))
        self.settle()

    @precondition(lambda self: self.reads)
    @rule(pick=PICK)
    def a_reader_leaves(self, pick: int) -> None:
        self.reads[pick % len(self.reads)].task.cancel()
        self.settle()

    @precondition(lambda self: self.writes)
    @rule(pick=PICK)
    def a_writer_leaves(self, pick: int) -> None:
        self.writes[pick % len(self.writes)][1].cancel()
        self.settle()

    @invariant()
    def readers_between_the_same_writes_share(self) -> None:
        reads = [(call.path, call.epoch) for call in self.world.calls if call.method == "GET"]
        assert len(reads) == len(set(reads))

    @invariant()
    def every_reader_has_a_call_and_every_call_a_reader(self) -> None:
        asked = {call.path for call in self.world.calls if call.method == "GET"}
        assert asked == {read.path for read in self.reads}

    def teardown(self) -> None:
        try:
            while self.world.calls:
                self.thingsboard_answers(0, 200)
            assert not self.reads
            assert not self.writes
            assert not self.connection.reads._joinable
            assert self.connection.queue.in_flight == 0
        finally:
            self.loop.close()


TestSharedReads = SharedReadsModel.TestCase
TestSharedReads.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
