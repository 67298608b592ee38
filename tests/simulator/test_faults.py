"""Faults on purpose: what a caller sees of them, and that they end."""

import asyncio
import base64
import json

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from tb_simulator.server import Simulator

LIST = "/api/tenant/devices?pageSize=1&page=0"


async def test_a_reset_strikes_as_often_as_it_is_told(
    simulator: Simulator, tenant: httpx.AsyncClient
) -> None:
    simulator.faults.reset(count=2, path="/tenant/devices")
    for _ in range(2):
        with pytest.raises(httpx.NetworkError):
            await tenant.get(LIST)
    assert (await tenant.get(LIST)).status_code == 200
    assert not simulator.faults.active
    assert simulator.faults.struck["reset"] == 2


async def test_a_lost_answer_was_still_worked_on(
    simulator: Simulator, tenant: httpx.AsyncClient, device_id: str
) -> None:
    simulator.faults.reset(count=1, after=True)
    with pytest.raises(httpx.NetworkError):
        await tenant.post(f"/api/plugins/telemetry/DEVICE/{device_id}/timeseries/ANY", json={"kept": 1})
    keys = await tenant.get(f"/api/plugins/telemetry/DEVICE/{device_id}/keys/timeseries")
    assert keys.json() == ["kept"]


async def test_a_truncated_body_ends_the_connection(simulator: Simulator, tenant: httpx.AsyncClient) -> None:
    simulator.faults.truncate(count=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await tenant.get(LIST)


async def test_a_stalled_body_is_given_up_by_the_caller(
    simulator: Simulator, tenant: httpx.AsyncClient
) -> None:
    simulator.faults.stall(3600, count=1)
    with pytest.raises(httpx.ReadTimeout):
        await tenant.get(LIST, timeout=0.05)
    simulator.faults.stall(0, count=1)
    assert (await tenant.get(LIST)).json()["totalElements"] == 9


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_status_takes_the_place_of_the_answer(
    simulator: Simulator, tenant: httpx.AsyncClient, status: int
) -> None:
    simulator.faults.status(status, count=1)
    answer = await tenant.get(LIST)
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert "retry-after" not in answer.headers


async def test_malformed_and_wrongly_typed_bodies(simulator: Simulator, tenant: httpx.AsyncClient) -> None:
    simulator.faults.malformed(count=1)
    with pytest.raises(json.JSONDecodeError):
        (await tenant.get(LIST)).json()
    simulator.faults.wrong_content_type("text/html", count=1)
    assert (await tenant.get(LIST)).headers["content-type"] == "text/html"


async def test_a_fault_strikes_only_its_method_and_path(
    simulator: Simulator, tenant: httpx.AsyncClient
) -> None:
    simulator.faults.status(500, method="POST")
    simulator.faults.status(500, path="^/api/asset")
    assert (await tenant.get(LIST)).status_code == 200
    simulator.faults.clear()
    assert simulator.faults.listing() == []


async def test_expired_access_tokens_can_be_refreshed(
    simulator: Simulator, tenant: httpx.AsyncClient
) -> None:
    simulator.faults.expire_tokens()
    refused = await tenant.get(LIST)
    assert (refused.status_code, refused.json()["errorCode"]) == (401, 11)
    refresh = await tenant.post("/api/auth/token", json={"refreshToken": tenant.headers["X-Refresh"]})
    fresh = {"X-Authorization": f"Bearer {refresh.json()['token']}"}
    assert (await tenant.get(LIST, headers=fresh)).status_code == 200


async def test_a_changed_signing_key_voids_refresh_tokens_too(
    simulator: Simulator, tenant: httpx.AsyncClient
) -> None:
    simulator.faults.change_signing_key()
    assert (await tenant.get(LIST)).json()["errorCode"] == 11
    refresh = await tenant.post("/api/auth/token", json={"refreshToken": tenant.headers["X-Refresh"]})
    assert refresh.status_code == 401


async def test_tokens_name_their_end(tenant: httpx.AsyncClient) -> None:
    payload = tenant.headers["X-Authorization"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert claims["exp"] - claims["iat"] == 9000
    assert claims["scopes"] == ["TENANT_ADMIN"]


async def test_a_restart_refuses_connections_and_keeps_tokens(
    simulator: Simulator, tenant: httpx.AsyncClient
) -> None:
    async with connect(simulator.url.replace("http", "ws") + "/api/ws") as socket:
        await simulator.stop_listening()
        with pytest.raises(ConnectionClosed) as cut:
            await socket.recv()
        assert cut.value.rcvd is None
    with pytest.raises(httpx.NetworkError):
        await tenant.get(LIST)
    await simulator.start_listening()
    assert (await tenant.get(LIST)).status_code == 200


async def test_a_stopped_server_leaves_no_call_behind(
    simulator: Simulator, tenant: httpx.AsyncClient
) -> None:
    simulator.faults.latency(3600)
    waiting = asyncio.create_task(tenant.get(LIST))
    while not simulator.faults.struck:  # noqa: ASYNC110 - turns of the loop, not a wait
        await asyncio.sleep(0)
    await simulator.stop_listening()
    with pytest.raises(httpx.NetworkError):
        await waiting


async def test_the_rate_limit_refills_and_spares_logins(
    simulator: Simulator, tenant: httpx.AsyncClient, customer: httpx.AsyncClient
) -> None:
    simulator.faults.rate_limit("2:3600")
    answers = [await tenant.get("/api/auth/user"), await customer.get("/api/auth/user")]
    answers.append(await tenant.get("/api/auth/user"))
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    login = {"username": "tenant@thingsboard.org", "password": "tenant"}
    assert (await tenant.post("/api/auth/login", json=login)).status_code == 200
    simulator.faults.rate_limit(None)
    assert (await tenant.get("/api/auth/user")).status_code == 200


async def test_the_control_routes_do_what_the_objects_do(
    simulator: Simulator, tenant: httpx.AsyncClient
) -> None:
    fault = {"kind": "status", "status": 502, "count": 1}
    assert (await tenant.post("/__simulator/faults", json=fault)).json()["faults"][0]["status"] == 502
    assert (await tenant.get(LIST)).status_code == 502
    calls = (await tenant.get("/__simulator/calls")).json()
    assert calls == {"total": 2, "calls": {"POST /api/auth/login": 1, "GET /api/tenant/devices": 1}}
    await tenant.delete("/__simulator/calls")
    assert simulator.calls.total() == 0
    await tenant.post("/__simulator/tokens", json={"action": "expire"})
    assert (await tenant.get(LIST)).status_code == 401
    assert (await tenant.post("/__simulator/faults", json={"kind": "nope"})).status_code == 400
    assert (await tenant.get("/__simulator/nope")).status_code == 404
    assert (await tenant.post("/__simulator/rate-limit", json={"limits": "1:60"})).status_code == 200
    assert (await tenant.delete("/__simulator/faults")).status_code == 200
    assert (await tenant.post("/__simulator/websockets", json={"action": "cut"})).status_code == 200


async def test_a_restart_by_control_route_answers_first(
    simulator: Simulator, tenant: httpx.AsyncClient
) -> None:
    assert (await tenant.post("/__simulator/restart", json={"seconds": 0})).status_code == 202


async def test_a_websocket_can_be_refused(simulator: Simulator) -> None:
    address = simulator.url.replace("http", "ws") + "/api/ws"
    simulator.faults.status(503, method="WS", count=1)
    with pytest.raises(InvalidStatus) as refused:
        await connect(address)
    assert refused.value.response.status_code == 503
    simulator.faults.reset(method="WS", count=1)
    with pytest.raises((OSError, WebSocketException, EOFError)):
        await connect(address)
    async with connect(address):
        assert simulator.calls["WS /api/ws"] == 3


@pytest.mark.parametrize(
    ("options", "asked", "status"),
    [
        ({"points_per_second": 1e6}, "keys=a&startTs=0&endTs=9&limit=100", 200),
        ({"points_per_second": 1e6}, "keys=a,b&startTs=0&endTs=9&limit=6000", 500),
        ({"ms_per_second": 1e6}, "keys=a&startTs=0&endTs=9000&limit=100000", 200),
        ({"ms_per_second": 1e6}, "keys=a&startTs=0&endTs=11000&limit=1", 500),
        ({"points_per_second": 1.0}, "keys=a", 200),
    ],
)
async def test_labour_is_given_up_when_too_much_is_asked_for(
    simulator: Simulator,
    tenant: httpx.AsyncClient,
    device_id: str,
    options: dict[str, float],
    asked: str,
    status: int,
) -> None:
    simulator.faults.labour(0.01, **options)
    answer = await tenant.get(f"/api/plugins/telemetry/DEVICE/{device_id}/values/timeseries?{asked}")
    assert answer.status_code == status
    if status == 500:
        assert answer.text == "Request timeout"
