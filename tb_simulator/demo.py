"""Sample devices for the demo: rooms with a past that keep sending and answer ``setLight``, one offline."""

import asyncio
import math
import random
from types import TracebackType
from typing import Any, Self

import orjson

from tb_simulator.attribute_store import SERVER
from tb_simulator.makers import make_asset, make_device
from tb_simulator.relation_store import RelationKey
from tb_simulator.timeseries import Point
from tb_simulator.world import Entity, World

ROOMS = ("Living room", "Kitchen", "Bedroom", "Office")
#: On the labels of their devices: whoever knows it may claim the device (`examples/smart_home`).
CLAIM_CODES = ("LIVE-4821", "COOK-7305", "REST-1946", "WORK-5512")
#: A room whose device went silent an hour ago, with its code.
SILENT_ROOM, SILENT_CODE = "Garage", "PARK-3380"
ROOM_TYPE = "smart-room"
_SILENT_TOKEN = "DEMO_SILENT_ROOM"  # noqa: S105 - of a device of ours
_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000
_STEP_MS = 60_000
_POLL_MS = 60_000


class SampleDevices:
    """The sample devices, alive for the time of an ``async with``."""

    def __init__(self, world: World, *, every_seconds: float = 2.0) -> None:
        self._world, self._every = world, every_seconds
        self._random = random.Random(7)
        self._tasks: list[asyncio.Task[None]] = []
        self._lights: dict[str, bool] = {}
        self.devices: list[Entity] = []

    async def __aenter__(self) -> Self:
        tenant = next(self._world.every("TENANT")).id
        building = make_asset(self._world, tenant, "Demo Building", kind="building")
        for number, (room, code) in enumerate(zip(ROOMS, CLAIM_CODES, strict=True)):
            device = self._make_room(tenant, room, code, token=f"DEMO_ROOM_{number + 1}")
            key = RelationKey(("ASSET", building.id), ("DEVICE", device.id), "Contains", "COMMON")
            self._world.relations.save(key)
            self._load_past(device, self._world.now())
            self.devices.append(device)
            self._tasks.append(asyncio.create_task(self._send(device)))
            self._tasks.append(asyncio.create_task(self._obey(device)))
        silent = self._make_room(tenant, SILENT_ROOM, SILENT_CODE, token=_SILENT_TOKEN)
        self._load_past(silent, self._world.now() - _HOUR_MS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _make_room(self, tenant: str, room: str, code: str, *, token: str) -> Entity:
        device = make_device(
            self._world, tenant, f"Demo {room}", kind=ROOM_TYPE, more={"label": room}, token=token
        )
        self._world.attributes.save(device.id, SERVER, {"claim_code": code})
        return device

    def _load_past(self, device: Entity, until: int) -> None:
        times = range(until - _DAY_MS, until, _STEP_MS)
        for key in ("temperature", "humidity"):
            self._world.telemetry.load(device.id, key, times, (self._reading(ts)[key] for ts in times))
        self._world.telemetry.save(device.id, [Point("light", until, False)])

    def _reading(self, ts: int) -> dict[str, float]:
        day = math.sin(2 * math.pi * (ts % _DAY_MS) / _DAY_MS)
        return {
            "temperature": round(21 + 3 * day + self._random.uniform(-0.3, 0.3), 2),
            "humidity": round(45 - 8 * day + self._random.uniform(-1, 1), 1),
        }

    async def _send(self, device: Entity) -> None:
        while True:
            now = self._world.now()
            self._world.attributes.device_spoke(device.id)
            readings = self._reading(now) | {"light": self._lights.get(device.id, False)}
            self._world.telemetry.save(device.id, [Point(key, now, value) for key, value in readings.items()])
            await asyncio.sleep(self._every)

    async def _obey(self, device: Entity) -> None:
        while True:
            rpc = await self._world.rpcs.poll(device.id, _POLL_MS)
            if rpc is None:
                continue
            reply = self._carry_out(device, rpc.method, rpc.params)
            self._world.rpcs.answer(device.id, rpc.number, orjson.dumps(reply))

    def _carry_out(self, device: Entity, method: str, params: Any) -> Any:
        if method != "setLight" or not isinstance(params, dict):
            return {"error": f"unknown method {method}"}
        is_on = self._lights[device.id] = bool(params.get("on"))
        self._world.telemetry.save(device.id, [Point("light", self._world.now(), is_on)])
        return {"on": is_on}
