"""One device of the live feed: its frames become events, typed, in order and without gaps."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import replace
from typing import Any, NamedTuple

import structlog

from app.errors import GatewayError, NotFound
from app.thingsboard.attributes import SCOPES, AttributeCalls, AttributeScope
from app.thingsboard.live_events import LiveEvent, Sink
from app.thingsboard.live_history import EARLIEST_MS, read_missed
from app.thingsboard.live_values import LearntTypes, is_same
from app.thingsboard.telemetry import TelemetryCalls

log = structlog.get_logger("thingsboard")

#: What a frame tells: the kind of its events, and the scope of attributes.
Source = tuple[str, str]
TELEMETRY: Source = ("telemetry", "")
STATUS: Source = ("status", "")
ATTRIBUTES: dict[Source, AttributeScope] = {("attribute", scope): scope for scope in SCOPES}
#: ThingsBoard's own bookkeeping among the server attributes, pushed with each message of a device.
INTERNAL = {"active", "lastActivityTime", "lastConnectTime", "lastDisconnectTime", "inactivityAlarmTime"}
#: How a deleted key looks.
DELETED = (0, "")
#: Points of late that are known besides the newest of each key: those that ThingsBoard may push again.
MOST_SEEN = 128
#: Points read for a device after the feed was interrupted; the rest is a `gap`.
MOST_MISSED = 20_000
#: Frames that wait meanwhile.
MOST_WAITING = 5_000
#: Rows told in one turn of the event loop; a frame may have thousands.
ROWS_AT_ONCE = 500
ATTEMPTS = 4
RETRY_SECONDS = 0.5


class Batch(NamedTuple):
    """One frame: (ts, key, text) in order. The first of a subscription holds the newest of each key."""

    source: Source
    rows: list[tuple[int, str, str]]
    is_first: bool


class LiveDevice:
    """What is known of a device while somebody listens to it.

    Args:
        on_missing: called when ThingsBoard says that there is no such device any more.
    """

    def __init__(
        self,
        device_id: str,
        telemetry: TelemetryCalls,
        attributes: AttributeCalls,
        on_missing: Callable[[], None],
    ) -> None:
        self.id = device_id
        #: Whether each one wants attributes.
        self.sinks: dict[Sink, bool] = {}
        self._telemetry, self._attributes, self._on_missing = telemetry, attributes, on_missing
        self._types = LearntTypes()
        self._newest: dict[str, LiveEvent] = {}
        self._deleted: set[str] = set()
        self._seen: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._values: dict[tuple[str, str], LiveEvent] = {}
        self._status: LiveEvent | None = None
        self._begun = False
        self._backlog: deque[Batch] = deque()
        self._has_lost = False
        self._work: asyncio.Task[None] | None = None

    async def learn(self) -> bool:
        """Read the newest values, typed, and whether the device is active; return whether that is to be had.

        It is ThingsBoard's check of the device too: its WebSocket does not check attributes.

        Raises:
            NotFound: there is no such device, or not for this account.
        """
        await self._learn_telemetry(None)
        try:
            await self._attributes.read("DEVICE", self.id, "SERVER_SCOPE", ["active"])
        except NotFound:
            return False
        return True

    async def learn_attributes(self) -> None:
        """Read the attributes of all scopes, typed and checked; NotFound when they are not to be had."""
        await asyncio.gather(*(self._learn_attributes(source, None) for source in ATTRIBUTES))

    async def settled(self) -> None:
        """Wait until everything that has come has become events."""
        while self._work is not None:
            await asyncio.wait([self._work])

    def snapshot(self, *, attributes: bool) -> list[LiveEvent]:
        """Return what is the case now, as first events."""
        newest = [event for key, event in self._newest.items() if key not in self._deleted]
        newest.sort(key=lambda event: (event.ts, event.key))
        state = [self._status] if self._status is not None else []
        if attributes:
            state += self._values.values()
        return [replace(event, is_first=True) for event in (*state, *newest)]

    def take(self, batch: Batch) -> None:
        """Take a frame. It is told at once, unless something has to be read first; then the rest waits."""
        if self._work is not None:
            self._backlog.append(batch)
            if len(self._backlog) > MOST_WAITING:
                self._backlog.popleft()
                self._has_lost = True
        elif len(batch.rows) > ROWS_AT_ONCE or self._needs_reading(batch):
            self._work = asyncio.create_task(self._catch_up(batch), context=Context())
        else:
            self._tell(batch)

    def emit(self, event: LiveEvent) -> None:
        """Tell those who listen."""
        for sink, wants_attributes in tuple(self.sinks.items()):
            if wants_attributes or event.kind != "attribute":
                sink.deliver(event)

    def close(self) -> None:
        """Give up what is under way."""
        self.sinks.clear()
        if self._work is not None:
            self._work.cancel()

    async def _catch_up(self, batch: Batch) -> None:
        try:
            while True:
                if self._needs_reading(batch):
                    await self._read_for(batch)
                for start in range(0, len(batch.rows), ROWS_AT_ONCE):
                    self._tell(batch._replace(rows=batch.rows[start : start + ROWS_AT_ONCE]))
                    # Those who listen have to have a chance to read meanwhile.
                    await asyncio.sleep(0)
                if self._has_lost:
                    self._has_lost = False
                    self._tell_gap("the gateway could not keep up", None)
                if not self._backlog:
                    return
                batch = self._backlog.popleft()
        except NotFound:
            self._on_missing()
        finally:
            self._work = None

    def _needs_reading(self, batch: Batch) -> bool:
        return bool(self._unknown(batch)) or (batch.is_first and bool(self._missed(batch)))

    def _unknown(self, batch: Batch) -> set[str]:
        if batch.source == STATUS:
            return set()
        return self._types.unknown(self._texts(batch))

    def _texts(self, batch: Batch) -> list[tuple[str, str]]:
        return [(_type_key(batch.source, key), text) for ts, key, text in batch.rows if (ts, text) != DELETED]

    async def _read_for(self, batch: Batch) -> None:
        """Read the types that are not known, and the points that were missed."""
        for attempt in range(ATTEMPTS):
            try:
                unknown = self._unknown(batch)
                if unknown:
                    await self._learn_some(batch, unknown)
                if batch.is_first and (spans := self._missed(batch)):
                    await self._fill(spans)
                break
            except NotFound:
                raise
            except GatewayError as error:
                log.info("feed_gap_unread", attempt=attempt + 1, error_type=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS * 2**attempt)
        else:
            until = max((ts for ts, _, _ in batch.rows), default=None)
            self._tell_gap("ThingsBoard did not tell what was missed", until)
        self._types.settle(self._texts(batch))

    async def _learn_some(self, batch: Batch, unknown: set[str]) -> None:
        keys = [key for _, key, _ in batch.rows if _type_key(batch.source, key) in unknown]
        if batch.source == TELEMETRY:
            await self._learn_telemetry(keys)
        else:
            await self._learn_attributes(batch.source, keys)

    async def _learn_telemetry(self, keys: list[str] | None) -> None:
        for key, points in (await self._telemetry.latest_now("DEVICE", self.id, keys)).items():
            for point in points[:1]:
                self._types.learn(key, point.get("value"))

    async def _learn_attributes(self, source: Source, keys: list[str] | None) -> None:
        for row in await self._attributes.read("DEVICE", self.id, ATTRIBUTES[source], keys):
            self._types.learn(_type_key(source, str(row.get("key"))), row.get("value"))

    def _missed(self, batch: Batch) -> dict[str, tuple[int, int]]:
        """Return the spans of each key that nobody has been told of, up to what the batch tells."""
        if batch.source != TELEMETRY or not self._begun:
            return {}
        spans = {}
        for ts, key, _ in batch.rows:
            newest = self._newest.get(key)
            start = EARLIEST_MS if newest is None or newest.ts is None else newest.ts + 1
            if ts >= start:
                spans[key] = start, ts + 1
        return spans

    async def _fill(self, spans: dict[str, tuple[int, int]]) -> None:
        missed = await read_missed(self._telemetry, self.id, spans, most=MOST_MISSED)
        for place, (ts, key, value) in enumerate(missed.points):
            self._tell_point(ts, key, value)
            if place % ROWS_AT_ONCE == ROWS_AT_ONCE - 1:
                await asyncio.sleep(0)
        for key, (_, end) in missed.unread.items():
            self._tell_gap("more was missed than the gateway reads", end - 1, key)

    def _tell(self, batch: Batch) -> None:
        if batch.source == TELEMETRY:
            self._tell_telemetry(batch)
        elif batch.source == STATUS:
            self._tell_status(batch)
        else:
            self._tell_attributes(batch)

    def _tell_telemetry(self, batch: Batch) -> None:
        is_back = batch.is_first and self._begun
        for ts, key, text in batch.rows:
            newest = self._newest.get(key)
            if (ts, text) == DELETED:
                # Its time is remembered: what is saved next is newer than that.
                self._deleted.add(key)
            elif is_back and newest is not None and newest.ts is not None and ts < newest.ts:
                continue
            else:
                self._tell_point(ts, key, self._types.read(key, text))
        if batch.is_first:
            self._begun = True

    def _tell_point(self, ts: int, key: str, value: Any) -> None:
        newest = self._newest.get(key)
        if newest is not None and newest.ts == ts:
            if is_same(newest.value, value) and key not in self._deleted:
                return
        elif (key, ts) in self._seen and is_same(self._seen[key, ts], value):
            return
        event = LiveEvent("telemetry", self.id, key, ts, value)
        if newest is None or newest.ts is None or ts >= newest.ts:
            if newest is not None and newest.ts is not None and newest.ts != ts:
                self._remember(key, newest.ts, newest.value)
            self._newest[key] = event
            self._deleted.discard(key)
        else:
            self._remember(key, ts, value)
        self.emit(event)

    def _remember(self, key: str, ts: int, value: Any) -> None:
        self._seen[key, ts] = value
        self._seen.move_to_end((key, ts))
        if len(self._seen) > MOST_SEEN:
            self._seen.popitem(last=False)

    def _tell_status(self, batch: Batch) -> None:
        for ts, key, text in batch.rows:
            if key != "active" or (ts, text) == DELETED:
                continue
            before, self._status = self._status, LiveEvent("status", self.id, ts=ts, value=text == "true")
            if before is None or before.value != self._status.value:
                self.emit(self._status)

    def _tell_attributes(self, batch: Batch) -> None:
        scope = ATTRIBUTES[batch.source]
        if batch.is_first and len(batch.rows) <= ROWS_AT_ONCE:
            there = {key for _, key, _ in batch.rows}
            self._values = {
                name: event for name, event in self._values.items() if name[0] != scope or name[1] in there
            }
        for ts, key, text in batch.rows:
            if scope == "SERVER_SCOPE" and key in INTERNAL:
                continue
            if (ts, text) == DELETED:
                self._values.pop((scope, key), None)
                continue
            before = self._values.get((scope, key))
            value = self._types.read(_type_key(batch.source, key), text)
            if before is not None and before.ts == ts and is_same(before.value, value):
                continue
            event = self._values[scope, key] = LiveEvent("attribute", self.id, key, ts, value, scope)
            self.emit(event)

    def _tell_gap(self, reason: str, until: int | None, key: str | None = None) -> None:
        self.emit(LiveEvent("gap", self.id, key, until, reason=reason))


def _type_key(source: Source, key: str) -> str:
    """Return under which name the types of a key are learnt."""
    return key if source == TELEMETRY else f"{source[1]}/{key}"


def rows_of(data: Any) -> list[tuple[int, str, str]]:
    """Read `{"key":[[ts,"text"]]}`; within a frame points come in any order, so they are sorted."""
    rows = [(int(ts), str(key), str(text)) for key, points in data.items() for ts, text in points]
    rows.sort(key=lambda row: row[:2])
    return rows
