"""Whose call goes to ThingsBoard next: a bounded number at once, the waiting keys in turn.

One queue for what bounds the calls in flight and for the pace that ThingsBoard's rate limit leaves. The
reasons and the numbers are in docs/adr/0011-fair-share.md.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog

from app.errors import GatewayError, Overloaded, UpstreamBusy
from app.thingsboard.pace import Pace

log = structlog.get_logger("thingsboard")

#: Calls that may wait for their turn; beyond it the gateway says 503 rather than grow.
MAXIMUM_WAITING = 2_000
#: A key may take one more place while it has less than so many times what is free: alone it gets seven
#: eighths, several share them, and something is left for a key that comes later.
GENEROSITY = 7
#: A queue that has not been empty for so long is no burst that passes: more is asked for than can be served.
#: Who comes then and waited as long as allowed would be served when most such callers have just given up, so
#: that hardly an answer reaches anybody. It is let in for a part of the time only.
STANDING_SECONDS = 1.0
STANDING_PART = 1 / 8
#: Weight of the newest call in the average of how long calls take.
NEWEST = 1 / 16

Waiter = asyncio.Future["Turn"]


@dataclass(slots=True, eq=False)
class Turn:
    """The right to have one call in flight. Times are those of the event loop, in seconds."""

    key: str
    began: float
    #: Which of ThingsBoard's refusals the pace knew of.
    epoch: int


@dataclass(slots=True)
class Counts:
    """What became of calls since the start."""

    #: Had to wait for their turn, and for how long.
    waited: int = 0
    waited_seconds: float = 0.0
    #: Refused by us: no room in the queue, or a turn that would come too late.
    full: int = 0
    too_late: int = 0
    #: Refused because of ThingsBoard's rate limit.
    limited: int = 0
    #: 429s of ThingsBoard.
    upstream_refusals: int = 0


@dataclass(slots=True)
class _Line:
    """The waiting calls of one key. Those that ThingsBoard has refused once stand in front."""

    returned: OrderedDict[Waiter, None] = field(default_factory=OrderedDict)
    fresh: OrderedDict[Waiter, None] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.returned) + len(self.fresh)

    def pop(self) -> Waiter:
        return (self.returned or self.fresh).popitem(last=False)[0]

    def discard(self, waiter: Waiter) -> bool:
        return (self.returned.pop(waiter, self) is None) or (self.fresh.pop(waiter, self) is None)


class FairQueue:
    """Shared by all calls of a ThingsBoard tenant, of however many connections, in one event loop.

    Keys that wait take turns; within a key the first to come is served first. A caller who leaves loses its
    place, and nothing else happens.
    """

    def __init__(self, in_flight: int, *, pace: Pace | None = None) -> None:
        self.counts = Counts()
        self.pace = pace or Pace()
        self._slots = self._free = in_flight
        self._held: dict[str, int] = {}
        #: In the order of their next turns.
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._waiting = 0
        #: Since when somebody has been waiting, while anybody does.
        self._busy_since = 0.0
        #: How long a call takes on average.
        self._call_seconds = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._serves_at = 0.0

    @property
    def in_flight(self) -> int:
        """Return how many calls have their turn now."""
        return self._slots - self._free

    @property
    def waiting(self) -> int:
        """Return how many calls wait for their turn."""
        return self._waiting

    def stands(self, now: float, seconds: float) -> bool:
        """Tell whether it has not been empty for so long."""
        return bool(self._lines) and now - self._busy_since > seconds

    def take(self, key: str, now: float) -> Turn | None:
        """Return a turn if this key need not wait; whoever waits meanwhile may not start either."""
        if self.pace.is_limited:
            self.pace.asked()
            # With nobody to overtake it may leave when the pace allows: who must not wait has no other way.
            if self._lines or self.pace.wait(now) > 0:
                return None
        if not self._may_start(key):
            return None
        return self._start(key, now)

    async def wait(self, key: str, until: float, *, is_return: bool = False) -> Turn:
        """Return a turn when it comes.

        Args:
            until: the moment after which a turn is of no use, by the event loop's clock.
            is_return: ThingsBoard has refused this call before, so it goes before others of its key.

        Raises:
            Overloaded: the queue is full, or the turn would come too late because of how slow calls are.
            UpstreamBusy: it would come too late because of ThingsBoard's rate limit.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._check_room(key, until, began, is_return=is_return)
        self.counts.waited += 1
        if not self._lines:
            self._busy_since = loop.time()
        waiter: Waiter = loop.create_future()
        line = self._lines.setdefault(key, _Line())
        (line.returned if is_return else line.fresh)[waiter] = None
        self._waiting += 1
        expiry = loop.call_at(until, self._expire, key, waiter)
        self._serve(loop.time())
        try:
            return await waiter
        except BaseException:
            self._give_back(key, waiter, loop.time())
            raise
        finally:
            expiry.cancel()
            self.counts.waited_seconds += loop.time() - began

    def check_time(self, key: str, until: float, now: float) -> None:
        """Refuse a call whose turn would come too late, before it waits; see `wait`."""
        if self._lines or self.pace.is_limited or not self._may_start(key):
            line = self._lines.get(key)
            seconds = self._seconds_until(1 + (0 if line is None else len(line)), now)
            if now + seconds > until:
                raise self._too_late(seconds)

    def give_up(self, key: str, now: float) -> GatewayError:
        """Return the error of a call of this key that has waited too long for its turn."""
        line = self._lines.get(key)
        return self._too_late(self._seconds_until(1 + (0 if line is None else len(line)), now))

    def end(self, turn: Turn, now: float, *, is_refused: bool | None) -> None:
        """Let the next one have the place.

        Args:
            is_refused: whether ThingsBoard said 429; None when it said nothing.
        """
        held = self._held.pop(turn.key) - 1
        if held:
            self._held[turn.key] = held
        self._free += 1
        seconds = now - turn.began
        if is_refused:
            self._note_refusal(turn, now)
        elif is_refused is None:
            self.pace.abandoned(turn.epoch)
            # It would have taken so long at least; a call that was given up at once says nothing.
            if seconds > self._call_seconds:
                self._call_seconds += (seconds - self._call_seconds) * NEWEST
        else:
            self.pace.admitted(turn.epoch, now)
            self._call_seconds += (seconds - self._call_seconds) * NEWEST
        if self._lines:
            self._serve(now)

    def _may_start(self, key: str) -> bool:
        return self._held.get(key, 0) < GENEROSITY * self._free

    def _start(self, key: str, now: float) -> Turn:
        self._free -= 1
        self._held[key] = self._held.get(key, 0) + 1
        return Turn(key, now, self.pace.leave(now))

    def _serve(self, now: float) -> None:
        """Hand out what is free, as far as the pace allows."""
        while self._lines and self._free:
            wait = self.pace.wait(now)
            if wait > 0:
                self._serve_at(now + wait)
                return
            key = next(self._startable(), None)
            if key is None:
                return
            line = self._lines[key]
            waiter = line.pop()
            self._waiting -= 1
            if not line:
                del self._lines[key]
            if waiter.done():
                # Its caller has left in this turn of the event loop, and has not run since.
                continue
            if line:
                # Who may not start yet keeps its place before those that have had a turn.
                self._lines.move_to_end(key)
            waiter.set_result(self._start(key, now))

    def _startable(self) -> Iterator[str]:
        return (key for key in self._lines if self._may_start(key))

    def _serve_at(self, moment: float) -> None:
        if self._timer is not None:
            # Kept here: uvloop's handle of what is due at once has no `when`.
            if self._serves_at <= moment:
                return
            self._timer.cancel()
        # While a probe is under way its end serves the others: the moment is infinite.
        if moment < float("inf"):
            self._serves_at = moment
            self._timer = asyncio.get_running_loop().call_at(moment, self._timer_rings)

    def _timer_rings(self) -> None:
        self._timer = None
        self._serve(asyncio.get_running_loop().time())

    def _check_room(self, key: str, until: float, now: float, *, is_return: bool) -> None:
        line = self._lines.get(key)
        own = 0 if line is None else len(line.returned) if is_return else len(line)
        seconds = self._seconds_until(own + 1, now)
        # What has returned had its place before.
        if not is_return and own >= GENEROSITY * (MAXIMUM_WAITING - self._waiting):
            self.counts.full += 1
            raise Overloaded(note="upstream_queue_full", retry_after=max(1.0, seconds))
        if now >= until or now + seconds > (until if is_return else self._latest(until, now)):
            raise self._too_late(seconds)

    def _latest(self, until: float, now: float) -> float:
        """Return the moment by which a newcomer must have its turn."""
        if self.stands(now, STANDING_SECONDS):
            # A wait as long as a call itself is no harm to anybody who waits for calls of that length.
            return min(until, now + max((until - now) * STANDING_PART, self._call_seconds))
        return until

    def _seconds_until(self, place: int, now: float) -> float:
        """Estimate, from above, the wait of the n-th call of a key: each other key has n turns before it."""
        position = min(self._waiting + 1, place * (len(self._lines) + 1))
        return max(position * self._call_seconds / self._slots, self.pace.estimate(position, now))

    def _too_late(self, seconds: float) -> GatewayError:
        if self.pace.is_limited:
            self.counts.limited += 1
            return UpstreamBusy(
                details={"limited_by": "thingsboard"}, retry_after=max(1.0, seconds), note="upstream_429"
            )
        self.counts.too_late += 1
        return Overloaded(note="upstream_queue_slow", retry_after=max(1.0, seconds))

    def _expire(self, key: str, waiter: Waiter) -> None:
        if not waiter.done():
            self._remove(key, waiter)
            waiter.set_exception(self.give_up(key, asyncio.get_running_loop().time()))

    def _give_back(self, key: str, waiter: Waiter, now: float) -> None:
        """Undo the wait of a caller who has left, maybe just after its turn had come."""
        if waiter.cancelled() or not waiter.done():
            self._remove(key, waiter)
        elif waiter.exception() is None:
            self.end(waiter.result(), now, is_refused=None)

    def _remove(self, key: str, waiter: Waiter) -> None:
        line = self._lines.get(key)
        if line is not None and line.discard(waiter):
            self._waiting -= 1
            if not line:
                del self._lines[key]

    def _note_refusal(self, turn: Turn, now: float) -> None:
        self.counts.upstream_refusals += 1
        was_limited = self.pace.is_limited
        self.pace.refused(turn.epoch, now)
        if not was_limited:
            log.warning("thingsboard_rate_limit", calls_a_second=round(self.pace.rate(now), 2))
