"""The ways to run the simulator: on a socket, as an ASGI application, from the command line, with samples."""

import asyncio
import sys

import httpx

from tb_simulator.demo import ROOMS, SampleDevices
from tb_simulator.server import Simulator
from tb_simulator.world import Settings

LOGIN = {"username": "tenant@thingsboard.org", "password": "tenant"}


async def test_it_is_a_plain_asgi_application_too() -> None:
    transport = httpx.ASGITransport(app=Simulator().asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://thingsboard") as client:
        token = (await client.post("/api/auth/login", json=LOGIN)).json()["token"]
        headers = {"X-Authorization": f"Bearer {token}"}
        assert (await client.get("/api/auth/user", headers=headers)).json()["authority"] == "TENANT_ADMIN"


async def test_it_can_start_without_demo_data() -> None:
    async with Simulator(Settings(demo_data=False)) as simulator, httpx.AsyncClient() as client:
        answer = await client.post(f"{simulator.url}/api/auth/login", json=LOGIN)
        assert answer.status_code == 401


async def test_the_sample_devices_have_a_past_keep_sending_and_obey() -> None:
    async with Simulator(Settings(active_lag_seconds=0.0)) as simulator:
        async with SampleDevices(simulator.world, every_seconds=0.0) as samples:
            assert [device.body["label"] for device in samples.devices] == list(ROOMS)
            device = samples.devices[0]
            series = simulator.world.telemetry.series(device.id, "temperature")
            assert series is not None
            assert len(series.ts) >= 1440
            async with httpx.AsyncClient(base_url=simulator.url) as client:
                token = (await client.post("/api/auth/login", json=LOGIN)).json()["token"]
                call = {"method": "setLight", "params": {"on": True}}
                headers = {"X-Authorization": f"Bearer {token}"}
                answer = await client.post(f"/api/rpc/twoway/{device.id}", json=call, headers=headers)
                assert answer.json() == {"on": True}
        assert simulator.world.telemetry.latest(device.id)["light"][1] is True
        assert simulator.world.attributes.is_active(device.id)


async def test_the_command_line_says_where_it_listens_and_ends_on_a_signal() -> None:
    command = ("-m", "tb_simulator", "--port", "0", "--demo-data")
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    url = line.split()[-1]
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/api/system/info")).json()["type"] == "CE"
    process.terminate()
    assert await process.wait() == 0
