"""The open streams of this process: how many a key has, and what ends them besides their readers.

A stream ends when its key has ended, or may do less than when it began, and when the gateway stops.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextvars import Context

import structlog

from app.context import Caller
from app.errors import Overloaded, RateLimited
from app.keys.store import APIKeys
from app.thingsboard.live_events import LiveEvent

log = structlog.get_logger("gateway")

KEY_ENDED = "the API key has ended or may do less than before"
STOPPING = "the gateway is stopping: connect again"
#: An expiry that is further off is looked at again.
LONGEST_TIMER_SECONDS = 86_400.0


class Stream:
    """One open stream. Whoever opened it closes it, and says how it is to be ended."""

    def __init__(self, streams: "Streams", caller: Caller) -> None:
        self.caller = caller
        self._streams = streams
        self.end: Callable[[LiveEvent], None] = lambda _: None
        self.timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Forget it."""
        self._streams.forget(self)


class Streams:
    """All streams of the process, for one event loop.

    Args:
        most_per_key: for keys without a limit of their own.
    """

    def __init__(self, keys: APIKeys, most_per_key: int) -> None:
        self._keys, self._most_per_key = keys, most_per_key
        self._open: dict[Stream, None] = {}
        self._by_key: Counter[str] = Counter()
        self._is_draining = False
        self._watching: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def open(self, caller: Caller) -> Stream:
        """Admit a stream.

        Raises:
            RateLimited: the key has as many open as it may have.
            Overloaded: the gateway is stopping.
        """
        if self._is_draining:
            raise Overloaded
        most = self._most_per_key if caller.max_streams is None else caller.max_streams
        if self._by_key[caller.id] >= most:
            raise RateLimited(
                f"This API key has {most} streams open already, which is its limit.",
                details={"limited_by": "gateway", "counted_by": "streams", "limit": most},
                retry_after=1,
            )
        stream = Stream(self, caller)
        self._open[stream] = None
        self._by_key[caller.id] += 1
        self._arm(stream)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), context=Context())
        return stream

    def forget(self, stream: Stream) -> None:
        """Forget a stream that has ended."""
        if stream not in self._open:
            return
        del self._open[stream]
        self._by_key[stream.caller.id] -= 1
        if not self._by_key[stream.caller.id]:
            del self._by_key[stream.caller.id]
        if stream.timer is not None:
            stream.timer.cancel()
        if not self._open and self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def drain(self) -> None:
        """Let all streams say goodbye and end, and admit no more."""
        if not self._is_draining:
            self._is_draining = True
            if self._open:
                log.info("streams_draining", streams=len(self._open))
            for stream in tuple(self._open):
                stream.end(LiveEvent("closing", reason=STOPPING))

    async def _watch(self) -> None:
        generation = self._keys.generation
        while True:
            generation = await self._keys.wait_for_change(generation)
            for stream in tuple(self._open):
                self._check(stream)

    def _arm(self, stream: Stream) -> None:
        end = stream.caller.expires_at
        if end is not None:
            left = max(0.0, (end - self._keys.clock()) / 1_000)
            loop = asyncio.get_running_loop()
            stream.timer = loop.call_later(min(left, LONGEST_TIMER_SECONDS), self._check, stream)

    def _check(self, stream: Stream) -> None:
        """End the stream if its key may not do any more what it could."""
        if stream.timer is not None:
            stream.timer.cancel()
        before, now = stream.caller, self._keys.current(stream.caller)
        if (
            now is None
            or not before.scopes <= now.scopes
            or (now.restrictions, now.upstream) != (before.restrictions, before.upstream)
        ):
            log.info("stream_ended_by_key", key_id=before.id)
            stream.end(LiveEvent("closing", reason=KEY_ENDED))
            return
        stream.caller = now
        self._arm(stream)
