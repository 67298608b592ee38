"""Identical reads at the same time cost one ThingsBoard call, and nobody notices anything but that."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app import errors
from app.factory import create_app
from app.thingsboard.aiohttp_transport import AiohttpTransport
from app.thingsboard.shared_reads import own_copy
from app.thingsboard.transport import Answer
from tb_simulator.server import Simulator
from tests.conftest import API_KEY, GatewayFactory, SettingsFactory
from tests.serving import serve
from tests.telemetry_world import DEVICES, PREFIX, START, UNKNOWN, device_id, load

LIST = "GET /api/tenant/deviceInfos"
HEADERS = {"X-API-Key": API_KEY}


class Gate:
    """A transport: ThingsBoard answers at once, but answers of one kind are handed on when the gate opens."""

    def __init__(self, inner: AiohttpTransport) -> None:
        self.inner = inner
        self.part: tuple[str, str] | None = None
        self.passed = asyncio.Event()
        self.held = self.cancelled = 0

    def close(self, method: str, part: str) -> None:
        """Hold what comes of this kind from now on; what was held before stays."""
        self.part = method, part

    def open(self) -> None:
        self.part = None
        self.passed.set()
        self.passed = asyncio.Event()

    async def send(self, method: str, target: str, **rest: Any) -> Answer:
        answer = await self.inner.send(method, target, **rest)
        if self.part is not None and method == self.part[0] and self.part[1] in target:
            self.held += 1
            try:
                await self.passed.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return answer

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.fixture
def gate(simulator: Simulator) -> Gate:
    return Gate(AiohttpTransport(simulator.url, tls=True, connections=100))


@pytest.fixture
def app(make_settings: SettingsFactory, gate: Gate) -> FastAPI:
    return create_app(make_settings(), transport=gate)


@pytest.fixture
async def caller(app: FastAPI, simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway whose ThingsBoard stands behind the gate; logged in."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=HEADERS) as client:
        await client.get(DEVICES)
        simulator.calls.clear()
        yield client
    await app.state.upstreams.aclose()


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until something is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0)


def waiting(app: FastAPI) -> int:
    """Count the callers of all reads that may be joined."""
    connection = app.state.upstreams["default"].client.connection
    calls = (*connection.reads._joinable.values(), *connection.pages._joinable.values())
    return sum(len(call.waiting) for call in calls)


@contextlib.asynccontextmanager
async def held_reads(
    app: FastAPI, gate: Gate, caller: httpx.AsyncClient, path: str, part: str, count: int
) -> AsyncIterator[list[asyncio.Task[httpx.Response]]]:
    """Run the same read so many times; all of them wait for one answer that ThingsBoard has given."""
    gate.close("GET", part)
    reads = [asyncio.create_task(caller.get(path)) for _ in range(count)]
    await until(lambda: waiting(app) == count and gate.held > 0)
    yield reads
    gate.open()
    await asyncio.gather(*reads, return_exceptions=True)


async def test_fifty_identical_reads_are_one_call(
    app: FastAPI, gate: Gate, caller: httpx.AsyncClient, simulator: Simulator
) -> None:
    async with held_reads(app, gate, caller, DEVICES, "deviceInfos", 50) as reads:
        gate.open()
        answers = await asyncio.gather(*reads)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["etag"] for answer in answers}) == 1
    assert simulator.calls == {LIST: 1}


async def test_nothing_is_kept_after_the_call(caller: httpx.AsyncClient, simulator: Simulator) -> None:
    for _ in range(3):
        await caller.get(DEVICES)
    assert simulator.calls == {LIST: 3}


async def test_a_cold_start_asks_once_who_it_is(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    simulator.faults.latency(0.05)
    answers = await asyncio.gather(*(gateway.get(DEVICES) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert simulator.calls == {"POST /api/auth/login": 1, "GET /api/auth/user": 1, LIST: 1}


READS = {
    "list": "/devices?page_size=5&text_search=Test",
    "assets": "/assets",
    "by name": "/devices/name:Test Device A1",
    "types": "/device-types",
    "keys": "/devices/{id}/keys",
    "latest": "/devices/{id}/telemetry/latest",
    "latest of some": "/devices/{id}/telemetry/latest?keys=a,b",
    "history": f"/devices/{{id}}/telemetry?start_ts={START}&end_ts={START + 5}",
    "attributes": "/devices/{id}/attributes",
    "one scope": "/devices/{id}/attributes/server",
    "relations": "/relations?entity_id={id}&entity_type=DEVICE",
    "graph": "/graph/{id}?root_type=DEVICE&direction=BOTH",
    "missing": f"/devices/{UNKNOWN}/telemetry/latest",
}


@pytest.mark.parametrize("path", READS.values(), ids=READS.keys())
async def test_twenty_callers_cost_what_one_costs(
    caller: httpx.AsyncClient, simulator: Simulator, path: str
) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(START, 1)])
    url = PREFIX + path.format(id=device)
    simulator.faults.latency(0.05)
    answers = await asyncio.gather(*(caller.get(url) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {200, 404}
    together = simulator.calls.copy()
    # What a history remembers of the entity is not to help the single caller.
    app = caller._transport.app  # type: ignore[attr-defined]
    app.state.upstreams["default"].client.telemetry._checked.clear()
    simulator.calls.clear()
    alone = await caller.get(url)
    assert together == simulator.calls
    assert {_without_time(answer) for answer in answers} == {_without_time(alone)}


def _without_time(answer: httpx.Response) -> str:
    body = answer.json()
    return str({name: value for name, value in body.items() if name not in {"timestamp", "request_id"}})


async def test_queries_that_are_posted_are_shared_by_their_body(
    caller: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    simulator.faults.latency(0.05, path="entitiesQuery")
    bodies = [{"device_ids": [device], "keys": [key], "types": "inferred"} for key in ("a", "b")]
    answers = await asyncio.gather(
        *(caller.post(f"{PREFIX}/telemetry/latest", json=body) for body in bodies * 10)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert simulator.calls == {"POST /api/entitiesQuery/find": 2}


async def test_other_questions_are_other_calls(caller: httpx.AsyncClient, simulator: Simulator) -> None:
    simulator.faults.latency(0.05)
    await asyncio.gather(*(caller.get(f"{DEVICES}?page={page}") for page in (0, 1, 0, 1)))
    assert simulator.calls == {LIST: 2}


async def test_two_credentials_share_nothing(
    make_gateway: GatewayFactory, customer_gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    """The device types have the same path for a tenant administrator and a customer user."""
    gateways = (make_gateway(), customer_gateway)
    path = f"{PREFIX}/device-types"
    for gateway in gateways:
        await gateway.get(path)
    simulator.calls.clear()
    simulator.faults.latency(0.05)
    await asyncio.gather(*(gateway.get(path) for gateway in gateways for _ in range(5)))
    assert simulator.calls == {"GET /api/device/types": 2}


async def test_the_keys_of_a_gateway_are_checked_before_anything_is_shared(
    app: FastAPI, gate: Gate, caller: httpx.AsyncClient
) -> None:
    async with held_reads(app, gate, caller, DEVICES, "deviceInfos", 1):
        refused = await caller.get(DEVICES, headers={"X-API-Key": "no-such-key"})
    assert refused.status_code == 401


WRITES = {
    "upload": ("POST", "/telemetry", {"a": [{"ts": START + 9, "value": 9}]}, "/telemetry/latest", "/values/"),
    "deletion": ("DELETE", "/telemetry?keys=a", None, "/telemetry/latest", "/values/"),
    "attributes": ("POST", "/attributes/server", {"limit": 3}, "/attributes/server", "/values/"),
    "change": ("PATCH", "", {"label": "new"}, "?text_search=Test", "deviceInfos"),
    "device deletion": ("DELETE", "", None, "?text_search=Test", "deviceInfos"),
}


@pytest.mark.parametrize(("method", "path", "body", "read", "part"), WRITES.values(), ids=WRITES.keys())
async def test_a_caller_reads_its_own_write(
    app: FastAPI,
    gate: Gate,
    caller: httpx.AsyncClient,
    simulator: Simulator,
    method: str,
    path: str,
    body: Any,
    read: str,
    part: str,
) -> None:
    """The read under way holds what was true before the write; its own callers may have that."""
    device = device_id(simulator)
    load(simulator, device, "a", [(START, 1)])
    url = f"{DEVICES}{read}" if read.startswith("?") else f"{DEVICES}/{device}{read}"
    before = (await caller.get(url)).headers["etag"]
    async with held_reads(app, gate, caller, url, part, 3) as early:
        # The gate keeps what it has; what is read from now on passes.
        gate.part = None
        written = await caller.request(method, f"{DEVICES}/{device}{path}", json=body)
        assert written.status_code in {200, 201}
        after = await caller.get(url)
        assert not early[0].done()
    assert after.headers["etag"] != before
    assert {(await each).headers["etag"] for each in early} == {before}


async def test_a_write_that_nobody_knows_the_end_of_ends_the_sharing_too(
    app: FastAPI, gate: Gate, caller: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    url = f"{DEVICES}/{device}/attributes/server"
    async with held_reads(app, gate, caller, url, "/values/", 1):
        gate.part = None
        simulator.faults.reset(path="/attributes/SERVER_SCOPE", method="POST", after=True)
        written = await caller.post(url, json={"limit": 3})
        after = await caller.get(url)
    assert (written.status_code, after.json()["data"]["limit"]["value"]) == (503, 3)


async def test_a_read_that_began_during_a_write_is_not_joined_after_it(
    app: FastAPI, gate: Gate, caller: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    url = f"{DEVICES}/{device}/attributes/server"
    # The simulator carries the write out after this time, and has answered the reads by then.
    simulator.faults.latency(0.5, method="POST", path="/attributes/")
    write = asyncio.create_task(caller.post(url, json={"limit": 3}))
    await until(lambda: simulator.calls.total() == 1)
    async with held_reads(app, gate, caller, url, "/values/", 2) as early:
        gate.part = None
        assert not write.done()
        assert (await write).status_code == 201
        after = await caller.get(url)
    assert after.json()["data"]["limit"]["value"] == 3
    assert "limit" not in (await early[0]).json()["data"]


async def test_a_read_after_the_start_of_a_write_is_not_older_than_that(
    app: FastAPI, gate: Gate, caller: httpx.AsyncClient, simulator: Simulator
) -> None:
    """While a write is under way its reads share again: an RPC takes 25 s and must not end that for all."""
    device = device_id(simulator)
    url = f"{DEVICES}/{device}/attributes/server"
    async with held_reads(app, gate, caller, url, "/values/", 2):
        gate.close("POST", "/attributes/")
        write = asyncio.create_task(caller.post(url, json={"limit": 3}))
        await until(lambda: gate.held == 2)
        simulator.calls.clear()
        simulator.faults.latency(0.05, method="GET")
        later = await asyncio.gather(*(caller.get(url) for _ in range(5)))
        assert not write.done()
    assert {answer.json()["data"]["limit"]["value"] for answer in later} == {3}
    assert sum(simulator.calls.values()) == 1
    assert (await write).status_code == 201


async def test_the_first_caller_may_leave(
    app: FastAPI, gate: Gate, caller: httpx.AsyncClient, simulator: Simulator
) -> None:
    async with held_reads(app, gate, caller, DEVICES, "deviceInfos", 10) as reads:
        for gone in reads[:5]:
            gone.cancel()
        await until(lambda: waiting(app) == 5)
        gate.open()
        answers = await asyncio.gather(*reads[5:])
    assert {answer.status_code for answer in answers} == {200}
    assert (simulator.calls, gate.cancelled) == ({LIST: 1}, 0)


async def test_the_last_to_leave_cancels_the_call_and_newcomers_do_not_join_it(
    app: FastAPI, gate: Gate, caller: httpx.AsyncClient, simulator: Simulator
) -> None:
    async with held_reads(app, gate, caller, DEVICES, "deviceInfos", 3) as reads:
        for gone in reads:
            gone.cancel()
        await until(lambda: gate.cancelled == 1)
        assert waiting(app) == 0
        gate.part = None
        assert (await caller.get(DEVICES)).status_code == 200
    assert simulator.calls == {LIST: 2}
    connection = app.state.upstreams["default"].client.connection
    assert connection.queue.in_flight == 0


async def test_a_client_that_disconnects_leaves_the_others_their_answer(
    make_settings: SettingsFactory, gate: Gate, simulator: Simulator
) -> None:
    app = create_app(make_settings(), transport=gate)
    async with (
        serve(app) as url,
        httpx.AsyncClient(base_url=url, headers=HEADERS) as first,
        httpx.AsyncClient(base_url=url, headers=HEADERS) as second,
    ):
        await first.get(DEVICES)
        simulator.calls.clear()
        gate.close("GET", "deviceInfos")
        impatient = asyncio.create_task(first.get(DEVICES))
        await until(lambda: gate.held == 1)
        patient = asyncio.create_task(second.get(DEVICES))
        await until(lambda: waiting(app) == 2)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        gate.open()
        assert (await patient).status_code == 200
    assert simulator.calls[LIST] == 1


@pytest.mark.parametrize(("status", "expected"), [(500, 502), (403, 403), (504, 504)])
async def test_a_refusal_is_shared(
    caller: httpx.AsyncClient, simulator: Simulator, status: int, expected: int
) -> None:
    simulator.faults.latency(0.05)
    simulator.faults.status(status, path="deviceInfos")
    answers = await asyncio.gather(*(caller.get(DEVICES) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {expected}
    assert len({answer.json()["request_id"] for answer in answers}) == 20
    assert simulator.calls == {LIST: 1}


async def test_a_time_out_is_shared_and_counts_once(
    make_gateway: GatewayFactory, simulator: Simulator
) -> None:
    gateway = make_gateway(tb_timeout_seconds=0.2)
    await gateway.get(DEVICES)
    simulator.calls.clear()
    simulator.faults.latency(5, path="deviceInfos")
    answers = await asyncio.gather(*(gateway.get(DEVICES) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {504}
    assert simulator.calls == {LIST: 1}
    simulator.faults.clear()
    # Five time-outs would have opened the breaker.
    assert (await gateway.get(DEVICES)).status_code == 200


async def test_a_lost_connection_is_made_good_once_for_all(
    caller: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.faults.reset(path="deviceInfos", count=1)
    answers = await asyncio.gather(*(caller.get(DEVICES) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert simulator.calls == {LIST: 2}


async def test_an_expired_token_is_renewed_within_the_shared_call(
    caller: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.faults.expire_tokens()
    simulator.faults.latency(0.05)
    answers = await asyncio.gather(*(caller.get(DEVICES) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert simulator.calls == {LIST: 2, "POST /api/auth/token": 1}


async def test_each_caller_gets_an_error_and_a_value_of_its_own(
    app: FastAPI, caller: httpx.AsyncClient, simulator: Simulator
) -> None:
    devices = app.state.upstreams["default"].client.devices
    both = await asyncio.gather(*(devices.get(device_id(simulator)) for _ in range(2)))
    assert both[0] == both[1]
    both[0]["name"] = "changed"
    assert both[1]["name"] == "Test Device A1"
    simulator.faults.reset(path="/api/device/")
    faults = await asyncio.gather(*(devices.get(UNKNOWN) for _ in range(2)), return_exceptions=True)
    assert {type(fault) for fault in faults} == {errors.UpstreamReset}
    assert faults[0] is not faults[1]


async def test_a_bug_in_a_shared_call_reaches_every_caller(
    app: FastAPI, gate: Gate, caller: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> Answer:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    gate.send = broken  # type: ignore[method-assign]
    answers = await asyncio.gather(*(caller.get(DEVICES) for _ in range(3)))
    assert {(answer.status_code, answer.json()["error_code"]) for answer in answers} == {
        (500, "INTERNAL_ERROR")
    }


async def test_a_call_that_is_cancelled_from_outside_leaves_nobody_waiting(
    app: FastAPI, gate: Gate, caller: httpx.AsyncClient
) -> None:
    gate.close("GET", "/api/device/types")
    reads = [asyncio.create_task(app.state.upstreams["default"].client.devices.types()) for _ in range(2)]
    await until(lambda: gate.held == 1)
    (call,) = app.state.upstreams["default"].client.connection.reads._joinable.values()
    call.task.cancel()
    ends = await asyncio.gather(*reads, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError}


async def test_readiness_checks_follow_one_another(
    app: FastAPI, gate: Gate, caller: httpx.AsyncClient, simulator: Simulator
) -> None:
    """Joining a call that began earlier would say that ThingsBoard is up because it was."""
    gate.close("GET", "/api/auth/user")
    probes = [asyncio.create_task(caller.get("/health/ready"))]
    await until(lambda: gate.held == 1)
    probes += [asyncio.create_task(caller.get("/health/ready")) for _ in range(5)]
    upstream = app.state.upstreams["default"]
    await until(lambda: upstream._next_check is not None)
    gate.open()
    assert {(await probe).json()["checks"]["thingsboard"]["status"] for probe in probes} == {"up"}
    # Those that came while the first was under way share one that began after they had come.
    assert simulator.calls == {"GET /api/auth/user": 2}


def every(cls: type[errors.GatewayError]) -> set[type[errors.GatewayError]]:
    return {cls}.union(*(every(each) for each in cls.__subclasses__()))


@pytest.mark.parametrize("cls", sorted(every(errors.GatewayError), key=lambda cls: cls.__name__))
def test_a_copy_of_an_error_is_the_same_error(cls: type[errors.GatewayError]) -> None:
    error = cls("said", details={"list": []}, note="why", retry_after=2.0, headers={"X": "y"})
    mine = own_copy(error)
    assert isinstance(mine, cls)
    assert (mine.__dict__, mine.args, mine.__cause__) == (error.__dict__, error.args, error)
    assert mine.details is not None
    mine.details["list"].append(1)
    assert error.details == {"list": []}
