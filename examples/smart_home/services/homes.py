"""A user's homes."""

from collections.abc import Sequence
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from examples.smart_home.clock import Clock
from examples.smart_home.database import Database
from examples.smart_home.errors import Conflict, NotFound
from examples.smart_home.live.hub import Hub
from examples.smart_home.models import Home
from examples.smart_home.repositories import Homes as HomeTable
from examples.smart_home.repositories import Rooms as RoomTable

MOST_HOMES = 20
NO_SUCH_HOME = "There is no such home."


async def get_home(session: AsyncSession, user_id: UUID, home_id: UUID) -> Home:
    """Return a home.

    Raises:
        NotFound: there is none with this id, or it is somebody else's.
    """
    home = await HomeTable(session, user_id).find(home_id)
    if home is None:
        raise NotFound(NO_SUCH_HOME)
    return home


class Homes:
    """What users do with their homes."""

    def __init__(self, database: Database, hub: Hub, clock: Clock) -> None:
        self._sessions, self._hub, self._clock = database.sessions, hub, clock

    async def all(self, user_id: UUID) -> Sequence[Home]:
        """Return the user's homes."""
        async with self._sessions() as session:
            return await HomeTable(session, user_id).all()

    async def get(self, user_id: UUID, home_id: UUID) -> Home:
        """Return one of the user's homes."""
        async with self._sessions() as session:
            return await get_home(session, user_id, home_id)

    async def add(self, user_id: UUID, name: str) -> Home:
        """Make a home."""
        home = Home(id=uuid4(), user_id=user_id, name=name, created_at=self._clock())
        async with self._sessions.begin() as session:
            table = HomeTable(session, user_id)
            if await table.count() >= MOST_HOMES:
                raise Conflict(f"You have {MOST_HOMES} homes already, which is all that we allow.")
            table.add(home)
        return home

    async def rename(self, user_id: UUID, home_id: UUID, name: str) -> Home:
        """Give a home another name."""
        async with self._sessions.begin() as session:
            home = await get_home(session, user_id, home_id)
            home.name = name
        return home

    async def delete(self, user_id: UUID, home_id: UUID) -> None:
        """Delete a home with its rooms; their devices may be claimed again."""
        async with self._sessions.begin() as session:
            home = await get_home(session, user_id, home_id)
            rooms = RoomTable(session, user_id)
            for room in await rooms.all(home_id):
                await rooms.release(room, self._clock())
            await HomeTable(session, user_id).delete(home)
        await self._hub.rooms_changed(user_id)
