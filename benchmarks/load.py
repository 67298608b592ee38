"""The load generator, a process of its own: keep-alive connections in a closed or an open loop.

`python -m benchmarks.load` reads a JSON specification from standard input and writes a JSON report. The open
loop counts each latency from the moment a request was due, not from when it could be sent, so a stalled
server cannot hide the requests that waited for it (no coordinated omission).
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Generic, TypeVar, cast

import httptools
import uvloop

from benchmarks.processes import HOST, ROOT, BenchmarkFailed

#: The event loop's timers are late by up to a millisecond: the last stretch is waited for by turning.
SPIN_SECONDS = 0.002
GRACE_SECONDS = 30.0
FIRST_FAILURE = 300

Connection = TypeVar("Connection")


@dataclass(frozen=True)
class Specification:
    """What to send: `{n}` in the target becomes the number of the request.

    Attributes:
        rate: requests a second in an open loop; None makes a closed loop.
        count: end after so many requests; None goes by time alone.
    """

    port: int
    target: str
    headers: dict[str, str]
    connections: int = 1
    seconds: float = 1.0
    method: str = "GET"
    body: str = ""
    rate: float | None = None
    count: int | None = None


@dataclass
class Report:
    """What came of it. Latencies are in seconds; an open loop also tells those of good answers apart."""

    answered: int = 0
    failed: int = 0
    lost: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    good_latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Return answers a second."""
        return self.answered / self.seconds if self.seconds else 0.0


class OpenLoop(Generic[Connection]):
    """Due times and who serves them: a request that finds no idle connection waits, and its clock runs."""

    def __init__(self, rate: float, idle: list[Connection], send: Callable[[Connection, int], None]) -> None:
        self._period, self._idle, self._send = 1 / rate, deque(idle), send
        self._waiting: deque[int] = deque()
        self._under_way: dict[int, int] = {}
        self.arrived = 0
        self.latencies: list[float] = []

    def due(self, number: int) -> float:
        """Return when a request is due, in seconds from the start."""
        return number * self._period

    def arrive(self) -> None:
        """Let the next request come, whatever became of those before it."""
        number = self.arrived
        self.arrived += 1
        if self._idle:
            self._start(self._idle.popleft(), number)
        else:
            self._waiting.append(number)

    def finish(self, connection: Connection, now: float) -> float:
        """Note an answer and return its latency; its connection goes to who has waited for one longest."""
        latency = now - self.due(self._under_way.pop(id(connection)))
        self.latencies.append(latency)
        if self._waiting:
            self._start(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)
        return latency

    def _start(self, connection: Connection, number: int) -> None:
        self._under_way[id(connection)] = number
        self._send(connection, number)


class Client(asyncio.Protocol):
    """One keep-alive connection with one request under way at most."""

    def __init__(self, finished: Callable[["Client"], None], report: Report) -> None:
        self._finished, self._report = finished, report
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.is_busy = self.was_good = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports have the methods of asyncio's and are no subclass.
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes) -> None:
        """Send a request that is encoded already."""
        if self._transport is None or self._transport.is_closing():
            self._report.lost += 1
            return
        self.is_busy = True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Count the answer."""
        self.is_busy = False
        self.was_good = self._parser.get_status_code() < FIRST_FAILURE
        if self.was_good:
            self._report.answered += 1
        else:
            self._report.failed += 1
        self._finished(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Count a connection that was lost while an answer was awaited."""
        if self.is_busy:
            self._report.lost += 1
        self._transport = None

    def close(self) -> None:
        """Close."""
        self.is_busy = False
        if self._transport is not None:
            self._transport.close()


def encoder(specification: Specification) -> Callable[[int], bytes]:
    """Return what makes the bytes of the n-th request; made once when all are alike."""
    body = specification.body.encode()
    headers = {"Host": f"{HOST}:{specification.port}", **specification.headers}
    if body:
        headers["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    rest = f" HTTP/1.1\r\n{lines}\r\n".encode() + body
    if "{n}" not in specification.target:
        whole = f"{specification.method} {specification.target}".encode() + rest
        return lambda _: whole
    before, _, after = f"{specification.method} {specification.target}".partition("{n}")
    # Fixed width, so that it may be a part of a UUID.
    return lambda number: f"{before}{number:012d}{after}".encode() + rest


async def connect(
    specification: Specification, report: Report, finished: Callable[[Client], None]
) -> list[Client]:
    """Open all connections."""
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(specification.connections):
        _, client = await loop.create_connection(lambda: Client(finished, report), HOST, specification.port)
        clients.append(client)
    return clients


async def run_closed(specification: Specification) -> Report:
    """Keep every connection busy for a time or a number of requests."""
    report, encode = Report(), encoder(specification)
    all_done = asyncio.Event()
    sent = finished = 0
    ends = float("inf")

    def go_on(client: Client) -> None:
        nonlocal sent, finished
        finished += 1
        is_over = time.perf_counter() >= ends or (
            specification.count is not None and sent >= specification.count
        )
        if not is_over:
            sent += 1
            client.send(encode(sent))
        elif finished == sent:
            all_done.set()

    clients = await connect(specification, report, go_on)
    started = time.perf_counter()
    ends = started + specification.seconds
    for client in clients[: specification.count]:
        sent += 1
        client.send(encode(sent))
    async with asyncio.timeout(specification.seconds + GRACE_SECONDS):
        await all_done.wait()
    report.seconds = time.perf_counter() - started
    for client in clients:
        client.close()
    return report


async def run_open(specification: Specification, rate: float) -> Report:
    """Send at a fixed rate, whatever the answers do."""
    report, encode = Report(), encoder(specification)
    started = time.perf_counter()

    def finish(client: Client) -> None:
        latency = schedule.finish(client, time.perf_counter() - started)
        if client.was_good:
            report.good_latencies.append(latency)

    clients = await connect(specification, report, finish)
    schedule = OpenLoop(rate, clients, lambda client, number: client.send(encode(number)))
    started = time.perf_counter()
    for number in range(int(rate * specification.seconds)):
        await sleep_until(started + schedule.due(number))
        schedule.arrive()
    await sleep_until_all(schedule, report)
    report.seconds = time.perf_counter() - started
    report.latencies = schedule.latencies
    for client in clients:
        client.close()
    return report


async def sleep_until_all(schedule: OpenLoop[Client], report: Report) -> None:
    """Wait for the last answers."""
    ends = time.perf_counter() + GRACE_SECONDS
    while len(schedule.latencies) < schedule.arrived and not report.lost:
        if time.perf_counter() > ends:
            raise TimeoutError
        await asyncio.sleep(0.001)


async def sleep_until(moment: float) -> None:
    """Sleep, then turn, to be there in time."""
    wait = moment - time.perf_counter() - SPIN_SECONDS
    if wait > 0:
        await asyncio.sleep(wait)
    while time.perf_counter() < moment:  # noqa: ASYNC110 - finer than the loop's timers
        await asyncio.sleep(0)


def run(specification: Specification, *, may_be_refused: bool = False) -> Report:
    """Run the generator as a process and return its report.

    Args:
        may_be_refused: an answer that is no success is none of the measurement's failures.
    """
    limit = specification.seconds + 2 * GRACE_SECONDS
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=json.dumps(asdict(specification)),
        capture_output=True,
        check=False,
        text=True,
        timeout=limit,
        cwd=ROOT,
    )
    if done.returncode != 0:
        raise BenchmarkFailed(f"the load generator failed: {done.stderr.strip().splitlines()[-1:]}")
    report = Report(**json.loads(done.stdout))
    if (report.failed and not may_be_refused) or report.lost or not report.answered:
        raise BenchmarkFailed(
            f"{specification.target}: {report.answered} answered, {report.failed} failed, {report.lost} lost"
        )
    return report


def main(members: Mapping[str, object]) -> None:
    """Run one specification and write the report."""
    specification = Specification(**members)  # type: ignore[arg-type]  # what `run` has written
    rate = specification.rate
    report = uvloop.run(run_closed(specification) if rate is None else run_open(specification, rate))
    json.dump(asdict(report), sys.stdout)


if __name__ == "__main__":
    main(json.load(sys.stdin))
