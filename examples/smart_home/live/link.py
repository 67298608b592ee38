"""The one WebSocket to the gateway: it follows the devices that are wanted, and comes back when it breaks."""

import asyncio
import random
from collections.abc import Callable, Iterable
from uuid import UUID

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from examples.smart_home.gateway import API
from examples.smart_home.live import frames

log = structlog.get_logger("smart_home")

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 10.0
#: Devices named in one frame.
BATCH = 100


class GatewayLink:
    """Keeps one WebSocket open while there is somebody to follow."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        on_event: Callable[[frames.Frame], None],
        on_state: Callable[[bool], None],
    ) -> None:
        self._url = f"ws{url.removeprefix('http')}{API}/ws"
        self._key = key
        self._on_event, self._on_state = on_event, on_state
        self._wanted: set[UUID] = set()
        self._changed = asyncio.Event()
        self._number = 0
        #: Subscriptions that are not answered yet, and those to ask for again.
        self._asked: dict[int, list[UUID]] = {}
        self._again: list[list[UUID]] = []
        self.is_up = False

    def want(self, devices: Iterable[UUID]) -> None:
        """Follow these devices from now on, and no others."""
        self._wanted = set(devices)
        self._changed.set()

    async def run(self) -> None:
        """Stay connected until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            if not self._wanted:
                await self._wait_for_change()
                continue
            try:
                async with connect(
                    self._url, additional_headers={"X-API-Key": self._key}, proxy=None, max_size=None
                ) as socket:
                    pause = FIRST_PAUSE_SECONDS
                    await self._serve(socket)
            except InvalidHandshake as error:
                status = getattr(getattr(error, "response", None), "status_code", None)
                log.error("live_link_refused", status=status)
            except (OSError, TimeoutError, WebSocketException) as error:
                log.warning("live_link_broken", reason=type(error).__name__)
            finally:
                self._set_up(False)
            # Many of us must not come back at once after a restart of the gateway.
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _wait_for_change(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    async def _serve(self, socket: ClientConnection) -> None:
        following = asyncio.create_task(self._follow(socket))
        try:
            async for message in socket:
                self._take(message)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def _take(self, message: str | bytes) -> None:
        try:
            frame = frames.parse(message)
        except (TypeError, ValueError):
            log.error("live_frame_garbled")
            return
        if frame["type"] == "ack":
            self._asked.pop(frame["id"], None)
            self._set_up(True)
        elif frame["type"] == "error":
            self._ask_singly(self._asked.pop(frame.get("id", 0), []), frame)
        else:
            self._on_event(frame)

    def _ask_singly(self, devices: list[UUID], frame: frames.Frame) -> None:
        """Ask again without the device that was refused: one is enough to have its whole frame refused."""
        if len(devices) > 1:
            self._again.extend([device] for device in devices)
            self._changed.set()
        else:
            log.warning("live_refused", device=str(*devices), code=frame.get("error_code"))

    async def _follow(self, socket: ClientConnection) -> None:
        """Tell the gateway what is wanted, at the start and at each change."""
        following: set[UUID] = set()
        self._asked.clear()
        self._again.clear()
        while True:
            self._changed.clear()
            wanted = set(self._wanted)
            again = [batch for batch in self._again if wanted.issuperset(batch)]
            self._again.clear()
            for batch in batches_of(following - wanted):
                await socket.send(frames.unsubscribe(self._next_number(), batch))
            for batch in [*batches_of(wanted - following), *again]:
                number = self._next_number()
                self._asked[number] = batch
                await socket.send(frames.subscribe(number, batch))
            following = wanted
            await self._changed.wait()

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _set_up(self, is_up: bool) -> None:
        if is_up != self.is_up:
            self.is_up = is_up
            self._on_state(is_up)


def batches_of(devices: Iterable[UUID]) -> list[list[UUID]]:
    """Return the devices in parts that fit into one frame each."""
    ordered = sorted(devices)
    return [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
