"""The simulator as the other tests use it."""

import httpx

from tb_simulator.server import Simulator


async def test_it_serves_its_demo_tenant_over_a_socket() -> None:
    async with Simulator() as simulator, httpx.AsyncClient(base_url=simulator.url) as client:
        login = {"username": "tenant@thingsboard.org", "password": "tenant"}
        token = (await client.post("/api/auth/login", json=login)).json()["token"]
        client.headers["X-Authorization"] = f"Bearer {token}"
        devices = (await client.get("/api/tenant/devices", params={"pageSize": 100, "page": 0})).json()
        assert devices["totalElements"] == 9
        assert simulator.calls["GET /api/tenant/devices"] == 1
