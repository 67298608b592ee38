"""The command: measure, tell each line as it comes, write the report. `scripts/bench` starts it."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks import bulk, economy, export, fairness, list_call, live, report, starting
from benchmarks.bench import FULL, QUICK, Bench
from benchmarks.figures import Result
from benchmarks.processes import BenchmarkFailed, Children, end_on_signals, machine_busy_seconds, say

GROUPS: dict[str, Callable[[Bench], list[Result]]] = {
    "list": list_call.measure_cpu,
    "latency": list_call.measure_latency,
    "throughput": list_call.measure_throughput,
    "bulk": bulk.measure_time,
    "stream": bulk.measure_stream,
    "export": export.measure,
    "live": live.measure,
    "economy": economy.measure,
    "fairness": fairness.measure,
    "starting": starting.measure,
}


def main() -> int:
    """Measure what was asked for; 1 means that something could not be measured."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures the budgets of the gateway.")
    parser.add_argument("--quick", action="store_true", help="less of everything: under three minutes")
    parser.add_argument(
        "--only", choices=tuple(GROUPS), metavar="LINE", help=f"one of {', '.join(GROUPS)}; writes no report"
    )
    given = parser.parse_args()
    end_on_signals()
    started, busy = time.monotonic(), machine_busy_seconds()
    with Children() as children:
        bench = Bench(QUICK if given.quick else FULL, children)
        failed = [name for name in ([given.only] if given.only else GROUPS) if not measure(bench, name)]
    seconds = time.monotonic() - started
    own = sum(os.times()[:4])
    others = max(0.0, machine_busy_seconds() - busy - own) / seconds / (os.cpu_count() or 1)
    say(f"⏱  {seconds:.0f} s; other programs used {others:.0%} of the machine")
    if given.only is None and not failed:
        report.write(bench, report.Run("quick" if given.quick else "full", seconds, others))
        say("📝 benchmarks/results.json, docs/performance.md")
    return 1 if failed else 0


def measure(bench: Bench, name: str) -> bool:
    """Measure one group in children of its own; False when that failed."""
    say(f"▶ {name}")
    try:
        bench.results[name] = GROUPS[name](bench)
    except (BenchmarkFailed, OSError, subprocess.TimeoutExpired) as error:
        say(f"❌ {name}: {error}")
        return False
    finally:
        bench.children.stop_all()
    for result in bench.results[name]:
        say(f"{result.verdict} {result.line}: budget {result.budget}, measured {result.shown}")
    for text in bench.notes.get(name, ()):
        say(f"   {text}")
    return True


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
