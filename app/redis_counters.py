"""Counts what callers use in Redis, for all workers and replicas; in this process while Redis is away."""

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from pydantic import SecretStr

from app.counters import MemoryCounters
from app.quotas import Quota, Standing, parse_quota

log = structlog.get_logger("counters")

#: Redis answers in under a millisecond. A silence of this length means that it is lost. A caller may have to
#: wait for the exchange before its own, so Redis costs nobody more than twice as much.
SILENCE_SECONDS = 0.025
#: While Redis is away it is asked this often, and may take this long to connect; nobody waits for that.
RETRY_SECONDS = 1.0
#: A reply may have arrived while a busy loop was late: let the loop take it before calling it missing.
GRACE_TURNS = 3
#: A use that counts for nobody: a full Redis still answers PING, and a read-only one may still be read.
PROBE = parse_quota("probe", "999999999/second")

#: All windows of a caller are one hash, so that a script may touch them all in a cluster, too.
#: Redis' own clock decides: those of the workers may differ. (Needs Redis 5: writes after TIME.)
#: ARGV: cost, 1 if a part will do, then amount and length in ms of each window.
#: Returns what was granted, the time in ms, then use and remaining ms of each window.
TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local granted = tonumber(ARGV[1])
local names = {}
for i = 3, #ARGV, 2 do
  names[#names + 1] = 'used' .. ARGV[i + 1]
  names[#names + 1] = 'end' .. ARGV[i + 1]
end
local known = redis.call('HMGET', KEYS[1], unpack(names))
local used, ends = {}, {}
for i = 1, #names / 2 do
  local amount, length = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  used[i], ends[i] = tonumber(known[2 * i - 1] or 0), tonumber(known[2 * i] or 0)
  if ends[i] <= now then used[i], ends[i] = 0, now end
  -- A replica that took over may have another clock: no window gets longer by that.
  if ends[i] > now + length then ends[i] = now + length end
  local rest = math.max(0, amount - used[i])
  if rest < granted then granted = ARGV[2] == '1' and rest or 0 end
end
local reply = {granted, now}
local update, longest = {}, 0
for i = 1, #used do
  if granted > 0 then
    used[i] = used[i] + granted
    if ends[i] == now then ends[i] = now + tonumber(ARGV[2 * i + 2]) end
    update[#update + 1] = names[2 * i - 1]
    update[#update + 1] = used[i]
    update[#update + 1] = names[2 * i]
    update[#update + 1] = ends[i]
    longest = math.max(longest, ends[i] - now)
  end
  reply[#reply + 1] = used[i]
  reply[#reply + 1] = ends[i] - now
end
if granted > 0 then
  redis.call('HSET', KEYS[1], unpack(update))
  if redis.call('PTTL', KEYS[1]) < longest then redis.call('PEXPIRE', KEYS[1], longest) end
end
return reply
"""
TAKE_DIGEST = hashlib.sha1(TAKE.encode(), usedforsecurity=False).hexdigest()

#: What each question of an exchange got.
Answers = list[Standing | Exception]


@dataclass(slots=True, eq=False)
class _Question:
    """One use that waits to be counted."""

    quota: Quota
    key: str
    cost: int = 1
    partly: bool = False
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    #: None: Redis did not count it.
    answer: "asyncio.Future[Standing | None]" = field(init=False)
    asked_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.answer, self.asked_at = self.loop.create_future(), self.loop.time()

    def arguments(self) -> list[str | int]:
        """Return what the script is called with."""
        windows = (value for each in self.quota.windows for value in (each.amount, each.seconds * 1_000))
        return [f"tbgw:{{{self.quota.scope}:{self.key}}}", self.cost, int(self.partly), *windows]


class RedisCounters:
    """Counts in Redis, exactly over all processes; goes on in memory while Redis is away, and says so.

    One connection a process, one exchange at a time: what callers ask meanwhile goes together in the next.
    (A pool with the same time-out lost 1,570 of 3,000 hits to a storm of new connections.) The last known
    windows are kept in memory: there counting goes on when Redis is lost, without waiting for it again. A
    task of its own asks Redis once a second until it is back.
    """

    def __init__(self, url: SecretStr) -> None:
        # Imported here: only deployments with Redis pay for it.
        from redis.asyncio import ConnectionPool  # noqa: PLC0415
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415

        # Of one connection, as exchanges follow each other; the pool sees when Redis has closed it.
        self._pool: Any = ConnectionPool.from_url(
            url.get_secret_value(),
            socket_connect_timeout=RETRY_SECONDS,
            socket_timeout=None,
            # With 3 come notices of maintenance, beside which the pool overlooks closed connections.
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )
        self.local = MemoryCounters()
        self.is_up = True
        #: Exchanges that failed, and uses that were counted in this process only.
        self.failures = self.counted_locally = 0
        self._waiting: list[_Question] = []
        self._exchanging: asyncio.Task[None] | None = None
        self._recovering: asyncio.Task[None] | None = None
        self._progressed_at = 0.0

    async def take(self, quota: Quota, key: str, cost: int = 1, *, partly: bool = False) -> Standing:
        """Count in Redis, or in memory while Redis is away; see `Counters`."""
        if self.is_up:
            standing = await self._ask(_Question(quota, key, cost, partly))
            if standing is not None:
                self.local.learn(quota, key, standing)
                return standing
        self.counted_locally += 1
        return self.local.count(quota, key, cost, partly=partly)

    async def check(self) -> bool:
        """Tell whether Redis counts."""
        return await self._ask(_Question(PROBE, "probe")) is not None

    async def aclose(self) -> None:
        """Close the connection."""
        for task in (self._recovering, self._exchanging):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        # A task that had not begun cannot do it.
        settle(self._waiting)
        await self._pool.aclose()

    async def _ask(self, question: _Question) -> Standing | None:
        self._waiting.append(question)
        if self._exchanging is None:
            self._exchanging = asyncio.create_task(self._exchange_all())
        return await question.answer

    async def _exchange_all(self) -> None:
        batch: list[_Question] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                if not self.is_up:
                    # They came while Redis was being lost, and have waited enough.
                    settle([each for each in batch if each.quota is not PROBE])
                    batch = [each for each in batch if each.quota is PROBE]
                if batch:
                    settle(batch, await self._exchange(batch))
        finally:
            settle(batch + self._waiting)
            self._waiting, self._exchanging = [], None

    async def _exchange(self, batch: Sequence[_Question]) -> Sequence[Standing | None]:
        """Ask Redis for all of these at once; whatever goes wrong with it is told, not raised."""
        task = asyncio.ensure_future(self._call(batch))
        try:
            answers = await self._unless_silent(task)
        except Exception as error:  # noqa: BLE001 - redis-py raises many kinds; none may fail a request
            self._failed(error)
            return [None] * len(batch)
        finally:
            # It drops its connection, so no late reply can be taken for another.
            task.cancel()
        fault = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if fault is None:
            self._worked()
        else:
            self._failed(fault)
        return [None if isinstance(answer, Exception) else answer for answer in answers]

    async def _unless_silent(self, task: "asyncio.Task[list[Standing | Exception]]") -> Answers:
        loop = asyncio.get_running_loop()
        self._progressed_at = loop.time()
        while not task.done() and (left := self._progressed_at + SILENCE_SECONDS - loop.time()) > 0:
            await asyncio.wait({task}, timeout=left)
        for _ in range(GRACE_TURNS):
            if not task.done():
                await asyncio.sleep(0)
        if not task.done():
            raise TimeoutError
        return task.result()

    async def _call(self, batch: Sequence[_Question]) -> Answers:
        from redis.exceptions import NoScriptError  # noqa: PLC0415

        connection = await self._pool.get_connection()
        try:
            calls = [("EVALSHA", TAKE_DIGEST, 1, *question.arguments()) for question in batch]
            answers = await self._replies(connection, calls)
            # A Redis that was restarted has lost the script; nothing was counted then.
            missed = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if missed:
                again = [("SCRIPT", "LOAD", TAKE), *(calls[place] for place in missed)]
                for place, answer in zip(missed, (await self._replies(connection, again))[1:], strict=True):
                    answers[place] = answer
            return [each if isinstance(each, Exception) else read_reply(each) for each in answers]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def _replies(self, connection: Any, calls: Sequence[Sequence[str | int]]) -> list[Any]:
        """Send these commands together and return what each of them is answered."""
        from redis.exceptions import ResponseError  # noqa: PLC0415

        loop, replies = asyncio.get_running_loop(), []
        await connection.send_packed_command(connection.pack_commands(calls))
        for _ in calls:
            self._progressed_at = loop.time()
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        if self.is_up:
            log.error("redis_unavailable", error_type=type(error).__name__, limits="counted in this process")
        self.is_up = False
        if self._recovering is None:
            self._recovering = asyncio.create_task(self._recover())

    def _worked(self) -> None:
        if not self.is_up:
            log.warning("redis_back", counted_locally=self.counted_locally)
        self.is_up = True

    async def _recover(self) -> None:
        try:
            while not self.is_up:
                await asyncio.sleep(RETRY_SECONDS)
                await self._connect()
                await self.check()
        finally:
            self._recovering = None

    async def _connect(self) -> None:
        """Connect without hurry: far away and with TLS it may take longer than a caller should wait."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(RETRY_SECONDS):
                await self._pool.release(await self._pool.get_connection())


def read_reply(reply: Sequence[int]) -> Standing:
    """Read what the script returns."""
    granted, now, *windows = reply
    left = tuple(milliseconds / 1_000 for milliseconds in windows[1::2])
    return Standing(granted, tuple(windows[::2]), left, now / 1_000)


def settle(batch: Sequence[_Question], answers: Sequence[Standing | None] | None = None) -> None:
    """Answer those who still wait; without answers they count for themselves."""
    for question, answer in zip(batch, answers or [None] * len(batch), strict=True):
        # Callers who left have cancelled theirs.
        if not question.answer.done():
            question.answer.set_result(answer)
