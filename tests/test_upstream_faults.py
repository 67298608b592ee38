"""What callers see when ThingsBoard fails: one shape, the right status, nothing of ThingsBoard's text."""

import asyncio

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.conftest import GatewayFactory

DEVICES = "/api/v1/tb/devices"
MARKER = "org.thingsboard.server.Secret-10.0.0.7-stacktrace"


async def warm(gateway: httpx.AsyncClient) -> None:
    """Log in first: these tests are about the calls after it."""
    assert (await gateway.get(DEVICES)).status_code == 200


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (500, 502),
        (501, 502),
        (502, 502),
        (503, 502),
        (504, 504),
        (302, 502),
        (404, 502),
        (418, 502),
        (429, 429),
    ],
)
async def test_statuses(
    make_gateway: GatewayFactory, simulator: Simulator, status: int, expected: int
) -> None:
    gateway = make_gateway(tb_queue_seconds=0)
    await warm(gateway)
    simulator.faults.status(status, path="deviceInfos", body=MARKER)
    answer = await gateway.get(DEVICES)
    assert answer.status_code == expected
    assert answer.json()["status"] == expected
    assert MARKER not in answer.text
    if expected == 429:
        assert answer.json()["details"] == {"limited_by": "thingsboard"}
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_json_error_body_is_not_passed_on(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    await warm(gateway)
    simulator.faults.status(500, path="deviceInfos", body=f'{{"message":"{MARKER}","errorCode":2}}')
    answer = await gateway.get(DEVICES)
    assert (answer.status_code, MARKER in answer.text) == (502, False)


async def test_thingsboards_own_time_out_is_a_504(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    await warm(gateway)
    simulator.faults.status(500, path="deviceInfos", body='{"message":"Request timeout","errorCode":2}')
    assert (await gateway.get(DEVICES)).status_code == 504


@pytest.mark.parametrize("fault", ["malformed", "wrong_content_type", "truncate"])
async def test_answers_that_are_not_json_are_garbled(
    gateway: httpx.AsyncClient, simulator: Simulator, fault: str
) -> None:
    await warm(gateway)
    getattr(simulator.faults, fault)(path="deviceInfos")
    answer = await gateway.get(DEVICES)
    assert (answer.status_code, answer.json()["error_code"]) == (502, "UPSTREAM_ERROR")


async def test_one_lost_connection_is_made_good_for_reads(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    await warm(gateway)
    simulator.faults.reset(path="deviceInfos", count=1)
    assert (await gateway.get(DEVICES)).status_code == 200


async def test_a_lost_connection_is_not_made_good_for_a_creation(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    """The device may have been made: doing it again could make a second, or a false conflict."""
    await warm(gateway)
    simulator.faults.reset(path="/api/device$", count=1, after=True)
    answer = await gateway.post(DEVICES, json={"name": "lost"})
    assert (answer.status_code, answer.json()["error_code"]) == (503, "UPSTREAM_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1
    assert simulator.calls["POST /api/device"] == 1


async def test_a_slow_thingsboard_is_a_504_and_then_left_alone(
    make_gateway: GatewayFactory, simulator: Simulator
) -> None:
    gateway = make_gateway(tb_timeout_seconds=0.05)
    await warm(gateway)
    simulator.faults.latency(5, path="deviceInfos")
    answers = [await gateway.get(DEVICES) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {504}
    refused = await gateway.get(DEVICES)
    assert (refused.status_code, refused.json()["error_code"]) == (503, "UPSTREAM_UNAVAILABLE")
    assert int(refused.headers["retry-after"]) >= 1


async def test_a_restart_costs_503s_while_it_lasts_and_nothing_after(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    await warm(gateway)
    await simulator.stop_listening()
    during = await asyncio.gather(*(gateway.get(DEVICES) for _ in range(20)))
    assert {answer.status_code for answer in during} == {503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in during)
    await simulator.start_listening()
    after = await asyncio.gather(*(gateway.get(DEVICES) for _ in range(20)))
    assert {answer.status_code for answer in after} == {200}
    assert simulator.calls["POST /api/auth/login"] == 1  # Tokens outlive a restart.


async def test_retries_stay_within_their_budget(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    await warm(gateway)
    simulator.calls.clear()
    simulator.faults.reset(path="deviceInfos")
    for _ in range(100):
        await gateway.get(DEVICES)
    assert simulator.calls["GET /api/tenant/deviceInfos"] <= 100 + 10 + 10


async def test_no_upstream_is_never_the_callers_fault(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(tb_host="http://127.0.0.1:9")
    answer = await gateway.get(DEVICES)
    assert (answer.status_code, answer.json()["error_code"]) == (503, "UPSTREAM_UNAVAILABLE")
    ready = await gateway.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["checks"]["thingsboard"] == {"status": "down", "error_code": "UPSTREAM_UNAVAILABLE"}
    assert (await gateway.get("/health/ready?strict=1")).status_code == 503


async def test_a_caller_who_leaves_cancels_its_call(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    await warm(gateway)
    simulator.faults.latency(30, path="deviceInfos")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(gateway.get(DEVICES), 0.05)
    simulator.faults.clear()
    assert (await gateway.get(DEVICES)).status_code == 200


@pytest.mark.parametrize("body", ["<html>please log in</html>", "{}", "stored"])
@pytest.mark.parametrize(
    ("method", "path", "json"),
    [
        ("POST", "/telemetry", {"k": [{"ts": 1_760_000_000_000, "value": 1}]}),
        ("DELETE", "/telemetry?keys=k", None),
        ("POST", "/attributes/server", {"a": 1}),
        ("DELETE", "/attributes/server?keys=a", None),
        ("DELETE", "", None),
    ],
    ids=["upload", "delete points", "attributes", "delete attributes", "delete device"],
)
async def test_only_thingsboards_own_word_acknowledges_a_write(
    gateway: httpx.AsyncClient, simulator: Simulator, method: str, path: str, json: object, body: str
) -> None:
    """A portal's page under a 200 must not pass for stored data."""
    await gateway.post(DEVICES, json={"name": "acknowledged"})
    simulator.faults.status(200, path="/plugins/telemetry/|/api/device/", method=method, body=body)
    answer = await gateway.request(method, f"{DEVICES}/name:acknowledged{path}", json=json)
    assert (answer.status_code, answer.json()["error_code"]) == (502, "UPSTREAM_ERROR")


async def test_a_bulk_under_a_failing_thingsboard_is_its_error(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.faults.status(500, path="/plugins/telemetry/")
    body = {"name:Test Device A1": {"k": 1}, "name:Test Device A2": {"k": 1}}
    answer = await gateway.post("/api/v1/tb/telemetry/bulk", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (502, "UPSTREAM_ERROR")


async def test_a_blank_belongs_to_its_key(gateway: httpx.AsyncClient) -> None:
    """Deleting ` lead` must not delete `lead`."""
    path = f"{DEVICES}/name:Test Device A1/telemetry"
    await gateway.post(path, json={" lead": 2, "lead": 1})
    assert (await gateway.delete(path, params={"keys": " lead"})).json()["keys_deleted"] == [" lead"]
    assert list((await gateway.get(f"{path}/latest")).json()["data"]) == ["lead"]
