"""`X-Request-Timeout`: a caller says how long it waits, and nobody else is worse off for it."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.types import Message, Scope

from app.deadline import DEADLINE, Deadline, in_time, out_of_time
from app.errors import UpstreamTimeout
from app.middleware.request_timeout import MOST_SECONDS, RequestTimeout, seconds_of
from tb_simulator.server import Simulator
from tests.conftest import GatewayFactory
from tests.virtual_time import run

PREFIX = "/api/v1/tb"
DEVICES = f"{PREFIX}/devices"
LISTED = "GET /api/tenant/deviceInfos"
NAMED = f"{DEVICES}/name:Test Device A1"
#: Longer than any test.
FOR_EVER = 300
SHORT = {"X-Request-Timeout": "0.5"}


async def until(is_true: Callable[[], bool]) -> None:
    """Let the loop run until something is true."""
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110 - what is waited for happens in other people's code
            await asyncio.sleep(0)


async def warm(gateway: httpx.AsyncClient) -> None:
    """Log in first: these tests are about the calls after it."""
    assert (await gateway.get(DEVICES)).status_code == 200


@pytest.mark.parametrize(
    "value", ["", "soon", "-1", "0", "0.0", "1e3", "1,5", "1s", " ", "nan", "٣", "1" * 10, "+1"]
)
async def test_what_is_no_time_is_refused_by_name(gateway: httpx.AsyncClient, value: str) -> None:
    answer = await gateway.get(DEVICES, headers=[("X-Request-Timeout", value.encode())])
    assert (answer.status_code, answer.json()["error_code"]) == (422, "VALIDATION_ERROR")
    assert answer.json()["details"]["field"] == "X-Request-Timeout"
    assert answer.json()["details"]["errors"][0]["in"] == "header"


async def test_two_times_are_refused(gateway: httpx.AsyncClient) -> None:
    twice = [("X-Request-Timeout", "1"), ("X-Request-Timeout", "2")]
    answer = await gateway.get(DEVICES, headers=twice)
    assert (answer.status_code, answer.json()["details"]["issue"]) == (422, "sent more than once")


@pytest.mark.parametrize("value", ["30", "2.5", "300", "999999999"])
async def test_a_time_that_is_long_enough_changes_nothing(gateway: httpx.AsyncClient, value: str) -> None:
    answer = await gateway.get(DEVICES, headers={"X-Request-Timeout": value})
    assert answer.status_code == 200


def test_a_longer_time_counts_as_the_longest() -> None:
    assert seconds_of([b"301"]) == MOST_SECONDS
    assert seconds_of([b"299.5"]) == 299.5


@pytest.mark.parametrize(
    ("method", "path", "body", "struck"),
    [
        ("GET", DEVICES, None, "deviceInfos"),
        ("GET", f"{NAMED}/telemetry/latest", None, "values/timeseries"),
        ("GET", f"{NAMED}/telemetry/export", None, "values/timeseries"),
        ("GET", f"{NAMED}/telemetry/export?format=xlsx", None, "values/timeseries"),
        ("POST", f"{NAMED}/telemetry/query", {"keys": ["t"], "agg": "AVG"}, "values/timeseries"),
        ("POST", DEVICES, {"name": "late"}, "/api/device$"),
        ("POST", f"{NAMED}/telemetry", {"a": [{"ts": 1_760_000_000_000, "value": 1}]}, "/timeseries/"),
        ("POST", f"{NAMED}/rpc/twoway", {"method": "m", "params": {}}, "plugins/rpc"),
    ],
    ids=["list", "latest", "export", "file", "query", "creation", "upload", "command"],
)
async def test_thingsboard_that_takes_longer_is_a_504(
    make_gateway: GatewayFactory, simulator: Simulator, method: str, path: str, body: Any, struck: str
) -> None:
    gateway = make_gateway()
    # An export without points would have nothing to wait for.
    await gateway.post(f"{NAMED}/telemetry", json={"t": 1})
    simulator.faults.latency(FOR_EVER, path=struck)
    answer = await gateway.request(method, path, json=body, headers=SHORT)
    assert (answer.status_code, answer.json()["error_code"]) == (504, "UPSTREAM_TIMEOUT")
    assert answer.json()["details"]["field"] == "X-Request-Timeout"
    if struck == "plugins/rpc":
        assert "may have been delivered" in answer.json()["details"]["issue"]
    queue = gateway.app.state.upstreams["default"].client.connection.queue
    await until(lambda: queue.in_flight == 0)
    # Impatience says nothing about ThingsBoard: it is not left alone for it.
    simulator.faults.clear()
    assert (await gateway.get(DEVICES)).status_code == 200


async def test_many_impatient_callers_do_not_close_the_way_for_others(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    await warm(gateway)
    simulator.faults.latency(FOR_EVER, path="deviceInfos")
    hasty = {"X-Request-Timeout": "0.02"}
    late = await asyncio.gather(*(gateway.get(f"{DEVICES}?page={n}", headers=hasty) for n in range(20)))
    assert {answer.status_code for answer in late} == {504}
    assert (await gateway.get(f"{PREFIX}/assets")).status_code == 200


async def test_the_time_is_one_for_all_calls_of_a_request(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    """The name is found at once; what is left is what the read of its values gets."""
    await warm(gateway)
    simulator.faults.latency(FOR_EVER, path="values/timeseries")
    answer = await gateway.get(f"{NAMED}/telemetry/latest", headers=SHORT)
    assert answer.status_code == 504
    assert simulator.calls["GET /api/tenant/devices"] == 1
    assert simulator.faults.struck["latency"] == 1


async def test_our_own_queue_that_takes_longer_is_a_503_and_nothing_was_sent(
    make_gateway: GatewayFactory, simulator: Simulator
) -> None:
    gateway = make_gateway(tb_max_connections=1)
    await warm(gateway)
    simulator.calls.clear()
    simulator.faults.latency(FOR_EVER, path="/api/tenant/asset")
    holding = asyncio.create_task(gateway.get(f"{PREFIX}/assets"))
    await until(lambda: bool(simulator.faults.struck["latency"]))
    refused = await asyncio.gather(
        gateway.get(DEVICES, headers=SHORT),
        gateway.get(DEVICES, headers=SHORT),
        gateway.post(DEVICES, json={"name": "never"}, headers=SHORT),
    )
    for answer in refused:
        assert (answer.status_code, answer.json()["error_code"]) == (503, "OVERLOADED")
        assert int(answer.headers["retry-after"]) >= 1
    assert not simulator.calls[LISTED]
    assert not simulator.calls["POST /api/device"]
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert (await gateway.get(DEVICES)).status_code == 200


async def test_who_shares_a_read_shares_no_deadline(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    await warm(gateway)
    simulator.calls.clear()
    simulator.faults.latency(2, path="deviceInfos", count=1)
    hasty = asyncio.create_task(gateway.get(DEVICES, headers=SHORT))
    await until(lambda: bool(simulator.faults.struck["latency"]))
    patient = asyncio.create_task(gateway.get(DEVICES))
    assert (await hasty).status_code == 504
    assert not patient.done()
    assert (await patient).status_code == 200
    assert simulator.calls[LISTED] == 1


async def test_a_login_outlives_the_caller_who_began_it(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.faults.latency(2, path="auth/login", count=1)
    hasty = asyncio.create_task(gateway.get(DEVICES, headers=SHORT))
    await until(lambda: bool(simulator.faults.struck["latency"]))
    patient = asyncio.create_task(gateway.get(f"{PREFIX}/assets"))
    assert (await hasty).status_code == 504
    assert (await patient).status_code == 200
    assert simulator.calls["POST /api/auth/login"] == 1


async def test_a_bulk_says_which_devices_were_in_time(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    devices = (await gateway.get(f"{DEVICES}?page_size=2")).json()["data"]
    quick, slow = (device["id"]["id"] for device in devices)
    simulator.faults.latency(FOR_EVER, path=f"{slow}/timeseries")
    point = {"a": [{"ts": 1_760_000_000_000, "value": 1}]}
    answer = await gateway.post(
        f"{PREFIX}/telemetry/bulk", json={quick: point, slow: point}, headers={"X-Request-Timeout": "2"}
    )
    assert answer.status_code == 207
    results = answer.json()["results"]
    assert results[quick]["status"] == "success"
    assert results[slow]["error_code"] == "UPSTREAM_TIMEOUT"


async def test_a_browser_may_send_it(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(key=None, backend_cors_origins=("https://app.example.com",))
    asking = {
        "Origin": "https://app.example.com",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "x-api-key,x-request-timeout",
    }
    assert (await gateway.options(DEVICES, headers=asking)).status_code == 200


def test_an_answer_that_has_begun_takes_its_time() -> None:
    """What is under way when the first byte leaves, and what begins later."""
    sent: list[Message] = []

    async def stream(_scope: Scope, _receive: object, send: Callable[[Message], Any]) -> None:
        ahead = asyncio.ensure_future(in_time(asyncio.sleep(1_000, "fetched ahead")))
        await asyncio.sleep(1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": (await ahead).encode(), "more_body": True})
        await in_time(asyncio.sleep(1_000))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("there is no body")

    scope = {"type": "http", "headers": [(b"x-request-timeout", b"2")]}
    run(RequestTimeout(stream)(scope, receive, send))
    assert [message.get("body") for message in sent] == [None, b"fetched ahead", b""]


def test_nothing_begins_after_the_deadline_and_nothing_lasts_beyond_it() -> None:
    async def beyond() -> float:
        clock = asyncio.get_running_loop().time
        deadline = Deadline(clock() + 2)
        DEADLINE.set(deadline)
        for work in (asyncio.sleep(1), asyncio.sleep(5)):
            try:
                await in_time(work)
            except UpstreamTimeout:
                assert clock() == 2
        began: list[str] = []

        async def too_late() -> None:
            began.append("anything")

        with pytest.raises(UpstreamTimeout):
            await deadline.wait(too_late(), out_of_time)
        assert not began
        return clock()

    assert run(beyond()) == 2


def test_another_time_out_stays_what_it_is() -> None:
    async def fails() -> None:
        raise TimeoutError("of somebody else")

    async def waits() -> None:
        DEADLINE.set(Deadline(asyncio.get_running_loop().time() + 2))
        with pytest.raises(TimeoutError, match="somebody else"):
            await in_time(fails())

    run(waits())
