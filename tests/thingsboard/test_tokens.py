"""Tokens: one login for all, refreshed ahead of their end, whatever the wall clocks say."""

import asyncio
import base64
from collections import Counter
from collections.abc import Mapping

import orjson
import pytest
from pydantic import SecretStr

from app.errors import LoginRefused, UpstreamGarbled, UpstreamUnreachable
from app.thingsboard.tokens import PasswordLogin, read_claims
from app.thingsboard.transport import Answer


class Clock:
    """A monotonic clock that only tests move."""

    now = 5_000.0

    def __call__(self) -> float:
        return self.now


def token(number: int, *, issued: int, lifetime: int, scope: str = "TENANT_ADMIN") -> str:
    claims = {"sub": "t", "scopes": [scope], "iat": issued, "exp": issued + lifetime, "n": number}
    return "e30." + base64.urlsafe_b64encode(orjson.dumps(claims)).decode().rstrip("=") + ".sig"


class ThingsBoard:
    """Answers login and refresh; `wall_clock` may be years off."""

    def __init__(self, *, lifetime: int = 9_000, wall_clock: int = 1_000_000_000) -> None:
        self.lifetime, self.wall_clock = lifetime, wall_clock
        self.calls: Counter[str] = Counter()
        self.refuse: set[str] = set()
        self.is_away = False
        self.scope = "TENANT_ADMIN"
        self.gate: asyncio.Event | None = None

    async def send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_seconds: float,
    ) -> Answer:
        self.calls[target] += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.is_away:
            raise UpstreamUnreachable
        if target in self.refuse:
            return Answer(401, "application/json", b'{"message":"no","errorCode":10}')
        number = sum(self.calls.values())
        made = token(number, issued=self.wall_clock, lifetime=self.lifetime, scope=self.scope)
        return Answer(200, "application/json", orjson.dumps({"token": made, "refreshToken": f"r{number}"}))

    async def aclose(self) -> None: ...


LOGIN, REFRESH = "/api/auth/login", "/api/auth/token"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def login(thingsboard: ThingsBoard, clock: Clock) -> PasswordLogin:
    return PasswordLogin(
        thingsboard, "tenant@example.com", SecretStr("hunter2"), upstream="default", clock=clock
    )


@pytest.mark.parametrize("wall_clock", [0, 1_000_000_000, 4_000_000_000])
async def test_a_token_is_refreshed_in_its_last_minute_beside_the_call(clock: Clock, wall_clock: int) -> None:
    thingsboard = ThingsBoard(wall_clock=wall_clock)
    credential = login(thingsboard, clock)
    first = await credential.header()
    clock.now += 9_000 - 61
    assert await credential.header() == first
    assert thingsboard.calls == {LOGIN: 1}
    clock.now += 2
    assert await credential.header() == first  # Still good: nobody waits.
    assert credential._running is not None
    await credential._running
    assert await credential.header() != first
    assert thingsboard.calls == {LOGIN: 1, REFRESH: 1}


async def test_a_short_lived_token_is_refreshed_in_its_last_tenth(clock: Clock) -> None:
    thingsboard = ThingsBoard(lifetime=10)
    credential = login(thingsboard, clock)
    await credential.header()
    clock.now += 8.9
    await credential.header()
    assert credential._running is None
    clock.now += 0.2
    await credential.header()
    assert credential._running is not None
    await credential._running


async def test_everybody_waits_for_one_login_and_survives_the_first_callers_leaving(clock: Clock) -> None:
    thingsboard = ThingsBoard()
    thingsboard.gate = asyncio.Event()
    credential = login(thingsboard, clock)
    waiting = [asyncio.create_task(credential.header()) for _ in range(10)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    thingsboard.gate.set()
    headers = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(headers[0], asyncio.CancelledError)
    assert len(set(map(str, headers[1:]))) == 1
    assert thingsboard.calls == {LOGIN: 1}


async def test_only_the_refused_token_is_replaced(clock: Clock) -> None:
    thingsboard = ThingsBoard()
    credential = login(thingsboard, clock)
    old = await credential.header()
    assert await credential.renew(old)
    new = await credential.header()
    assert await credential.renew(old)  # Late news: somebody has renewed it meanwhile.
    assert await credential.header() == new
    assert thingsboard.calls == {LOGIN: 1, REFRESH: 1}


async def test_a_refused_refresh_becomes_a_login(clock: Clock) -> None:
    thingsboard = ThingsBoard()
    credential = login(thingsboard, clock)
    header = await credential.header()
    thingsboard.refuse.add(REFRESH)
    await credential.renew(header)
    assert thingsboard.calls == {LOGIN: 2, REFRESH: 1}


async def test_a_refused_login_is_not_hammered(clock: Clock) -> None:
    """ThingsBoard locks accounts after repeated failures."""
    thingsboard = ThingsBoard()
    thingsboard.refuse.add(LOGIN)
    credential = login(thingsboard, clock)
    for _ in range(5):
        with pytest.raises(LoginRefused):
            await credential.header()
    assert thingsboard.calls == {LOGIN: 1}
    clock.now += 6
    thingsboard.refuse.clear()
    assert (await credential.header()).startswith("Bearer ")


@pytest.mark.parametrize("scope", ["SYS_ADMIN", "PRE_VERIFICATION_TOKEN", "MFA_CONFIGURATION_TOKEN"])
async def test_logins_that_cannot_do_the_work_are_refused(clock: Clock, scope: str) -> None:
    thingsboard = ThingsBoard()
    thingsboard.scope = scope
    with pytest.raises(LoginRefused):
        await login(thingsboard, clock).header()


async def test_a_failed_refresh_ahead_of_time_costs_nobody_anything(clock: Clock) -> None:
    thingsboard = ThingsBoard()
    credential = login(thingsboard, clock)
    header = await credential.header()
    clock.now += 9_000 - 30
    thingsboard.is_away = True
    assert await credential.header() == header
    running = credential._running
    assert running is not None
    await asyncio.gather(running, return_exceptions=True)
    assert await credential.header() == header
    running = credential._running
    assert running is not None
    await asyncio.gather(running, return_exceptions=True)
    clock.now += 60
    with pytest.raises(UpstreamUnreachable):
        await credential.header()


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b"<html>", b'{"token":"x","refreshToken":"y"}'])
async def test_a_login_answer_that_is_none_is_garbled(clock: Clock, body: bytes) -> None:
    class Odd(ThingsBoard):
        async def send(
            self,
            method: str,
            target: str,
            *,
            headers: Mapping[str, str],
            body: bytes | None,
            timeout_seconds: float,
        ) -> Answer:
            return Answer(200, "application/json", odd)

    odd = body
    with pytest.raises(UpstreamGarbled):
        await login(Odd(), clock).header()


def test_claims_are_read_without_padding() -> None:
    assert read_claims(token(1, issued=5, lifetime=10))["exp"] == 15
    for text in ("", "a", "a.b", "a.%%%.c", "a.bnVsbA.c"):
        with pytest.raises((ValueError, TypeError)):
            read_claims(text)
