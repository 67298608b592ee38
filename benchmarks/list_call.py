"""The proxied list call: CPU, added latency, throughput over a ThingsBoard that is the bottleneck."""

from dataclasses import dataclass

from benchmarks import load, reverse_proxies
from benchmarks.bench import CALLER, KEY, LIST_TARGET, Bench
from benchmarks.figures import Result, best_percentiles
from benchmarks.load import Report, Specification
from benchmarks.processes import HOST, Child, free_port, wait_until_ready
from benchmarks.stub_thingsboard import TOKEN

CONNECTIONS = 32
#: Readers of one hot object: with 32 the gateway idles while all of them wait for the call they share.
HOT_CONNECTIONS = 128
#: No two requests ask the same, so that none shares its ThingsBoard call.
DISTINCT_TARGET = f"{LIST_TARGET}&page={{n}}"
DIRECT_TARGET = "/api/tenant/deviceInfos?page=0&pageSize=10"
AUTHORISED = {"X-Authorization": f"Bearer {TOKEN}"}
#: Requests a second of the open loop on one connection: far below what anything here can serve.
OPEN_RATE = 150.0
#: What a real ThingsBoard answered on one machine (facts, "Speed").
UPSTREAM_RATE = 690.0
MS = 1_000.0


@dataclass(frozen=True)
class Target:
    """Somebody who answers a list of ten devices."""

    child: Child
    path: str
    headers: dict[str, str]
    connections: int = CONNECTIONS

    def load(self, *, seconds: float, connections: int | None = None, rate: float | None = None) -> Report:
        """Put it under load."""
        return load.run(
            Specification(
                self.child.port,
                self.path,
                self.headers,
                connections=connections or self.connections,
                seconds=seconds,
                rate=rate,
            )
        )


def _targets(bench: Bench, group: str) -> dict[str, Target]:
    """Start everything that answers the list call."""
    stub = bench.start_stub()
    gateway = bench.start_gateway(stub)
    naive_port, empty_port = free_port(), free_port()
    naive = bench.children.start_module(
        "naive",
        "benchmarks.naive_proxy",
        str(naive_port),
        f"http://{HOST}:{stub.port}",
        KEY,
        port=naive_port,
    )
    empty = bench.children.start_module("empty", "benchmarks.empty_route", str(empty_port), port=empty_port)
    wait_until_ready(naive, LIST_TARGET, CALLER)
    wait_until_ready(empty, "/devices", {})
    proxies, missing = reverse_proxies.start_installed(bench.children, stub.port, KEY)
    for name in missing:
        bench.note(group, f"{name} is not installed: skipped.")
    query = LIST_TARGET.partition("?")[2].replace("page_size", "page=0&pageSize")
    return {
        "gateway": Target(gateway, DISTINCT_TARGET, CALLER),
        "empty FastAPI route": Target(empty, "/devices", {}),
        "naive FastAPI + httpx": Target(naive, LIST_TARGET, CALLER),
        **{name: Target(child, f"{reverse_proxies.PATH}?{query}", CALLER) for name, child in proxies.items()},
        "called directly": Target(stub, DIRECT_TARGET, AUTHORISED),
    }


def measure_cpu(bench: Bench) -> list[Result]:
    """Measure CPU a request, interleaved, the best of several rounds."""
    targets = _targets(bench, "list")
    rates: dict[str, float] = {}
    for target in targets.values():
        target.load(seconds=bench.extent.seconds / 4)
    for _ in range(bench.extent.rounds):
        for name, target in targets.items():
            before = target.child.cpu_seconds()
            report = target.load(seconds=bench.extent.seconds)
            spent = (target.child.cpu_seconds() - before) / report.answered * MS
            bench.cpu_ms[name] = min(spent, bench.cpu_ms.get(name, spent))
            rates[name] = max(report.rate, rates.get(name, 0.0))
    for name, rate in rates.items():
        bench.note("list", f"{name}: {bench.cpu_ms[name]:.3f} ms of CPU, {rate:,.0f} answers/s.")
    ours = bench.cpu_ms["gateway"]
    return [
        Result.at_most("CPU of a proxied list call, 32 connections", 0.7, ours, "ms"),
        Result.at_most(
            "the same, to an empty FastAPI route", 4, ours / bench.cpu_ms["empty FastAPI route"], "times"
        ),
        Result.at_most(
            "the same, to a naive FastAPI + httpx proxy",
            1 / 8,
            ours / bench.cpu_ms["naive FastAPI + httpx"],
            "times",
        ),
    ]


def measure_latency(bench: Bench) -> list[Result]:
    """Measure what the gateway adds on one connection, in an open loop."""
    targets = _targets(bench, "latency")
    for name in ("empty FastAPI route", "haproxy", "caddy"):
        targets.pop(name, None)
    rounds: dict[str, list[list[float]]] = {name: [] for name in targets}
    for number in range(bench.extent.latency_rounds + 1):
        for name, target in targets.items():
            report = target.load(seconds=bench.extent.latency_seconds, connections=1, rate=OPEN_RATE)
            # The first round warms up.
            if number:
                rounds[name].append([latency * MS for latency in report.latencies])
    bench.latency_ms |= {name: best_percentiles(latencies) for name, latencies in rounds.items()}
    ours, direct = bench.latency_ms["gateway"], bench.latency_ms["called directly"]
    return [
        Result.at_most("added latency, one connection, p50", 1.5, ours[0.5] - direct[0.5], "ms"),
        Result.at_most("added latency, one connection, p99", 5, ours[0.99] - direct[0.99], "ms"),
    ]


def measure_throughput(bench: Bench) -> list[Result]:
    """Measure distinct and identical reads over an upstream that answers 690 calls a second."""
    stub = bench.start_stub("--rate", str(UPSTREAM_RATE))
    gateway = bench.start_gateway(stub)
    distinct = "/api/v1/tb/devices?page_size=10&text_search=room-{n}"
    runs = {
        "direct": Target(stub, DIRECT_TARGET, AUTHORISED),
        "distinct": Target(gateway, distinct, CALLER),
        "identical": Target(gateway, LIST_TARGET, CALLER, HOT_CONNECTIONS),
    }
    best = dict.fromkeys(runs, 0.0)
    for _ in range(bench.extent.rounds):
        for name, target in runs.items():
            best[name] = max(best[name], target.load(seconds=bench.extent.seconds).rate)
    for name, rate in best.items():
        bench.note("throughput", f"{name}: {rate:,.0f} answers/s.")
    return [
        Result.at_least(
            "distinct reads over a bottleneck, to direct ones",
            0.8,
            best["distinct"] / best["direct"],
            "times",
        ),
        Result.at_least(
            f"identical hot reads, {HOT_CONNECTIONS} connections, to direct ones",
            5,
            best["identical"] / best["direct"],
            "times",
        ),
    ]
