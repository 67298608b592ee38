"""The ThingsBoard of the chaos run: the simulator with devices that obey.

`python -m benchmarks.chaos.thingsboard PORT FILE`. The ids of the devices go to the file as a JSON list. A
restart through `/__simulator/restart` cuts all connections and keeps the world, as a ThingsBoard with a
database does.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson
import uvloop

from benchmarks.chaos.truth import ARCHIVE, ARCHIVE_POINTS, DELIVERED, DEVICES, FIRST_MS, STEP_MS, value_of
from benchmarks.filled_simulator import serve
from benchmarks.processes import HOST
from tb_simulator.makers import make_device
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tb_simulator.world import World

NAME = "Chaos {:02}"
POLL_MS = 60_000
#: How long a device takes for a command: it has been delivered and is not answered when things break.
OBEY_SECONDS = 1.0


def fill(world: World) -> list[str]:
    """Make the devices, the first with an archive; returns their ids."""
    tenant = next(world.every("TENANT")).id
    ids = [make_device(world, tenant, NAME.format(number)).id for number in range(DEVICES)]
    times = range(FIRST_MS, FIRST_MS + ARCHIVE_POINTS * STEP_MS, STEP_MS)
    world.telemetry.load(ids[0], ARCHIVE, times, (value_of(0, ARCHIVE, ts) for ts in times))
    return ids


async def obey(world: World, device: int, device_id: str) -> None:
    """Answer each command with its own parameters, and keep as telemetry how often each one came."""
    came: Counter[int] = Counter()
    while True:
        world.attributes.device_spoke(device_id)
        rpc = await world.rpcs.poll(device_id, POLL_MS)
        if rpc is None:
            continue
        number = rpc.params["number"]
        came[number] += 1
        world.telemetry.save(device_id, [Point(DELIVERED, FIRST_MS + number * STEP_MS, came[number])])
        await asyncio.sleep(OBEY_SECONDS)
        world.rpcs.answer(device_id, rpc.number, orjson.dumps({"number": number, "device": device}))


async def run(simulator: Simulator, ids: Sequence[str]) -> None:
    """Serve until a signal comes."""
    obeying = [
        asyncio.create_task(obey(simulator.world, device, device_id)) for device, device_id in enumerate(ids)
    ]
    await serve(simulator)
    for task in obeying:
        task.cancel()
    await asyncio.gather(*obeying, return_exceptions=True)


def main() -> None:
    """Make the world, write its ids, serve."""
    simulator = Simulator(host=HOST, port=int(sys.argv[1]))
    ids = fill(simulator.world)
    Path(sys.argv[2]).write_bytes(orjson.dumps(ids))
    uvloop.run(run(simulator, ids))


if __name__ == "__main__":
    main()
