"""What stands behind a page while its samples run: `scripts/demo`, unless the page needs something else."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from app.factory import create_app
from tb_simulator.demo import SampleDevices
from tb_simulator.server import Simulator
from tests.alarm_world import raise_alarm
from tests.conftest import SettingsFactory
from tests.serving import serve

DEMO_KEY = "demo-key-0123456789abcdef"


@dataclass
class Theatre:
    """What stages are built from."""

    simulator: Simulator
    make_settings: SettingsFactory
    folder: Path

    @asynccontextmanager
    async def demo(
        self, made: Callable[[FastAPI], None] = lambda _: None, **settings: Any
    ) -> AsyncIterator[str]:
        """The gateway as `scripts/demo` starts it; settings may be changed, and `made` is told of it."""
        settings = {"api_key": DEMO_KEY, "rate_limit_requests": 100, **settings}
        app = create_app(self.make_settings(**settings))
        made(app)
        async with SampleDevices(self.simulator.world, every_seconds=0.1), serve(app) as url:
            yield url

    def keys_file(self, scopes: list[str]) -> Path:
        """A key file in which the demo's key may do only this."""
        path = self.folder / "stage-keys.toml"
        digest = hashlib.sha256(DEMO_KEY.encode()).hexdigest()
        path.write_text(f'[[keys]]\nname = "Demo"\nid = "demo"\nscopes = {scopes}\nsha256 = "{digest}"\n')
        return path


Stage = Callable[[Theatre], AbstractAsyncContextManager[str]]


def reading_key(theatre: Theatre) -> AbstractAsyncContextManager[str]:
    """The key may read devices and nothing else."""
    return theatre.demo(api_key=None, api_keys_file=theatre.keys_file(["devices:read"]))


@asynccontextmanager
async def with_an_alarm(theatre: Theatre) -> AsyncIterator[str]:
    """A device has an active alarm."""
    async with theatre.demo() as url:
        world = theatre.simulator.world
        kitchen = next(each for each in world.every("DEVICE") if each.name == "Demo Kitchen")
        raise_alarm(theatre.simulator, kitchen.id)
        yield url


@asynccontextmanager
async def crowded(theatre: Theatre) -> AsyncIterator[str]:
    """All places at ThingsBoard are taken, and nothing may wait."""
    faults = theatre.simulator.faults
    faults.latency(60, path="/api/device/types")
    async with theatre.demo(tb_max_connections=1, tb_queue_seconds=0) as url, httpx.AsyncClient() as client:

        async def take_the_place() -> None:
            # Until the gateway has logged in, the place is its own.
            while not faults.struck:
                await client.get(f"{url}/api/v1/tb/device-types", headers={"X-API-Key": DEMO_KEY}, timeout=60)

        taking = asyncio.create_task(take_the_place())
        async with asyncio.timeout(30):
            while not faults.struck:  # noqa: ASYNC110 - the simulator only counts
                await asyncio.sleep(0.01)
        yield url
        taking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await taking


@asynccontextmanager
async def with_a_bug(theatre: Theatre) -> AsyncIterator[str]:
    """The gateway has lost its clients of ThingsBoard, as only a bug could do."""
    made: list[FastAPI] = []
    async with theatre.demo(made.append) as url:
        state = made[0].state
        upstreams, state.upstreams = state.upstreams, {}
        yield url
        state.upstreams = upstreams


def limited(theatre: Theatre) -> AbstractAsyncContextManager[str]:
    """An address may make two requests a minute."""
    return theatre.demo(rate_limit="2/minute", rate_limit_requests=None)


def limited_by_thingsboard(theatre: Theatre) -> AbstractAsyncContextManager[str]:
    """ThingsBoard's own rate limit is used up, and nothing may wait."""
    theatre.simulator.faults.status(429, path="/api/tenant/deviceInfos")
    return theatre.demo(tb_queue_seconds=0)


def failing(theatre: Theatre) -> AbstractAsyncContextManager[str]:
    """ThingsBoard answers with a server error."""
    theatre.simulator.faults.status(500, path="/api/tenant/deviceInfos")
    return theatre.demo()


def away(theatre: Theatre) -> AbstractAsyncContextManager[str]:
    """ThingsBoard is not there: nobody listens on the discard port."""
    return theatre.demo(tb_host="http://127.0.0.1:9")


def silent(theatre: Theatre) -> AbstractAsyncContextManager[str]:
    """ThingsBoard takes its time."""
    theatre.simulator.faults.latency(60, path="/api/tenant/deviceInfos")
    return theatre.demo(tb_timeout_seconds=0.1)


#: Pages that need something else than the demo.
STAGES: dict[str, Stage] = {
    "docs/alarms.md": with_an_alarm,
    "docs/fair-share.md": limited_by_thingsboard,
    "docs/rate-limits.md": limited,
    "docs/errors/rate-limit-exceeded.md": limited,
    "docs/errors/authorization-failed.md": reading_key,
    "docs/errors/overloaded.md": crowded,
    "docs/errors/internal-error.md": with_a_bug,
    "docs/errors/upstream-error.md": failing,
    "docs/errors/upstream-unavailable.md": away,
    "docs/errors/upstream-timeout.md": silent,
}
