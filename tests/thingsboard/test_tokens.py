"""Tokens: one login for all, refreshed ahead of their end, whatever the wall clocks say."""

import asyncio
import base64
from collections import Counter
from collections.abc import Mapping

import orjson
import pytest
from pydantic import SecretStr

from app.errors import BreakerOpen, LoginRefused, UpstreamGarbled, UpstreamTimeout, UpstreamUnreachable
from app.thingsboard.breaker import OPEN_SECONDS
from app.thingsboard.tokens import (
    AHEAD_PAUSE_SECONDS,
    LOGIN_TIMEOUT_SECONDS,
    LOGIN_WAIT_SECONDS,
    PasswordLogin,
    read_claims,
)
from app.thingsboard.transport import Answer
from tests.virtual_time import run


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
        #: How long an answer takes.
        self.seconds = 0.0

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
        if self.seconds:
            await asyncio.sleep(min(self.seconds, timeout_seconds))
            if self.seconds > timeout_seconds:
                raise UpstreamTimeout
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
    # Nor ThingsBoard: not each call tries it again.
    assert await credential.header() == header
    assert credential._running is None
    clock.now += AHEAD_PAUSE_SECONDS
    assert await credential.header() == header
    running = credential._running
    assert running is not None
    await asyncio.gather(running, return_exceptions=True)
    clock.now += 60
    with pytest.raises(UpstreamUnreachable):
        await credential.header()


async def test_a_token_outlives_the_refusal_of_its_successor(clock: Clock) -> None:
    """The password was changed: what is still good goes on, and the account is not locked."""
    thingsboard = ThingsBoard()
    credential = login(thingsboard, clock)
    header = await credential.header()
    clock.now += 9_000 - 30
    thingsboard.refuse |= {LOGIN, REFRESH}
    for _ in range(5):
        assert await credential.header() == header
        if credential._running is not None:
            await asyncio.gather(credential._running, return_exceptions=True)
    assert thingsboard.calls == {LOGIN: 2, REFRESH: 1}
    clock.now += 30
    for _ in range(5):
        with pytest.raises(LoginRefused):
            await credential.header()
    assert thingsboard.calls == {LOGIN: 3, REFRESH: 2}


async def test_what_was_refused_is_handed_out_no_more(clock: Clock) -> None:
    thingsboard = ThingsBoard()
    credential = login(thingsboard, clock)
    old = await credential.header()
    thingsboard.gate = asyncio.Event()
    renewing = asyncio.create_task(credential.renew(old))
    await asyncio.sleep(0)
    other = asyncio.create_task(credential.header())
    await asyncio.sleep(0)
    thingsboard.gate.set()
    assert await renewing
    assert await other != old
    assert thingsboard.calls == {LOGIN: 1, REFRESH: 1}


def loop_time() -> float:
    return asyncio.get_running_loop().time()


def in_virtual_time(thingsboard: ThingsBoard) -> PasswordLogin:
    return PasswordLogin(
        thingsboard, "tenant@example.com", SecretStr("hunter2"), upstream="default", clock=loop_time
    )


def test_a_refresh_that_hangs_holds_nobody_whose_token_is_good() -> None:
    async def scenario() -> None:
        thingsboard = ThingsBoard()
        credential = in_virtual_time(thingsboard)
        header = await credential.header()
        await asyncio.sleep(9_000 - 59)
        thingsboard.seconds = 1_000
        while loop_time() < 9_000 - 1:
            began = loop_time()
            assert await credential.header() == header
            assert loop_time() == began
            await asyncio.sleep(0.5)
        # One at a time.
        assert thingsboard.calls[REFRESH] <= 60 / LOGIN_TIMEOUT_SECONDS
        await asyncio.sleep(1)
        # The one under way has hung for long: a new one may be on a better connection.
        thingsboard.seconds = 0
        assert await credential.header() != header

    run(scenario())


def test_who_needs_a_login_that_hangs_is_told_soon_and_then_at_once() -> None:
    async def scenario() -> None:
        thingsboard = ThingsBoard()
        thingsboard.seconds = 1_000
        credential = in_virtual_time(thingsboard)
        waits: list[float] = []
        retry_after: list[float | None] = []

        async def caller() -> str | None:
            began = loop_time()
            try:
                return await credential.header()
            except BreakerOpen as refused:
                retry_after.append(refused.retry_after)
                return None
            finally:
                waits.append(loop_time() - began)

        first = [asyncio.create_task(caller()) for _ in range(20)]
        await asyncio.sleep(LOGIN_WAIT_SECONDS - 0.1)
        # Nobody waits longer than the login has been waited for.
        late = asyncio.create_task(caller())
        assert set(await asyncio.gather(*first, late)) == {None}
        assert sorted(waits) == pytest.approx([0.1] + [LOGIN_WAIT_SECONDS] * 20)
        assert thingsboard.calls == {LOGIN: 1}
        waits.clear()
        others = []
        for _ in range(200):
            others.append(asyncio.create_task(caller()))
            await asyncio.sleep(0.1)
        # Some try it, one every two seconds, while what they began before still hangs.
        assert 20 / OPEN_SECONDS <= thingsboard.calls[LOGIN] <= 1 + 20 / (0.75 * OPEN_SECONDS)
        probes = thingsboard.calls[LOGIN] - 1
        thingsboard.seconds = 0
        await asyncio.sleep(OPEN_SECONDS)
        header = await credential.header()
        assert header.startswith("Bearer ")
        outcomes = await asyncio.gather(*others)
        # Who waits for an older one that still hangs gets what the new one brought.
        assert 1 <= outcomes.count(header) <= LOGIN_WAIT_SECONDS / (0.75 * OPEN_SECONDS)
        assert all(retry_after)
        assert len(waits) == 200
        assert sum(wait > 0 for wait in waits) == probes
        assert max(waits) == pytest.approx(LOGIN_WAIT_SECONDS)

    run(scenario())


def test_a_login_slower_than_anybody_waits_is_made_all_the_same() -> None:
    async def scenario() -> None:
        thingsboard = ThingsBoard()
        thingsboard.seconds = LOGIN_WAIT_SECONDS + 3
        credential = in_virtual_time(thingsboard)
        with pytest.raises(BreakerOpen):
            await credential.header()
        await asyncio.sleep(3)
        assert (await credential.header()).startswith("Bearer ")
        assert thingsboard.calls == {LOGIN: 1}

    run(scenario())


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
