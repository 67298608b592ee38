"""What one cell of the matrix needs: a ThingsBoard, the proxy before it, a gateway, a device, a caller."""

import asyncio
import contextlib
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from app.factory import create_app
from app.settings import Settings
from benchmarks.faults.proxy import HOST, TcpProxy
from tb_simulator.makers import make_device
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tb_simulator.world import Settings as WorldSettings
from tb_simulator.world import system_now_ms
from tests.serving import serve

KEY = "fault-matrix-key-0123456789"
#: The gateway's own defaults are 35 s and 10 s; what takes as long here is what is limited by them.
TIMEOUT_SECONDS, QUEUE_SECONDS = 5.0, 1.0
USER, PASSWORD = "tenant@thingsboard.org", "tenant"
#: How many devices a bulk upload names.
BULK_DEVICES = 8
#: When the histories begin, in ms; a point a second.
FIRST_MS, STEP_MS = 1_700_000_000_000, 1_000
#: An export of some pages, and one of six megabytes, where the kernel's buffers hold four at most.
EXPORTED, LONG_EXPORTED = 25_000, 250_000
#: Nothing here speaks TLS, and the usual context takes 50 ms to read the certificates.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
RECEIVE_BUFFER = 1 << 16
#: Longer than the caller keeps idle connections, for nothing here is to break on the caller's side.
IDLE_SECONDS = 60


class Clock:
    """ThingsBoard's wall clock, which may be wrong."""

    def __init__(self) -> None:
        self.skew_ms = 0

    def __call__(self) -> int:
        """Return milliseconds since the epoch."""
        return system_now_ms() + self.skew_ms


@dataclass
class Site:
    """One ThingsBoard with the gateway before it, for one kind of request."""

    simulator: Simulator
    proxy: TcpProxy
    clock: Clock
    app: FastAPI
    client: httpx.AsyncClient
    devices: list[str]
    keys_file: Path

    @property
    def device(self) -> str:
        """The device that most requests are about."""
        return self.devices[0]

    def stored(self, device: str, key: str) -> dict[int, Any]:
        """Return the points that ThingsBoard holds, by time."""
        series = self.simulator.world.telemetry.series(device, key)
        return dict(zip(series.ts, series.values, strict=True)) if series else {}


def keys_document() -> str:
    """Return the content of a key file with the one key."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    return f'[[keys]]\nname = "matrix"\nid = "matrix"\nscopes = ["*"]\nsha256 = "{digest}"\n'


@contextlib.asynccontextmanager
async def open_site(
    folder: Path, *, host: str = HOST, redis_url: str | None = None, has_long_history: bool = False
) -> AsyncIterator[Site]:
    """Serve a gateway with a world of its own.

    Args:
        has_long_history: whether there is one that no buffers hold.
        host: the name under which the gateway knows ThingsBoard.
    """
    clock = Clock()
    async with contextlib.AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(
            Simulator(WorldSettings(active_lag_seconds=0.0, now_ms=clock))
        )
        devices = fill(simulator, {"long": LONG_EXPORTED} if has_long_history else {})
        proxy = await stack.enter_async_context(TcpProxy(simulator.port))
        keys_file = folder / f"keys-{proxy.port}.toml"
        keys_file.write_text(keys_document(), "utf-8")
        settings: dict[str, Any] = {
            "tb_host": f"http://{host}:{proxy.port}",
            "tb_username": USER,
            "tb_password": PASSWORD,
            "tb_timeout_seconds": TIMEOUT_SECONDS,
            "tb_queue_seconds": QUEUE_SECONDS,
            "api_keys_file": keys_file,
            "redis_url": redis_url,
            "rate_limit_requests": 1_000_000,
        }
        given = {name: value for name, value in settings.items() if value is not None}
        app = create_app(Settings(_env_file=None, **given))
        url = await stack.enter_async_context(serve(app, timeout_keep_alive=IDLE_SECONDS))
        live = app.state.upstreams["default"].client.live
        # So that nothing of it is left when what is left is counted.
        live.idle_seconds = 0.2
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"{url}/api/v1/tb",
                headers={"X-API-Key": KEY, "Accept-Encoding": "identity"},
                timeout=90,
                # What an export has sent is not to lie in buffers.
                transport=httpx.AsyncHTTPTransport(
                    verify=NO_TLS, socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)]
                ),
            )
        )
        await stack.enter_async_context(obeying_device(simulator, devices[0]))
        yield Site(simulator, proxy, clock, app, client, devices, keys_file)


def fill(simulator: Simulator, more: dict[str, int]) -> list[str]:
    """Make the devices and their histories; return the ids.

    Args:
        more: points of further keys.
    """
    world = simulator.world
    tenant = next(world.every("TENANT")).id
    devices = [make_device(world, tenant, f"Matrix {number}").id for number in range(BULK_DEVICES)]
    for key, count in ({"exported": EXPORTED} | more).items():
        times = range(FIRST_MS, FIRST_MS + count * STEP_MS, STEP_MS)
        world.telemetry.load(devices[0], key, times, range(count))
    world.telemetry.save(devices[0], [Point("reading", FIRST_MS, 21.5)])
    return devices


@contextlib.asynccontextmanager
async def obeying_device(simulator: Simulator, device: str) -> AsyncIterator[None]:
    """Run a device that answers every command; it is no user of the proxy."""
    token = simulator.world.credentials[device]["credentialsId"]

    async def obey(client: httpx.AsyncClient) -> None:
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.get("/rpc", params={"timeout": 60_000})
                if answer.status_code == httpx.codes.OK:
                    await client.post(f"/rpc/{answer.json()['id']}", content=b'{"done":true}')
                    continue
            # ThingsBoard is away, or has a fault of its own.
            await asyncio.sleep(0.05)

    base = f"{simulator.url}/api/v1/{token}"
    async with httpx.AsyncClient(base_url=base, verify=NO_TLS, timeout=None, trust_env=False) as client:  # noqa: S113 - long polls
        obeying = asyncio.create_task(obey(client))
        try:
            yield
        finally:
            obeying.cancel()
            await asyncio.gather(obeying, return_exceptions=True)
