"""What is read from and written to the tables. Whatever belongs to a user is looked up with that user."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from examples.smart_home.models import FormerDevice, Home, RefreshToken, Room, User


class Users:
    """People with an account."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def add(self, user: User) -> None:
        """Add one; the address may turn out to be taken when it is flushed."""
        self._session.add(user)

    async def get(self, user_id: UUID) -> User | None:
        """Return one by id."""
        return await self._session.get(User, user_id)

    async def find_by_email(self, email: str) -> User | None:
        """Return the one with this address."""
        return await self._session.scalar(select(User).where(User.email == email))


class RefreshTokens:
    """Refresh tokens by digest."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def add(self, token: RefreshToken) -> None:
        """Add one."""
        self._session.add(token)

    async def find(self, digest: str) -> RefreshToken | None:
        """Return one."""
        return await self._session.get(RefreshToken, digest)

    async def use_up(self, digest: str, now: int) -> bool:
        """Revoke one and tell whether it was good until now: of two at once only one succeeds."""
        used = await self._session.execute(
            update(RefreshToken)
            .where(RefreshToken.digest == digest, RefreshToken.revoked_at.is_(None))
            .values(revoked_at=now)
            .returning(RefreshToken.digest)
        )
        return used.first() is not None

    async def revoke_family(self, family: UUID, now: int) -> None:
        """End everything that grew out of one log-in."""
        await self._session.execute(
            update(RefreshToken)
            .where(RefreshToken.family == family, RefreshToken.revoked_at.is_(None))
            .values(revoked_at=now)
        )

    async def forget_expired(self, user_id: UUID, now: int) -> None:
        """Delete a user's tokens that time has ended."""
        await self._session.execute(
            delete(RefreshToken).where(RefreshToken.user_id == user_id, RefreshToken.expires_at <= now)
        )


class Homes:
    """The homes of one user."""

    def __init__(self, session: AsyncSession, user_id: UUID) -> None:
        self._session, self._user_id = session, user_id

    def add(self, home: Home) -> None:
        """Add one."""
        self._session.add(home)

    async def all(self) -> Sequence[Home]:
        """Return all, oldest first."""
        query = select(Home).where(Home.user_id == self._user_id).order_by(Home.created_at, Home.id)
        return (await self._session.scalars(query)).all()

    async def count(self) -> int:
        """Return how many there are."""
        query = select(func.count()).select_from(Home).where(Home.user_id == self._user_id)
        return await self._session.scalar(query) or 0

    async def find(self, home_id: UUID) -> Home | None:
        """Return one, if it is this user's."""
        return await self._session.scalar(
            select(Home).where(Home.id == home_id, Home.user_id == self._user_id)
        )

    async def delete(self, home: Home) -> None:
        """Delete one, its rooms with it."""
        await self._session.delete(home)


class Rooms:
    """The rooms in all homes of one user."""

    def __init__(self, session: AsyncSession, user_id: UUID) -> None:
        self._session, self._user_id = session, user_id

    def add(self, room: Room) -> None:
        """Add one; its device may turn out to be taken when it is flushed."""
        self._session.add(room)

    async def all(self, home_id: UUID | None = None) -> Sequence[Room]:
        """Return all, or those of one home, oldest first."""
        query = select(Room).join(Home, Home.id == Room.home_id).where(Home.user_id == self._user_id)
        if home_id is not None:
            query = query.where(Home.id == home_id)
        return (await self._session.scalars(query.order_by(Room.created_at, Room.id))).all()

    async def find(self, room_id: UUID) -> Room | None:
        """Return one, if it is in a home of this user."""
        return await self._session.scalar(
            select(Room)
            .join(Home, Home.id == Room.home_id)
            .where(Room.id == room_id, Home.user_id == self._user_id)
        )

    async def is_claimed(self, device_id: UUID) -> bool:
        """Tell whether anybody has this device."""
        return await self._session.scalar(select(Room.id).where(Room.tb_device_id == device_id)) is not None

    async def visible_from(self, device_id: UUID) -> int:
        """Return from when on this user may see what a device measures."""
        former = await self._session.get(FormerDevice, device_id)
        if former is None:
            return 0
        return former.visible_from if former.user_id == self._user_id else former.released_at

    async def release(self, room: Room, now: int) -> None:
        """Delete a room and remember who had its device until now."""
        deleted = await self._session.execute(delete(Room).where(Room.id == room.id).returning(Room.id))
        if deleted.first() is None:
            # Somebody was quicker, who has remembered it.
            return
        await self._session.merge(
            FormerDevice(
                tb_device_id=room.tb_device_id,
                user_id=self._user_id,
                released_at=now,
                visible_from=room.visible_from,
            )
        )
