"""The ThingsBoard of `scripts/run_adversarial.py`: the simulator, in a hurry, with a device that obeys.

`python -m scripts.adversarial_thingsboard PORT FILE`. The ids of what the examples name go to the file as a
JSON object.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks.filled_simulator import serve
from benchmarks.processes import HOST
from tb_simulator.alarms import raise_alarm
from tb_simulator.makers import make_asset, make_device
from tb_simulator.relation_store import RelationKey
from tb_simulator.rpc_store import Rpc
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tb_simulator.world import Settings, World

NAME = "Adversarial"
#: Of what ThingsBoard waits for a device: 5 s are 50 ms here.
TIME_SCALE = 0.01
POLL_MS = 3_600_000
LIGHT = "light"


def fill(world: World) -> dict[str, str]:
    """Make a device in an asset, with points and an alarm; return the ids by kind."""
    tenant = next(world.every("TENANT")).id
    device, asset = make_device(world, tenant, NAME), make_asset(world, tenant, NAME)
    world.relations.save(RelationKey(("ASSET", asset.id), ("DEVICE", device.id), "Contains", "COMMON"))
    for entity in (device, asset):
        world.telemetry.save(entity.id, [Point("temperature", world.now(), 21.5)])
    alarm = raise_alarm(world, device, {"type": "Hot", "severity": "MAJOR"})
    return {"device": device.id, "asset": asset.id, "alarm": alarm["id"]["id"]}


async def obey(world: World, device_id: str) -> None:
    """Do as told; a method whose name is none is taken and never answered."""
    while True:
        world.attributes.device_spoke(device_id)
        rpc = await world.rpcs.poll(device_id, POLL_MS)
        if rpc is not None and rpc.method.isidentifier():
            world.rpcs.answer(device_id, rpc.number, orjson.dumps(carried_out(world, rpc)))


def carried_out(world: World, rpc: Rpc) -> Any:
    """Switch the light, or return what was sent."""
    if rpc.method == "setLight" and isinstance(rpc.params, dict):
        world.telemetry.save(rpc.device_id, [Point(LIGHT, world.now(), bool(rpc.params.get("on")))])
    return rpc.params


async def run(simulator: Simulator, device_id: str) -> None:
    """Serve until a signal comes."""
    async with asyncio.TaskGroup() as group:
        obeying = group.create_task(obey(simulator.world, device_id))
        await serve(simulator)
        obeying.cancel()


def main() -> None:
    """Make the world, write its ids, serve."""
    simulator = Simulator(Settings(time_scale=TIME_SCALE), host=HOST, port=int(sys.argv[1]))
    objects = fill(simulator.world)
    Path(sys.argv[2]).write_bytes(orjson.dumps(objects))
    uvloop.run(run(simulator, objects["device"]))


if __name__ == "__main__":
    main()
