"""Commands that wait for a device: what became of each, and that none is sent twice."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.conftest import GatewayFactory
from tests.rpc.conftest import BASE, HttpDevice

SENT = "POST /api/plugins/rpc/{}/{{id}}"
COMMAND = {"method": "setLight", "params": {"on": True}, "timeout": 25_000}
QUICK = {**COMMAND, "timeout": 5_000}


def body_of(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    body.pop("timestamp")
    return body


@pytest.mark.parametrize(
    "reply", [b"null", b"5", b"0.5", b'"on"', b"[]", b'{"on":true,"was":[1,null]}', b"false"]
)
async def test_the_reply_of_a_device_is_returned_as_it_came(
    gateway: httpx.AsyncClient, device: HttpDevice, reply: bytes
) -> None:
    message, answer = await asyncio.gather(
        device.obey(reply), gateway.post(f"{device.path}/rpc/twoway", json=COMMAND)
    )
    assert (message["method"], message["params"]) == ("setLight", {"on": True})
    assert answer.status_code == 200
    assert b'"response":' + reply + b"," in answer.content
    body = body_of(answer)
    assert type(body.pop("elapsed_ms")) is int
    assert body.pop("response") == httpx.Response(200, content=reply).json()
    assert body == {"status": "success", "device_id": device.id, "outcome": "answered"}


@pytest.mark.parametrize(
    "params", [None, 5, "text", [1, 2], {}, {"a": {"b": None}}, 2**70, 0.1, "ü🌡", "a\0b"]
)
async def test_parameters_are_any_json(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator, params: Any
) -> None:
    message, answer = await asyncio.gather(
        device.obey(b"{}"),
        gateway.post(f"{device.path}/rpc/twoway", json={"method": "m", "params": params}),
    )
    assert answer.status_code == 200
    # The simulated ThingsBoard, unlike the real one, knows no larger integers.
    assert message["params"] == (float(params) if params == 2**70 else params)


async def test_without_parameters_a_device_gets_an_empty_object(
    gateway: httpx.AsyncClient, device: HttpDevice
) -> None:
    message, _ = await asyncio.gather(
        device.obey(b"{}"), gateway.post(f"{device.path}/rpc/twoway", json={"method": "m"})
    )
    assert message["params"] == {}


async def test_a_device_is_found_by_name(gateway: httpx.AsyncClient, device: HttpDevice) -> None:
    path = f"{BASE}/devices/name:{device.name}/rpc/twoway"
    _, answer = await asyncio.gather(device.obey(b"1"), gateway.post(path, json=COMMAND))
    assert (answer.json()["device_id"], answer.json()["response"]) == (device.id, 1)


async def test_a_oneway_command_is_sent_when_the_device_has_fetched_it(
    gateway: httpx.AsyncClient, device: HttpDevice
) -> None:
    message, answer = await asyncio.gather(
        device.take(), gateway.post(f"{device.path}/rpc/oneway", json=COMMAND)
    )
    assert message is not None
    body = body_of(answer)
    assert type(body.pop("elapsed_ms")) is int
    assert (answer.status_code, body) == (
        200,
        {"status": "success", "device_id": device.id, "outcome": "sent", "response": None},
    )


@pytest.mark.parametrize("way", ["oneway", "twoway"])
async def test_a_device_that_does_not_come_is_offline(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator, way: str
) -> None:
    answer = await gateway.post(f"{device.path}/rpc/{way}", json=QUICK)
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (409, "DEVICE_OFFLINE")
    assert body["details"]["outcome"] == "offline"
    assert type(body["details"]["elapsed_ms"]) is int
    assert simulator.calls[SENT.format(way)] == 1


@pytest.mark.parametrize("reply", [None, b"", b'"' + b"x" * 65_536 + b'"'], ids=["none", "empty", "huge"])
async def test_a_device_that_fetches_the_command_and_says_nothing_is_silent(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator, reply: bytes | None
) -> None:
    poll = await device.polling()
    waiting = asyncio.create_task(gateway.post(f"{device.path}/rpc/twoway", json=QUICK))
    message = await poll
    assert message is not None
    if reply is not None:
        await device.answer(message, reply)
    answer = await waiting
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (504, "UPSTREAM_TIMEOUT")
    assert body["details"]["outcome"] == "timeout"
    assert simulator.calls[SENT.format("twoway")] == 1


async def test_a_reply_that_is_not_json_is_no_answer_to_pass_on(
    gateway: httpx.AsyncClient, device: HttpDevice
) -> None:
    _, answer = await asyncio.gather(
        device.obey(b"oops"), gateway.post(f"{device.path}/rpc/twoway", json=COMMAND)
    )
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (502, "UPSTREAM_ERROR")
    assert (body["details"]["outcome"], body["details"]["issue"]) == ("answered", "reply is not JSON")


@pytest.mark.parametrize("way", ["oneway", "twoway", "persistent"])
async def test_fail_fast_sends_nothing_to_an_inactive_device(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator, way: str
) -> None:
    simulator.world.attributes.save(device.id, "SERVER_SCOPE", {"active": False})
    before = sum(count for call, count in simulator.calls.items() if "/rpc/" in call)
    answer = await gateway.post(f"{device.path}/rpc/{way}", json={**COMMAND, "fail_fast": True})
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (409, "DEVICE_OFFLINE")
    assert body["details"]["outcome"] == "offline"
    assert sum(count for call, count in simulator.calls.items() if "/rpc/" in call) == before
    assert await device.take(timeout_ms=100) is None


async def test_fail_fast_reaches_an_active_device(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    simulator.world.attributes.save(device.id, "SERVER_SCOPE", {"active": True})
    poll = await device.polling()
    waiting = asyncio.create_task(
        gateway.post(f"{device.path}/rpc/twoway", json={**COMMAND, "fail_fast": True})
    )
    message = await poll
    assert message is not None
    await device.answer(message, b"true")
    assert (await waiting).json()["response"] is True


async def test_a_device_that_counts_as_inactive_is_reached_without_fail_fast(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    """ThingsBoard notices a device that has just begun to poll only seconds later."""
    poll = await device.polling()
    simulator.world.attributes.save(device.id, "SERVER_SCOPE", {"active": False})
    waiting = asyncio.create_task(gateway.post(f"{device.path}/rpc/twoway", json=COMMAND))
    message = await poll
    assert message is not None
    await device.answer(message, b"true")
    assert (await waiting).json()["outcome"] == "answered"


async def test_a_caller_who_leaves_does_not_stop_the_command(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    line = simulator.world.rpcs._line(device.id)
    leaving = asyncio.create_task(gateway.post(f"{device.path}/rpc/twoway", json=COMMAND))
    while not line.queued:  # noqa: ASYNC110 - turns of the loop, not a wait
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    message = await device.take()
    assert message is not None
    assert message["method"] == "setLight"


@pytest.mark.parametrize(
    ("break_it", "status"),
    [
        (lambda faults: faults.reset(path="plugins/rpc"), 503),
        (lambda faults: faults.reset(path="plugins/rpc", after=True), 503),
        (lambda faults: faults.truncate(path="plugins/rpc"), 502),
        (lambda faults: faults.malformed(path="plugins/rpc"), 502),
        (lambda faults: faults.wrong_content_type(path="plugins/rpc"), 502),
        (lambda faults: faults.status(500, path="plugins/rpc"), 502),
        (lambda faults: faults.status(503, path="plugins/rpc"), 502),
        (lambda faults: faults.status(429, path="plugins/rpc"), 429),
        (lambda faults: faults.status(504, path="plugins/rpc"), 504),
    ],
    ids=["reset", "reset-after", "truncated", "malformed", "content-type", "500", "503", "429", "504"],
)
async def test_whatever_goes_wrong_a_command_is_sent_once(
    gateway: httpx.AsyncClient,
    device: HttpDevice,
    simulator: Simulator,
    break_it: Callable[[Any], Any],
    status: int,
) -> None:
    break_it(simulator.faults)
    obeying = asyncio.create_task(device.obey(b'{"on":true}'))
    answer = await gateway.post(f"{device.path}/rpc/twoway", json=COMMAND)
    obeying.cancel()
    await asyncio.gather(obeying, return_exceptions=True)
    struck = sum(simulator.faults.struck.values())
    assert struck == 1
    assert answer.status_code == status
    assert "offline" not in answer.text
    if status == 503:
        assert "may have been delivered" in answer.json()["details"]["issue"]
    if status == 429:
        assert answer.json()["details"]["limited_by"] == "thingsboard"


async def test_a_command_that_could_not_be_sent_is_left_to_its_caller(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    await gateway.get(f"{BASE}/devices")
    await simulator.stop_listening()
    answer = await gateway.post(f"{device.path}/rpc/twoway", json=QUICK)
    assert (answer.status_code, answer.json()["error_code"]) == (503, "UPSTREAM_UNAVAILABLE")
    await simulator.start_listening()


async def test_an_expired_token_is_renewed_and_the_command_arrives_once(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    await gateway.get(f"{BASE}/devices")
    simulator.faults.expire_tokens()
    poll = await device.polling()
    waiting = asyncio.create_task(gateway.post(f"{device.path}/rpc/twoway", json=COMMAND))
    message = await poll
    assert message is not None
    await device.answer(message, b"1")
    assert (await waiting).status_code == 200
    assert await device.take(timeout_ms=100) is None


async def test_commands_that_wait_hold_no_place_of_other_calls(
    make_gateway: GatewayFactory, device: HttpDevice, simulator: Simulator
) -> None:
    gateway = make_gateway(tb_max_connections=1, tb_max_rpcs=4)
    line = simulator.world.rpcs._line(device.id)
    waiting = [asyncio.create_task(gateway.post(f"{device.path}/rpc/twoway", json=COMMAND)) for _ in range(4)]
    while len(line.queued) < 4:  # noqa: ASYNC110 - turns of the loop, not a wait
        await asyncio.sleep(0)
    assert (await gateway.get(f"{BASE}/devices")).status_code == 200
    refused = await gateway.post(f"{device.path}/rpc/twoway", json=COMMAND)
    assert (refused.status_code, refused.json()["error_code"]) == (503, "OVERLOADED")
    assert int(refused.headers["Retry-After"]) >= 1
    for _ in waiting:
        await device.obey(b"1")
    assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 4
    assert len(line.queued) == 0


async def test_what_a_device_did_shows_in_the_next_read(
    gateway: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    """A read that began before the command is not joined after it."""
    path = f"{device.path}/telemetry/latest?keys=light"
    fault = simulator.faults.latency(0.5, path="values/timeseries", count=1)
    early = asyncio.create_task(gateway.get(path))
    while fault.count:  # noqa: ASYNC110 - turns of the loop, not a wait
        await asyncio.sleep(0)

    async def switch() -> None:
        message = await device.take()
        assert message is not None
        await device.post({"light": "on"})
        await device.answer(message, b"{}")

    await asyncio.gather(switch(), gateway.post(f"{device.path}/rpc/twoway", json=COMMAND))
    assert (await gateway.get(path)).json()["data"]["light"]["value"] == "on"
    await early


@pytest.mark.parametrize(
    ("method", "told"),
    [("setLight", "setLight"), ("a.b:c-d/e_1", "a.b:c-d/e_1"), ("set the light", None), ("m" * 65, None)],
)
async def test_each_command_is_in_the_security_log_without_its_parameters(
    gateway: httpx.AsyncClient,
    device: HttpDevice,
    capsys: pytest.CaptureFixture[str],
    method: str,
    told: str | None,
) -> None:
    body = {"method": method, "params": {"pin": "4711-secret"}}
    await gateway.post(f"{device.path}/rpc/persistent", json=body)
    text = capsys.readouterr().out
    (event,) = [line for line in map(json.loads, text.splitlines()) if line["event"] == "command_sent"]
    assert (event["device_id"], event["way"], event["command"]) == (device.id, "persistent", told)
    assert event["key_id"] == "default"
    assert "4711" not in text
