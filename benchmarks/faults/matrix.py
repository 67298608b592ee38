"""One row of the matrix: a fault against every kind of request, all at once, each at a site of its own."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.catalogue import COLUMNS, Fault
from benchmarks.faults.cells import Case, Cell, case_for
from benchmarks.faults.proxy import HOST
from benchmarks.faults.site import KEY, open_site
from benchmarks.faults.surroundings import NAME, Redis, Row
from tests.no_secrets import leaks_in

#: What must be neither in an answer nor in the log.
FOREIGN_TEXTS = ("upstream.internal", "Simulated fault", "Please log in", "Traceback (most recent", KEY)
#: Sockets of a row that may remain beside those of before: connections kept for the next request. Four bulk
#: uploads at once have 32 to ThingsBoard, with four ends each, and each caller has one, with two.
KEPT_SOCKETS = 200
REST_SECONDS = 8.0


@dataclass
class RowResult:
    """All cells of a fault, and what was left behind."""

    fault: Fault
    cells: dict[str, Cell]
    tasks_left: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether all is as specified."""
        return not self.problems and all(cell.holds for cell in self.cells.values())


async def run_row(
    fault: Fault, folder: Path, *, columns: Sequence[str] = tuple(COLUMNS), patience: float = 1.0
) -> RowResult:
    """Put the fault to every kind of request: a good time, a bad one, a good one again.

    Args:
        patience: what bounds of time are multiplied by, for machines that are busy with something else.
    """
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(repr(context)))
    async with open_row(fault, folder, columns) as row:
        cases = [case_for(site, fault, column, patience) for column, site in row.sites.items()]
        await asyncio.gather(*(case.warm_up() for case in cases))
        await asyncio.sleep(0.3)
        problems = await problems_of_redis(row, "before the fault")
        tasks, sockets = running_tasks(), open_sockets()
        await asyncio.gather(*(case.open() for case in cases))
        await fault.begin(row)
        await asyncio.gather(*(case.endure() for case in cases))
        await fault.end(row)
        await asyncio.gather(*(case.recover() for case in cases))
        await asyncio.gather(*(case.close() for case in cases))
        problems += await problems_of_redis(row, "afterwards")
        result = RowResult(fault, {case.column: case.cell for case in cases}, problems=problems)
        tasks_left, sockets_left = await rest(tasks, sockets + KEPT_SOCKETS)
        result.tasks_left = (tasks_left - tasks).total()
        result.problems += [f"{count} more of {name}" for name, count in (tasks_left - tasks).items()]
        if sockets_left > sockets + KEPT_SOCKETS:
            result.problems.append(f"{sockets_left - sockets} sockets more than before")
        ports = [str(port) for site in row.sites.values() for port in (site.proxy.port, site.simulator.port)]
        result.problems += leaks_of(cases, ports)
    result.problems += [f"the event loop complains: {complaint}" for complaint in complaints]
    return result


@contextlib.asynccontextmanager
async def open_row(fault: Fault, folder: Path, columns: Sequence[str]) -> AsyncIterator[Row]:
    """Open a site for each kind of request."""
    row = Row()
    async with contextlib.AsyncExitStack() as stack:
        host, redis_url = HOST, None
        if fault.surroundings == "names":
            stack.enter_context(row.names.installed())
            host = NAME
        elif fault.surroundings == "redis":
            row.redis = await stack.enter_async_context(Redis.running())
            redis_url = row.redis.url
        for column in columns:
            has_long_history = column == "long_export"
            site = open_site(folder, host=host, redis_url=redis_url, has_long_history=has_long_history)
            row.sites[column] = await stack.enter_async_context(site)
        yield row


async def problems_of_redis(row: Row, moment: str) -> list[str]:
    """Say so if a gateway that has a Redis does not count there. It asks once a second whether it can."""
    counters = [site.app.state.redis for site in row.sites.values() if row.redis is not None]
    for _ in range(int(REST_SECONDS / 0.1)):
        if all(each.is_up for each in counters):
            return []
        await asyncio.sleep(0.1)
    return [f"Redis is not used {moment}"]


async def rest(tasks: Counter[str], sockets: int) -> tuple[Counter[str], int]:
    """Return the tasks and the number of sockets, once they are no more than these, or after a while."""
    for _ in range(int(REST_SECONDS / 0.1)):
        if running_tasks() <= tasks and open_sockets() <= sockets:
            break
        await asyncio.sleep(0.1)
    return running_tasks(), open_sockets()


def running_tasks() -> Counter[str]:
    """Return how many tasks there are of each kind."""
    return Counter(getattr(task.get_coro(), "__qualname__", "task") for task in asyncio.all_tasks())


def open_sockets() -> int:
    """Return how many sockets this process holds."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += entry.readlink().name.startswith("socket:")
    return found


def leaks_of(cases: Iterable[Case], ports: Iterable[str]) -> list[str]:
    """Return what answers tell that they must not: secrets, texts and addresses of ThingsBoard."""
    foreign = (*FOREIGN_TEXTS, *(f":{port}" for port in ports))
    texts = "\n".join(text for case in cases for text in case.texts)
    return [f"an answer holds {text!r}" for text in foreign if text in texts] + log_leaks(texts, ())


def log_leaks(text: str, foreign: Iterable[str] = FOREIGN_TEXTS) -> list[str]:
    """Return which secrets and foreign texts a log holds, without the secrets."""
    return [f"leaked: {place}" for place in leaks_in(text)] + [
        f"the log holds {each[:20]!r}" for each in foreign if each in text
    ]
