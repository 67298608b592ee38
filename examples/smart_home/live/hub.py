"""Who listens to which rooms: turns the gateway's events of devices into browsers' events of rooms."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import UUID

from examples.smart_home.errors import Overloaded
from examples.smart_home.live.frames import Frame
from examples.smart_home.live.link import GatewayLink
from examples.smart_home.live.queue import Event, EventQueue
from examples.smart_home.models import Room

#: Open pages of one user.
MOST_LISTENERS = 10

LoadRooms = Callable[[UUID], Awaitable[Sequence[Room]]]


class Listener:
    """One open page."""

    def __init__(self, user_id: UUID) -> None:
        self.user_id = user_id
        self.queue = EventQueue()
        self.rooms: dict[UUID, Room] = {}

    def say(self, event: Event) -> None:
        """Queue something that is no value of a room."""
        self.queue.put(event["type"], event)


class Hub:
    """All open pages, and the link to the gateway that follows what they show."""

    def __init__(self, url: str, key: str, load_rooms: LoadRooms) -> None:
        self._load_rooms = load_rooms
        self._listeners: dict[UUID, set[Listener]] = defaultdict(set)
        self._by_device: dict[UUID, set[Listener]] = {}
        # Two changes at once must not end with the older rooms.
        self._loading = asyncio.Lock()
        self.link = GatewayLink(url, key, on_event=self._deliver, on_state=self._tell_state)

    @contextlib.asynccontextmanager
    async def listen(self, user_id: UUID) -> AsyncIterator[EventQueue]:
        """Listen to all rooms of a user for the time of the block.

        Raises:
            Overloaded: this user has too many pages open.
        """
        listeners = self._listeners[user_id]
        if len(listeners) >= MOST_LISTENERS:
            raise Overloaded(f"You have {MOST_LISTENERS} pages open. Please close one.")
        listener = Listener(user_id)
        listeners.add(listener)
        try:
            await self._load(user_id)
            listener.say({"type": "ready", "live": self.link.is_up})
            yield listener.queue
        finally:
            listeners.discard(listener)
            if not listeners:
                self._listeners.pop(user_id, None)
            self._index()

    async def rooms_changed(self, user_id: UUID) -> None:
        """Follow the rooms that a user has now, and tell the user's pages."""
        await self._load(user_id)
        for listener in self._listeners.get(user_id, ()):
            listener.say({"type": "rooms"})

    async def _load(self, user_id: UUID) -> None:
        if user_id not in self._listeners:
            return
        async with self._loading:
            rooms = {room.tb_device_id: room for room in await self._load_rooms(user_id)}
            for listener in self._listeners.get(user_id, ()):
                listener.rooms = rooms
            self._index()

    def _index(self) -> None:
        by_device: dict[UUID, set[Listener]] = defaultdict(set)
        for listeners in self._listeners.values():
            for listener in listeners:
                for device_id in listener.rooms:
                    by_device[device_id].add(listener)
        self._by_device = dict(by_device)
        self.link.want(self._by_device)

    def _deliver(self, frame: Frame) -> None:
        try:
            device_id = UUID(frame.get("device_id"))
        except (TypeError, ValueError, AttributeError):
            return
        for listener in self._by_device.get(device_id, ()):
            event = _event_of(frame, listener.rooms[device_id])
            if event is not None:
                listener.queue.put((event["room_id"], event.get("key", event["type"])), event)

    def _tell_state(self, is_up: bool) -> None:
        # What happened while the link was down is read by the pages themselves, after `ready`.
        self._say_all({"type": "ready", "live": is_up})

    def _say_all(self, event: Event) -> None:
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.say(event)


def _event_of(frame: Frame, room: Room) -> Event | None:
    """Return what a browser is told: rooms, never devices of ThingsBoard."""
    event: Event = {"type": frame["type"], "room_id": str(room.id)}
    if frame["type"] == "telemetry":
        if frame["ts"] < room.visible_from:
            return None
        return event | {"key": frame["key"], "ts": frame["ts"], "value": frame["value"]}
    if frame["type"] == "status":
        return event | {"online": frame["active"], "ts": frame["ts"]}
    # After a gap the page reads the room again.
    return event if frame["type"] in {"gone", "gap"} else None
