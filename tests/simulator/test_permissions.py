"""Who may do what, the holes included."""

import httpx
import pytest

from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tests.simulator.conftest import LogIn

RANGE = {"keys": "t", "startTs": 0, "endTs": 10}


def telemetry(entity_id: str, kind: str = "DEVICE") -> str:
    return f"/api/plugins/telemetry/{kind}/{entity_id}"


@pytest.mark.parametrize("user", ["tenant", "customer", "sysadmin"])
async def test_history_is_open_to_any_login_of_any_tenant(
    simulator: Simulator, log_in: LogIn, foreign_id: str, user: str
) -> None:
    simulator.world.telemetry.save(foreign_id, [Point("t", 5, 21.5)])
    client = await log_in(user, user)
    for kind in ("DEVICE", "ASSET", "CUSTOMER"):
        answer = await client.get(f"{telemetry(foreign_id, kind)}/values/timeseries", params=RANGE)
        assert answer.json() == {"t": [{"ts": 5, "value": "21.5"}]}


async def test_keys_and_latest_are_checked(
    tenant: httpx.AsyncClient, customer: httpx.AsyncClient, device_id: str, foreign_id: str
) -> None:
    for path in ("keys/timeseries", "values/timeseries"):
        assert (await customer.get(f"{telemetry(device_id)}/{path}")).status_code == 403
        assert (await tenant.get(f"{telemetry(foreign_id)}/{path}")).status_code == 404


async def test_another_tenants_device_does_not_exist(tenant: httpx.AsyncClient, foreign_id: str) -> None:
    assert (await tenant.get(f"/api/device/{foreign_id}")).status_code == 404


async def test_a_system_administrator_sees_no_devices(log_in: LogIn, device_id: str) -> None:
    client = await log_in("sysadmin", "sysadmin")
    assert (await client.get("/api/auth/user")).json()["authority"] == "SYS_ADMIN"
    assert (await client.get(f"/api/device/{device_id}")).status_code == 403
    assert (await client.get(f"{telemetry(device_id)}/keys/timeseries")).status_code == 403


async def test_customers_write_nothing_that_is_the_tenants(
    customer: httpx.AsyncClient, device_id: str
) -> None:
    assert (await customer.post("/api/device", json={"name": "x"})).status_code == 403
    assert (await customer.delete(f"/api/device/{device_id}")).status_code == 403
    assert (await customer.get("/api/customers?pageSize=1&page=0")).status_code == 403


async def test_persistent_rpcs_are_read_by_any_login_of_the_tenant(
    simulator: Simulator, tenant: httpx.AsyncClient, customer: httpx.AsyncClient, device_id: str
) -> None:
    body = {"method": "x", "params": {}, "persistent": True}
    rpc_id = (await tenant.post(f"/api/rpc/twoway/{device_id}", json=body)).json()["rpcId"]
    assert (await customer.get(f"/api/rpc/persistent/{rpc_id}")).status_code == 200
    assert (await customer.delete(f"/api/rpc/persistent/{rpc_id}")).status_code == 403
    listed = await customer.get(f"/api/rpc/persistent/device/{device_id}?pageSize=1&page=0")
    assert listed.status_code == 403


async def test_a_token_without_bearer_is_sent_to_the_login_page(tenant: httpx.AsyncClient) -> None:
    token = tenant.headers["X-Authorization"].removeprefix("Bearer ")
    answer = await tenant.get("/api/auth/user", headers={"X-Authorization": token})
    assert (answer.status_code, answer.content) == (302, b"")


async def test_a_logged_out_token_is_an_expired_one(tenant: httpx.AsyncClient) -> None:
    assert (await tenant.post("/api/auth/logout")).status_code == 200
    assert (await tenant.get("/api/auth/user")).json()["errorCode"] == 11


async def test_a_tenant_administrator_gets_a_users_token(
    tenant: httpx.AsyncClient, customer: httpx.AsyncClient
) -> None:
    user = (await customer.get("/api/auth/user")).json()["id"]["id"]
    token = (await tenant.get(f"/api/user/{user}/token")).json()["token"]
    answer = await tenant.get("/api/auth/user", headers={"X-Authorization": f"Bearer {token}"})
    assert answer.json()["authority"] == "CUSTOMER_USER"
    assert (await customer.get(f"/api/user/{user}/token")).status_code == 403


async def test_customers_see_only_relations_to_what_is_theirs(
    simulator: Simulator, tenant: httpx.AsyncClient, customer: httpx.AsyncClient, device_id: str
) -> None:
    own = next(e.id for e in simulator.world.every("DEVICE") if e.name == "Test Device A1")
    ends = {"from": {"id": own, "entityType": "DEVICE"}, "to": {"id": device_id, "entityType": "DEVICE"}}
    assert (await tenant.post("/api/relation", json={**ends, "type": "Knows"})).status_code == 200
    path = f"/api/relations/info/from/DEVICE/{own}"
    assert len((await tenant.get(path)).json()) == 1
    assert (await customer.get(path)).json() == []


async def test_users_and_tenants_are_read_within_the_tenant(
    simulator: Simulator, tenant: httpx.AsyncClient, customer: httpx.AsyncClient
) -> None:
    users = {user.name: user for user in simulator.world.every("USER")}
    own, other = users["tenant@thingsboard.org"], users["second@thingsboard.org"]
    assert (await tenant.get(f"/api/user/{own.id}")).json()["email"] == own.name
    assert (await tenant.get(f"/api/user/{other.id}")).status_code == 404
    assert (await tenant.get(f"/api/user/{other.id}/token")).status_code == 404
    assert (await customer.get(f"/api/user/{own.id}")).status_code == 403
    assert (await tenant.get(f"/api/tenant/{own.tenant}")).json()["title"] == "Tenant"
    assert (await tenant.get(f"/api/tenant/{other.tenant}")).status_code == 403


async def test_an_expired_api_key_and_one_for_a_stranger_are_refused(
    simulator: Simulator, tenant: httpx.AsyncClient
) -> None:
    stranger = next(u for u in simulator.world.every("USER") if u.name == "second@thingsboard.org")
    body = {"description": "x", "userId": {"entityType": "USER", "id": stranger.id}}
    assert (await tenant.post("/api/apiKey", json=body)).status_code == 403
    assert (await tenant.post("/api/apiKey", json={})).status_code == 400
    expired = (await tenant.post("/api/apiKey", json={"description": "x", "expirationTime": 1})).json()
    answer = await tenant.get("/api/auth/user", headers={"X-Authorization": f"ApiKey {expired['value']}"})
    assert answer.status_code == 401
    unknown = "/api/apiKey/00000000-0000-0000-0000-000000000007"
    assert (await tenant.delete(unknown)).status_code == 404
