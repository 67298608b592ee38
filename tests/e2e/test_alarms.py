"""Alarms, from the rule that makes one to the operator who clears it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Made, Upstream

UNKNOWN = "00000000-0000-0000-0000-000000000007"

Raise = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
async def thingsboard(upstream: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ThingsBoard itself, as a tenant administrator: the gateway makes no alarms."""
    async with httpx.AsyncClient(base_url=upstream.url, timeout=60) as client:
        username, password = upstream.tenant
        login = await client.post("/api/auth/login", json={"username": username, "password": password})
        client.headers["X-Authorization"] = f"Bearer {login.json()['token']}"
        yield client


@pytest.fixture
async def raise_alarm(thingsboard: httpx.AsyncClient) -> Raise:
    async def one(device: Made, kind: str, severity: str = "CRITICAL") -> dict[str, Any]:
        originator = {"entityType": "DEVICE", "id": device.id}
        body = {"type": kind, "originator": originator, "severity": severity, "details": {"t": 99}}
        answer = await thingsboard.post("/api/alarm", json=body)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    return one


async def kinds(client: httpx.AsyncClient, path: str, **query: Any) -> list[str]:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return [alarm["type"] for alarm in answer.json()["data"]]


async def test_an_alarm_is_found_acknowledged_and_cleared(
    served: httpx.AsyncClient, make: Any, raise_alarm: Raise
) -> None:
    device = await make()
    alarm = (await raise_alarm(device, "too hot"))["id"]["id"]
    for path in (f"/devices/{device.id}/alarms", f"/devices/name:{device.name}/alarms"):
        listed = (await served.get(path)).json()
        assert [each["id"]["id"] for each in listed["data"]] == [alarm]
        assert listed["pagination"]["total_elements"] == 1
    assert listed["data"][0]["originatorName"] == device.name
    assert listed["data"][0]["details"] == {"t": 99}
    for verb, status in (("ack", "ACTIVE_ACK"), ("clear", "CLEARED_ACK")):
        done = await served.post(f"/alarms/{alarm}/{verb}")
        assert (done.status_code, done.json()["data"]["status"]) == (200, status)
        again = await served.post(f"/alarms/{alarm}/{verb}")
        assert (again.status_code, again.json()["error_code"]) == (409, "CONFLICT")
    read = (await served.get(f"/alarms/{alarm}")).json()["data"]
    assert (read["status"], read["acknowledged"], read["cleared"]) == ("CLEARED_ACK", True, True)


async def test_a_cleared_alarm_can_be_acknowledged(
    served: httpx.AsyncClient, make: Any, raise_alarm: Raise
) -> None:
    alarm = (await raise_alarm(await make(), "too hot"))["id"]["id"]
    assert (await served.post(f"/alarms/{alarm}/clear")).json()["data"]["status"] == "CLEARED_UNACK"
    assert (await served.post(f"/alarms/{alarm}/ack")).json()["data"]["status"] == "CLEARED_ACK"


async def test_lists_filter_by_state_severity_type_and_time(
    served: httpx.AsyncClient, make: Any, raise_alarm: Raise
) -> None:
    device = await make()
    path = f"/devices/{device.id}/alarms"
    commas = f"smoke, or fire {device.name}"
    hot = await raise_alarm(device, f"hot {device.name}")
    await raise_alarm(device, commas, "MINOR")
    await served.post(f"/alarms/{hot['id']['id']}/clear")
    assert await kinds(served, path, sort_order="ASC") == [hot["type"], commas]
    assert await kinds(served, path, status="ACTIVE") == [commas]
    assert await kinds(served, path, status="CLEARED_UNACK") == [hot["type"]]
    assert await kinds(served, path, status="ACK") == []
    assert await kinds(served, path, severity="MINOR,MAJOR") == [commas]
    assert await kinds(served, path, page=1, page_size=1) == [hot["type"]]
    created = hot["createdTime"]
    for where in (path, "/alarms"):
        # Whatever else the tenant has: the types are of this test alone.
        assert await kinds(served, where, type=commas) == [commas]
        assert await kinds(served, where, type=hot["type"], start_ts=created, end_ts=created + 1) == [
            hot["type"]
        ]
        assert await kinds(served, where, type=hot["type"], end_ts=created) == []
        assert await kinds(served, where, type=hot["type"], start_ts=created + 1) == []


@pytest.mark.parametrize(
    "field", ["created_time", "start_ts", "end_ts", "ack_ts", "clear_ts", "type", "severity", "status"]
)
async def test_thingsboard_sorts_by_every_field(
    served: httpx.AsyncClient, make: Any, raise_alarm: Raise, field: str
) -> None:
    device = await make()
    for kind, severity in (("a", "MINOR"), ("b", "CRITICAL")):
        await raise_alarm(device, kind, severity)
    for order in ("ASC", "DESC"):
        query = {"sort_by": field, "sort_order": order}
        assert sorted(await kinds(served, f"/devices/{device.id}/alarms", **query)) == ["a", "b"]
        assert (await served.get("/alarms", params=query)).status_code == 200


async def test_what_is_missing_is_a_404(served: httpx.AsyncClient, make: Any) -> None:
    assert await kinds(served, f"/devices/{(await make()).id}/alarms") == []
    for method, path in (
        ("GET", f"/devices/{UNKNOWN}/alarms"),
        ("GET", f"/alarms/{UNKNOWN}"),
        ("POST", f"/alarms/{UNKNOWN}/ack"),
        ("POST", f"/alarms/{UNKNOWN}/clear"),
    ):
        assert (await served.request(method, path)).status_code == 404


async def test_a_customer_user_gets_no_alarm_of_another_s_device(
    served: httpx.AsyncClient, served_customer: httpx.AsyncClient, make: Any, raise_alarm: Raise
) -> None:
    device = await make()
    alarm = await raise_alarm(device, f"hidden {device.name}")
    identifier = alarm["id"]["id"]
    for method, path in (
        ("GET", f"/devices/{device.id}/alarms"),
        ("GET", f"/alarms/{identifier}"),
        ("POST", f"/alarms/{identifier}/ack"),
        ("POST", f"/alarms/{identifier}/clear"),
    ):
        assert (await served_customer.request(method, path)).status_code == 404
    assert await kinds(served_customer, "/alarms", type=alarm["type"]) == []
    assert (await served.get(f"/alarms/{identifier}")).json()["data"]["status"] == "ACTIVE_UNACK"
