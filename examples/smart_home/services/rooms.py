"""A user's rooms: claiming their devices, their values, their lights."""

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from examples.smart_home.attempts import Attempts
from examples.smart_home.clock import Clock
from examples.smart_home.database import Database
from examples.smart_home.errors import Conflict, NotFound
from examples.smart_home.gateway import Gateway, Values
from examples.smart_home.live.hub import Hub
from examples.smart_home.models import Room
from examples.smart_home.repositories import Rooms as RoomTable
from examples.smart_home.services.homes import get_home

MOST_ROOMS = 50
#: Wrong and right codes alike, for each user: nobody types faster.
CLAIMS = "10/minute"
HOUR_MS = 3_600_000
#: Raw points of one answer at most; more are `truncated`.
MOST_POINTS = 2_000

NO_SUCH_ROOM = "There is no such room."
#: One answer for an unknown device, one without a code and a wrong code: who asks learns nothing.
WRONG_CODE = "There is no device with this name and claim code. Both are on its label."
CLAIMED = "This device is in a room already. It has to be removed there first."


@dataclass(frozen=True)
class RoomState:
    """What a room shows: newest values by key, and whether its device is online (None: not known)."""

    room_id: UUID
    online: bool | None
    values: Values


class Rooms:
    """What users do with their rooms."""

    def __init__(self, database: Database, gateway: Gateway, hub: Hub, clock: Clock) -> None:
        self._sessions, self._gateway, self._hub, self._clock = database.sessions, gateway, hub, clock
        self._claims = Attempts(CLAIMS)

    async def all(self, user_id: UUID, home_id: UUID) -> Sequence[Room]:
        """Return the rooms of a home."""
        async with self._sessions() as session:
            await get_home(session, user_id, home_id)
            return await RoomTable(session, user_id).all(home_id)

    async def get(self, user_id: UUID, room_id: UUID) -> Room:
        """Return a room."""
        async with self._sessions() as session:
            return await _get_room(session, user_id, room_id)

    async def add(self, user_id: UUID, home_id: UUID, name: str, device: str, claim_code: str) -> Room:
        """Claim a device and put it into a new room.

        Raises:
            NotFound: no such home, or no device with this name and code.
            Conflict: the device is in a room already, or the home is full.
        """
        rooms = await self.all(user_id, home_id)
        if len(rooms) >= MOST_ROOMS:
            raise Conflict(f"This home has {MOST_ROOMS} rooms already, which is all that we allow.")
        await self._claims.count(str(user_id))
        device_id = await self._find_device(device, claim_code)
        room = Room(id=uuid4(), home_id=home_id, name=name, tb_device_id=device_id, created_at=self._clock())
        try:
            async with self._sessions.begin() as session:
                table = RoomTable(session, user_id)
                # The home may be gone by now.
                await get_home(session, user_id, home_id)
                if await table.is_claimed(device_id):
                    raise Conflict(CLAIMED)
                room.visible_from = await table.visible_from(device_id)
                table.add(room)
        except IntegrityError:
            raise Conflict(CLAIMED) from None
        await self._hub.rooms_changed(user_id)
        return room

    async def _find_device(self, name: str, claim_code: str) -> UUID:
        found = await self._gateway.find_device(name)
        expected = _plain(found.code) if found and found.code else ""
        matches = hmac.compare_digest(expected.encode(), _plain(claim_code).encode())
        if found is None or not expected or not matches:
            raise NotFound(WRONG_CODE)
        return found.device_id

    async def rename(self, user_id: UUID, room_id: UUID, name: str) -> Room:
        """Give a room another name."""
        async with self._sessions.begin() as session:
            room = await _get_room(session, user_id, room_id)
            room.name = name
        return room

    async def delete(self, user_id: UUID, room_id: UUID) -> None:
        """Delete a room; its device may be claimed again."""
        async with self._sessions.begin() as session:
            room = await _get_room(session, user_id, room_id)
            await RoomTable(session, user_id).release(room, self._clock())
        await self._hub.rooms_changed(user_id)

    async def states(self, user_id: UUID, home_id: UUID) -> list[RoomState]:
        """Return what all rooms of a home show."""
        return await self._states(await self.all(user_id, home_id))

    async def state(self, user_id: UUID, room_id: UUID) -> RoomState:
        """Return what one room shows."""
        return (await self._states([await self.get(user_id, room_id)]))[0]

    async def _states(self, rooms: Sequence[Room]) -> list[RoomState]:
        devices = [room.tb_device_id for room in rooms]
        latest, online = await asyncio.gather(self._gateway.latest(devices), self._gateway.online(devices))
        return [
            RoomState(
                room.id,
                online.get(room.tb_device_id),
                _since(room.visible_from, latest.get(room.tb_device_id, {})),
            )
            for room in rooms
        ]

    async def history(
        self, user_id: UUID, room_id: UUID, key: str, *, hours: int, buckets: int | None
    ) -> dict[str, Any]:
        """Return the last hours of a key: its points, or so many averages."""
        room = await self.get(user_id, room_id)
        end = self._clock() + 1
        width = hours * HOUR_MS // (buckets or hours * HOUR_MS)
        # By the clock, not by the moment of asking: else every average would change with every reading.
        start = (end - hours * HOUR_MS) // width * width
        query: dict[str, Any] = {"keys": [key], "start_ts": max(start, room.visible_from), "end_ts": end}
        if query["start_ts"] >= end:
            return {"key": key, "start_ts": start, "end_ts": end, "points": [], "truncated": False}
        if buckets is None:
            query |= {"limit": MOST_POINTS, "order": "DESC"}
        else:
            query |= {"agg": "AVG", "interval": width, "limit": buckets + 2}
        answer = await self._gateway.query(room.tb_device_id, query)
        points = answer["data"].get(key, [])
        if buckets is None:
            points.reverse()
        return {
            "key": key,
            "start_ts": start,
            "end_ts": end,
            "points": points,
            "truncated": answer["metadata"]["truncated"],
        }

    async def switch_light(self, user_id: UUID, room_id: UUID, *, on: bool) -> dict[str, Any]:
        """Switch a room's light and tell what its device says of it."""
        room = await self.get(user_id, room_id)
        return await self._gateway.switch_light(room.tb_device_id, on=on)


async def _get_room(session: AsyncSession, user_id: UUID, room_id: UUID) -> Room:
    room = await RoomTable(session, user_id).find(room_id)
    if room is None:
        raise NotFound(NO_SUCH_ROOM)
    return room


def _plain(code: str) -> str:
    """Return a code without what people add or leave out when they type."""
    return "".join(code.split()).replace("-", "").upper()


def _since(start: int, values: Values) -> Values:
    return {key: point for key, point in values.items() if point is None or point["ts"] >= start}
