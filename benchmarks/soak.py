"""Mixed traffic for minutes, and whether memory and file descriptors stay: `python -m benchmarks.soak`.

Readers, uploads, exports, streams that come and go, commands, mistakes and callers who leave in the middle,
at a gentle rate. It ends with 1 when something grew, or when the gateway answered a 500.
"""

import argparse
import asyncio
import contextlib
import itertools
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import aiohttp

from benchmarks import svg
from benchmarks.bench import CALLER, KEY, start_gateway, start_thingsboard
from benchmarks.processes import (
    HOST,
    MIB,
    ROOT,
    Child,
    Children,
    free_port,
    say,
)

BASE = "/api/v1/tb"
DEVICE = "name:Test Device A1"
PLOT = ROOT / "docs" / "images" / "soak.svg"
SAMPLES = 200
#: The first part fills pools, caches and the allocator.
WARM_UP = 0.4
#: What the middle of the last part may lie above that of the part before it: noise of the allocator.
MOST_GROWTH_MIB = 3.0
MOST_MORE_FILES = 8
REST_SECONDS = 7.0
BREAK_SECONDS = 0.05
BUG = 500
#: A call that goes on for ever would hide that nothing else goes on.
CALL = aiohttp.ClientTimeout(total=30)


class Sample(NamedTuple):
    """What the gateway held at a moment."""

    minutes: float
    memory_mib: float
    files: int


class Traffic:
    """What callers do; each kind goes on by itself until cancelled."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self.port, self.session = port, session
        self.url = f"http://{HOST}:{port}{BASE}"
        self.statuses: Counter[int] = Counter()
        self.done: Counter[str] = Counter()
        self._numbers = itertools.count(1)

    def kinds(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """Return all of them."""
        return self.read, self.write, self.export, self.listen, self.talk, self.command, self.err, self.leave

    async def go_on(self, kind: Callable[[], Awaitable[None]]) -> None:
        """Do one thing again and again."""
        while True:
            # A caller whose connection was closed comes again.
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await kind()
                self.done[kind.__name__] += 1
            await asyncio.sleep(BREAK_SECONDS)

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> None:
        """Make a call and read its answer."""
        async with self.session.request(method, self.url + path, json=body, headers=headers) as answer:
            self.statuses[answer.status] += 1
            await answer.read()

    async def read(self) -> None:
        """Read lists, one device, its latest values, a graph."""
        for path in ("/devices", f"/devices/{DEVICE}", f"/devices/{DEVICE}/telemetry/latest", "/alarms"):
            await self.ask("GET", path)

    async def write(self) -> None:
        """Upload points of one device and of several; times come again, so that the world stays small."""
        ts = 1_760_000_000_000 + next(self._numbers) % 5_000
        points = {"temperature": [{"ts": ts, "value": 20.5}]}
        await self.ask("POST", f"/devices/{DEVICE}/telemetry", points)
        await self.ask("POST", "/telemetry/bulk", {DEVICE: points, "name:nobody": points})

    async def export(self) -> None:
        """Read a whole history."""
        for kind in ("csv", "jsonl", "xlsx"):
            await self.ask("GET", f"/devices/{DEVICE}/telemetry/export?format={kind}&start_ts=1759999999000")

    async def listen(self) -> None:
        """Follow a device's events for a moment and go."""
        async with self.session.get(f"{self.url}/devices/{DEVICE}/telemetry/stream") as answer:
            self.statuses[answer.status] += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    async for _ in answer.content:
                        pass

    async def talk(self) -> None:
        """Subscribe over a WebSocket, hear one answer, go with or without goodbye."""
        async with self.session.ws_connect(f"{self.url}/ws") as socket:
            await socket.send_json({"type": "subscribe", "id": 1, "device_ids": [DEVICE]})
            await socket.receive(timeout=5.0)

    async def command(self) -> None:
        """Send a command to a device that is away."""
        await self.ask("POST", f"/devices/{DEVICE}/rpc/twoway", {"method": "a", "fail_fast": True})

    async def err(self) -> None:
        """Make mistakes of many kinds."""
        await self.ask("GET", f"/devices/name:nobody-{next(self._numbers)}")
        await self.ask("GET", "/devices?pagesize=1")
        await self.ask("GET", f"/nothing-{next(self._numbers)}")
        await self.ask("POST", f"/devices/{DEVICE}/telemetry", {})
        await self.ask("GET", "/devices", **{"X-API-Key": f"wrong-{next(self._numbers)}"})

    async def leave(self) -> None:
        """Go in the middle of a body, and before an answer has come."""
        head = f"POST {BASE}/telemetry/bulk HTTP/1.1\r\nHost: {HOST}\r\nX-API-Key: {KEY}\r\n"
        export = f"GET {BASE}/devices/{DEVICE}/telemetry HTTP/1.1\r\nHost: {HOST}\r\nX-API-Key: {KEY}\r\n\r\n"
        for part in (f"{head}Content-Type: application/json\r\nContent-Length: 900\r\n\r\n{{", export):
            _, writer = await asyncio.open_connection(HOST, self.port)
            writer.write(part.replace(" Device ", "%20Device%20").encode())
            await asyncio.sleep(BREAK_SECONDS / 10)
            writer.transport.abort()


def start(children: Children) -> Child:
    """Start a simulated ThingsBoard and a gateway before it; return the gateway."""
    port = free_port()
    return start_gateway(children, start_thingsboard(children, port, "tb_simulator", "--port", str(port)))


def sample(gateway: Child, started: float) -> Sample:
    """Look at the gateway's processes."""
    return Sample((time.monotonic() - started) / 60, gateway.memory_now() / MIB, gateway.open_files())


async def drive(gateway: Child, seconds: float) -> tuple[list[Sample], Traffic]:
    """Make the traffic and watch; the last sample is of the gateway at rest again, the first of before."""
    started = time.monotonic()
    samples = [sample(gateway, started)]
    async with aiohttp.ClientSession(headers=CALLER, timeout=CALL) as session:
        traffic = Traffic(gateway.port, session)
        tasks = [asyncio.create_task(traffic.go_on(kind)) for kind in traffic.kinds()]
        while time.monotonic() - started < seconds:
            await asyncio.sleep(seconds / SAMPLES)
            samples.append(sample(gateway, started))
            if len(samples) % (SAMPLES // 10) == 0:
                now = samples[-1]
                say(f"{now.minutes:5.1f} min  {now.memory_mib:6.1f} MiB  {now.files:4d} files")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    # Keep-alive connections to callers end after 5 s.
    await asyncio.sleep(REST_SECONDS)
    samples.append(sample(gateway, started))
    return samples, traffic


def faults_of(samples: list[Sample], traffic: Traffic) -> list[str]:
    """Return what is wrong with what was seen."""
    warm = samples[int(len(samples) * WARM_UP) : -1]
    half = len(warm) // 2
    growth = statistics.median(s.memory_mib for s in warm[half:]) - statistics.median(
        s.memory_mib for s in warm[:half]
    )
    more_files = samples[-1].files - samples[0].files
    say(
        f"📈 after the warm-up memory grew by {growth:.1f} MiB, to {warm[-1].memory_mib:.0f} MiB;"
        f" {samples[0].files} files before, {max(s.files for s in samples)} at most,"
        f" {samples[-1].files} at rest"
    )
    counted = ", ".join(f"{number:,} x {status}" for status, number in sorted(traffic.statuses.items()))
    say(f"📊 {counted}; " + ", ".join(f"{name} {number:,}" for name, number in traffic.done.items()))
    faults = []
    if growth > MOST_GROWTH_MIB:
        faults.append(f"memory grew by {growth:.1f} MiB")
    if more_files > MOST_MORE_FILES:
        faults.append(f"{more_files} files more than before are open at rest")
    if traffic.statuses[BUG]:
        faults.append(f"{traffic.statuses[BUG]} answers were a 500")
    idle = [kind.__name__ for kind in traffic.kinds() if not traffic.done[kind.__name__]]
    if idle:
        faults.append(f"never came to an end: {', '.join(idle)}")
    return faults


def main() -> int:
    """Run; 1 means that something grew or failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--plot", action="store_true", help="draw docs/images/soak.svg")
    given = parser.parse_args()
    with Children() as children:
        samples, traffic = asyncio.run(drive(start(children), given.minutes * 60))
    faults = faults_of(samples, traffic)
    if given.plot:
        lines = {
            "memory, MiB": [(s.minutes, s.memory_mib) for s in samples],
            "open files": [(s.minutes, float(s.files)) for s in samples],
        }
        PLOT.write_text(svg.over_time("Mixed traffic", lines, unit="by the minute"), "utf-8")
    say(f"❌ {'; '.join(faults)}" if faults else "✅ flat")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
