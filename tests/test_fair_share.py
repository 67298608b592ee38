"""Many keys, one ThingsBoard: whose calls reach it in which order, and how its rate limit is lived with."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI

from app.factory import create_app
from app.thingsboard.aiohttp_transport import AiohttpTransport
from app.thingsboard.connection import Connection
from app.thingsboard.transport import Answer, Transport
from tb_simulator.rate_limits import RateLimits
from tb_simulator.server import Simulator
from tests.conftest import SettingsFactory
from tests.serving import serve
from tests.telemetry_world import DEVICES, PREFIX
from tests.virtual_time import run

SECRETS = {"loud": "loud-key-00000000000000000001", "calm": "calm-key-00000000000000000001"}
SCOPES = ["devices:read", "telemetry:read", "telemetry:write"]
IN_FLIGHT = 8
#: What one key may have in flight of eight.
ONE_KEY = 7
USER = {
    "authority": "TENANT_ADMIN",
    "tenantId": {"entityType": "TENANT", "id": "6b1f7a90-0000-11f0-8000-000000000001"},
}
PAGE = {"data": [], "totalPages": 0, "totalElements": 0, "hasNext": False}

KeysFile = Callable[..., Path]


class Watched:
    """A transport that writes down what is sent, in order, and how many calls are in flight."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.sent: list[str] = []
        self.in_flight = self.most = 0
        self.held: asyncio.Event | None = None

    async def send(self, method: str, target: str, **options: Any) -> Answer:
        """Send."""
        self.sent.append(target)
        held = self.held
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            answer = await self.inner.send(method, target, **options)
            if held is not None:
                await held.wait()
            return answer
        finally:
            self.in_flight -= 1

    async def aclose(self) -> None:
        """Close the transport inside."""
        await self.inner.aclose()


class ThingsBoard:
    """Answers at once and refuses as ThingsBoard does, in the event loop's time."""

    def __init__(self, limits: str | None) -> None:
        self.limits = RateLimits(lambda: asyncio.get_running_loop().time())
        self.limits.configure("tenant", limits)
        self.refused = 0

    async def send(self, method: str, target: str, **_: Any) -> Answer:
        """Answer after 10 ms."""
        await asyncio.sleep(0.01)
        if not self.limits.admit("tenant"):
            self.refused += 1
            return Answer(429, "application/json", b'{"status":429,"errorCode":33}')
        if method == "POST":
            return Answer(200, "", b"")
        return Answer(200, "application/json", orjson.dumps(USER if "auth/user" in target else PAGE))

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.fixture
def make_app(make_settings: SettingsFactory, keys_file: KeysFile) -> Callable[..., FastAPI]:
    """Build gateways that know both keys."""

    def make(transport: Transport, **overrides: Any) -> FastAPI:
        keys = keys_file(**{name: (secret, SCOPES) for name, secret in SECRETS.items()})
        settings = {"api_key": None, "api_keys_file": keys, "tb_max_connections": IN_FLIGHT, **overrides}
        if isinstance(transport, ThingsBoard):
            # It knows no login.
            settings |= {"tb_username": None, "tb_password": None, "tb_api_key": "tb_0123456789abcdef"}
        return create_app(make_settings(**settings), transport=transport)

    return make


@pytest.fixture
def thingsboard(simulator: Simulator) -> Watched:
    """The simulator, watched on the way."""
    return Watched(AiohttpTransport(simulator.url, tls=True, connections=100))


def connection_of(app: FastAPI) -> Connection:
    connection: Connection = app.state.upstreams["default"].client.connection
    return connection


@asynccontextmanager
async def callers_of(app: FastAPI) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """A client for each key."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    clients = {
        name: httpx.AsyncClient(
            transport=transport, base_url="http://gateway", headers={"X-API-Key": secret}, timeout=60
        )
        for name, secret in SECRETS.items()
    }
    try:
        yield clients
    finally:
        for client in clients.values():
            await client.aclose()
        await connection_of(app).transport.aclose()


def reads(client: httpx.AsyncClient, name: str, count: int) -> list[asyncio.Task[httpx.Response]]:
    """Begin reads that are all different, so that they share nothing; what they ask for names the key."""
    return [
        asyncio.create_task(client.get(DEVICES, params={"text_search": f"{name}{number}"}))
        for number in range(count)
    ]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0)


def order_of(thingsboard: Watched) -> Iterator[str]:
    """Tell for each read sent so far whose it was."""
    for target in thingsboard.sent:
        for name in SECRETS:
            if f"textSearch={name}" in target:
                yield name


async def test_a_calm_key_has_every_other_turn_while_a_loud_one_floods(
    make_app: Callable[..., FastAPI], thingsboard: Watched, simulator: Simulator
) -> None:
    app = make_app(thingsboard)
    async with callers_of(app) as clients:
        await clients["calm"].get(DEVICES)
        simulator.faults.latency(0.02, path="deviceInfos")
        queue = connection_of(app).queue
        loud = reads(clients["loud"], "loud", 60)
        await until(lambda: queue.waiting == 60 - ONE_KEY)
        calm = reads(clients["calm"], "calm", 10)
        await until(lambda: queue.waiting + queue.in_flight >= 69)
        answers = await asyncio.gather(*loud, *calm)
    assert {answer.status_code for answer in answers} == {200}
    order = list(order_of(thingsboard))
    assert thingsboard.most <= IN_FLIGHT
    # The flood has seven of eight places when the calm key comes, which takes the eighth at once.
    before = order.index("calm")
    assert before == ONE_KEY
    while_both = order[before : len(order) - order[::-1].index("calm")]
    assert while_both.count("loud") <= while_both.count("calm")


async def test_a_bulk_upload_does_not_starve_another_keys_read(
    make_app: Callable[..., FastAPI], thingsboard: Watched, simulator: Simulator
) -> None:
    app = make_app(thingsboard, bulk_concurrency=64)
    ids = [entity.id for entity in simulator.world.every("DEVICE") if entity.name.startswith("Test Device")]
    assert len(ids) >= 4
    async with callers_of(app) as clients:
        await clients["calm"].get(DEVICES)
        simulator.faults.latency(0.01, path="timeseries/ANY")
        # Each key of an upload of its own: many calls of one caller.
        uploads = [
            asyncio.create_task(
                clients["loud"].post(
                    f"{PREFIX}/telemetry/bulk",
                    json={one: {f"k{n}": [{"ts": 1_760_000_000_000, "value": n}]} for one in ids},
                )
            )
            for n in range(20)
        ]
        queue = connection_of(app).queue
        await until(lambda: queue.waiting >= 2 * IN_FLIGHT)
        sent = len(thingsboard.sent)
        answer = await clients["calm"].get(DEVICES, params={"text_search": "calm"})
        position = next(n for n, target in enumerate(thingsboard.sent) if "calm" in target) - sent
        assert answer.status_code == 200
        assert position <= 1
        assert {upload.status_code for upload in await asyncio.gather(*uploads)} == {200}


async def test_slow_calls_of_one_key_leave_a_place_for_another(
    make_app: Callable[..., FastAPI], thingsboard: Watched
) -> None:
    app = make_app(thingsboard)
    async with callers_of(app) as clients:
        await clients["calm"].get(DEVICES)
        thingsboard.held = asyncio.Event()
        loud = reads(clients["loud"], "loud", 30)
        await until(lambda: thingsboard.in_flight == ONE_KEY)
        thingsboard.held, held = None, thingsboard.held
        assert (await clients["calm"].get(DEVICES)).status_code == 200
        assert not any(task.done() for task in loud)
        held.set()
        await asyncio.gather(*loud)


async def test_a_key_that_fills_its_part_of_the_queue_is_told_and_others_still_enter(
    make_app: Callable[..., FastAPI], thingsboard: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.thingsboard.fair_queue.MAXIMUM_WAITING", 16)
    app = make_app(thingsboard)
    async with callers_of(app) as clients:
        await clients["calm"].get(DEVICES)
        thingsboard.held = asyncio.Event()
        loud = reads(clients["loud"], "loud", ONE_KEY + 14 + 5)
        await until(lambda: sum(task.done() for task in loud) == 5)
        queue = connection_of(app).queue
        calm = reads(clients["calm"], "calm", 2)
        await until(lambda: queue.waiting == 15)
        thingsboard.held.set()
        answers = await asyncio.gather(*loud)
        assert {answer.status_code for answer in await asyncio.gather(*calm)} == {200}
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 5
    for answer in refused:
        assert (answer.status_code, answer.json()["error_code"]) == (503, "OVERLOADED")
        assert int(answer.headers["retry-after"]) >= 1


async def test_callers_who_leave_the_queue_are_not_sent(
    make_app: Callable[..., FastAPI], thingsboard: Watched
) -> None:
    app = make_app(thingsboard)
    async with callers_of(app) as clients:
        await clients["calm"].get(DEVICES)
        thingsboard.held = asyncio.Event()
        loud = reads(clients["loud"], "loud", 30)
        queue = connection_of(app).queue
        await until(lambda: queue.waiting == 30 - ONE_KEY)
        sent = len(thingsboard.sent)
        for task in loud:
            task.cancel()
        await asyncio.gather(*loud, return_exceptions=True)
        await until(lambda: queue.in_flight == 0)
        assert (queue.waiting, len(thingsboard.sent)) == (0, sent)


async def test_a_request_without_a_key_does_not_take_the_turn_of_the_one_before_it(
    make_app: Callable[..., FastAPI], thingsboard: Watched
) -> None:
    """uvicorn starts requests of a connection in the context of an earlier one, now and then."""
    app = make_app(thingsboard)
    seen: list[str] = []
    queue = connection_of(app).queue
    take = queue.take
    queue.take = lambda key, now: (seen.append(key), take(key, now))[1]  # type: ignore[method-assign]
    request = "GET {} HTTP/1.1\r\nHost: gateway\r\n{}\r\n"
    async with serve(app) as url:
        await until(lambda: len(seen) >= 2)
        seen.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        key = f"X-API-Key: {SECRETS['loud']}\r\n"
        # Pipelined: the second is started where the first one ends.
        writer.write(
            (request.format(DEVICES, key) + request.format("/health/ready", "Connection: close\r\n")).encode()
        )
        await reader.read()
        writer.close()
    assert seen == ["loud", ""]


class TestThingsBoardsLimit:
    """In virtual time: an interactive call waits for 10 s at most."""

    def test_calls_wait_for_their_turn_instead_of_failing(self, make_app: Callable[..., FastAPI]) -> None:
        async def story() -> None:
            upstream = ThingsBoard("20:1")
            app = make_app(upstream)
            async with callers_of(app) as clients:
                answers = await asyncio.gather(*reads(clients["loud"], "loud", 100))
                assert {answer.status_code for answer in answers} == {200}
                counts = connection_of(app).queue.counts
                # 20 at once, then 20 a second: the ideal is 4 s.
                assert asyncio.get_running_loop().time() < 7
                assert counts.upstream_refusals == upstream.refused < 30

        run(story())

    def test_a_write_that_was_refused_is_sent_again_although_it_must_not_be_repeated(
        self, make_app: Callable[..., FastAPI]
    ) -> None:
        async def story() -> None:
            app = make_app(ThingsBoard("1:2"))
            path = f"{DEVICES}/00000000-0000-1000-8000-000000000001/telemetry"
            async with callers_of(app) as clients:
                writes = [clients["loud"].post(path, json={f"k{n}": n}) for n in range(3)]
                assert [answer.status_code for answer in await asyncio.gather(*writes)] == [201] * 3

        run(story())

    def test_who_would_wait_too_long_is_refused_at_once_and_others_are_served(
        self, make_app: Callable[..., FastAPI]
    ) -> None:
        async def story() -> None:
            app = make_app(ThingsBoard("5:1"))
            async with callers_of(app) as clients:
                await asyncio.gather(*reads(clients["loud"], "warm", 30))
                now = asyncio.get_running_loop().time
                loud, began = reads(clients["loud"], "loud", 200), now()
                await asyncio.sleep(0.3)
                done = [task.result() for task in loud if task.done()]
                refused = [answer for answer in done if answer.status_code != 200]
                assert len(refused) > 100
                for answer in refused:
                    assert answer.status_code == 429
                    body = answer.json()
                    assert body["details"] == {"limited_by": "thingsboard"}
                    assert 9 <= body["retry_after"] == int(answer.headers["retry-after"]) < 30
                calm = await clients["calm"].get(DEVICES)
                assert calm.status_code == 200
                assert now() - began < 2
                rest = await asyncio.gather(*loud)
                assert now() - began < 12
                assert sum(answer.status_code == 200 for answer in rest) > 30

        run(story())

    def test_it_recovers_by_itself(self, make_app: Callable[..., FastAPI]) -> None:
        async def story() -> None:
            upstream = ThingsBoard("5:1")
            app = make_app(upstream)
            now = asyncio.get_running_loop().time
            async with callers_of(app) as clients:
                await asyncio.gather(*reads(clients["loud"], "loud", 30))
                upstream.limits.configure("tenant", None)
                await asyncio.sleep(11)
                began = now()
                answers = await asyncio.gather(*reads(clients["loud"], "more", 100))
                assert {answer.status_code for answer in answers} == {200}
                assert now() - began < 1
                assert not connection_of(app).queue.pace.is_limited

        run(story())

    def test_a_limit_that_never_ends_is_told_within_the_patience(
        self, make_app: Callable[..., FastAPI]
    ) -> None:
        async def story() -> None:
            upstream = ThingsBoard("1:100000")
            app = make_app(upstream)
            now = asyncio.get_running_loop().time
            async with callers_of(app) as clients:
                await clients["calm"].get(DEVICES)
                began = now()
                same = [clients["calm"].get(DEVICES) for _ in range(20)]
                answers = await asyncio.gather(*same)
                assert now() - began <= 10.1
                assert {answer.status_code for answer in answers} == {429}
                assert {answer.json()["details"]["limited_by"] for answer in answers} == {"thingsboard"}
                # Asked rarer and rarer: identical reads are one call.
                assert upstream.refused < 15

        run(story())

    def test_who_will_not_wait_is_told_at_once(self, make_app: Callable[..., FastAPI]) -> None:
        async def story() -> None:
            app = make_app(ThingsBoard("3:1"), tb_queue_seconds=0)
            async with callers_of(app) as clients:
                answers = await asyncio.gather(*reads(clients["calm"], "calm", 6))
                assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 4
                assert asyncio.get_running_loop().time() < 0.1

        run(story())

    def test_a_bulk_upload_waits_longer_than_a_read(self, make_app: Callable[..., FastAPI]) -> None:
        async def story() -> None:
            app = make_app(ThingsBoard("2:10"))
            devices = {
                f"00000000-0000-1000-8000-{n:012d}": {"k": [{"ts": 1_760_000_000_000, "value": n}]}
                for n in range(12)
            }
            async with callers_of(app) as clients:
                answer = await clients["loud"].post(f"{PREFIX}/telemetry/bulk", json=devices)
                assert answer.status_code == 200
                assert answer.json()["summary"]["successful_devices"] == 12
                assert 40 < asyncio.get_running_loop().time() < 100

        run(story())
