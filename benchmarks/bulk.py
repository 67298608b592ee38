"""Bulk uploads: time against bare clients, and the memory of long NDJSON streams."""

import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from benchmarks import load
from benchmarks.bench import CALLER, Bench, start_thingsboard
from benchmarks.figures import Result
from benchmarks.filled_simulator import FIRST_MS, KEY
from benchmarks.list_call import AUTHORISED
from benchmarks.load import Specification
from benchmarks.processes import MIB, BenchmarkFailed, Child, connected, fetch, free_port

DEVICES, POINTS = 1_000, 10
CALL_SECONDS = 0.005
IN_FLIGHT = 16
TARGET = "/api/v1/tb/telemetry/bulk"
SAVE = "/api/plugins/telemetry/DEVICE/00000000-0000-1000-8000-{n}/timeseries/ANY"
LINES_A_CHUNK = 200
STREAM_SECONDS = 600.0
STREAM_MIB = 32
NDJSON = "application/x-ndjson"


def points() -> dict[str, list[dict[str, float]]]:
    """Return the points of one device."""
    return {KEY: [{"ts": FIRST_MS + number, "value": 20 + number / 4} for number in range(POINTS)]}


def measure_time(bench: Bench) -> list[Result]:
    """Measure 1,000 devices of 10 points at 5 ms a call."""
    stub = bench.start_stub("--delay", str(CALL_SECONDS))
    gateway = bench.start_gateway(stub)
    body = orjson.dumps({f"00000000-0000-1000-8000-{n:012d}": points() for n in range(DEVICES)})
    ours, bare = [], []
    for _ in range(bench.extent.bulk_rounds + 1):
        ours.append(_upload(gateway, body))
        bare.append(_bare(stub, connections=IN_FLIGHT, count=DEVICES))
    # One by one is long and steady: a tenth tells the whole.
    single = _bare(stub, connections=1, count=DEVICES // 10) * 10
    bench.note(
        "bulk",
        f"{DEVICES} devices x {POINTS} points at {CALL_SECONDS * 1000:g} ms a call: gateway "
        f"{min(ours):.2f} s, bare client with {IN_FLIGHT} calls in flight {min(bare):.2f} s, one by one "
        f"{single:.2f} s.",
    )
    return [
        Result.at_most(
            "bulk of 1,000 x 10, to a bare client with 16 in flight", 1.3, min(ours) / min(bare), "times"
        ),
        Result.at_least("bulk of 1,000 x 10, faster than one by one", 10, single / min(ours), "times"),
    ]


def _upload(gateway: Child, body: bytes) -> float:
    started = time.perf_counter()
    headers = {**CALLER, "Content-Type": "application/json"}
    status, answer = fetch(gateway.port, TARGET, headers, method="POST", body=body)
    elapsed = time.perf_counter() - started
    _check(status, answer, DEVICES, DEVICES * POINTS)
    return elapsed


def _check(status: int, answer: bytes, devices: int, stored: int) -> None:
    summary = orjson.loads(answer).get("summary", {}) if status == 200 else {}  # noqa: PLR2004 - HTTP's OK
    if (summary.get("successful_devices"), summary.get("total_data_points")) != (devices, stored):
        raise BenchmarkFailed(f"the bulk upload was answered {status}: {summary or answer[:300]!r}")


def _bare(stub: Child, *, connections: int, count: int) -> float:
    headers = {**AUTHORISED, "Content-Type": "application/json"}
    report = load.run(
        Specification(
            stub.port,
            SAVE,
            headers,
            connections=connections,
            seconds=60,
            method="POST",
            body=orjson.dumps(points()).decode(),
            count=count,
        )
    )
    return report.seconds


def start_simulator(bench: Bench, *, devices: int, points: int = 0) -> tuple[Child, list[str]]:
    """Start a filled simulator; returns it and the ids, the root asset's first."""
    port = free_port()
    file = bench.children.folder / f"ids-{port}.json"
    arguments = ("benchmarks.filled_simulator", str(port), str(devices), str(points), str(file))
    child = start_thingsboard(bench.children, port, *arguments)
    return child, list(orjson.loads(Path(file).read_bytes()))


def measure_stream(bench: Bench) -> list[Result]:
    """Measure NDJSON uploads of very many devices, with all results at the end and followed line by line."""
    count = bench.extent.devices
    simulator, (_, *ids) = start_simulator(bench, devices=count)
    return [
        _measure_stream(bench, bench.start_gateway(simulator), ids, is_followed=is_followed)
        for is_followed in (False, True)
    ]


def _measure_stream(bench: Bench, gateway: Child, ids: list[str], *, is_followed: bool) -> Result:
    headers = {**CALLER, "Content-Type": NDJSON, "Accept": NDJSON if is_followed else "application/json"}
    gateway.forget_peak()
    before, cpu, started = gateway.memory_now(), gateway.cpu_seconds(), time.perf_counter()
    with connected(gateway.port, timeout=STREAM_SECONDS) as connection:
        # Python's client sends everything before it reads a byte, as most do.
        connection.request("POST", TARGET, body=_lines(ids), headers=headers, encode_chunked=True)
        sent = time.perf_counter() - started
        answer = connection.getresponse()
        content = answer.read()
    elapsed, cpu = time.perf_counter() - started, gateway.cpu_seconds() - cpu
    last = content.rstrip().rpartition(b"\n")[2] if is_followed else content
    _check(answer.status, last, len(ids), len(ids))
    name = "followed NDJSON bulk" if is_followed else "NDJSON bulk"
    bench.note(
        "stream",
        f"{name} of {len(ids):,} devices: {elapsed:.1f} s (sent in {sent:.1f} s), {cpu:.1f} s of CPU; the "
        f"gateway had {before / MIB:.0f} MiB before; the answer has {len(content) / MIB:.1f} MiB.",
    )
    added = (gateway.memory_peak() - before) / MIB
    return Result.at_most(f"{name} of {len(ids):,} devices, memory added", STREAM_MIB, added, "MiB")


def _lines(ids: list[str]) -> Iterator[bytes]:
    for start in range(0, len(ids), LINES_A_CHUNK):
        yield b"".join(
            orjson.dumps({"device_id": identifier, "ts": FIRST_MS + 1, "values": {KEY: 21.5}}) + b"\n"
            for identifier in ids[start : start + LINES_A_CHUNK]
        )
