"""From the start to the first served request, and what an idle worker holds in memory with its supervisor."""

import time

from benchmarks.bench import Bench
from benchmarks.figures import Result
from benchmarks.processes import MIB

IDLE_SECONDS = 1.0


def measure(bench: Bench) -> list[Result]:
    """Measure several starts and keep the best."""
    stub = bench.start_stub()
    seconds, memory = [], []
    for _ in range(bench.extent.starts):
        started = time.perf_counter()
        gateway = bench.start_gateway(stub, ready_path="/health/ready")
        seconds.append(time.perf_counter() - started)
        time.sleep(IDLE_SECONDS)
        memory.append(gateway.memory_held() / MIB)
        bench.children.stop(gateway)
    return [
        Result.at_most("start to ready", 2, min(seconds), "s"),
        Result.at_most("idle memory of a worker", 100, max(memory), "MiB"),
    ]
