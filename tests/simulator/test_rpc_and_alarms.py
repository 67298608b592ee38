"""Calls to devices and alarms beyond what was recorded."""

import asyncio
from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator


@pytest.fixture
def device(simulator: Simulator, device_id: str) -> str:
    """Return the path of the device's own API."""
    return f"/api/v1/{simulator.world.credentials[device_id]['credentialsId']}"


#: In ms of ThingsBoard's time; the tests run it 500 times as fast, on machines that may be busy.
LONG = 10_000_000
SHORT = 10_000


async def call(
    client: httpx.AsyncClient, device: str, path: str, reply: bytes, **body: Any
) -> tuple[Any, httpx.Response]:
    async def obey() -> Any:
        message = (await client.get(f"{device}/rpc", params={"timeout": LONG})).json()
        await client.post(f"{device}/rpc/{message['id']}", content=reply)
        return message

    request = {"method": "m", "params": {"a": 1}, "timeout": LONG, **body}
    message, answer = await asyncio.gather(obey(), client.post(path, json=request))
    return message, answer


@pytest.mark.parametrize("version", ["plugins/rpc", "rpc"])
@pytest.mark.parametrize("reply", [b"null", b"5", b'{"a":1}'])
async def test_any_json_is_an_answer(
    tenant: httpx.AsyncClient, device: str, device_id: str, version: str, reply: bytes
) -> None:
    message, answer = await call(tenant, device, f"/api/{version}/twoway/{device_id}", reply)
    assert message["params"] == {"a": 1}
    assert (answer.status_code, answer.content) == (200, reply)


async def test_an_answer_that_is_no_json_is_not_acceptable(
    tenant: httpx.AsyncClient, device: str, device_id: str
) -> None:
    _, answer = await call(tenant, device, f"/api/plugins/rpc/twoway/{device_id}", b"oops")
    assert (answer.status_code, answer.content) == (406, b"")


@pytest.mark.parametrize("reply", [b"", b'"' + b"x" * 65_536 + b'"'])
async def test_empty_and_huge_answers_look_like_silence(
    tenant: httpx.AsyncClient, device: str, device_id: str, reply: bytes
) -> None:
    _, answer = await call(tenant, device, f"/api/plugins/rpc/twoway/{device_id}", reply, timeout=SHORT)
    assert answer.status_code == 408


@pytest.mark.parametrize(
    ("way", "reply", "status", "response"),
    [
        ("twoway", b'{"ok":1}', "SUCCESSFUL", {"ok": 1}),
        ("twoway", b"oops", "SUCCESSFUL", {"error": "oops"}),
        ("oneway", b"{}", "DELIVERED", None),
    ],
)
async def test_the_states_a_persistent_call_ends_in(
    tenant: httpx.AsyncClient, device: str, device_id: str, way: str, reply: bytes, status: str, response: Any
) -> None:
    _, sent = await call(tenant, device, f"/api/rpc/{way}/{device_id}", reply, persistent=True)
    record = (await tenant.get(f"/api/rpc/persistent/{sent.json()['rpcId']}")).json()
    assert (record["status"], record["response"]) == (status, response)


async def test_an_unanswered_persistent_call_expires(
    simulator: Simulator, tenant: httpx.AsyncClient, device_id: str
) -> None:
    body = {"method": "m", "params": None, "persistent": True}
    sent = await tenant.post(f"/api/rpc/twoway/{device_id}", json=body)
    record = simulator.world.rpcs.record(sent.json()["rpcId"])
    assert record is not None
    assert record["status"] == "QUEUED"
    refused = await tenant.post(f"/api/rpc/twoway/{device_id}", json={"method": "later"})
    assert refused.status_code == 504
    assert record["status"] == "EXPIRED"


async def test_a_deleted_call_is_not_delivered(
    tenant: httpx.AsyncClient, device: str, device_id: str
) -> None:
    body = {"method": "m", "params": {}, "persistent": True, "timeout": 600_000}
    rpc_id = (await tenant.post(f"/api/rpc/twoway/{device_id}", json=body)).json()["rpcId"]
    assert (await tenant.delete(f"/api/rpc/persistent/{rpc_id}")).status_code == 200
    assert (await tenant.get(f"{device}/rpc", params={"timeout": 100})).status_code == 408


async def test_an_expiry_in_the_past_is_a_timeout(tenant: httpx.AsyncClient, device_id: str) -> None:
    body = {"method": 5, "timeout": "x", "expirationTime": 1}
    assert (await tenant.post(f"/api/rpc/twoway/{device_id}", json=body)).status_code == 504


async def test_a_device_waits_for_shared_attributes(
    tenant: httpx.AsyncClient, device: str, device_id: str
) -> None:
    waiting = asyncio.create_task(tenant.get(f"{device}/attributes/updates", params={"timeout": 600_000}))
    path = f"/api/plugins/telemetry/DEVICE/{device_id}/attributes/SHARED_SCOPE"
    while not waiting.done():
        await tenant.post(path, json={"fw": "2.0"})
    assert (await waiting).json() == {"fw": 2.0}
    silent = await tenant.get(f"{device}/attributes/updates", params={"timeout": 100})
    assert silent.status_code == 408


@pytest.mark.parametrize("route", ["attributes", "attributes/updates", "rpc"])
async def test_an_unknown_device_token_is_refused(tenant: httpx.AsyncClient, route: str) -> None:
    assert (await tenant.get(f"/api/v1/nope/{route}")).status_code == 401


@pytest.mark.parametrize("body", [b"{oops", b'{"a":null}', b"[]"])
async def test_a_device_is_told_of_bad_bodies(tenant: httpx.AsyncClient, device: str, body: bytes) -> None:
    assert (await tenant.post(f"{device}/telemetry", content=body)).status_code == 400
    assert (await tenant.post(f"{device}/attributes", content=body)).status_code == 400


async def test_a_device_that_spoke_is_active(
    simulator: Simulator, tenant: httpx.AsyncClient, device: str, device_id: str
) -> None:
    infos = {"pageSize": 10, "page": 0, "active": "true"}
    assert (await tenant.get("/api/tenant/deviceInfos", params=infos)).json()["totalElements"] == 0
    await tenant.post(f"{device}/telemetry", json={"a": 1})
    await tenant.post(f"{device}/telemetry", json={"a": 2})
    assert (await tenant.get("/api/tenant/deviceInfos", params=infos)).json()["totalElements"] == 1
    simulator.world.attributes._check_inactivity(device_id)
    assert simulator.world.attributes.is_active(device_id)
    simulator.world.settings.inactivity_seconds = 0
    simulator.world.attributes._check_inactivity(device_id)
    assert (await tenant.get("/api/tenant/deviceInfos", params=infos)).json()["totalElements"] == 0


async def make_alarm(client: httpx.AsyncClient, device_id: str, kind: str, severity: str = "MINOR") -> Any:
    originator = {"entityType": "DEVICE", "id": device_id}
    body = {"type": kind, "originator": originator, "severity": severity}
    return (await client.post("/api/alarm", json=body)).json()


async def test_an_active_alarm_is_updated_and_a_cleared_one_is_not(
    tenant: httpx.AsyncClient, device_id: str
) -> None:
    first = await make_alarm(tenant, device_id, "hot")
    assert (await make_alarm(tenant, device_id, "hot", "MAJOR"))["id"] == first["id"]
    path = f"/api/alarm/{first['id']['id']}"
    assert (await tenant.post(f"{path}/clear")).json()["status"] == "CLEARED_UNACK"
    assert (await tenant.post(f"{path}/clear")).json()["message"] == "Alarm was already cleared!"
    assert (await tenant.post(f"{path}/ack")).json()["status"] == "CLEARED_ACK"
    assert (await make_alarm(tenant, device_id, "hot"))["id"] != first["id"]


async def test_the_lists_filter_and_both_ends_of_the_time_count(
    tenant: httpx.AsyncClient, customer: httpx.AsyncClient, device_id: str
) -> None:
    alarm = await make_alarm(tenant, device_id, "hot", "CRITICAL")
    await make_alarm(tenant, device_id, "cold")
    created = alarm["createdTime"]
    page = {"pageSize": 10, "page": 0}
    filters: list[tuple[dict[str, Any], int]] = [
        ({"typeList": "hot,dry"}, 1),
        ({"severityList": ["CRITICAL", "MINOR"]}, 2),
        ({"statusList": "CLEARED"}, 0),
        ({"searchStatus": "ACTIVE"}, 2),
        ({"statusList": "ACTIVE,UNACK"}, 2),
        ({"statusList": ["ACTIVE", "ACK"]}, 0),
        ({"statusList": "ACTIVE,CLEARED"}, 2),
        ({"statusList": "ANY,CLEARED"}, 2),
        ({"status": "ACTIVE_ACK"}, 0),
        ({"typeList": ["hot,dry"] * 2}, 0),
        ({"textSearch": "COL"}, 1),
        ({"typeList": "hot", "startTime": created, "endTime": created}, 1),
        ({"typeList": "hot", "endTime": created - 1}, 0),
        ({"sortProperty": "status"}, 2),
        ({"sortProperty": "originator", "sortOrder": "DESC"}, 2),
    ]
    for query, count in filters:
        listed = await tenant.get(f"/api/v2/alarm/DEVICE/{device_id}", params={**page, **query})
        assert listed.json()["totalElements"] == count, query
    assert (await tenant.get("/api/alarms", params={**page, "sortProperty": "x"})).status_code == 500
    assert (await customer.get("/api/alarms", params=page)).json()["totalElements"] == 0
    assert (await customer.get(f"/api/alarm/{alarm['id']['id']}")).status_code == 403
    query = {"entityFilter": {"type": "deviceType", "deviceTypes": ["default"]}, "pageLink": {"pageSize": 1}}
    assert (await tenant.post("/api/alarmsQuery/find", json=query)).status_code == 500
    found = (await tenant.post("/api/alarmsQuery/find", json={**query, "alarmFields": []})).json()
    assert (found["totalElements"], found["data"][0]["entityId"]["id"]) == (2, device_id)


async def test_an_alarm_stays_its_customer_s_when_the_device_goes_to_another(
    simulator: Simulator, customer: httpx.AsyncClient
) -> None:
    """By the customer that ThingsBoard wrote into it; lists by device go by the device."""
    device = next(e for e in simulator.world.every("DEVICE") if e.name == "Test Device A1")
    alarm = await make_alarm(customer, device.id, "hot")
    device.customer = None
    page = {"pageSize": 10, "page": 0}
    assert (await customer.get("/api/v2/alarms", params=page)).json()["totalElements"] == 1
    assert (await customer.get(f"/api/alarm/{alarm['id']['id']}")).status_code == 200
    assert (await customer.get(f"/api/v2/alarm/DEVICE/{device.id}", params=page)).status_code == 403


async def test_an_alarm_needs_type_severity_and_originator(tenant: httpx.AsyncClient) -> None:
    nobody = {"entityType": "DEVICE", "id": "00000000-0000-0000-0000-000000000007"}
    bodies = ({}, {"type": "x"}, {"type": "x", "severity": "MINOR", "originator": nobody})
    statuses = [(await tenant.post("/api/alarm", json=body)).status_code for body in bodies]
    assert statuses == [400, 400, 404]


async def test_a_device_that_hung_up_is_offline(
    simulator: Simulator, tenant: httpx.AsyncClient, device: str, device_id: str
) -> None:
    line = simulator.world.rpcs._line(device_id)
    poll = asyncio.create_task(tenant.get(f"{device}/rpc", params={"timeout": 60_000_000}))
    while not line.polls:  # noqa: ASYNC110 - turns of the loop, not a wait
        await asyncio.sleep(0)
    poll.cancel()
    while line.polls:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    answer = await tenant.post(f"/api/plugins/rpc/twoway/{device_id}", json={"method": "m"})
    assert answer.status_code == 409
