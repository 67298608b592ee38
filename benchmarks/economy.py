"""How many ThingsBoard calls are made: shared reads, graphs, many devices. Counted by the simulator."""

import time
from concurrent.futures import ThreadPoolExecutor

import orjson

from benchmarks.bench import CALLER, Bench
from benchmarks.bulk import start_simulator
from benchmarks.figures import Result
from benchmarks.filled_simulator import FIRST_MS, KEY, RELATED
from benchmarks.processes import BenchmarkFailed, Child, fetch

READERS = 32
DEVICES = 500
READ_SECONDS = 0.5
FAULTS = "/__simulator/faults"
CALLS = "/__simulator/calls"


def measure(bench: Bench) -> list[Result]:
    """Count calls."""
    simulator, (root, *ids) = start_simulator(bench, devices=DEVICES)
    gateway = bench.start_gateway(simulator)
    latest = f"/api/v1/tb/devices/{ids[0]}/telemetry/latest?keys={KEY}"
    _ask(gateway, latest)
    return [
        *_shared(simulator, gateway, ids[0], latest),
        _graph(simulator, gateway, root),
        _inferred(simulator, gateway, ids),
    ]


def _shared(simulator: Child, gateway: Child, device: str, latest: str) -> list[Result]:
    slow_reads = {"kind": "latency", "method": "GET", "path": "values/timeseries", "seconds": READ_SECONDS}
    fetch(simulator.port, FAULTS, {}, method="POST", body=orjson.dumps(slow_reads))
    fetch(simulator.port, CALLS, {}, method="DELETE")
    with ThreadPoolExecutor(READERS) as readers:
        for reading in [readers.submit(_ask, gateway, latest) for _ in range(READERS)]:
            reading.result()
    shared = _reads(simulator)
    fetch(simulator.port, CALLS, {}, method="DELETE")
    _read_write_read(gateway, device, latest)
    after_write = _reads(simulator)
    fetch(simulator.port, FAULTS, {}, method="DELETE")
    return [
        Result.at_most(f"{READERS} identical concurrent reads", 1, shared, "calls"),
        Result.at_least("the same read before and after a write", 2, after_write, "calls"),
    ]


def _read_write_read(gateway: Child, device: str, target: str) -> None:
    with ThreadPoolExecutor(1) as readers:
        first = readers.submit(_ask, gateway, target)
        time.sleep(READ_SECONDS / 5)
        body = orjson.dumps({KEY: [{"ts": FIRST_MS + 5, "value": 30}]})
        _ask(gateway, f"/api/v1/tb/devices/{device}/telemetry", body)
        _ask(gateway, target)
        first.result()


def _graph(simulator: Child, gateway: Child, root: str) -> Result:
    fetch(simulator.port, CALLS, {}, method="DELETE")
    graph = orjson.loads(_ask(gateway, f"/api/v1/tb/graph/{root}?hard_node_limit={RELATED + 1}"))
    if len(graph["nodes"]) != RELATED + 1:
        raise BenchmarkFailed(f"the graph has {len(graph['nodes'])} nodes")
    return Result.at_most("graph of 500 nodes", 3, _total(simulator), "calls")


def _inferred(simulator: Child, gateway: Child, ids: list[str]) -> Result:
    fetch(simulator.port, CALLS, {}, method="DELETE")
    body = orjson.dumps({"device_ids": ids[:DEVICES], "keys": [KEY], "types": "inferred"})
    answer = orjson.loads(_ask(gateway, "/api/v1/tb/telemetry/latest", body))
    if len(answer["data"]) != DEVICES:
        raise BenchmarkFailed(f"latest values of {len(answer['data'])} devices came")
    return Result.at_most("inferred latest values of 500 devices", 3, _total(simulator), "calls")


def _ask(gateway: Child, target: str, body: bytes | None = None) -> bytes:
    headers = {**CALLER, "Content-Type": "application/json"}
    status, answer = fetch(gateway.port, target, headers, method="GET" if body is None else "POST", body=body)
    if status not in {200, 201}:
        raise BenchmarkFailed(f"{target} was answered {status}: {answer[:300]!r}")
    return answer


def _counts(simulator: Child) -> dict[str, int]:
    # A call that was just given up may still be on its way to the counter.
    time.sleep(READ_SECONDS / 10)
    counts: dict[str, int] = orjson.loads(fetch(simulator.port, CALLS, {})[1])["calls"]
    return counts


def _reads(simulator: Child) -> int:
    counts = _counts(simulator)
    return sum(count for label, count in counts.items() if label.endswith("values/timeseries"))


def _total(simulator: Child) -> int:
    return sum(_counts(simulator).values())
