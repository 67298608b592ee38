"""The ThingsBoard simulator with a world made beforehand.

`python -m benchmarks.filled_simulator PORT DEVICES POINTS FILE`. The ids of the devices go to the file as a
JSON list; the first device has the points. All devices hang below the asset `Benchmark`, so that there is a
graph of them.
"""

import asyncio
import signal
import sys
from pathlib import Path

import orjson
import uvloop

from benchmarks.processes import HOST
from tb_simulator.makers import make_asset, make_device
from tb_simulator.relation_store import RelationKey
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tb_simulator.world import World

KEY = "temperature"
FIRST_MS = 1_700_000_000_000
STEP_MS = 1_000
#: Devices that have relations and a latest value; the others only exist.
RELATED = 499


def fill(world: World, devices: int, points: int) -> list[str]:
    """Make the world; returns the ids: the asset's first, then the devices'."""
    tenant = next(world.every("TENANT")).id
    root = make_asset(world, tenant, "Benchmark")
    ids = [make_device(world, tenant, f"Benchmark {number}").id for number in range(devices)]
    for identifier in ids[:RELATED]:
        world.relations.save(RelationKey(("ASSET", root.id), ("DEVICE", identifier), "Contains", "COMMON"))
        world.telemetry.save(identifier, [Point(KEY, FIRST_MS, 21.5)])
    times = range(FIRST_MS, FIRST_MS + points * STEP_MS, STEP_MS)
    world.telemetry.load(ids[0], KEY, times, (20 + (number * 7919 % 1000) / 100 for number in range(points)))
    return [root.id, *ids]


async def serve(simulator: Simulator) -> None:
    """Serve until a signal comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with simulator:
        await stop.wait()


def main() -> None:
    """Make the world, write its ids, serve."""
    port, devices, points = (int(argument) for argument in sys.argv[1:4])
    simulator = Simulator(host=HOST, port=port)
    Path(sys.argv[4]).write_bytes(orjson.dumps(fill(simulator.world, devices, points)))
    uvloop.run(serve(simulator))


if __name__ == "__main__":
    main()
