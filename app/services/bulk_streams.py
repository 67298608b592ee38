"""Bulk uploads of any length, line by line, at constant memory."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from app.errors import GatewayError, InvalidRequest, UnsupportedMediaType
from app.metering import Meter
from app.services import bulk_results
from app.services.bulk import BulkUpload, upload_map
from app.services.bulk_formats import FORMATS, Line, LineFormat
from app.services.bulk_results import DeviceResult
from app.services.points import Points
from app.services.uploads import empty_upload, is_plain_upload, read_upload
from app.services.values import Warnings

#: Points of one device that are sent together.
BATCH_POINTS = 500
#: What may wait in memory, over all devices, before everything is sent. A device counts as one point more:
#: it takes as much memory (0.33 KiB).
MOST_WAITING_POINTS = 16_000
MOST_WAITING_BYTES = 4 * 1024 * 1024
#: When nothing comes for so long, what waits is sent: the caller may be waiting for its results.
PAUSE_SECONDS = 0.5
#: The loop serves others after this many lines.
LINES_AT_A_TIME = 256
#: And after so many bytes: there are lines that hold nothing.
BYTES_AT_A_TIME = 8 * 1024


async def upload(bulk: BulkUpload, media_type: str, body: AsyncIterator[bytes]) -> None:
    """Store a bulk upload; `bulk.results` then holds the result of each device.

    Raises:
        GatewayError: the body as a whole cannot be read, or ThingsBoard is away and nothing was stored.
    """
    if media_type == "application/json" or media_type.endswith("+json"):
        await upload_map(bulk, body)
    elif media_type in FORMATS:
        await StreamedUpload(bulk).run(FORMATS[media_type](), body)
    else:
        known = ", ".join(("application/json", *FORMATS))
        raise UnsupportedMediaType(
            f"This operation reads {known}.",
            details={"field": "Content-Type", "issue": f"must be one of {known}"},
        )
    bulk.raise_if_away()


@dataclass(slots=True)
class Waiting:
    """What has been read of one device and not been sent."""

    result: DeviceResult
    points: Points = field(default_factory=Points)
    size: int = 0


class StreamedUpload:
    """Reads lines, collects points by device and sends them in batches, while memory stays bounded."""

    def __init__(self, bulk: BulkUpload) -> None:
        self._bulk, self._results = bulk, bulk.results
        self._waiting: dict[str, Waiting] = {}
        self._waiting_points = self._waiting_bytes = 0
        self._lines = 0
        #: Of the lines just read; nearly always empty, so one serves them all.
        self._warnings = Warnings()

    async def run(self, lines: LineFormat, body: AsyncIterator[bytes]) -> None:
        """Store all lines.

        Raises:
            GatewayError: reading failed; what waits is not sent, and the error says `stored_points`.
        """
        try:
            async with self._bulk:
                async for chunk in with_pauses(body, PAUSE_SECONDS):
                    await (self._read_all(lines, chunk) if chunk else self._send_all())
                    if self._bulk.is_given_up:
                        # Without anything stored there is no use in reading the rest.
                        self._bulk.raise_if_away()
                await self._read(lines.close())
                await self._send_all()
        except GatewayError as error:
            # By now what was under way has ended, and counts.
            if self._results.points:
                error.details = {**(error.details or {}), "stored_points": self._results.points}
            raise
        if not self._lines:
            raise empty_upload()

    async def _read_all(self, lines: LineFormat, chunk: bytes) -> None:
        for start in range(0, len(chunk), BYTES_AT_A_TIME):
            await self._read(lines.feed(chunk[start : start + BYTES_AT_A_TIME]))
            await asyncio.sleep(0)

    async def _read(self, lines: Iterator[Line]) -> None:
        while some := list(islice(lines, LINES_AT_A_TIME)):
            if self._bulk.meter is not None:
                await self._pay_for(some, self._bulk.meter)
            for line in some:
                await self._take(line)

    async def _pay_for(self, lines: Iterable[Line], meter: Meter) -> None:
        """Charge the devices that these lines are the first to name; those beyond the limit have failed."""
        named = dict.fromkeys(line.reference for line in lines if line.reference is not None)
        new = [reference for reference in named if reference not in self._results.by_device]
        granted, refusal = await meter.grant(len(new))
        for reference in new[granted:]:
            result = self._results.of(reference)
            if result is not None and refusal is not None:
                result.is_given_up = True
                self._results.note_failure(result, refusal)
                self._results.tell(result)

    async def _take(self, line: Line) -> None:
        self._lines += 1
        if self._lines % LINES_AT_A_TIME == 0:
            await asyncio.sleep(0)
        result = None if line.reference is None else self._results.of(line.reference)
        if result is None:
            fault = line.fault or f"the upload names more than {bulk_results.MOST_DEVICES} devices"
            return self._results.note_line(line.number, fault, line.reference)
        waiting = self._waiting.get(result.reference) or Waiting(result)
        before = waiting.points.count
        try:
            self._collect(waiting.points, line)
        except InvalidRequest as error:
            self._results.note_failure(result, InvalidRequest(f"line {line.number}: {error.message}"))
            return self._results.note_line(line.number, error.message, line.reference)
        if self._warnings:
            self._results.note_warnings(result, self._warnings)
            self._warnings = Warnings()
        self._waiting[result.reference] = waiting
        waiting.size += line.size
        self._waiting_points += waiting.points.count - before
        self._waiting_bytes += line.size
        is_full = self._waiting_points + len(self._waiting) >= MOST_WAITING_POINTS
        if is_full or self._waiting_bytes >= MOST_WAITING_BYTES:
            await self._send_all()
        elif waiting.points.count >= BATCH_POINTS:
            await self._send(waiting)
        return None

    def _collect(self, points: Points, line: Line) -> None:
        """Add the points of one line to those of its device, or raise InvalidRequest and add nothing."""
        if line.fault is not None:
            raise InvalidRequest(line.fault)
        if is_plain_upload(line.upload):
            points.add(line.upload["ts"], line.upload["values"], self._warnings)
            return
        reader = read_upload(line.upload, line.exact)
        points.merge(reader.points, self._warnings)
        self._warnings.merge(reader.warnings)

    async def _send(self, waiting: Waiting) -> None:
        del self._waiting[waiting.result.reference]
        self._waiting_points -= waiting.points.count
        self._waiting_bytes -= waiting.size
        await self._bulk.put(waiting.result, waiting.points)

    async def _send_all(self) -> None:
        """Send everything that waits, first of those devices that have nothing under way."""
        for waiting in sorted(self._waiting.values(), key=lambda each: self._bulk.is_under_way(each.result)):
            await self._send(waiting)


async def with_pauses(body: AsyncIterator[bytes], seconds: float) -> AsyncGenerator[bytes, None]:
    """Yield the body as it comes, and once nothing whenever nothing has come for so long."""
    reading = asyncio.ensure_future(anext(body, None))
    try:
        while True:
            if not (await asyncio.wait({reading}, timeout=seconds))[0]:
                yield b""
            chunk = await reading
            if chunk is None:
                return
            reading = asyncio.ensure_future(anext(body, None))
            if chunk:
                yield chunk
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
