"""How ThingsBoard is treated while it is away, and how soon after its return callers are served again."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr

from app.errors import UpstreamReset, UpstreamUnreachable
from app.thingsboard.breaker import OPEN_SECONDS
from app.thingsboard.connection import Connection
from app.thingsboard.fair_queue import FairQueue
from app.thingsboard.retry import MAXIMUM_SAVED
from app.thingsboard.tokens import StaticAPIKey
from app.thingsboard.transport import Answer
from tb_simulator.server import Simulator
from tests.conftest import GatewayFactory

DEVICES = "/api/v1/tb/devices"
LISTED = "GET /api/tenant/deviceInfos"
CALLS = 1_000
GOOD = Answer(200, "application/json", orjson.dumps({}))

Fault = Callable[[], Exception]


class Flapping:
    """A ThingsBoard that fails the calls of which `fails` says so."""

    def __init__(self, fails: Iterator[bool], fault: Fault) -> None:
        self.fails, self.fault = fails, fault
        self.sent = 0

    async def send(self, method: str, target: str, **_: Any) -> Answer:
        self.sent += 1
        if next(self.fails):
            raise self.fault()
        return GOOD

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("fault", [UpstreamUnreachable, UpstreamReset], ids=["refused", "reset"])
@pytest.mark.parametrize(
    "fails",
    [
        itertools.repeat(True),
        itertools.cycle([True, False]),
        itertools.cycle([True] * 50 + [False] * 50),
        itertools.cycle([True, True, True, False]),
    ],
    ids=["a whole outage", "every other call", "half a second away", "three of four"],
)
async def test_failing_calls_are_repeated_a_tenth_as_often_as_calls_are_made(
    monkeypatch: pytest.MonkeyPatch, fails: Iterator[bool], fault: Fault
) -> None:
    """Beyond a purse of ten that is there at the start, whatever fails in which rhythm."""
    monkeypatch.setattr("app.thingsboard.connection.delay_before", lambda _: 0.0)
    thingsboard = Flapping(fails, fault)
    connection = Connection(
        thingsboard,
        StaticAPIKey(SecretStr("tb_0123456789abcdef")),
        queue=FairQueue(64),
        timeout_seconds=1,
        queue_seconds=1,
    )
    for number in range(CALLS):
        with contextlib.suppress(UpstreamUnreachable, UpstreamReset):
            await connection.get_json(f"/api/device/{number}")
    assert CALLS < thingsboard.sent <= CALLS * 1.1 + MAXIMUM_SAVED
    assert connection.retries == thingsboard.sent - CALLS


async def test_a_thingsboard_that_takes_no_token_at_all_gets_no_storm_of_logins(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    assert (await gateway.get(DEVICES)).status_code == 200
    simulator.calls.clear()
    simulator.faults.status(401, path="deviceInfos", body='{"status":401,"errorCode":11}')
    answers = [await gateway.get(DEVICES) for _ in range(50)]
    assert {answer.status_code for answer in answers} == {502}
    # The first one was renewed and repeated, in vain.
    assert simulator.calls[LISTED] == 51
    assert simulator.calls["POST /api/auth/token"] + simulator.calls["POST /api/auth/login"] == 1
    simulator.faults.clear()
    assert (await gateway.get(DEVICES)).status_code == 200


async def test_the_first_caller_after_a_restart_is_served(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    """Fifty idle connections were closed, and fifty calls were refused: neither is held against it."""
    simulator.faults.latency(0.2, path="deviceInfos")
    await asyncio.gather(*(gateway.get(f"{DEVICES}?page={page}") for page in range(50)))
    simulator.faults.clear()
    assert simulator.connections >= 40
    await simulator.stop_listening()
    during = await asyncio.gather(*(gateway.get(f"{DEVICES}?page={page}") for page in range(50)))
    assert {answer.status_code for answer in during} == {503}
    await simulator.start_listening()
    body = {"name": "after the restart"}
    after = await asyncio.gather(*(gateway.get(f"{DEVICES}?page={page}") for page in range(50)))
    assert {answer.status_code for answer in after} == {200}
    assert (await gateway.post(DEVICES, json=body)).status_code == 201


async def test_a_restart_under_calls_costs_only_what_was_under_way(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    """Reads that were cut find a ThingsBoard that is back at once: they are repeated."""
    assert (await gateway.get(DEVICES)).status_code == 200
    simulator.faults.latency(60, path="deviceInfos")
    cut = [asyncio.create_task(gateway.get(f"{DEVICES}?page={page}")) for page in range(5)]
    while simulator.faults.struck["latency"] < len(cut):  # noqa: ASYNC110 - it has no event of its own
        await asyncio.sleep(0)
    simulator.faults.clear()
    await simulator.restart(0)
    assert [answer.status_code for answer in await asyncio.gather(*cut)] == [200] * 5


async def test_a_login_that_hangs_holds_only_those_who_need_one_and_not_for_long(
    gateway: httpx.AsyncClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.thingsboard.tokens.LOGIN_WAIT_SECONDS", 0.5)
    simulator.faults.latency(60, path="/api/auth/")
    hasty = asyncio.create_task(gateway.get(DEVICES, headers={"X-Request-Timeout": "0.2"}))
    patient = await asyncio.gather(*(gateway.get(f"{DEVICES}?page={page}") for page in range(20)))
    for answer in patient:
        assert (answer.status_code, answer.json()["error_code"]) == (503, "UPSTREAM_UNAVAILABLE")
        assert int(answer.headers["retry-after"]) <= OPEN_SECONDS
    assert (await hasty).status_code == 504
    assert not simulator.calls[LISTED]
    simulator.faults.clear()
    while (answer := await gateway.get(DEVICES)).status_code != 200:
        assert answer.status_code == 503
        await asyncio.sleep(0.01)
    # Whoever has a token asks with it.
    simulator.faults.latency(60, path="/api/auth/")
    assert (await gateway.get(DEVICES)).status_code == 200
    assert simulator.calls["POST /api/auth/login"] <= 3


@pytest.mark.timeout(60)
async def test_a_thingsboard_that_hung_is_found_to_be_back_within_the_pause(
    make_gateway: GatewayFactory, simulator: Simulator
) -> None:
    """Also when the probe hangs on for long, as one on a connection that leads nowhere any more."""
    gateway = make_gateway(tb_timeout_seconds=1)
    assert (await gateway.get(DEVICES)).status_code == 200
    simulator.faults.latency(60, path="deviceInfos")
    slow = await asyncio.gather(*(gateway.get(f"{DEVICES}?page={page}") for page in range(20)))
    assert {answer.status_code for answer in slow} == {504}
    refused = await gateway.get(DEVICES)
    assert refused.status_code == 503
    clock = asyncio.get_running_loop().time
    simulator.faults.clear()
    returned = clock()
    while (answer := await gateway.get(DEVICES)).status_code != 200:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) <= OPEN_SECONDS
        await asyncio.sleep(0.01)
    # What is measured is the pause, in seconds; a busy machine may add to it.
    assert clock() - returned < 10 * OPEN_SECONDS


async def test_a_name_that_is_not_known_is_a_503_until_it_is(
    make_gateway: GatewayFactory, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = False
    look_up = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        if host != "thingsboard.test":
            return look_up(host, *args, **options)
        if not known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    gateway = make_gateway(tb_host=f"http://thingsboard.test:{simulator.port}")
    for _ in range(3):
        answer = await gateway.get(DEVICES)
        assert (answer.status_code, answer.json()["error_code"]) == (503, "UPSTREAM_UNAVAILABLE")
    known = True
    assert (await gateway.get(DEVICES)).status_code == 200


async def test_a_return_is_greeted_by_one_login(make_gateway: GatewayFactory, simulator: Simulator) -> None:
    gateway = make_gateway()
    await simulator.stop_listening()
    away = await asyncio.gather(*(gateway.get(f"{DEVICES}?page={page}") for page in range(50)))
    assert {answer.status_code for answer in away} == {503}
    await simulator.start_listening()
    back = await asyncio.gather(*(gateway.get(f"{DEVICES}?page={page}") for page in range(50)))
    assert {answer.status_code for answer in back} == {200}
    assert simulator.calls["POST /api/auth/login"] == 1
