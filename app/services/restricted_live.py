"""The live feed as a restricted key sees it: devices are checked at first, and again while they are heard."""

import asyncio
from contextvars import Context

from app.errors import GatewayError
from app.services.visibility import Visibility
from app.thingsboard.live_events import LiveEvent, Sink
from app.thingsboard.live_feed import GONE, LiveFeed

#: A device that has left the restriction falls silent after this time and what a decision is kept for.
RECHECK_SECONDS = 30.0


class RestrictedLive(LiveFeed):
    """The upstream's feed. None of the parent's own members is set: what is not below cannot work.

    `listen` is the parent's, which attaches here.
    """

    recheck_seconds = RECHECK_SECONDS

    def __init__(self, feed: LiveFeed, visibility: Visibility) -> None:
        self._feed, self._visibility = feed, visibility
        self._attached: dict[tuple[str, Sink], None] = {}
        self._checking: asyncio.Task[None] | None = None

    async def attach(self, device_id: str, sink: Sink, *, attributes: bool = False) -> None:
        """Deliver the events of a device that the key sees; NotFound for others."""
        await self._visibility.check("DEVICE", device_id)
        await self._feed.attach(device_id, sink, attributes=attributes)
        self._attached[device_id, sink] = None
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._recheck_visible(), context=Context())

    def detach(self, device_id: str, sink: Sink) -> None:
        """End what `attach` began."""
        if (device_id, sink) in self._attached:
            del self._attached[device_id, sink]
            self._feed.detach(device_id, sink)
        if not self._attached and self._checking is not None:
            self._checking.cancel()
            self._checking = None

    def snapshot(self, device_id: str, *, attributes: bool) -> list[LiveEvent]:
        """Return what is the case with a device that was attached to here."""
        return self._feed.snapshot(device_id, attributes=attributes)

    async def _recheck_visible(self) -> None:
        while True:
            await asyncio.sleep(self.recheck_seconds)
            asked = {device_id for device_id, _ in self._attached}
            try:
                seen = await self._visibility.seen(("DEVICE", device_id) for device_id in asked)
            except GatewayError:
                # ThingsBoard is away, and so is what it would tell.
                continue
            hidden = {device_id for device_id in asked if ("DEVICE", device_id) not in seen}
            for device_id, sink in list(self._attached):
                if device_id in hidden:
                    self.detach(device_id, sink)
                    sink.deliver(LiveEvent("gone", device_id, reason=GONE))
