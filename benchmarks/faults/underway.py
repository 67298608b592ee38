"""Requests under way when the fault begins: an export that is being read, a stream that is listened to."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import httpx

from benchmarks.faults.callers import OK, Told, event_of, rows
from benchmarks.faults.site import FIRST_MS, LONG_EXPORTED, Site
from tb_simulator.timeseries import Point

#: A device that says something so often.
PERIOD_SECONDS = 0.02


class LongExport:
    """An export of which the first bytes have been read, and no more before `finish`."""

    def __init__(self, answer: httpx.Response) -> None:
        self._pieces = answer.aiter_bytes()
        self._read = b""

    @classmethod
    @contextlib.asynccontextmanager
    async def begun(cls, site: Site) -> AsyncIterator["LongExport"]:
        """Begin one."""
        path = f"/devices/{site.device}/telemetry/export?format=csv&keys=long"
        async with site.client.stream("GET", path) as answer:
            export = cls(answer)
            export._read = await anext(export._pieces)
            yield export

    async def finish(self) -> Told:
        """Read the rest; a part must never look like the whole."""
        started, parts = time.perf_counter(), [self._read]
        try:
            async for piece in self._pieces:
                parts.append(piece)  # noqa: PERF401 - what came before a break counts too
            word = OK
        except httpx.RemoteProtocolError:
            word = "cut"
        got, whole = b"".join(parts), rows("long", LONG_EXPORTED)
        is_right = got == whole if word == OK else whole.startswith(got)
        return Told(word if is_right else "wrong", time.perf_counter() - started)


class Listening:
    """A stream of a device that counts aloud: every number has to come, once and in order."""

    def __init__(self, site: Site) -> None:
        self._site, self._device = site, site.devices[-1]
        self.said = 0
        self.heard: list[int] = []
        #: Other events than telemetry and status, in order.
        self.told: list[str] = []
        self._is_heard = asyncio.Condition()
        self._is_over = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the stream, wait for its first number, and let the device go on."""
        tasks = [asyncio.create_task(self._say()), asyncio.create_task(self._listen())]
        try:
            await self.hears(1)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _say(self) -> None:
        while True:
            point = Point("counted", FIRST_MS + self.said, self.said)
            self._site.simulator.world.telemetry.save(self._device, [point])
            self.said += 1
            await asyncio.sleep(PERIOD_SECONDS)

    async def _listen(self) -> None:
        path = f"/devices/{self._device}/telemetry/stream?keys=counted"
        try:
            async with self._site.client.stream("GET", path, timeout=None) as answer:
                lines: list[str] = []
                async for line in answer.aiter_lines():
                    if line:
                        lines.append(line)
                        continue
                    await self._take(*event_of(lines))
                    lines = []
        except httpx.TransportError:
            pass
        finally:
            self._is_over = True
            async with self._is_heard:
                self._is_heard.notify_all()

    async def _take(self, event: str, data: dict[str, object]) -> None:
        if event == "telemetry" and isinstance(data["value"], int):
            async with self._is_heard:
                self.heard.append(data["value"])
                self._is_heard.notify_all()
        elif event not in {"", "status"}:
            self.told.append(event)

    async def hears(self, number: int) -> None:
        """Wait until a number has come, or the stream has ended."""
        async with self._is_heard:
            await self._is_heard.wait_for(lambda: self._is_over or (self.heard and self.heard[-1] >= number))

    @property
    def word(self) -> str:
        """Return `ok` when all came that was said, `gap` when the stream told of what did not."""
        if self._is_over:
            return self.told[-1] if self.told else "broken"
        if self.heard == list(range(self.heard[0], self.heard[-1] + 1)):
            return OK
        return "gap" if "gap" in self.told and self.heard == sorted(set(self.heard)) else "lost"
