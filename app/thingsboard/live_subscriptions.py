"""The subscriptions on the present socket: their numbers, their first frames, and who gets which frame."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from app.errors import GatewayError, UpstreamFailed
from app.thingsboard.live_device import ATTRIBUTES, STATUS, TELEMETRY, Batch, LiveDevice, Source, rows_of
from app.thingsboard.web_socket import FeedSocket

log = structlog.get_logger("thingsboard")

#: ThingsBoard's command for each source, and what it says besides the device.
COMMANDS: dict[Source, tuple[str, dict[str, str]]] = {
    # Without scope and keys: late points and new keys come too (facts, WebSocket).
    TELEMETRY: ("TIMESERIES", {}),
    STATUS: ("ATTRIBUTES", {"scope": "SERVER_SCOPE", "keys": "active"}),
    **{source: ("ATTRIBUTES", {"scope": scope}) for source, scope in ATTRIBUTES.items()},
}


class Watched:
    """A device that somebody listens to, and its subscriptions on the present socket."""

    def __init__(self, device: LiveDevice) -> None:
        self.device = device
        #: How many want it at all, and with attributes.
        self.users = self.attribute_users = 0
        #: What is to be subscribed to, and under which number it is.
        self.sources: list[Source] = []
        self.numbers: dict[Source, int] = {}
        #: Sources of which the first frame is still to come.
        self.missing: set[Source] = set()
        self.complete = asyncio.Event()
        self.failure: GatewayError | None = None
        self.opening: asyncio.Task[None] | None = None
        self.opening_attributes: asyncio.Task[None] | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self.misses = 0

    def close(self) -> None:
        """Give up what is under way."""
        for task in (self.opening, self.opening_attributes):
            if task is not None:
                task.cancel()
        if self.deadline is not None:
            self.deadline.cancel()
        self.device.close()


class Subscriptions:
    """What is subscribed to on the present socket; between sockets, nothing is.

    Args:
        on_refused: called with a device that ThingsBoard does not show any more, as it seems.
    """

    def __init__(self, on_refused: Callable[[Watched], None]) -> None:
        self.socket: FeedSocket | None = None
        self.first_frame_seconds = 10.0
        self._by_number: dict[int, tuple[Watched, Source]] = {}
        self._on_refused = on_refused

    def end(self) -> None:
        """Forget a socket that has ended."""
        self.socket = None
        self._by_number.clear()

    def add(self, watched: Watched, sources: Iterable[Source]) -> None:
        """Subscribe, now or with all the others once there is a socket again."""
        if self.socket is None:
            watched.complete.clear()
            return
        for source in sources:
            kind, more = COMMANDS[source]
            number = self.socket.subscribe(kind, watched.device.id, **more)
            watched.numbers[source] = number
            watched.missing.add(source)
            self._by_number[number] = watched, source
        if watched.missing:
            watched.complete.clear()
            self.await_first_frames(watched)

    def await_first_frames(self, watched: Watched) -> None:
        """Begin the deadline of the first frames of a device."""
        if watched.deadline is not None:
            watched.deadline.cancel()
        loop = asyncio.get_running_loop()
        watched.deadline = loop.call_later(self.first_frame_seconds, self._miss_first_frame, watched)

    def _miss_first_frame(self, watched: Watched) -> None:
        if self.socket is None or not watched.missing:
            return
        watched.misses += 1
        log.warning("feed_first_frame_missing", device_id=watched.device.id, misses=watched.misses)
        if watched.misses > 1:
            watched.misses = 0
            self.socket.abort()
            return
        again = list(watched.missing)
        self.drop(watched, again)
        self.add(watched, again)

    def drop(self, watched: Watched, sources: Iterable[Source]) -> None:
        """Unsubscribe."""
        for source in sources:
            watched.missing.discard(source)
            number = watched.numbers.pop(source, None)
            if self.socket is not None and self._by_number.pop(number or 0, None) is not None and number:
                kind, more = COMMANDS[source]
                self.socket.unsubscribe(kind, watched.device.id, number, **more)

    def take(self, socket: FeedSocket, frame: dict[str, Any]) -> None:
        """Hand a frame to its device."""
        number = frame.get("subscriptionId")
        if number in {0, 1}:
            # The session is unknown to ThingsBoard, or it understood nothing of a frame: all anew.
            log.warning("feed_confused", code=frame.get("errorCode"), number=number)
            socket.abort()
            return
        watched, source = self._by_number.get(number, (None, TELEMETRY)) if number else (None, TELEMETRY)
        if watched is None:
            return
        if frame.get("errorCode"):
            self._refuse(watched, source)
            return
        try:
            rows = rows_of(frame.get("data") or {})
        except (AttributeError, TypeError, ValueError):
            log.warning("feed_garbled", device_id=watched.device.id)
            return
        is_first = source in watched.missing
        watched.missing.discard(source)
        watched.device.take(Batch(source, rows, is_first))
        if is_first and not watched.missing:
            watched.misses = 0
            watched.complete.set()

    def _refuse(self, watched: Watched, source: Source) -> None:
        log.warning("feed_subscription_refused", device_id=watched.device.id, kind=source[0])
        watched.failure = UpstreamFailed(note="subscription_refused")
        watched.complete.set()
        self._on_refused(watched)
