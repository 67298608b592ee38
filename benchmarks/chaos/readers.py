"""Readers of live data, who come back with `Last-Event-ID` as browsers do."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import aiohttp
import orjson

from benchmarks.bench import CALLER
from benchmarks.chaos.callers import BASE, OK, Callers
from benchmarks.chaos.tally import Outcome
from benchmarks.chaos.truth import SERIAL, Reading

#: What the gateway's `retry:` asks for.
AGAIN_SECONDS = 1.0
#: Streams speak every 15 s.
SILENCE_SECONDS = 40.0
ENDS = {"closing", "dropped", "error"}


class Reader:
    """One stream of some devices, for as long as the load lasts."""

    def __init__(
        self, session: aiohttp.ClientSession, callers: Callers, ids: Sequence[str], devices: Sequence[int]
    ) -> None:
        self._session, self._callers = session, callers
        self._target = f"{BASE}/telemetry/stream?keys={SERIAL}&device_ids={','.join(ids[d] for d in devices)}"
        self.devices = {ids[device]: device for device in devices}
        self.heard: dict[int, list[Reading]] = defaultdict(list)
        #: By device up to which time a gap was announced.
        self.gaps: dict[int, int] = defaultdict(int)
        self.breaks = self.announced = 0
        self._last_id: str | None = None
        self._heard_more = asyncio.Condition()

    async def follow(self) -> None:
        """Read until cancelled."""
        while True:
            await self._read_once()
            self.breaks += 1
            await asyncio.sleep(AGAIN_SECONDS)

    async def _read_once(self) -> None:
        headers = {**CALLER, **({"Last-Event-ID": self._last_id} if self._last_id else {})}
        began, is_open = self._callers.now(), False
        quiet = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_SECONDS)
        try:
            async with self._session.get(self._target, headers=headers, timeout=quiet) as answer:
                is_open = answer.status == OK
                self._note(began, None if is_open else str(answer.status))
                if is_open:
                    await self._listen(answer)
        except TimeoutError:
            self._callers.tally.accuse("stream", [f"silent for {SILENCE_SECONDS} s"])
        except aiohttp.ClientError as error:
            # A stream that breaks later is none that failed: it goes on where it ended.
            if not is_open:
                self._note(began, type(error).__name__)

    def _note(self, began: float, failure: str | None) -> None:
        self._callers.tally.outcomes.append(Outcome("stream", began, self._callers.now(), failure))

    async def _listen(self, answer: aiohttp.ClientResponse) -> None:
        fields: dict[str, str] = {}
        async for raw in answer.content:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
                continue
            self._last_id = fields.get("id", self._last_id)
            if "data" in fields:
                await self._take(fields.get("event", ""), fields["data"])
            fields = {}

    async def _take(self, event: str, data: str) -> None:
        told = orjson.loads(data)
        if event == "telemetry":
            reading = Reading(told["ts"], told["value"])
            async with self._heard_more:
                self.heard[self.devices[told["device_id"]]].append(reading)
                self._heard_more.notify_all()
        elif event == "gap":
            self.announced += 1
            device = self.devices[told["device_id"]]
            async with self._heard_more:
                self.gaps[device] = max(self.gaps[device], told["ts"])
                self._heard_more.notify_all()
        elif event not in {"status", *ENDS}:
            self._callers.tally.accuse("stream", [f"{event} {data}"])

    async def has_heard(self, last: dict[int, int], seconds: float) -> bool:
        """Wait until the last point of each device has come, or was announced as missing."""

        def complete() -> bool:
            return all(
                self.gaps[device] >= ts or any(reading.ts >= ts for reading in self.heard[device][-1:])
                for device, ts in last.items()
                if device in self.devices.values()
            )

        try:
            async with asyncio.timeout(seconds), self._heard_more:
                await self._heard_more.wait_for(complete)
        except TimeoutError:
            return False
        return True
