"""Accounts and sessions: sign up, log in, refresh, log out."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from examples.smart_home.clock import Clock
from examples.smart_home.database import Database
from examples.smart_home.errors import Conflict, NotAuthenticated
from examples.smart_home.models import RefreshToken, User
from examples.smart_home.passwords import Passwords
from examples.smart_home.repositories import RefreshTokens, Users
from examples.smart_home.tokens import Tokens, digest_of, make_refresh_token

ENDED = "Your session is over. Please log in again."


@dataclass(frozen=True)
class Session:
    """What somebody gets who has logged in."""

    user: User
    access_token: str
    refresh_token: str


class Accounts:
    """People's accounts, and the sessions they have open."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        tokens: Tokens,
        *,
        refresh_seconds: int,
        clock: Clock,
    ) -> None:
        self._sessions, self._passwords, self._tokens = database.sessions, passwords, tokens
        self._refresh_ms, self._clock = refresh_seconds * 1000, clock

    async def register(self, email: str, password: str, name: str) -> Session:
        """Make an account and log in.

        Raises:
            Conflict: somebody has this address.
        """
        password_hash = await self._passwords.hash(password)
        user = User(id=uuid4(), email=email, name=name, password_hash=password_hash, created_at=self._clock())
        try:
            async with self._sessions.begin() as session:
                Users(session).add(user)
                await session.flush()
                return self._open(session, user, uuid4())
        except IntegrityError:
            raise Conflict("There is an account with this e-mail address already.") from None

    async def login(self, email: str, password: str) -> Session:
        """Open a session.

        Raises:
            NotAuthenticated: wrong address or password; which of them is not told.
        """
        async with self._sessions() as session:
            user = await Users(session).find_by_email(email)
        if not await self._passwords.verify(password, user.password_hash if user else None) or user is None:
            raise NotAuthenticated("E-mail address or password is wrong.")
        renewed = (
            await self._passwords.hash(password) if self._passwords.is_outdated(user.password_hash) else None
        )
        async with self._sessions.begin() as session:
            if renewed:
                user.password_hash = renewed
                user = await session.merge(user)
            await RefreshTokens(session).forget_expired(user.id, self._clock())
            return self._open(session, user, uuid4())

    async def refresh(self, refresh_token: str) -> Session:
        """Give new tokens for a refresh token, which is used up by that.

        One that comes a second time was stolen, or its thief was first: the whole session ends.

        Raises:
            NotAuthenticated: it is unknown, used up, or over.
        """
        digest, now = digest_of(refresh_token), self._clock()
        async with self._sessions.begin() as session:
            opened = await self._continue(session, digest, now)
        if opened is None:
            raise NotAuthenticated(ENDED)
        return opened

    async def _continue(self, session: AsyncSession, digest: str, now: int) -> Session | None:
        tokens = RefreshTokens(session)
        token = await tokens.find(digest)
        if token is None or token.expires_at <= now:
            return None
        if not await tokens.use_up(digest, now):
            await tokens.revoke_family(token.family, now)
            return None
        user = await Users(session).get(token.user_id)
        return self._open(session, user, token.family) if user else None

    async def logout(self, refresh_token: str) -> None:
        """End the session of a refresh token, if there is one."""
        async with self._sessions.begin() as session:
            tokens = RefreshTokens(session)
            token = await tokens.find(digest_of(refresh_token))
            if token is not None:
                await tokens.revoke_family(token.family, self._clock())

    async def get(self, user_id: UUID) -> User:
        """Return an account.

        Raises:
            NotAuthenticated: it is gone.
        """
        async with self._sessions() as session:
            user = await Users(session).get(user_id)
        if user is None:
            raise NotAuthenticated
        return user

    def _open(self, session: AsyncSession, user: User, family: UUID) -> Session:
        refresh_token = make_refresh_token()
        RefreshTokens(session).add(
            RefreshToken(
                digest=digest_of(refresh_token),
                user_id=user.id,
                family=family,
                expires_at=self._clock() + self._refresh_ms,
                revoked_at=None,
            )
        )
        return Session(user, self._tokens.make(user.id), refresh_token)
