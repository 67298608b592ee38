"""Fans live events out: those who want the same share a channel, and each event is encoded once for them."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from app.deadline import DEADLINE, in_time
from app.errors import GatewayError, NotFound
from app.services.fan_out import run_bounded
from app.services.live_frames import Form
from app.services.live_marks import Marks
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.live_events import LiveEvent
from app.thingsboard.live_feed import LiveFeed
from app.thingsboard.live_history import EARLIEST_MS, read_missed

#: What waits for one reader; the frames themselves are shared by all readers of a channel.
MOST_WAITING_BYTES = 4 << 20
#: Points that a reader who comes back is sent from the history, all devices together.
MOST_RESUMED = 20_000
ATTACHED_AT_ONCE = 16
TOO_MANY_KEYS = "an event id does not hold that many keys"
TOO_SLOW = "events came faster than they were read"


@dataclass(slots=True)
class Counts:
    """What went through the channels of this process since its start."""

    #: By kind; once for all readers of a channel.
    events: Counter[str] = field(default_factory=Counter)
    #: Events handed to readers.
    frames: int = 0
    #: Readers that were let go because they read too slowly.
    dropped: int = 0


class Selection(NamedTuple):
    """What a reader wants to hear."""

    device_ids: tuple[str, ...]
    keys: frozenset[str] | None
    attributes: bool


class Reader(Protocol):
    """Whom a channel sends to."""

    #: Whether it ends when the devices of its channel are gone.
    is_ended_with_channel: bool

    def put(self, frame: bytes) -> None:
        """Let a frame wait for its turn."""

    def end(self, last: LiveEvent | None = None) -> None:
        """Let it end after what waits and these last words."""


class Beginning(NamedTuple):
    """What goes out to a reader before what waits for it, and the id of where it then is."""

    frames: AsyncIterator[bytes]
    token: bytes


class Subscriber:
    """One reader: the frames that wait for it. A slow one is dropped and delays nobody.

    Args:
        form: writes the last words.
        counts: is told when it is dropped.
    """

    is_ended_with_channel = True

    def __init__(self, form: Form, counts: Counts) -> None:
        self.form, self._counts = form, counts
        self.is_over = False
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None

    def put(self, frame: bytes) -> None:
        """Let a frame wait for its turn."""
        if self.is_over:
            return
        self._frames.append(frame)
        self._size += len(frame)
        if self._size > MOST_WAITING_BYTES:
            self._frames.clear()
            self.end(LiveEvent("dropped", reason=TOO_SLOW))
        self._wake()

    def end(self, last: LiveEvent | None = None) -> None:
        """Let it end after what waits and these last words."""
        if not self.is_over:
            if last is not None:
                self._counts.dropped += last.kind == "dropped"
                self._frames.append(self.form.event(last))
            self.is_over = True
            self._wake()

    def leave(self) -> None:
        """End it at once: nobody reads any more."""
        self._frames.clear()
        self.end()

    async def take(self, seconds: float) -> list[bytes] | None:
        """Return what waits: nothing after so many quiet seconds, None after the end."""
        if not self._frames and not self.is_over:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self._wake)
            try:
                await self._waiter
            finally:
                self._waiter = None
                timer.cancel()
        if not self._frames:
            return None if self.is_over else []
        frames = list(self._frames)
        self._frames.clear()
        self._size = 0
        return frames

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Channel:
    """One selection in one form, for all who want the same of one upstream."""

    def __init__(self, upstream: ThingsBoardClient, selection: Selection, form: Form, counts: Counts) -> None:
        self.upstream, self.selection, self.form, self._counts = upstream, selection, form, counts
        self.users = 0
        self.opening: asyncio.Task[None] | None = None
        self.marks = Marks()
        self.gone: set[str] = set()
        self._subscribers: dict[Reader, None] = {}

    async def open(self) -> None:
        """Attach to the devices.

        Raises:
            NotFound: one of them is not there, or not for this key.
        """
        DEADLINE.set(None)
        live, wanted = self.upstream.live, self.selection

        async def attach(device_id: str) -> None:
            try:
                await live.attach(device_id, self, attributes=wanted.attributes)
            except NotFound as error:
                details = {"device_id": device_id, "issue": "not found"}
                raise NotFound(details=details, note=error.note) from None

        try:
            await run_bounded(wanted.device_ids, attach, at_once=ATTACHED_AT_ONCE)
        except BaseException:
            self.close()
            raise
        for device_id in wanted.device_ids:
            self.marks.add_device(device_id)

    def check(self) -> None:
        """Raise NotFound if a device has gone meanwhile."""
        if self.gone:
            raise NotFound(note="gone")

    def close(self) -> None:
        """Let go of the devices."""
        for device_id in self.selection.device_ids:
            self.upstream.live.detach(device_id, self)

    def deliver(self, event: LiveEvent) -> None:
        """Encode an event and let it wait for each reader."""
        if not self._wants(event):
            return
        self.marks.move(event)
        self._counts.events[event.kind] += 1
        self._counts.frames += len(self._subscribers)
        if self._subscribers:
            frame = self.form.event(event, self.marks.token())
            for subscriber in tuple(self._subscribers):
                subscriber.put(frame)
        if event.kind == "gone":
            self.gone.add(event.device_id)
            if len(self.gone) == len(self.selection.device_ids):
                for subscriber in tuple(self._subscribers):
                    if subscriber.is_ended_with_channel:
                        subscriber.end()

    def leave(self, subscriber: Reader) -> None:
        """Send nothing more to a reader."""
        self._subscribers.pop(subscriber, None)

    def join(self, subscriber: Reader, *, first_values: bool, heard: Marks | None) -> Beginning:
        """Begin to send to a reader.

        Args:
            first_values: whether to begin with what is the case now.
            heard: how far the reader had come before; it is sent what it missed.
        """
        self._subscribers[subscriber] = None
        # In this same turn of the event loop, so that nothing comes in between.
        snapshot = {
            device_id: [event for event in self._snapshot(device_id) if self._wants(event)]
            for device_id in self.selection.device_ids
        }
        frames = self._catch_up(snapshot, first_values=first_values, heard=heard or Marks())
        return Beginning(frames, self.marks.token())

    def _snapshot(self, device_id: str) -> list[LiveEvent]:
        return self.upstream.live.snapshot(device_id, attributes=self.selection.attributes)

    def _wants(self, event: LiveEvent) -> bool:
        keys = self.selection.keys
        return (
            keys is None or event.kind not in {"telemetry", "gap"} or event.key is None or event.key in keys
        )

    async def _catch_up(
        self, snapshot: dict[str, list[LiveEvent]], *, first_values: bool, heard: Marks
    ) -> AsyncIterator[bytes]:
        left = MOST_RESUMED
        known = {device_id for device_id in snapshot if heard.has_device(device_id)}
        for device_id in known:
            heard.add_device(device_id)
        for device_id in snapshot.keys() - known:
            for event in snapshot[device_id] if first_values else ():
                yield self.form.event(event)
        for device_id in known:
            newest = snapshot[device_id]
            if heard.is_partial and any(heard.of(event) is None for event in newest):
                self._counts.events["gap"] += 1
                yield self.form.event(LiveEvent("gap", device_id, reason=TOO_MANY_KEYS))
            for event in await self._missed(device_id, newest, heard, left):
                left -= 1
                self._counts.events[event.kind] += 1
                self._counts.frames += 1
                heard.move(event)
                yield self.form.event(event, heard.token())

    async def _missed(
        self, device_id: str, newest: list[LiveEvent], heard: Marks, most: int
    ) -> list[LiveEvent]:
        """Return what a reader of before has not heard of a device."""
        found: list[LiveEvent] = []
        spans: dict[str, tuple[int, int]] = {}
        for event in newest:
            before, ts = heard.of(event), event.ts or 0
            if before is not None and ts <= before:
                continue
            if event.kind != "telemetry" or event.key is None or (before is None and heard.is_partial):
                found.append(event)
            else:
                # A key that the id does not know came up meanwhile.
                spans[event.key] = EARLIEST_MS if before is None else before + 1, ts + 1
        if not spans:
            return found
        until = max(end for _, end in spans.values()) - 1
        try:
            missed = await read_missed(self.upstream.telemetry, device_id, spans, most=max(1, most))
        except GatewayError:
            reason = "ThingsBoard did not tell what was missed"
            return [*found, LiveEvent("gap", device_id, ts=until, reason=reason)]
        found += [LiveEvent("telemetry", device_id, key, ts, value) for ts, key, value in missed.points]
        found += [
            LiveEvent("gap", device_id, key, end - 1, reason="more was missed than the gateway sends")
            for key, (_, end) in missed.unread.items()
        ]
        return found


class Channels:
    """The open channels of this process."""

    def __init__(self) -> None:
        self._open: dict[tuple[LiveFeed, Selection, Form], Channel] = {}
        self.counts = Counts()

    async def enter(self, upstream: ThingsBoardClient, selection: Selection, form: Form) -> Channel:
        """Return the channel, open, until `leave`.

        Raises:
            NotFound: one of the devices is not there, or not for this key.
            UpstreamError: live data cannot be had now.
        """
        name = upstream.live, selection, form
        channel = self._open.get(name)
        if channel is None or channel.gone:
            channel = self._open[name] = Channel(upstream, selection, form, self.counts)
        channel.users += 1
        try:
            if channel.opening is None:
                channel.opening = asyncio.create_task(channel.open())
                # Read even if all who waited have left.
                channel.opening.add_done_callback(lambda done: done.cancelled() or done.exception())
            await in_time(asyncio.shield(channel.opening))
            channel.check()
        except BaseException:
            self.leave(channel)
            raise
        return channel

    def leave(self, channel: Channel) -> None:
        """Give a channel back."""
        channel.users -= 1
        if channel.users == 0:
            name = channel.upstream.live, channel.selection, channel.form
            if self._open.get(name) is channel:
                del self._open[name]
            if channel.opening is not None:
                channel.opening.cancel()
            channel.close()

    def __len__(self) -> int:
        return len(self._open)
