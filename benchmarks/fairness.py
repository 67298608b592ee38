"""What one key's flood does to another key: its p99 alone and meanwhile."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from benchmarks import load
from benchmarks.bench import KEY, Bench
from benchmarks.figures import Result, best_percentiles
from benchmarks.load import Specification
from benchmarks.processes import Child

#: ThingsBoard: so many calls at once, each takes so long; the others queue there.
PLACES, CALL_SECONDS = 16, 0.02
#: ThingsBoard that also limits the tenant to so many calls a second.
LIMIT = 200
FLOODING = 64
#: The other key's calls a second, whatever becomes of them.
RATE = 50.0
P99 = 0.99
#: A flood begins before the measurement and ends after it; a limit has to be found first.
SETTLING_SECONDS = 1.0
#: The pace that a limit leaves is looked for once, by doubling from 20 calls a second.
FINDING_SECONDS = 5.0
SECRETS = {"loud": "benchmark-loud-key-0123456789", "calm": KEY}
#: Every request asks for something else, so nothing is shared.
TARGET = "/api/v1/tb/devices?page_size=10&text_search={key}{{n}}"


def measure(bench: Bench) -> list[Result]:
    """Measure behind a ThingsBoard of bounded concurrency, and behind one with a rate limit."""
    places = ("--delay", str(CALL_SECONDS), "--places", str(PLACES))
    return [
        _compare(bench, "p99 of a key while another one floods", places),
        _compare(
            bench,
            "the same while the flood uses up ThingsBoard's rate limit",
            (*places, "--limit", str(LIMIT)),
        ),
    ]


def _compare(bench: Bench, line: str, stub: tuple[str, ...]) -> Result:
    gateway = _start(bench, stub)
    _calm(gateway, bench, seconds=0.3)
    alone, flooded = [], []
    if "--limit" in stub:
        finding = replace(_specification(gateway, "loud", FINDING_SECONDS), connections=FLOODING)
        load.run(finding, may_be_refused=True)
    for _ in range(bench.extent.fairness_rounds):
        alone.append(_calm(gateway, bench))
        flooded.append(_while_flooding(gateway, bench, "loud"))
    told = [f"alone {_told(alone)}", f"flooded {_told(flooded)}"]
    if bench.extent.fairness_rounds > 1:
        # First come, first served: what there is among the calls of one key.
        told.append(f"flooded by its own key {_told([_while_flooding(gateway, bench, 'calm')])}")
    bench.children.stop_all()
    bench.note(
        "fairness",
        f"{line} (a flood over {FLOODING} connections, {RATE:g} calls a second of the other key, p99 and "
        f"median): {', '.join(told)}.",
    )
    return Result.at_most(line, 2, best_percentiles(flooded)[P99] / best_percentiles(alone)[P99], "times")


def _told(rounds: list[list[float]]) -> str:
    curve = best_percentiles(rounds)
    return f"{curve[P99] * 1000:.1f} and {curve[0.5] * 1000:.1f} ms"


def _start(bench: Bench, stub: tuple[str, ...]) -> Child:
    keys = bench.children.folder / "keys.toml"
    keys.write_text(
        "\n".join(
            f'[[keys]]\nname = "{name}"\nid = "{name}"\nscopes = ["devices:read"]\n'
            f'sha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n'
            for name, secret in SECRETS.items()
        )
    )
    keys.chmod(0o600)
    return bench.start_gateway(
        bench.start_stub(*stub), api_key="", api_keys_file=str(keys), tb_max_connections=str(PLACES)
    )


def _calm(
    gateway: Child, bench: Bench, *, seconds: float | None = None, may_be_refused: bool = False
) -> list[float]:
    specification = _specification(gateway, "calm", seconds or bench.extent.fairness_seconds)
    return load.run(replace(specification, rate=RATE), may_be_refused=may_be_refused).latencies


def _while_flooding(gateway: Child, bench: Bench, key: str) -> list[float]:
    """Measure while a key floods; who floods may be refused where the queue stands, nobody else."""
    seconds = bench.extent.fairness_seconds + 2 * SETTLING_SECONDS
    flood = replace(_specification(gateway, key, seconds), connections=FLOODING)
    with ThreadPoolExecutor(1) as other:
        flooding = other.submit(load.run, flood, may_be_refused=True)
        _calm(gateway, bench, seconds=SETTLING_SECONDS, may_be_refused=key == "calm")
        latencies = _calm(gateway, bench, may_be_refused=key == "calm")
        flooding.result()
    return latencies


def _specification(gateway: Child, key: str, seconds: float) -> Specification:
    return Specification(
        gateway.port,
        TARGET.format(key=key),
        {"X-API-Key": SECRETS[key]},
        connections=8,
        seconds=seconds,
    )
