"""Two gateways, one Redis and the nginx of `deploy/`: what callers see of a replica that dies."""

import asyncio
import hashlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tb_simulator.makers import make_device
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tests.live.reading import Events, stream
from tests.processes import PATIENCE, Process, until
from tests.redis_server import RedisServer, running_redis
from tests.replicas import (
    Replica,
    addresses,
    balanced,
    balanced_by_caddy,
    replicas,
    running,
)
from tests.telemetry_world import START

KEY = "a-key-for-two-replicas-0000000001"
LIMITED_KEY = "a-key-for-two-replicas-0000000002"
LIMIT = 50
WHOAMI = "/api/v1/tb/whoami"
SAVE = "POST /api/plugins/telemetry/"
#: For how long nginx leaves a replica alone that has failed (`fail_timeout`).
OUT_SECONDS = 5
WRITERS = 8


#: A pair of gateways takes seconds to start: the tests share one, and each starts anew what others killed.
pytestmark = pytest.mark.asyncio(loop_scope="module")
shared = pytest_asyncio.fixture(scope="module", loop_scope="module")
own = pytest_asyncio.fixture(loop_scope="module")


@shared
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@shared
async def redis() -> AsyncIterator[RedisServer]:
    async with running_redis() as server:
        yield server


@shared
async def pair(
    simulator: Simulator, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[Replica]]:
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys.write_text(key_of("all", KEY, 1_000_000) + key_of("limited", LIMITED_KEY, LIMIT))
    gateways = replicas(2, simulator, redis, API_KEYS_FILE=str(keys))
    async with running(gateways):
        yield gateways


def key_of(name: str, secret: str, an_hour: int) -> str:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return (
        f'[[keys]]\nname = "{name}"\nid = "{name}"\nscopes = ["*"]\nsha256 = "{digest}"\n'
        f'rate_limit = "{an_hour}/hour;2000000/day"\n'
    )


@own
async def gateways(pair: list[Replica], simulator: Simulator) -> list[Replica]:
    await asyncio.gather(*(gateway.start() for gateway in pair if not gateway.is_running))
    simulator.calls.clear()
    return pair


class Front:
    """The two replicas and a caller of what stands before them."""

    def __init__(
        self, gateways: list[Replica], client: httpx.AsyncClient, log: Process | None = None
    ) -> None:
        self.first, self.second = gateways
        self.client, self._log = client, log

    def tried(self, text: str) -> list[str]:
        """Return the replicas of the lines of nginx's log that hold a text."""
        assert self._log
        return addresses(self._log, text)


@own
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def caller(stack: AsyncExitStack, url: str) -> httpx.AsyncClient:
    client = httpx.AsyncClient(
        base_url=url,
        headers={"X-API-Key": KEY},
        timeout=PATIENCE,
        limits=httpx.Limits(max_connections=None),
        trust_env=False,
    )
    return await stack.enter_async_context(client)


@own
async def served(stack: AsyncExitStack, gateways: list[Replica], tmp_path: Path) -> Front:
    # An nginx each: it leaves a replica alone that died a moment ago.
    url, log = await stack.enter_async_context(balanced(*gateways, tmp_path))
    return Front(gateways, await caller(stack, url), log)


@pytest.fixture
def device(simulator: Simulator, request: pytest.FixtureRequest) -> str:
    tenant = next(entity.id for entity in simulator.world.every("TENANT") if entity.name == "Tenant")
    return make_device(simulator.world, tenant, f"Of {request.node.name}").id


class Held:
    """Lets ThingsBoard store what it is sent, and keep the answers to itself."""

    def __init__(self, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting, self.release = 0, asyncio.Event()
        answer = simulator.asgi._answer

        async def late(scope: Any, receive: Any, match: Any) -> Any:
            result = await answer(scope, receive, match)
            if "/telemetry/" in scope["path"]:
                self.waiting += 1
                await self.release.wait()
            return result

        monkeypatch.setattr(simulator.asgi, "_answer", late)


async def test_a_limit_counts_over_both_replicas(served: Front) -> None:
    answered = [replica.answered for replica in (served.first, served.second)]
    limited = {"X-API-Key": LIMITED_KEY}
    callers = [served.client.get(WHOAMI, headers=limited) for _ in range(4 * LIMIT)]
    statuses = Counter(answer.status_code for answer in await asyncio.gather(*callers))
    assert statuses == {200: LIMIT, 429: 3 * LIMIT}
    for replica, before in zip((served.first, served.second), answered, strict=True):
        assert replica.answered > before


async def lose_writes(
    served: Front, simulator: Simulator, device: str, monkeypatch: pytest.MonkeyPatch
) -> list[httpx.Response]:
    """Kill a replica while it has writes in hand that are stored already; return the answers."""
    held = Held(simulator, monkeypatch)
    writes = [
        asyncio.create_task(served.client.post(f"/api/v1/tb/devices/{device}/telemetry", json={"n": number}))
        for number in range(40)
    ]
    await until(lambda: held.waiting == 40)
    await served.first.kill()
    held.release.set()
    answers = await asyncio.gather(*writes)
    assert Counter(answer.status_code for answer in answers).keys() == {201, 502}
    # Only the caller may decide whether to send again what may have been done.
    assert sum(count for call, count in simulator.calls.items() if call.startswith(SAVE)) == 40
    return [answer for answer in answers if answer.status_code == 502]


async def test_writes_in_the_hands_of_a_killed_replica_are_not_done_twice(
    served: Front, simulator: Simulator, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, *_ = await lose_writes(served, simulator, device, monkeypatch)
    body = lost.json()
    assert (body["status"], body["error_code"], body["details"]) == (
        502,
        "UPSTREAM_ERROR",
        {"outcome": "unknown"},
    )
    assert body["request_id"] == lost.headers["X-Request-ID"]
    assert isinstance(body["timestamp"], int)


async def test_caddy_repeats_no_write_and_leaves_the_dead_alone(
    stack: AsyncExitStack,
    gateways: list[Replica],
    simulator: Simulator,
    device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = await stack.enter_async_context(balanced_by_caddy(*gateways, tmp_path))
    served = Front(gateways, await caller(stack, url))
    await lose_writes(served, simulator, device, monkeypatch)
    for number in range(40):
        answer = await served.client.post(f"/api/v1/tb/devices/{device}/telemetry", json={"n": number})
        assert answer.status_code == 201
    async with stream(served.client, f"/devices/{device}/telemetry/stream?keys=n") as events:
        assert await events.until("n", 39) == [39]


async def test_reads_in_the_hands_of_a_killed_replica_are_answered_by_the_other(
    served: Front, simulator: Simulator, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(simulator, monkeypatch)
    reads = [
        asyncio.create_task(
            served.client.get(f"/api/v1/tb/devices/{device}/telemetry/latest", params={"keys": f"k{number}"})
        )
        for number in range(20)
    ]
    await until(lambda: held.waiting == 20)
    await served.first.kill()
    held.release.set()
    assert {answer.status_code for answer in await asyncio.gather(*reads)} == {200}
    tried = served.tried("upstream prematurely closed") + served.tried("recv() failed")
    assert set(tried) == {f"127.0.0.1:{served.first.port}"}


async def test_a_dead_replica_is_left_alone_and_writes_go_to_the_other(served: Front, device: str) -> None:
    await served.first.kill()
    clock = asyncio.get_running_loop().time
    began = clock()
    for number in range(60):
        answer = await served.client.post(f"/api/v1/tb/devices/{device}/telemetry", json={"n": number})
        assert answer.status_code == 201
    tried = served.tried("connect() failed")
    assert 1 <= len(tried) <= 2 + (clock() - began) // OUT_SECONDS
    assert set(tried) == {f"127.0.0.1:{served.first.port}"}


class Load:
    """Callers that write numbered points, and callers that read, without a break."""

    def __init__(self, client: httpx.AsyncClient, device: str) -> None:
        self._client, self._base = client, f"/api/v1/tb/devices/{device}/telemetry"
        self._numbers = itertools.count()
        self._ended = False
        #: Of each caller, between an answer and its next request.
        self.pause_seconds = 0.0
        self.acknowledged: set[int] = set()
        self.unknown: set[int] = set()

    async def write(self) -> None:
        while not self._ended:
            number = next(self._numbers)
            body = {"n": [{"ts": START + number, "value": number}]}
            answer = await self._client.post(self._base, json=body)
            if answer.status_code == 201:
                self.acknowledged.add(number)
            else:
                assert (answer.status_code, answer.json()["details"]) == (502, {"outcome": "unknown"})
                self.unknown.add(number)
            await asyncio.sleep(self.pause_seconds)

    async def read(self) -> None:
        while not self._ended:
            answer = await self._client.get(f"{self._base}/latest", params={"keys": "n"})
            assert answer.status_code == 200
            await asyncio.sleep(self.pause_seconds)

    async def goes_on(self, callers: list[asyncio.Task[None]], number: int = 200) -> None:
        """Wait for so many more acknowledged points."""
        wanted = len(self.acknowledged) + number
        await until(lambda: len(self.acknowledged) >= wanted or any(caller.done() for caller in callers))

    async def end(self, callers: list[asyncio.Task[None]]) -> None:
        self._ended = True
        await asyncio.gather(*callers)


async def test_no_acknowledged_point_is_lost_when_replicas_die_and_come_back_under_load(
    served: Front, simulator: Simulator, device: str
) -> None:
    load = Load(served.client, device)
    callers = [asyncio.create_task(load.write()) for _ in range(WRITERS)]
    callers += [asyncio.create_task(load.read()) for _ in range(4)]
    await load.goes_on(callers)
    await served.first.kill()
    await load.goes_on(callers)
    # Each writer had one point in hand at most.
    assert len(load.unknown) <= WRITERS
    await served.first.start()
    # Until nginx asks it again, some seconds: a crowd would only keep the machine busy.
    load.pause_seconds = 0.1
    await until(lambda: served.first.answered > 50)
    load.pause_seconds = 0.0
    in_doubt = set(load.unknown)
    # One that is told to stop answers what it has in hand, and loses nothing.
    await served.second.terminate()
    await load.goes_on(callers)
    await load.end(callers)
    assert load.unknown == in_doubt
    series = simulator.world.telemetry.series(device, "n")
    assert series is not None
    stored = dict(zip(series.ts, series.values, strict=True))
    assert {START + number: number for number in load.acknowledged}.items() <= stored.items()


async def follow(client: httpx.AsyncClient, device: str, last: int, found: list[Any]) -> int:
    """Read a device's stream up to a value, coming back as a browser does; returns how often it broke."""
    last_id: str | None = None
    for breaks in itertools.count():
        events: Events | None = None
        try:
            async with stream(client, f"/devices/{device}/telemetry/stream?keys=n", last_id) as events:
                async for told in events:
                    if told.event == "status":
                        continue
                    found.append(told.data.get("value", told))
                    if found[-1] == last:
                        return breaks
        except httpx.TransportError:
            assert events is not None
        last_id = events.last_id or last_id
    raise AssertionError


async def test_streams_of_a_killed_replica_go_on_at_the_other_without_loss(
    served: Front, simulator: Simulator, device: str
) -> None:
    def save(number: int) -> None:
        simulator.world.telemetry.save(device, [Point("n", START + number, number)])

    save(0)
    found: list[list[Any]] = [[] for _ in range(6)]
    readers = [asyncio.create_task(follow(served.client, device, 300, each)) for each in found]
    await until(lambda: all(found))
    for number in range(1, 300):
        save(number)
        if number == 100:
            await until(lambda: all(each[-1] == 100 for each in found))
            await served.first.kill()
        # Some of what follows is saved while nobody listens, some while they come back.
        await asyncio.sleep(0)
    save(300)
    breaks = await asyncio.gather(*readers)
    assert found == [list(range(301))] * 6
    assert sorted(breaks) == [0, 0, 0, 1, 1, 1]
