"""A thousand readers of live data: how soon an update reaches all of them, and what each one costs.

Every reader hears all ten devices, so an update of any of them goes to every reader: the worst case.
"""

import asyncio
import time
from collections.abc import Sequence

import orjson

from benchmarks.bench import CALLER, KEY, Bench
from benchmarks.bulk import start_simulator
from benchmarks.economy import CALLS
from benchmarks.figures import Result, percentile
from benchmarks.filled_simulator import FIRST_MS
from benchmarks.processes import HOST, BenchmarkFailed, Child, fetch

SUBSCRIBERS, DEVICES = 1_000, 10
#: Opened at once: a thousand at the same moment would measure the listen queue.
OPENED_AT_ONCE = 50
UPDATES, QUICK_UPDATES = 200, 40
ROUND_SECONDS = 10.0
#: Numbers of updates, told apart from all else in a stream.
FIRST_NUMBER = 700_000_000


class Reader(asyncio.Protocol):
    """One subscriber: looks for the number of the present update and throws the rest away."""

    def __init__(self, crowd: "Crowd") -> None:
        self.crowd = crowd
        self.has_begun = False

    def data_received(self, data: bytes) -> None:
        """Count."""
        if not self.has_begun and b"retry:" in data:
            self.has_begun = True
            self.crowd.begun += 1
            self.crowd.more_begun.set()
        if self.crowd.wanted in data:
            self.crowd.reached += 1
            self.crowd.last = time.perf_counter()
            if self.crowd.reached == SUBSCRIBERS:
                self.crowd.complete.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Note that one is missing."""
        self.crowd.lost += 1


class Crowd:
    """All subscribers, and how many of them an update has reached."""

    def __init__(self) -> None:
        self.begun = self.reached = self.lost = 0
        self.wanted, self.last = b"\0", 0.0
        self.complete, self.more_begun = asyncio.Event(), asyncio.Event()

    async def gather(self, port: int, device_ids: Sequence[str]) -> list[asyncio.Transport]:
        """Open all streams."""
        loop, opened = asyncio.get_running_loop(), []
        request = (
            f"GET /api/v1/tb/telemetry/stream?device_ids={','.join(device_ids)} HTTP/1.1\r\n"
            f"Host: {HOST}\r\nX-API-Key: {KEY}\r\n\r\n"
        ).encode()
        for number in range(SUBSCRIBERS):
            transport, _ = await loop.create_connection(lambda: Reader(self), HOST, port)
            transport.write(request)
            opened.append(transport)
            if (number + 1) % OPENED_AT_ONCE == 0:
                await self._until_begun(number + 1)
        return opened

    async def _until_begun(self, count: int) -> None:
        try:
            async with asyncio.timeout(ROUND_SECONDS):
                while self.begun < count:
                    self.more_begun.clear()
                    await self.more_begun.wait()
        except TimeoutError:
            raise BenchmarkFailed(f"{self.begun} of {count} streams have begun") from None

    async def follow(self, port: int, device_id: str, number: int) -> float:
        """Upload a point; return how many seconds later it had reached everybody."""
        self.reached, self.wanted = 0, b'"value":%d' % number
        self.complete.clear()
        body = orjson.dumps({"load": [{"ts": FIRST_MS + number, "value": number}]})
        headers = {**CALLER, "Content-Type": "application/json"}
        target = f"/api/v1/tb/devices/{device_id}/telemetry"
        started = time.perf_counter()
        uploading = asyncio.to_thread(fetch, port, target, headers, method="POST", body=body)
        status, answer = await uploading
        if status != 201:  # noqa: PLR2004 - HTTP's created
            raise BenchmarkFailed(f"an upload was answered {status}: {answer[:300]!r}")
        try:
            async with asyncio.timeout(ROUND_SECONDS):
                await self.complete.wait()
        except TimeoutError:
            raise BenchmarkFailed(
                f"an update reached {self.reached} of {SUBSCRIBERS} subscribers, {self.lost} were cut"
            ) from None
        return self.last - started


def measure(bench: Bench) -> list[Result]:
    """Measure."""
    simulator, (_, *ids) = start_simulator(bench, devices=DEVICES)
    gateway = bench.start_gateway(simulator, STREAMS_PER_KEY=str(2 * SUBSCRIBERS))
    updates = UPDATES if bench.extent.rounds > 3 else QUICK_UPDATES  # noqa: PLR2004 - the rounds of a quick run
    seconds, memory, cpu = asyncio.run(_run(gateway, ids[:DEVICES], updates))
    sockets = orjson.loads(fetch(simulator.port, CALLS, {})[1])["calls"].get("WS /api/ws", 0)
    p50, p99 = (percentile(seconds, share) * 1000 for share in (0.5, 0.99))
    bench.note(
        "live",
        f"{updates} updates, one after the other, to {SUBSCRIBERS} subscribers of {DEVICES} devices each: "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms from the upload to the last subscriber; "
        f"{cpu * 1e6 / SUBSCRIBERS:.0f} us of CPU a subscriber and update.",
    )
    return [
        Result.at_most("1,000 live subscribers on 10 devices", 1, sockets, "ThingsBoard WebSockets"),
        Result.at_most("an update reaches 1,000 live subscribers", 250, p99, "ms"),
        Result.at_most("memory of a live subscriber", 64, memory / 1024, "KiB"),
    ]


async def _run(gateway: Child, ids: Sequence[str], updates: int) -> tuple[list[float], float, float]:
    """Return the seconds of each update, the bytes of each subscriber, and the CPU seconds of an update."""
    before, crowd = gateway.memory_now(), Crowd()
    opened = await crowd.gather(gateway.port, ids)
    # The first ones fill buffers that stay.
    for number in range(5):
        await crowd.follow(gateway.port, ids[number], FIRST_NUMBER + number)
    cpu = gateway.cpu_seconds()
    seconds = [
        await crowd.follow(gateway.port, ids[number % len(ids)], FIRST_NUMBER + number)
        for number in range(5, 5 + updates)
    ]
    cpu = (gateway.cpu_seconds() - cpu) / updates
    memory = (gateway.memory_now() - before) / SUBSCRIBERS
    for transport in opened:
        transport.abort()
    return seconds, memory, cpu
