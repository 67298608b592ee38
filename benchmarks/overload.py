"""`python -m benchmarks.overload`: more requests than a worker can serve, and what callers and probes see.

One worker has a core to itself; the load, the ThingsBoard of fixed answers and the probe share the others.
The load is an open loop over many connections: requests come at their rate, whatever became of those before
them. Takes a minute and a quiet machine.
"""

import contextlib
import sys
import time
from dataclasses import dataclass

from benchmarks.background import Background
from benchmarks.bench import CALLER, QUICK, Bench
from benchmarks.figures import percentile
from benchmarks.load import Report, Specification, run
from benchmarks.processes import Child, Children, fetch, say, set_core_aside

#: Every request asks for something else, so nothing is shared.
TARGET = "/api/v1/tb/devices?page_size=10&text_search={n}"
CONNECTIONS = 1_000
#: At this rate nothing waits, so that the CPU of a request can be told.
EASY_RATE = 600.0
TIMES = (0.5, 1.0, 2.0, 4.0)
SECONDS = 10.0
#: A good answer is one within this.
GOOD_SECONDS = 1.0
PROBE_EVERY_SECONDS, PROBE_TIMEOUT_SECONDS = 0.1, 20.0


class Probe(Background):
    """Asks for `/health/live` all the time, each time over a new connection, as a kubelet does."""

    def __init__(self, port: int) -> None:
        super().__init__(PROBE_EVERY_SECONDS)
        self._port = port
        self.seconds: list[float] = []

    def act(self) -> None:
        """Ask once; one without an answer counts as long as it was waited for."""
        started = time.perf_counter()
        with contextlib.suppress(TimeoutError):
            fetch(self._port, "/health/live", {}, timeout=PROBE_TIMEOUT_SECONDS)
        self.seconds.append(time.perf_counter() - started)


@dataclass(frozen=True)
class Row:
    """What one rate of requests brought."""

    times: float
    offered: float
    report: Report
    probes: list[float]

    def __str__(self) -> str:
        report = self.report
        good = sum(latency <= GOOD_SECONDS for latency in report.good_latencies) / SECONDS
        refused = report.failed / (report.answered + report.failed)
        seconds = (
            percentile(report.good_latencies, 0.5),
            percentile(report.good_latencies, 0.99),
            percentile(self.probes, 0.5),
            percentile(self.probes, 0.99),
        )
        cells = [f"{self.times:g}", f"{self.offered:,.0f}", f"{good:,.0f}", f"{refused:.0%}"]
        return f"| {' | '.join([*cells, *(f'{each * 1000:,.0f} ms' for each in seconds)])} |"


def sent(port: int, rate: float) -> Report:
    """Send requests at a rate."""
    open_loop = Specification(port, TARGET, CALLER, connections=CONNECTIONS, seconds=SECONDS, rate=rate)
    return run(open_loop, may_be_refused=True)


def capacity_of(gateway: Child) -> float:
    """Return how many requests a second the CPU of one core is enough for, over so many connections."""
    before = gateway.cpu_seconds()
    return sent(gateway.port, EASY_RATE).answered / (gateway.cpu_seconds() - before)


def measure(port: int, times: float, capacity: float) -> Row:
    """Measure one rate."""
    with Probe(port) as probe:
        report = sent(port, times * capacity)
    return Row(times, times * capacity, report, probe.seconds)


def main() -> int:
    """Print the table."""
    core = set_core_aside()
    with Children() as children:
        bench = Bench(QUICK, children)
        gateway = bench.start_gateway(bench.start_stub())
        gateway.pin(core)
        sent(gateway.port, EASY_RATE)
        capacity = capacity_of(gateway)
        say(f"A core is enough for {capacity:,.0f} requests a second over {CONNECTIONS:,} connections.\n")
        say("| times | a second | good a second | refused | p50 | p99 | probe, p50 | probe, p99 |")
        say("|---|---|---|---|---|---|---|---|")
        for times in TIMES:
            say(str(measure(gateway.port, times, capacity)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
