"""The live feed: all listeners of an upstream share one WebSocket, and one subscription a device.

A device that nobody listened to is read first, over REST: that checks it and tells the types of its values.
After a break all devices are looked for in one query, subscribed anew, and what was missed is read from the
history (`live_device.py`), so that listeners see a pause and nothing else.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from contextvars import Context
from functools import partial
from typing import Any

import structlog

from app.deadline import in_time
from app.errors import GatewayError, NotFound, UpstreamTimeout
from app.thingsboard.attributes import AttributeCalls
from app.thingsboard.live_device import ATTRIBUTES, STATUS, TELEMETRY, LiveDevice, Source
from app.thingsboard.live_events import LiveEvent, Sink
from app.thingsboard.live_listener import Listener
from app.thingsboard.live_subscriptions import Subscriptions, Watched
from app.thingsboard.live_tokens import FeedDialler
from app.thingsboard.queries import QueryCalls
from app.thingsboard.telemetry import TelemetryCalls
from app.thingsboard.web_socket import BAD_TOKEN, POLICY

log = structlog.get_logger("thingsboard")

DEVICES_A_QUERY = 1_000
#: A socket that lived so long is replaced at once.
LONG_LIFE_SECONDS = 5.0
GONE = "the device was deleted, or is not to be seen any more"


class LiveFeed:
    """One per upstream and process. Nothing runs while nobody listens. For one event loop."""

    #: Streamed devices are looked for so often: ThingsBoard does not say that one was deleted.
    recheck_seconds = 45.0
    connect_seconds = 15.0
    #: The socket is kept for so long after the last listener.
    idle_seconds = 30.0
    #: The pause before the socket is opened again doubles with each failure; it is what listeners still miss
    #: when ThingsBoard is back. Only where ThingsBoard says that it has enough of us it may be longer.
    pause_seconds = 0.1
    longest_pause_seconds = 4.0
    longest_refused_pause_seconds = 30.0

    def __init__(
        self, dialler: FeedDialler, telemetry: TelemetryCalls, attributes: AttributeCalls, queries: QueryCalls
    ) -> None:
        self._dialler = dialler
        self._telemetry, self._attributes, self._queries = telemetry, attributes, queries
        self._watched: dict[str, Watched] = {}
        self._subscriptions = Subscriptions(self._take_refusal)
        self._online = asyncio.Event()
        self._failure: GatewayError | None = None
        self._failed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        #: Sockets that were opened, and attempts that failed.
        self.connections = self.failures = 0

    @property
    def is_online(self) -> bool:
        """Tell whether the socket is open."""
        return self._online.is_set()

    @property
    def devices(self) -> int:
        """Return how many devices somebody listens to."""
        return len(self._watched)

    @asynccontextmanager
    async def listen(self, device_ids: Iterable[str], *, attributes: bool = False) -> AsyncIterator[Listener]:
        """Listen to devices: iterate over what this yields. First values come first, marked `is_first`.

        Raises:
            NotFound: there is no such device, or not for this account.
            UpstreamError: the feed cannot be had now.
        """
        listener, attached = Listener(), list[str]()
        try:
            for device_id in dict.fromkeys(device_ids):
                await self.attach(device_id, listener, attributes=attributes)
                attached.append(device_id)
            yield listener
        finally:
            for device_id in attached:
                self.detach(device_id, listener)

    async def attach(self, device_id: str, sink: Sink, *, attributes: bool = False) -> None:
        """Deliver the events of a device to a sink, what is the case now first, until `detach`.

        Raises:
            NotFound: there is no such device, or not for this account.
            UpstreamError: the feed cannot be had now.
        """
        watched = self._watched.get(device_id) or self._watch(device_id)
        watched.users += 1
        watched.attribute_users += attributes
        try:
            await self._open_for(watched, attributes=attributes)
        except BaseException:
            self._release(watched, attributes=attributes)
            raise
        for event in watched.device.snapshot(attributes=attributes):
            sink.deliver(event)
        watched.device.sinks[sink] = attributes

    def detach(self, device_id: str, sink: Sink) -> None:
        """End what `attach` began."""
        watched = self._watched.get(device_id)
        wanted_attributes = watched.device.sinks.pop(sink, None) if watched is not None else None
        if watched is not None and wanted_attributes is not None:
            self._release(watched, attributes=wanted_attributes)

    def snapshot(self, device_id: str, *, attributes: bool) -> list[LiveEvent]:
        """Return what is the case with a device that somebody is attached to, as first events."""
        watched = self._watched.get(device_id)
        return [] if watched is None else watched.device.snapshot(attributes=attributes)

    async def aclose(self) -> None:
        """End everything."""
        if self._idle is not None:
            self._idle.cancel()
        for watched in self._watched.values():
            watched.close()
        self._watched.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _watch(self, device_id: str) -> Watched:
        device = LiveDevice(
            device_id, self._telemetry, self._attributes, partial(self._lose, device_id, GONE)
        )
        watched = self._watched[device_id] = Watched(device)
        return watched

    async def _open_for(self, watched: Watched, *, attributes: bool) -> None:
        if watched.opening is None:
            watched.opening = self._spawn(self._open(watched))
        # Shielded: whoever leaves does not cancel what others wait for.
        await in_time(asyncio.shield(watched.opening))
        if attributes:
            if watched.opening_attributes is None:
                watched.opening_attributes = self._spawn(self._open_attributes(watched))
            await in_time(asyncio.shield(watched.opening_attributes))
        if self._watched.get(watched.device.id) is not watched:
            raise NotFound(note="gone")

    async def _open(self, watched: Watched) -> None:
        has_status = await watched.device.learn()
        await self._add_sources(watched, [TELEMETRY, STATUS] if has_status else [TELEMETRY])

    async def _open_attributes(self, watched: Watched) -> None:
        await watched.device.learn_attributes()
        await self._add_sources(watched, list(ATTRIBUTES))

    async def _add_sources(self, watched: Watched, sources: list[Source]) -> None:
        """Subscribe to more of a device, and wait for the first frames of it."""
        await self._connected()
        watched.sources += sources
        watched.failure = None
        self._subscriptions.add(watched, sources)
        try:
            async with asyncio.timeout(3 * self._subscriptions.first_frame_seconds):
                await watched.complete.wait()
        except TimeoutError:
            raise UpstreamTimeout(note="no_first_frame") from None
        if watched.failure is not None:
            raise watched.failure
        await watched.device.settled()

    def _release(self, watched: Watched, *, attributes: bool) -> None:
        watched.users -= 1
        watched.attribute_users -= attributes
        if self._watched.get(watched.device.id) is not watched:
            return
        if watched.users == 0:
            self._unsubscribe(watched, list(watched.sources))
            del self._watched[watched.device.id]
            watched.close()
            self._rest_if_idle()
        elif watched.attribute_users == 0 and watched.opening_attributes is not None:
            watched.opening_attributes.cancel()
            watched.opening_attributes = None
            self._unsubscribe(watched, [source for source in watched.sources if source in ATTRIBUTES])

    def _lose(self, device_id: str, reason: str) -> None:
        """Tell the listeners of a device that it is gone, and forget it."""
        watched = self._watched.pop(device_id, None)
        if watched is None:
            return
        log.info("feed_device_gone", device_id=device_id)
        watched.device.emit(LiveEvent("gone", device_id, reason=reason))
        self._unsubscribe(watched, list(watched.sources))
        watched.failure = NotFound(note="gone")
        watched.complete.set()
        watched.close()
        self._rest_if_idle()

    # The socket.

    async def _connected(self) -> None:
        """Wait for the socket; raise why there is none."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._running is None or self._running.done():
            self._running = self._spawn(self._run())
            self._spawn(self._recheck_for_ever(self._running))
        online = asyncio.ensure_future(self._online.wait())
        failed = asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait(
                [online, failed], timeout=self.connect_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            online.cancel()
            failed.cancel()
        if not self._online.is_set():
            raise self._failure or UpstreamTimeout(note="no_live_socket")

    def _rest_if_idle(self) -> None:
        if not self._watched and self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(self.idle_seconds, self._rest)

    def _rest(self) -> None:
        self._idle = None
        if not self._watched and self._running is not None:
            self._running.cancel()

    async def _run(self) -> None:
        """Keep a socket open, until cancelled."""
        failures = 0
        clock = asyncio.get_running_loop().time
        while True:
            began, code = clock(), None
            try:
                code = await self._serve()
            except GatewayError as error:
                self._tell_failure(error)
            failures = 0 if clock() - began > LONG_LIFE_SECONDS and code != POLICY else failures + 1
            if code == POLICY:
                # A limit of the tenant profile: the operator has to know.
                log.warning("feed_refused", code=code, failures=failures)
            await asyncio.sleep(self._pause_after(failures, code))

    def _pause_after(self, failures: int, code: int | None) -> float:
        longest = self.longest_refused_pause_seconds if code == POLICY else self.longest_pause_seconds
        # Whatever is beyond the longest: hours away would be more than a float holds.
        doublings = min(failures, 20)
        return min(longest, self.pause_seconds * 2.0**doublings) * random.uniform(0.5, 1.0)

    def _tell_failure(self, error: GatewayError) -> None:
        log.warning("feed_not_connected", error_type=type(error).__name__, note=error.note)
        self._failure = error
        self.failures += 1
        # Whoever waits now is told; who comes later waits for the next attempt.
        self._failed.set()
        self._failed = asyncio.Event()

    async def _serve(self) -> int | None:
        """Open a socket, subscribe to everything, and hand out its frames until it ends; say how."""
        socket = await self._dialler.open()
        self.connections += 1
        try:
            await self._recheck()
            self._subscriptions.socket = socket
            self._online.set()
            for watched in self._watched.values():
                self._subscriptions.add(watched, watched.sources)
            async for frame in socket.frames():
                self._subscriptions.take(socket, frame)
        finally:
            self._online.clear()
            self._subscriptions.end()
            # Closing may take a moment, and nobody needs this one any more.
            self._spawn(socket.aclose())
        if socket.close_code == BAD_TOKEN:
            await self._dialler.renew()
        return socket.close_code

    def _unsubscribe(self, watched: Watched, sources: list[Source]) -> None:
        watched.sources = [source for source in watched.sources if source not in sources]
        self._subscriptions.drop(watched, sources)
        if not watched.missing:
            watched.complete.set()

    def _take_refusal(self, watched: Watched) -> None:
        """Find out why ThingsBoard refuses a device that it showed before."""
        if watched.device.sinks:
            self._spawn(self._check_refused(watched))

    async def _check_refused(self, watched: Watched) -> None:
        try:
            await self._telemetry.keys("DEVICE", watched.device.id)
        except NotFound:
            self._lose(watched.device.id, GONE)
        except GatewayError:
            pass
        if self._subscriptions.socket is not None and self._watched.get(watched.device.id) is watched:
            # The deadline of its first frame is still running and tries again.
            self._subscriptions.await_first_frames(watched)

    # The devices.

    async def _recheck_for_ever(self, running: asyncio.Task[None]) -> None:
        while not running.done():
            await asyncio.wait([running], timeout=self.recheck_seconds)
            if running.done() or self._subscriptions.socket is None:
                continue
            try:
                await self._recheck()
            except GatewayError as error:
                log.info("feed_recheck_failed", error_type=type(error).__name__)

    async def _recheck(self) -> None:
        """End the devices that ThingsBoard does not show any more: it does not tell by itself."""
        ids = [device_id for device_id, watched in self._watched.items() if watched.sources]
        for start in range(0, len(ids), DEVICES_A_QUERY):
            asked = ids[start : start + DEVICES_A_QUERY]
            present = await self._queries.active_of_devices(asked)
            for device_id in asked:
                if device_id not in present:
                    await self._check_absent(device_id)

    async def _check_absent(self, device_id: str) -> None:
        try:
            await self._telemetry.keys("DEVICE", device_id)
        except NotFound:
            self._lose(device_id, GONE)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # In a context of its own: this is the gateway's work, not that of the caller who came first.
        task = asyncio.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._end_task)
        return task

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, GatewayError):
            log.error("feed_task_failed", exc_info=(type(error), error, error.__traceback__))
