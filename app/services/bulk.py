"""Bulk uploads: many devices in one call, each with its own result, a bounded number of them at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from app.errors import (
    BreakerOpen,
    GatewayError,
    InvalidRequest,
    LoginRefused,
    Overloaded,
    PayloadTooLarge,
    UnprocessableRequest,
    UnsupportedMediaType,
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from app.services.addressing import resolve
from app.services.bulk_formats import CSV, NDJSON, Line, LineFormat
from app.services.pacing import Pacer
from app.services.points import Points
from app.services.uploads import (
    Document,
    FormReader,
    empty_upload,
    off_the_loop,
    read_upload,
    refused,
    store,
)
from app.services.values import WarningBudget, Warnings
from app.thingsboard.client import ThingsBoardClient

#: A JSON map is held in memory; NDJSON and CSV are not.
LARGEST_MAP = 16 * 1024 * 1024
#: Points of one device that are sent together.
BATCH_POINTS = 500
#: What may wait in memory, over all devices, before everything is sent.
MOST_WAITING_POINTS = 20_000
MOST_WAITING_BYTES = 4 * 1024 * 1024
MOST_DEVICES = 100_000
MOST_LINE_ERRORS = 100
MOST_LISTED_KEYS = 1_000_000
MOST_LISTED_WARNINGS = 10_000
#: The loop serves others after this many lines.
LINES_AT_A_TIME = 256
LARGE_UPLOAD = 10_000

FORMATS: dict[str, type[LineFormat]] = {
    "application/x-ndjson": NDJSON,
    "application/ndjson": NDJSON,
    "application/jsonl": NDJSON,
    "text/csv": CSV,
}

#: They say that ThingsBoard is away, not that something is wrong with one device.
AWAY = (
    UpstreamUnreachable,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamFailed,
    UpstreamGarbled,
    BreakerOpen,
    LoginRefused,
)
#: They are raised without ThingsBoard having been asked.
OURS = (UnprocessableRequest, Overloaded)


@dataclass(slots=True)
class DeviceResult:
    """What became of one device."""

    reference: str
    warnings: Warnings
    device_id: str | None = None
    keys: dict[str, None] = field(default_factory=dict)
    points: int = 0
    error: GatewayError | None = None
    #: Nothing more is sent for it: ThingsBoard refused it, or could not be asked.
    is_given_up: bool = False
    is_reported: bool = False

    def fail(self, error: GatewayError) -> None:
        """Note the first error."""
        self.error = self.error or error
        self.is_reported = False


#: Follows an upload: called whenever something of a device was stored or has failed.
Follower = Callable[[DeviceResult], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class LineError:
    """A line that was not taken."""

    line: int
    error: str
    reference: str | None


class BulkUpload:
    """The results so far, and the sending to single devices. Lives as long as one call."""

    def __init__(self, upstream: ThingsBoardClient, concurrency: int) -> None:
        self.results: dict[str, DeviceResult] = {}
        self.line_errors: list[LineError] = []
        self.total_line_errors = 0
        self._upstream = upstream
        self._patience = 2 * concurrency
        self._failures_in_a_row = 0
        self._has_answered = False
        self._away: GatewayError | None = None
        self._budget = WarningBudget(MOST_LISTED_WARNINGS)
        self._listed_keys = 0
        self._pacer = Pacer()
        self.follower: Follower | None = None

    @property
    def points(self) -> int:
        """Points that ThingsBoard acknowledged."""
        return sum(result.points for result in self.results.values())

    @property
    def is_given_up(self) -> bool:
        """Whether ThingsBoard was away so often in a row that nothing more is tried."""
        return self._failures_in_a_row >= self._patience

    def result_of(self, reference: str) -> DeviceResult | None:
        """Return the result of a device, new if need be, or None when there are too many devices."""
        result = self.results.get(reference)
        if result is None and len(self.results) < MOST_DEVICES:
            result = self.results[reference] = DeviceResult(reference, Warnings(self._budget))
        return result

    def note_line(self, line: Line, fault: str) -> None:
        """Note a line that was not taken; the first ones are kept."""
        self.total_line_errors += 1
        if len(self.line_errors) < MOST_LINE_ERRORS:
            self.line_errors.append(LineError(line.number, fault, line.reference))

    async def report(self, result: DeviceResult) -> None:
        """Tell whoever follows the upload how this device stands."""
        if self.follower is not None:
            result.is_reported = True
            await self.follower(result)

    async def report_rest(self) -> None:
        """Report the devices of which nothing could be sent."""
        for result in self.results.values():
            if not result.is_reported:
                await self.report(result)

    async def send(self, result: DeviceResult, points: Points) -> None:
        """Store points of one device, note and report what came of it; no GatewayError leaves here."""
        if not result.is_given_up:
            await self._send(result, points)
            await self.report(result)

    async def _send(self, result: DeviceResult, points: Points) -> None:
        if self.is_given_up:
            result.is_given_up = True
            result.fail(BreakerOpen("Not attempted: ThingsBoard is not answering."))
            return
        try:
            if result.device_id is None:
                find = partial(resolve, self._upstream, "DEVICE", result.reference, "device_id")
                result.device_id = await self._pacer.run(find)
            result.points += await store(
                self._upstream, "DEVICE", result.device_id, points, pacer=self._pacer
            )
        except GatewayError as error:
            result.points += (error.details or {}).get("stored_points", 0)
            result.is_given_up = True
            result.fail(error)
            self._note_failure(error)
            return
        self._failures_in_a_row, self._has_answered = 0, True
        self._list_keys(result, points)

    def _note_failure(self, error: GatewayError) -> None:
        if isinstance(error, AWAY):
            self._failures_in_a_row += 1
            self._away = error
        elif not isinstance(error, OURS):
            self._failures_in_a_row, self._has_answered = 0, True

    def _list_keys(self, result: DeviceResult, points: Points) -> None:
        before = len(result.keys)
        result.keys |= points.keys()
        self._listed_keys += len(result.keys) - before
        if self._listed_keys > MOST_LISTED_KEYS:
            result.keys = {}
            result.warnings.add("", "the upload has too many keys; those of this device are not listed")

    def raise_if_away(self) -> None:
        """Raise ThingsBoard's absence itself when it is all there is to say."""
        if self._away is not None and not self._has_answered and not self.points:
            raise self._away


async def upload(bulk: BulkUpload, media_type: str, body: AsyncIterator[bytes], concurrency: int) -> None:
    """Store a bulk upload; `bulk` then holds the result of each device.

    Raises:
        GatewayError: the body as a whole cannot be read, or ThingsBoard is away and nothing was stored.
    """
    if media_type == "application/json" or media_type.endswith("+json"):
        await upload_map(bulk, await read_capped(body, LARGEST_MAP), concurrency)
    elif media_type in FORMATS:
        await StreamedUpload(bulk, concurrency).run(FORMATS[media_type](), body)
    else:
        known = ", ".join(("application/json", *FORMATS))
        raise UnsupportedMediaType(
            f"This operation reads {known}.",
            details={"field": "Content-Type", "issue": f"must be one of {known}"},
        )
    bulk.raise_if_away()
    await bulk.report_rest()


async def read_capped(body: AsyncIterator[bytes], limit: int) -> bytes:
    """Read a body of at most `limit` bytes."""
    whole = bytearray()
    async for chunk in body:
        whole += chunk
        if len(whole) > limit:
            message = (
                f"A JSON upload is at most {limit} bytes; NDJSON and CSV are streamed and may be longer."
            )
            raise PayloadTooLarge(message, details={"field": "body", "limit_bytes": limit})
    return bytes(whole)


async def upload_map(bulk: BulkUpload, body: bytes, concurrency: int) -> None:
    """Store a map of uploads by device."""
    document = await off_the_loop(body, Document)
    if document.value is None or document.value in ({}, []):
        raise empty_upload()
    if not isinstance(document.value, dict):
        raise refused("telemetry_data", "must be a map of uploads by device")
    if len(document.value) > MOST_DEVICES:
        raise refused("telemetry_data", f"names more than {MOST_DEVICES} devices")
    # One iterator for all workers: each device goes to one of them.
    devices = iter(document.value.items())
    async with asyncio.TaskGroup() as workers:
        for _ in range(min(concurrency, len(document.value))):
            workers.create_task(_work(bulk, document, devices))


async def _work(bulk: BulkUpload, document: Document, devices: Iterator[tuple[str, Any]]) -> None:
    for reference, value in devices:
        result = bulk.result_of(reference)
        if result is None:
            raise AssertionError("the number of devices has been checked")
        try:
            reader = await _read(document, reference, value)
        except InvalidRequest as error:
            result.fail(error)
            continue
        if reader.warnings:
            result.warnings.merge(reader.warnings)
        await bulk.send(result, reader.points)


async def _read(document: Document, reference: str, value: Any) -> FormReader:
    def exact() -> Any:
        return document.exact()[reference]

    if is_large(value):
        return await asyncio.to_thread(read_upload, value, exact)
    return read_upload(value, exact)


def is_large(value: Any) -> bool:
    """Tell whether reading this upload would keep other callers waiting."""
    if isinstance(value, dict):
        return sum(len(member) for member in value.values() if isinstance(member, list)) > LARGE_UPLOAD
    return isinstance(value, list) and len(value) > LARGE_UPLOAD


def read_line(line: Line) -> FormReader:
    """Read the upload of one line, or raise InvalidRequest."""
    if line.fault is not None:
        raise InvalidRequest(line.fault)
    return read_upload(line.upload, line.exact)


@dataclass(slots=True)
class Waiting:
    """What has been read of one device and not been sent."""

    points: Points = field(default_factory=Points)
    size: int = 0


class StreamedUpload:
    """Reads lines, collects points by device and sends them in batches, while memory stays bounded."""

    def __init__(self, bulk: BulkUpload, concurrency: int) -> None:
        self._bulk = bulk
        self._slots = asyncio.Semaphore(concurrency)
        self._waiting: dict[str, Waiting] = {}
        self._waiting_points = self._waiting_bytes = 0
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._lines = 0

    async def run(self, lines: LineFormat, body: AsyncIterator[bytes]) -> None:
        """Store all lines. If reading fails, what waits is not sent, and the error says `stored_points`."""
        try:
            async for chunk in body:
                for line in lines.feed(chunk):
                    await self._take(line)
                if self._bulk.is_given_up:
                    # Without anything stored there is no use in reading the rest.
                    self._bulk.raise_if_away()
            for line in lines.close():
                await self._take(line)
            await self._send_all()
        except GatewayError as error:
            # What is under way is waited for, to count what was stored.
            await asyncio.gather(*self._sending.values())
            if self._bulk.points:
                error.details = {**(error.details or {}), "stored_points": self._bulk.points}
            raise
        finally:
            # Left over when the caller has left: nothing more is sent.
            for task in self._sending.values():
                task.cancel()
            await asyncio.gather(*self._sending.values(), return_exceptions=True)
        if not self._lines:
            raise empty_upload()

    async def _take(self, line: Line) -> None:
        self._lines += 1
        if self._lines % LINES_AT_A_TIME == 0:
            await asyncio.sleep(0)
        result = None if line.reference is None else self._bulk.result_of(line.reference)
        if result is None:
            fault = line.fault or f"the upload names more than {MOST_DEVICES} devices"
            return self._bulk.note_line(line, fault)
        try:
            reader = read_line(line)
        except InvalidRequest as error:
            result.fail(InvalidRequest(f"line {line.number}: {error.message}"))
            return self._bulk.note_line(line, error.message)
        await self._collect(line, result, reader)
        return None

    async def _collect(self, line: Line, result: DeviceResult, reader: FormReader) -> None:
        waiting = self._waiting.get(result.reference)
        if waiting is None:
            waiting = self._waiting[result.reference] = Waiting()
        before = waiting.points.count
        waiting.points.merge(reader.points, result.warnings)
        if reader.warnings:
            result.warnings.merge(reader.warnings)
        waiting.size += line.size
        self._waiting_points += waiting.points.count - before
        self._waiting_bytes += line.size
        if self._waiting_bytes >= MOST_WAITING_BYTES or self._waiting_points >= MOST_WAITING_POINTS:
            await self._send_all()
        elif waiting.points.count >= BATCH_POINTS:
            await self._send(result.reference)

    async def _send(self, reference: str) -> None:
        """Start sending what waits of one device, as soon as its previous batch and a slot allow it."""
        previous = self._sending.get(reference)
        if previous is not None:
            # The order of batches decides which of two values of one time is the last.
            await previous
        await self._slots.acquire()
        waiting = self._waiting.pop(reference)
        self._waiting_points -= waiting.points.count
        self._waiting_bytes -= waiting.size
        task = asyncio.create_task(self._bulk.send(self._bulk.results[reference], waiting.points))
        self._sending[reference] = task
        task.add_done_callback(lambda done: self._sent(reference, done))

    def _sent(self, reference: str, task: asyncio.Task[None]) -> None:
        self._slots.release()
        if not task.cancelled() and task.exception() is None and self._sending.get(reference) is task:
            del self._sending[reference]

    async def _send_all(self) -> None:
        """Send everything that waits, and wait for it."""
        for reference in list(self._waiting):
            await self._send(reference)
        await asyncio.gather(*self._sending.values())
