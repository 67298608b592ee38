"""One cell: one kind of request under one fault, from the good time before to the good time after."""

import asyncio
import itertools
import re
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from app.thingsboard.client import UPLOAD_REPEATS
from app.thingsboard.retry import EARNED_PER_CALL, MAXIMUM_SAVED
from benchmarks.faults.callers import KINDS, OK, Told, is_stored
from benchmarks.faults.catalogue import Fault
from benchmarks.faults.site import Site
from benchmarks.faults.underway import Listening, LongExport

CALLERS, LEAST_REQUESTS, MOST_REQUESTS = 4, 40, 200
#: For the least number of requests a fault may last so much longer than it should.
LONGER_SECONDS = 5.0
#: Nobody asks for more than a refresh and a login, twice when a token dies meanwhile.
MOST_LOGINS = 4
#: What belongs to everybody who asks, not to one request: the login, the live feed and what it looks for.
LOGINS, FEED = re.compile(r" /api/auth/"), re.compile(r" /api/ws$| /api/entitiesQuery/find$")
#: Beyond its bound a recovery is waited for so long, so that its figure is known.
GRACE_SECONDS = 30.0
#: Between the requests of one caller, so that what is measured is not how busy this process is.
PAUSE_SECONDS = 0.05


@dataclass
class Cell:
    """What came of it, and what does not hold."""

    fault: str
    column: str
    words: Counter[str] = field(default_factory=Counter)
    wait_seconds: float = 0.0
    #: Calls to ThingsBoard while it lasted, and how many the requests would have needed in good times.
    calls: int = 0
    needed: int = 0
    recovery_seconds: float | None = None
    acknowledged: int = 0
    lost: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether all is as specified."""
        return not self.problems

    @property
    def amplification(self) -> float | None:
        """Return calls by calls needed; None where that says nothing."""
        return self.calls / self.needed if self.needed else None

    def expect(self, condition: object, problem: str) -> None:
        """Note a problem unless the condition holds."""
        if not condition:
            self.problems.append(problem)

    def as_json(self) -> dict[str, Any]:
        """Return the members of the JSON report."""
        return {
            "fault": self.fault,
            "request": self.column,
            "answers": dict(sorted(self.words.items())),
            "longest_wait_seconds": round(self.wait_seconds, 3),
            "calls": self.calls,
            "calls_needed": self.needed,
            "recovery_seconds": None if self.recovery_seconds is None else round(self.recovery_seconds, 3),
            "acknowledged_points": self.acknowledged,
            "lost_points": self.lost,
            "problems": self.problems,
        }


class Case:
    """What happens in a cell, phase by phase; a row goes through each phase with all of its cases at once."""

    def __init__(self, site: Site, fault: Fault, column: str, patience: float) -> None:
        self.site, self.fault, self.column, self._patience = site, fault, column, patience
        self.cell = Cell(fault.name, column)
        #: What was answered, to be searched for what must not be in it.
        self.texts: list[str] = []

    async def warm_up(self) -> None:
        """Log in and connect."""

    async def open(self) -> None:
        """Begin what the fault is to interrupt."""

    async def endure(self) -> None:
        """Ask while the fault lasts."""

    async def recover(self) -> None:
        """Ask from the end of the fault until there is a good answer."""

    async def close(self) -> None:
        """End what `open` began, and say what does not hold."""

    def _expect_words(self) -> None:
        unexpected = sorted(self.cell.words.keys() - self.fault.expected[self.column])
        self.cell.expect(self.cell.words and not unexpected, f"answered {', '.join(unexpected) or 'nothing'}")

    def _expect_recovery(self) -> None:
        bound, found = self.fault.recovery_of(self.column) * self._patience, self.cell.recovery_seconds
        self.cell.expect(found is not None and found <= bound, f"not back within {bound:g} s")


class Asking(Case):
    """Requests, some at a time, as many as fit in."""

    def __init__(self, site: Site, fault: Fault, column: str, patience: float) -> None:
        super().__init__(site, fault, column, patience)
        self._kind = KINDS[column]
        self._numbers = itertools.count()
        self._calls_a_request = 0
        self._stored: list[Told] = []
        self._logins = 0

    async def warm_up(self) -> None:
        """Ask, and count what a request costs in good times."""
        await self.site.app.state.probe
        first = await self._ask()
        self._calls_a_request = self._own_calls()
        answers = [first, *await asyncio.gather(*(self._ask() for _ in range(CALLERS)))]
        words = {told.word for told in answers}
        self.cell.expect(words == {OK}, f"answered {', '.join(sorted(words))} before the fault")

    async def _ask(self) -> Told:
        if not next(self._numbers):
            self.site.proxy.calls.clear()
        told = await self._kind.ask(self.site, next(self._numbers))
        self._stored.append(told)
        self.texts.append(told.text)
        return told

    def _own_calls(self) -> int:
        calls = self.site.proxy.calls.items()
        return sum(count for name, count in calls if not LOGINS.search(name) and not FEED.search(name))

    async def endure(self) -> None:
        """Ask, and keep what is told."""
        self.site.proxy.calls.clear()
        ends = time.perf_counter() + self.fault.seconds
        most, told = MOST_REQUESTS - CALLERS, list[Told]()

        async def go_on() -> None:
            while True:
                told.append(await self._ask())
                late = time.perf_counter() - ends
                if late > (0 if len(told) >= LEAST_REQUESTS else LONGER_SECONDS) or len(told) > most:
                    return
                await asyncio.sleep(PAUSE_SECONDS)

        await asyncio.gather(*(go_on() for _ in range(CALLERS)))
        self.cell.words.update(each.word for each in told)
        self.cell.problems += sorted({each.text for each in told if each.word == "broken"})
        self.cell.wait_seconds = max(each.seconds for each in told)
        self.cell.calls, self.cell.needed = self._own_calls(), self._calls_a_request * len(told)
        calls = self.site.proxy.calls.items()
        self._logins = sum(count for name, count in calls if LOGINS.search(name))

    async def recover(self) -> None:
        """Ask again and again."""
        began = time.perf_counter()
        longest = self.fault.recovery_of(self.column) + GRACE_SECONDS
        while time.perf_counter() - began < longest:
            if (await self._ask()).word == OK:
                self.cell.recovery_seconds = time.perf_counter() - began
                return
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Judge."""
        cell = self.cell
        self._expect_words()
        self._expect_recovery()
        limit = self._kind.wait_seconds * self._patience
        cell.expect(cell.wait_seconds <= limit, f"waited {cell.wait_seconds:.1f} s, not {limit:g} s")
        free = MAXIMUM_SAVED + (UPLOAD_REPEATS if self.column == "bulk" else 0.0)
        if self.fault.is_of_tokens:
            free += CALLERS * self._calls_a_request
        allowed = cell.needed * (1 + EARNED_PER_CALL) + free
        is_modest = cell.calls <= allowed or not self._kind.is_counted
        cell.expect(is_modest, f"{cell.calls} calls where {cell.needed} would do")
        cell.expect(self._logins <= MOST_LOGINS, f"{self._logins} logins")
        points = [point for told in self._stored for point in told.stored]
        cell.acknowledged = len(points)
        cell.lost = sum(not is_stored(self.site, point) for point in points)
        cell.expect(not cell.lost, f"{cell.lost} acknowledged points are not stored")


class ExportUnderway(Case):
    """An export whose first bytes were read before the fault. It bears with it for a minute, or is cut."""

    async def open(self) -> None:
        """Begin one."""
        await self.site.app.state.probe
        self._stack = AsyncExitStack()
        self._export = await self._stack.enter_async_context(LongExport.begun(self.site))

    async def endure(self) -> None:
        """Read on."""
        self._finishing = asyncio.create_task(self._export.finish())
        await asyncio.sleep(self.fault.seconds)

    async def recover(self) -> None:
        """Read to the end, whichever that is."""
        async with asyncio.timeout(2 * GRACE_SECONDS):
            told = await self._finishing
        self.cell.words[told.word] += 1
        self.cell.wait_seconds = told.seconds

    async def close(self) -> None:
        """Judge."""
        await self._stack.aclose()
        self._expect_words()


class StreamUnderway(Case):
    """A stream that was open before the fault. It tells afterwards what was missed."""

    async def open(self) -> None:
        """Open one."""
        await self.site.app.state.probe
        self._stack, self._listening = AsyncExitStack(), Listening(self.site)
        await self._stack.enter_async_context(self._listening.running())

    async def endure(self) -> None:
        """Listen."""
        await asyncio.sleep(self.fault.seconds)

    async def recover(self) -> None:
        """Wait for a number that is said from now on."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.fault.recovery_of(self.column) + GRACE_SECONDS):
                await self._listening.hears(self._listening.said)
            self.cell.recovery_seconds = time.perf_counter() - began
        except TimeoutError:
            pass

    async def close(self) -> None:
        """Judge."""
        self.cell.words[self._listening.word] += 1
        await self._stack.aclose()
        self._expect_words()
        self._expect_recovery()


UNDERWAY: dict[str, type[Case]] = {"long_export": ExportUnderway, "listening": StreamUnderway}


def case_for(site: Site, fault: Fault, column: str, patience: float) -> Case:
    """Return what happens in a column."""
    return UNDERWAY.get(column, Asking)(site, fault, column, patience)
