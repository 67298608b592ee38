"""Bulk uploads: many devices in one call, each with its own result, a bounded number of them at once."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import Any, Self

from app.errors import (
    BreakerOpen,
    GatewayError,
    InvalidRequest,
    LoginRefused,
    Overloaded,
    PayloadTooLarge,
    UnprocessableRequest,
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from app.metering import Meter
from app.services import bulk_results
from app.services.addressing import find_uuid, resolve
from app.services.bulk_results import BulkResults, DeviceResult
from app.services.pacing import Pacer
from app.services.points import Points
from app.services.sending import Sender
from app.services.uploads import Document, FormReader, empty_upload, off_the_loop, read_upload, refused
from app.thingsboard.client import ThingsBoardClient

#: A JSON map is held in memory; NDJSON and CSV are not.
LARGEST_MAP = 16 * 1024 * 1024
LARGE_UPLOAD = 10_000
#: The loop serves others after this many devices of a map.
DEVICES_AT_A_TIME = 64

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


class BulkUpload:
    """One upload: a bounded number of senders, and what became of each device.

    `put` hands over the points of one device and waits while as many devices are read ahead as are being
    sent: the next call can leave as soon as an answer comes. Leaving the context waits for all that was put;
    after another failure than a GatewayError, as when the caller has left, nothing more is sent.

    Args:
        meter: charges each device to the caller's rate limit; None: the call has paid for all of them.
    """

    def __init__(self, upstream: ThingsBoardClient, concurrency: int, meter: Meter | None = None) -> None:
        self.results, self.meter = BulkResults(), meter
        self._upstream, self._concurrency = upstream, concurrency
        self._pacer = Pacer(concurrency, repeats=upstream.repeats)
        self._sender = Sender(upstream, pacer=self._pacer)
        self._failures_in_a_row = 0
        self._has_answered = False
        self._away: GatewayError | None = None
        self._queue: asyncio.Queue[tuple[DeviceResult, Points]] = asyncio.Queue(concurrency)
        self._under_way: set[str] = set()
        self._has_ended = asyncio.Event()
        self._senders: list[asyncio.Task[None]] = []
        self._bug: Exception | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, GatewayError):
                await self._queue.join()
        finally:
            for sender in self._senders:
                sender.cancel()
            await asyncio.gather(*self._senders, return_exceptions=True)
        if self._bug is not None:
            raise self._bug

    async def put(self, result: DeviceResult, points: Points) -> None:
        """Have points of one device stored, after those that were put before for it."""
        # The order of batches decides which of two values of one time is the last.
        while result.reference in self._under_way:
            self._has_ended.clear()
            await self._has_ended.wait()
        self._under_way.add(result.reference)
        if len(self._senders) < self._concurrency:
            self._senders.append(asyncio.create_task(self._send_all()))
        await self._queue.put((result, points))

    def is_under_way(self, result: DeviceResult) -> bool:
        """Tell whether `put` would have to wait for earlier points of this device."""
        return result.reference in self._under_way

    @property
    def is_given_up(self) -> bool:
        """Whether ThingsBoard was away so often in a row that nothing more is tried."""
        return self._failures_in_a_row >= 2 * self._concurrency

    def raise_if_away(self) -> None:
        """Raise ThingsBoard's absence itself when it is all there is to say."""
        if self._away is not None and not self._has_answered and not self.results.points:
            raise self._away

    async def _send_all(self) -> None:
        while True:
            result, points = await self._queue.get()
            try:
                if not result.is_given_up and self._bug is None:
                    await self._send(result, points)
                    self.results.tell(result)
            except Exception as bug:  # noqa: BLE001 - raised where the upload ends
                self._bug = bug
            finally:
                self._under_way.discard(result.reference)
                self._has_ended.set()
                self._queue.task_done()

    async def _send(self, result: DeviceResult, points: Points) -> None:
        """Store points of one device and note what came of it; no GatewayError leaves here."""
        if self.is_given_up:
            self._give_up(result, BreakerOpen("Not attempted: ThingsBoard is not answering."))
            return
        try:
            if result.device_id is None and (found := find_uuid(result.reference)) is not None:
                # As one text object where they are the same: there may be 100,000 of them.
                result.device_id = result.reference if found == result.reference else found
            device_id = result.device_id or await self._find(result)
            self.results.note_stored(result, await self._sender.store("DEVICE", device_id, points))
        except GatewayError as error:
            self.results.note_stored(result, (error.details or {}).get("stored_points", 0))
            self._give_up(result, error)
            if isinstance(error, AWAY):
                self._failures_in_a_row += 1
                self._away = error
            elif not isinstance(error, OURS):
                self._failures_in_a_row, self._has_answered = 0, True
            return
        self._failures_in_a_row, self._has_answered = 0, True
        self.results.note_keys(result, points.keys())

    async def _find(self, result: DeviceResult) -> str:
        find = partial(resolve, self._upstream, "DEVICE", result.reference, "device_id")
        result.device_id = await self._pacer.run(find, is_repeatable=True)
        return result.device_id

    def _give_up(self, result: DeviceResult, error: GatewayError) -> None:
        result.is_given_up = True
        self.results.note_failure(result, error)


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


async def upload_map(bulk: BulkUpload, body: AsyncIterator[bytes]) -> None:
    """Store a map of uploads by device.

    Raises:
        GatewayError: the body as a whole cannot be read.
    """
    document = await off_the_loop(await read_capped(body, LARGEST_MAP), Document)
    if document.value is None or document.value in ({}, []):
        raise empty_upload()
    if not isinstance(document.value, dict):
        raise refused("telemetry_data", "must be a map of uploads by device")
    if len(document.value) > bulk_results.MOST_DEVICES:
        raise refused("telemetry_data", f"names more than {bulk_results.MOST_DEVICES} devices")
    if bulk.meter is not None:
        await bulk.meter.charge(len(document.value), "telemetry_data")
    async with bulk:
        for number, (reference, value) in enumerate(document.value.items()):
            if number % DEVICES_AT_A_TIME == 0:
                await asyncio.sleep(0)
            result = bulk.results.of(reference)
            if result is None:
                raise AssertionError("the number of devices has been checked")
            try:
                reader = await _read(document, reference, value)
            except InvalidRequest as error:
                bulk.results.note_failure(result, error)
                continue
            bulk.results.note_warnings(result, reader.warnings)
            await bulk.put(result, reader.points)


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
