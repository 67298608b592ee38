"""Access tokens: JWTs that only this product makes and reads. Refresh tokens are random text."""

import hashlib
import secrets
from dataclasses import dataclass
from uuid import UUID

import jwt

from examples.smart_home.clock import Clock
from examples.smart_home.errors import NotAuthenticated

ALGORITHM = "HS256"
ISSUER = "smart-home"


@dataclass(frozen=True)
class Access:
    """Whose token it is, and until when."""

    user_id: UUID
    expires_at: int


class Tokens:
    """Makes and reads access tokens."""

    def __init__(self, secret: str, *, lifetime_seconds: int, clock: Clock) -> None:
        self._secret, self._clock = secret, clock
        self.lifetime_seconds = lifetime_seconds

    def make(self, user_id: UUID) -> str:
        """Return a token for a user."""
        issued = self._clock() // 1000
        claims = {"sub": str(user_id), "iss": ISSUER, "iat": issued, "exp": issued + self.lifetime_seconds}
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def read(self, token: str) -> Access:
        """Return what a token says.

        Raises:
            NotAuthenticated: it is not ours, was changed, or is over.
        """
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                # The time is ours to judge: by the clock that made the token.
                options={"require": ["exp", "sub", "iat"], "verify_exp": False, "verify_iat": False},
            )
            access = Access(UUID(claims["sub"]), int(claims["exp"]) * 1000)
        except (jwt.InvalidTokenError, ValueError):
            raise NotAuthenticated from None
        if access.expires_at <= self._clock():
            raise NotAuthenticated("Your session is over. Please log in again.")
        return access

    def seconds_until(self, expires_at: int) -> float:
        """Return how long a token is still good."""
        return max(0, expires_at - self._clock()) / 1000


def make_refresh_token() -> str:
    """Return a new refresh token: 256 random bits."""
    return secrets.token_urlsafe(32)


def digest_of(refresh_token: str) -> str:
    """Return what is stored of it: with so many random bits a plain digest cannot be turned back."""
    return hashlib.sha256(refresh_token.encode()).hexdigest()
