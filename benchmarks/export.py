"""The export of 1,000,000 points: counted, first byte, memory, CPU against parsing the same bytes.

The other formats follow, with what they cost and how long another caller waits for an answer meanwhile.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection

import orjson

from benchmarks.background import Background
from benchmarks.bench import CALLER, Bench
from benchmarks.bulk import start_simulator
from benchmarks.figures import Result, percentile
from benchmarks.filled_simulator import FIRST_MS, KEY, STEP_MS
from benchmarks.processes import MIB, BenchmarkFailed, Child, connected, fetch

POINTS = 1_000_000
END_MS = FIRST_MS + POINTS * STEP_MS
PAGE_POINTS = 10_000
PIECE = 1 << 16
EXPORT_SECONDS = 300.0
BYSTANDER_PAUSE_SECONDS = 0.005
#: Long enough for the first page to be held, and for a later one never to come in this measurement.
HELD_SECONDS, NEVER_SECONDS = 0.5, 20.0
FAULTS = "/__simulator/faults"
LOGIN = {"username": "tenant@thingsboard.org", "password": "tenant"}


@dataclass(frozen=True)
class Export:
    """What one export took."""

    rows: int
    size: int
    seconds: float
    cpu: float


def measure(bench: Bench) -> list[Result]:
    """Measure the export of one key."""
    simulator, ids = start_simulator(bench, devices=500, points=POINTS)
    device = ids[1]
    gateway = bench.start_gateway(simulator)
    target = f"/api/v1/tb/devices/{device}/telemetry/export?format=csv&keys={KEY}&end_ts={END_MS}"
    calls = _calls_before_first_byte(simulator, gateway, target)
    gateway.forget_peak()
    before = gateway.memory_now()
    exports = [_export(gateway, target)]
    added = (gateway.memory_peak() - before) / MIB
    exports += [_export(gateway, target) for _ in range(bench.extent.bulk_rounds)]
    started = time.perf_counter()
    pages = list(_direct_pages(simulator, device))
    direct_seconds = time.perf_counter() - started
    parsing = min(_parse(pages) for _ in range(3))
    best = min(exports, key=lambda export: export.cpu)
    added_by = _measure_formats(bench, gateway, target)
    bench.note(
        "export",
        f"{best.rows:,} rows, {best.size / MIB:.1f} MiB of CSV, {min(e.seconds for e in exports):.2f} s and "
        f"{best.cpu:.2f} s of CPU; orjson parses the {sum(map(len, pages)) / MIB:.1f} MiB of ThingsBoard's "
        f"{len(pages)} pages in {parsing:.2f} s; only reading those pages from the simulator takes "
        f"{direct_seconds:.2f} s. The gateway had {before / MIB:.0f} MiB before.",
    )
    return [
        Result.at_most("export of 1,000,000 points, memory added", 32, added, "MiB"),
        Result.at_most("export of 1,000,000 points, calls before the first byte", 2, calls, "calls"),
        Result.at_most(
            "export of 1,000,000 points as CSV, CPU to parsing the same bytes", 5, best.cpu / parsing, "times"
        ),
        *(
            Result.at_most(f"export of 1,000,000 points as {name}, memory added", 32, added_by[name], "MiB")
            for name in ("xlsx", "parquet")
        ),
    ]


def _measure_formats(bench: Bench, gateway: Child, target: str) -> dict[str, float]:
    """Note what each format costs; return the MiB that it adds."""
    added: dict[str, float] = {}
    for file_format in ("csv", "jsonl", "xlsx", "parquet"):
        as_format = target.replace("format=csv", f"format={file_format}")
        if file_format == "parquet":
            # Loads pyarrow, once in the life of a worker.
            before = gateway.memory_now()
            fetch(gateway.port, f"{as_format}&start_ts={END_MS - 1}", CALLER)
            loaded = (gateway.memory_now() - before) / MIB
            bench.note("export", f"The first Parquet file adds {loaded:.0f} MiB to a worker, for pyarrow.")
        gateway.forget_peak()
        before = gateway.memory_now()
        with (
            connected(gateway.port, timeout=EXPORT_SECONDS) as connection,
            Bystander(connection) as bystander,
        ):
            export = _export(gateway, as_format, is_text=file_format in {"csv", "jsonl"})
        added[file_format] = (gateway.memory_peak() - before) / MIB
        bench.note(
            "export",
            f"{file_format}: {export.size / MIB:.1f} MiB in {export.seconds:.2f} s, {export.cpu:.2f} s of "
            f"CPU, {added[file_format]:.1f} MiB of memory; another caller's `/health/live` took "
            f"{bystander.median_ms:.1f} ms in the middle and {bystander.worst_ms:.0f} ms at worst.",
        )
    return added


class Bystander(Background):
    """A caller who asks for something small all the time while something large is going on."""

    def __init__(self, connection: HTTPConnection) -> None:
        super().__init__(BYSTANDER_PAUSE_SECONDS)
        self._connection = connection
        self._seconds: list[float] = []

    def act(self) -> None:
        """Ask once."""
        started = time.perf_counter()
        self._connection.request("GET", "/health/live")
        self._connection.getresponse().read()
        self._seconds.append(time.perf_counter() - started)

    @property
    def median_ms(self) -> float:
        """The middle one of its waits."""
        return percentile(self._seconds, 0.5) * 1000

    @property
    def worst_ms(self) -> float:
        """The longest of its waits."""
        return max(self._seconds) * 1000


def _export(gateway: Child, target: str, *, is_text: bool = True) -> Export:
    """Export and count; the rows of a packed file are not counted."""
    cpu, started = gateway.cpu_seconds(), time.perf_counter()
    rows = size = 0
    with connected(gateway.port, timeout=EXPORT_SECONDS) as connection:
        connection.request("GET", target, headers=CALLER)
        answer = connection.getresponse()
        while piece := answer.read(PIECE):
            rows += piece.count(b"\n")
            size += len(piece)
    # In CSV the first line names the columns.
    rows -= "format=csv" in target
    rows = rows if is_text else POINTS
    if answer.status != 200 or rows != POINTS:  # noqa: PLR2004 - HTTP's OK
        raise BenchmarkFailed(f"the export was answered {answer.status} with {rows} rows")
    return Export(rows, size, time.perf_counter() - started, gateway.cpu_seconds() - cpu)


def _calls_before_first_byte(simulator: Child, gateway: Child, target: str) -> int:
    """Hold back everything after the first page: what has been answered when bytes come is what it took."""
    _control(simulator, "DELETE", "/__simulator/calls")
    held = {"kind": "latency", "path": "values/timeseries", "count": 1, "seconds": HELD_SECONDS}
    _control(simulator, "POST", FAULTS, held)
    struck = _struck(simulator)
    with connected(gateway.port, timeout=NEVER_SECONDS / 2) as connection:
        connection.request("GET", target, headers=CALLER)
        while _struck(simulator) == struck:
            time.sleep(HELD_SECONDS / 50)
        _control(simulator, "POST", FAULTS, {**held, "count": None, "seconds": NEVER_SECONDS})
        answer = connection.getresponse()
        answer.read(1)
        # The next page may be asked for between two looks: both numbers have to be of one moment.
        unanswered, seen = -1, -2
        while unanswered != seen:
            seen = _struck(simulator) - struck - 1
            total = int(orjson.loads(_control(simulator, "GET", "/__simulator/calls"))["total"])
            unanswered = _struck(simulator) - struck - 1
    _control(simulator, "DELETE", FAULTS)
    return total - unanswered


def _struck(simulator: Child) -> int:
    return int(orjson.loads(_control(simulator, "GET", FAULTS))["struck"].get("latency", 0))


def _control(simulator: Child, method: str, path: str, body: dict[str, object] | None = None) -> bytes:
    content = None if body is None else orjson.dumps(body)
    status, answer = fetch(simulator.port, path, {}, method=method, body=content)
    if status != 200:  # noqa: PLR2004 - HTTP's OK
        raise BenchmarkFailed(f"{path} was answered {status}: {answer[:300]!r}")
    return answer


def _direct_pages(simulator: Child, device: str) -> Iterator[bytes]:
    """Read the same points page by page, as a bare client would."""
    with connected(simulator.port, timeout=EXPORT_SECONDS) as connection:
        connection.request(
            "POST", "/api/auth/login", body=orjson.dumps(LOGIN), headers={"Content-Type": "application/json"}
        )
        token = orjson.loads(connection.getresponse().read())["token"]
        for start in range(FIRST_MS, END_MS, PAGE_POINTS * STEP_MS):
            path = (
                f"/api/plugins/telemetry/DEVICE/{device}/values/timeseries?keys={KEY}&startTs={start}"
                f"&endTs={END_MS}&limit={PAGE_POINTS}&orderBy=ASC&useStrictDataTypes=true"
            )
            connection.request("GET", path, headers={"X-Authorization": f"Bearer {token}"})
            yield connection.getresponse().read()


def _parse(pages: list[bytes]) -> float:
    started = time.process_time()
    for page in pages:
        orjson.loads(page)
    return time.process_time() - started
