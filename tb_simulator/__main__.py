"""``python -m tb_simulator --host 127.0.0.1 --port 8080 [--demo-data]``."""

import argparse
import asyncio
import contextlib
import signal
import sys

import uvloop

from tb_simulator.demo import SampleDevices
from tb_simulator.server import Simulator
from tb_simulator.world import Settings


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tb_simulator", description="ThingsBoard in memory, on loopback.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9090)
    parser.add_argument("--demo-data", action="store_true", help="add sample devices that keep sending")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    simulator = Simulator(Settings(), host=arguments.host, port=arguments.port)
    async with simulator, contextlib.AsyncExitStack() as stack:
        if arguments.demo_data:
            await stack.enter_async_context(SampleDevices(simulator.world))
        sys.stdout.write(f"ThingsBoard simulator on {simulator.url}\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """Run until a signal ends it."""
    uvloop.run(_serve(_arguments()))


if __name__ == "__main__":
    main()
