"""Credentials towards ThingsBoard: a login whose tokens are kept fresh, or an API key."""

import asyncio
import base64
import binascii
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson
import structlog
from pydantic import SecretStr

from app.errors import BreakerOpen, GatewayError, LoginRefused, UpstreamGarbled
from app.thingsboard.breaker import OPEN_SECONDS, Breaker
from app.thingsboard.errors import error_for
from app.thingsboard.transport import Answer, Transport

log = structlog.get_logger("thingsboard")

#: Refreshed this long before the end, or at the last tenth of a short life.
REFRESH_AHEAD_SECONDS = 60.0
#: After a refused login ThingsBoard is left alone this long: it locks accounts after repeated failures.
REFUSED_PAUSE_SECONDS = 5.0
#: A refresh ahead of the end that failed is tried again after this long.
AHEAD_PAUSE_SECONDS = 5.0
#: A login takes ThingsBoard 0.3 s (auth.json). Who needs one waits for it this long; it goes on beyond that,
#: because a ThingsBoard that is slower would never be logged in to.
LOGIN_WAIT_SECONDS = 5.0
LOGIN_TIMEOUT_SECONDS = 15.0
UNAUTHORISED = 401
#: Scopes of a token that cannot do our work, and what its owner should do.
UNUSABLE_SCOPES = {
    "SYS_ADMIN": "TB_USERNAME is a system administrator: use a tenant administrator or a customer user",
    "PRE_VERIFICATION_TOKEN": "TB_USERNAME has two-factor authentication on: use an account without it",
    "MFA_CONFIGURATION_TOKEN": "TB_USERNAME must set up two-factor authentication: use an account without it",
}


class Credential(Protocol):
    """Knows the authorisation header of a call."""

    async def header(self) -> str:
        """Return the value of `X-Authorization`, logging in first where that is needed."""

    async def renew(self, refused: str) -> bool:
        """Replace a header that ThingsBoard refused; False when there is nothing to replace it with."""

    def renewed_in_vain(self) -> None:
        """Note that ThingsBoard refused what it had just been replaced with as well."""


class StaticAPIKey:
    """A ThingsBoard API key (4.3 and later): nothing to refresh."""

    def __init__(self, key: SecretStr) -> None:
        self._header = f"ApiKey {key.get_secret_value()}"

    async def header(self) -> str:
        """Return the key as header."""
        return self._header

    async def renew(self, refused: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Say that a refused key stays refused."""
        return False

    def renewed_in_vain(self) -> None:
        """Do nothing: a key is never renewed."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A pair of tokens and when to act on them, in monotonic seconds."""

    access: str
    refresh: str
    refresh_at: float
    expires_at: float


class PasswordLogin:
    """Logs in once for everybody, refreshes ahead of the end, and logs in anew when a refresh is refused.

    Times come from the token itself (`exp - iat`) and run on the monotonic clock, so neither the
    gateway's nor ThingsBoard's wall clock has to be right. While a login hangs, nobody waits for it who has
    a token, and those who have none are refused at once but for one every two seconds, who tries anew.
    """

    def __init__(
        self,
        transport: Transport,
        username: str,
        password: SecretStr,
        *,
        upstream: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport, self._username, self._password, self._clock = transport, username, password, clock
        self._log = log.bind(upstream=upstream)
        self._tokens: Tokens | None = None
        self._running: asyncio.Task[Tokens] | None = None
        #: When the wait for what runs is over, by the event loop's clock.
        self._wait_ends_at = 0.0
        self._breaker = Breaker(threshold=1, clock=clock)
        self._refused_until = self._useless_until = 0.0

    async def header(self) -> str:
        """Return a bearer header; in the last minute of a token's life it is refreshed beside the call."""
        tokens, now = self._tokens, self._clock()
        if tokens is None or now >= tokens.expires_at:
            tokens = await self._single_flight()
        elif now >= tokens.refresh_at and self._running is None:
            self._tokens = replace(tokens, refresh_at=now + AHEAD_PAUSE_SECONDS)
            self._start()
        return f"Bearer {tokens.access}"

    async def renew(self, refused: str) -> bool:
        """Get new tokens, unless somebody else has done so since `refused` was handed out."""
        tokens = self._tokens
        if tokens is not None and refused == f"Bearer {tokens.access}":
            if self._clock() < self._useless_until:
                return False
            # Others are not to send it either: they wait for the new one.
            self._tokens = replace(tokens, expires_at=0.0)
            await self._single_flight()
        return True

    def renewed_in_vain(self) -> None:
        """Renew nothing for a moment: it is not the token, and each call would be three and a login."""
        self._useless_until = self._clock() + REFUSED_PAUSE_SECONDS

    async def _single_flight(self) -> Tokens:
        """Return the tokens of the login under way, or of a new one.

        Raises:
            BreakerOpen: it hangs, as the one before did; nothing was sent for this caller.
        """
        running, now = self._running, asyncio.get_running_loop().time()
        if running is None or now >= self._wait_ends_at or self._breaker.is_open:
            self._breaker.before()
            running = self._start()
        began = self._breaker.openings
        try:
            async with asyncio.timeout_at(self._wait_ends_at) as wait:
                # Shielded: the first caller may leave, the others still wait for these tokens.
                return await asyncio.shield(running)
        except TimeoutError:
            if not wait.expired():
                raise
            tokens = self._tokens
            if tokens is not None and self._clock() < tokens.expires_at:
                # Of a login that somebody else began meanwhile.
                return tokens
            if not self._breaker.is_open:
                self._breaker.timed_out(began)
                self._log.warning("login_hangs")
            raise BreakerOpen(retry_after=OPEN_SECONDS, note="login_hangs") from None

    def _start(self) -> asyncio.Task[Tokens]:
        self._wait_ends_at = asyncio.get_running_loop().time() + LOGIN_WAIT_SECONDS
        self._running = asyncio.create_task(self._obtain())
        self._running.add_done_callback(self._finished)
        return self._running

    def _finished(self, task: asyncio.Task[Tokens]) -> None:
        _swallow(task)
        if self._running is task:
            self._running = None

    async def _obtain(self) -> Tokens:
        if self._clock() < self._refused_until:
            raise LoginRefused(note="login_refused_recently")
        if self._tokens is not None:
            answer = await self._post("/api/auth/token", {"refreshToken": self._tokens.refresh})
            if answer.status != UNAUTHORISED:
                return self._keep(answer)
        credentials = {"username": self._username, "password": self._password.get_secret_value()}
        answer = await self._post("/api/auth/login", credentials)
        if answer.status == UNAUTHORISED:
            raise self._refused("TB_USERNAME or TB_PASSWORD is wrong, or the account is locked")
        return self._keep(answer)

    async def _post(self, target: str, body: dict[str, str]) -> Answer:
        answer = await self._transport.send(
            "POST",
            target,
            headers={"Content-Type": "application/json"},
            body=orjson.dumps(body),
            timeout_seconds=LOGIN_TIMEOUT_SECONDS,
        )
        self._breaker.answered()
        return answer

    def _keep(self, answer: Answer) -> Tokens:
        if answer.status != 200:  # noqa: PLR2004 - HTTP's OK
            error = error_for(answer)
            # Whatever ThingsBoard dislikes about a login, the caller has nothing to mend.
            raise error if answer.status >= 500 or answer.status == 429 else LoginRefused(note=error.note)  # noqa: PLR2004
        try:
            pair = orjson.loads(answer.body)
            access, refresh = str(pair["token"]), str(pair["refreshToken"])
            claims = read_claims(access)
            lifetime = float(claims["exp"]) - float(claims["iat"])
        except (ValueError, KeyError, TypeError):
            raise UpstreamGarbled(note="login_answer") from None
        for scope in claims.get("scopes") or ():
            if scope in UNUSABLE_SCOPES:
                raise self._refused(UNUSABLE_SCOPES[scope])
        now = self._clock()
        ahead = min(REFRESH_AHEAD_SECONDS, lifetime / 10)
        self._tokens = Tokens(access, refresh, now + lifetime - ahead, now + lifetime)
        return self._tokens

    def _refused(self, hint: str) -> LoginRefused:
        now = self._clock()
        self._refused_until = now + REFUSED_PAUSE_SECONDS
        if self._tokens is not None and now >= self._tokens.expires_at:
            # With a refresh token that is worth nothing either, each attempt would be two.
            self._tokens = None
        self._log.error("login_refused", hint=hint, diagnostic="tb_connection_check.py")
        return LoginRefused(note="login_refused")


def read_claims(token: str) -> dict[str, Any]:
    """Decode a JWT's payload without checking it, which is ThingsBoard's business."""
    try:
        payload = token.split(".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, binascii.Error) as error:
        raise ValueError("not a JWT") from error
    if not isinstance(claims, dict):
        raise TypeError("not a JWT")
    return claims


def _swallow(task: asyncio.Task[Tokens]) -> None:
    """Take note of a failure that nobody waits for any more: the next caller tries again and is told."""
    with contextlib.suppress(GatewayError, asyncio.CancelledError):
        task.result()
