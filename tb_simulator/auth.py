"""JWTs (HS512, made by hand), sessions and API keys."""

import base64
import hashlib
import hmac
import itertools
import re
import secrets
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from tb_simulator.answers import Answer, ApiError

if TYPE_CHECKING:
    from tb_simulator.world import Entity, World

ISSUER = "thingsboard.io"
REFRESH_SCOPE = "REFRESH_TOKEN"
_BEARER = re.compile(r"bearer ", re.IGNORECASE)
_CACHE_LIMIT = 10_000


def authentication_failed() -> ApiError:
    """Return the 401 of a missing token or an unreadable login (auth.json)."""
    return ApiError(401, "Authentication failed", 10)


def bad_credentials() -> ApiError:
    """Return the 401 of wrong passwords, garbage tokens and wrong API keys (auth.json, api_keys.json)."""
    return ApiError(401, "Invalid username or password", 10)


def token_expired() -> ApiError:
    """Return the 401 of expired, tampered and logged-out tokens alike (auth.json, "tampered token")."""
    return ApiError(401, "Token has expired", 11)


class RedirectToLogin(Exception):
    """The answer to a token without ``Bearer ``: 302 without a body (README of the recordings)."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the user, and what permission checks need of it."""

    user_id: str
    authority: str
    tenant: str
    customer: str
    session: str = ""


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


_HEADER = _encode(orjson.dumps({"alg": "HS512"}))


class Tokens:
    """Issues and checks tokens. Verified tokens are remembered until their end: benchmarks stand on this."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._key = secrets.token_bytes(64)
        self._serials = itertools.count(1)
        self._issued = 0
        self._void_up_to = 0
        self._ended_sessions: set[str] = set()
        self._cache: dict[str, tuple[Principal, int]] = {}
        self.api_keys: dict[str, dict[str, Any]] = {}
        self._api_key_ids: dict[str, str] = {}

    def pair(self, user: "Entity", session: str | None = None) -> dict[str, str]:
        """Return an access and a refresh token for a user."""
        session = session or str(uuid.uuid4())
        settings = self._world.settings
        body = user.body
        common = {"sub": body["email"], "userId": user.id, "sessionId": session, "iss": ISSUER}
        access = {
            **common,
            "scopes": [body["authority"]],
            "enabled": True,
            "isPublic": False,
            "tenantId": body["tenantId"]["id"],
            "customerId": body["customerId"]["id"],
        }
        refresh = {**common, "scopes": [REFRESH_SCOPE], "isPublic": False}
        return {
            "token": self._sign(access, settings.access_token_seconds),
            "refreshToken": self._sign(refresh, settings.refresh_token_seconds),
        }

    def _sign(self, claims: dict[str, Any], seconds: int) -> str:
        issued = self._world.now() // 1000
        self._issued = next(self._serials)
        claims = {**claims, "iat": issued, "exp": issued + seconds, "jti": str(self._issued)}
        signed = f"{_HEADER}.{_encode(orjson.dumps(claims))}"
        return f"{signed}.{self._signature(signed)}"

    def _signature(self, signed: str) -> str:
        return _encode(hmac.digest(self._key, signed.encode(), hashlib.sha512))

    def _claims(self, token: str) -> dict[str, Any]:
        signed, _, signature = token.rpartition(".")
        try:
            claims = orjson.loads(_decode(signed.partition(".")[2]))
        except ValueError:
            raise bad_credentials() from None
        if not isinstance(claims, dict) or "exp" not in claims:
            raise bad_credentials()
        if not hmac.compare_digest(signature.encode(), self._signature(signed).encode()):
            raise token_expired()
        if claims["exp"] <= self._world.now() // 1000 or claims["sessionId"] in self._ended_sessions:
            raise token_expired()
        return claims

    def check(self, token: str) -> Principal:
        """Return the caller behind an access token.

        Raises:
            ApiError: 401 with code 10 for what is no token, with code 11 for what is no longer one.
        """
        known = self._cache.get(token)
        if known and known[1] > self._world.now():
            return known[0]
        claims = self._claims(token)
        if claims["scopes"] == [REFRESH_SCOPE]:
            raise bad_credentials()
        if int(claims["jti"]) <= self._void_up_to:
            raise token_expired()
        user = self._world.find("USER", claims["userId"])
        if user is None:
            raise bad_credentials()
        principal = principal_of(user, claims["sessionId"])
        if len(self._cache) > _CACHE_LIMIT:
            self._cache.clear()
        self._cache[token] = (principal, claims["exp"] * 1000)
        return principal

    def refresh(self, token: str) -> dict[str, str]:
        """Return a new pair for a refresh token."""
        claims = self._claims(token)
        user = self._world.find("USER", claims["userId"])
        if user is None or claims["scopes"] != [REFRESH_SCOPE]:
            raise bad_credentials()
        return self.pair(user, claims["sessionId"])

    def authenticate(self, header: str) -> Principal:
        """Return the caller behind an authorization header's value."""
        if header.startswith("ApiKey "):
            return self._check_api_key(header[7:])
        if not _BEARER.match(header):
            raise RedirectToLogin
        return self.check(header[7:])

    def end_session(self, session: str) -> None:
        """Log a session out: its tokens answer 401 code 11 from now on."""
        self._ended_sessions.add(session)
        self._cache.clear()

    def expire_access_tokens(self) -> None:
        """Make every access token issued so far answer 401 code 11; refresh tokens stay good."""
        self._void_up_to = self._issued
        self._cache.clear()

    def change_key(self) -> None:
        """Sign with a new key: every token issued so far is void, refresh tokens too."""
        self._key = secrets.token_bytes(64)
        self._cache.clear()

    def add_api_key(self, body: dict[str, Any]) -> str:
        """Store an API key and return its value, which is shown this once."""
        value = f"tb_{secrets.token_urlsafe(32)}"
        self.api_keys[value] = body
        self._api_key_ids[body["id"]["id"]] = value
        return value

    def find_api_key(self, identifier: str) -> dict[str, Any] | None:
        """Return an API key's record by its id."""
        return self.api_keys.get(self._api_key_ids.get(identifier, ""))

    def remove_api_key(self, identifier: str) -> bool:
        """Delete an API key; say whether there was one."""
        return self.api_keys.pop(self._api_key_ids.pop(identifier, ""), None) is not None

    def _check_api_key(self, value: str) -> Principal:
        record = self.api_keys.get(value)
        if record is None:
            raise bad_credentials()
        user = self._world.find("USER", record["userId"]["id"])
        if not record["enabled"] or user is None:
            raise ApiError(401, "User account is not active", 10)
        if 0 < record["expirationTime"] <= self._world.now():
            raise ApiError(401, "API key is expired", 10)
        return principal_of(user)


def principal_of(user: "Entity", session: str = "") -> Principal:
    """Return the caller that a user is."""
    body = user.body
    return Principal(user.id, body["authority"], body["tenantId"]["id"], body["customerId"]["id"], session)


def redirect_to_login(host: str) -> Answer:
    """Return the 302 that a token without ``Bearer `` earns."""
    return Answer(302, headers=((b"location", f"http://{host}/login".encode()),))
