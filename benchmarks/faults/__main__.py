"""The command: try every fault, tell each row, write the page. `scripts/fault_matrix` starts it."""

import argparse
import asyncio
import contextlib
import io
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from app import logs
from app.settings import Settings
from benchmarks.faults import page
from benchmarks.faults.catalogue import COLUMNS, FAULTS
from benchmarks.faults.matrix import RowResult, log_leaks, run_row
from benchmarks.processes import BenchmarkFailed, say

#: Those that tell most: under two minutes.
QUICK = (
    "latency",
    "reset_before_head",
    "reset_mid_body",
    "malformed",
    "error_500",
    "voided",
    "restart",
    "redis_killed",
)


def main() -> int:
    """Try what was asked for; 1 means that a cell is not as specified."""
    parser = argparse.ArgumentParser(prog="scripts/fault_matrix", description="Tries faults on the gateway.")
    parser.add_argument("--quick", action="store_true", help="some of the faults: under two minutes")
    parser.add_argument(
        "--only", choices=tuple(FAULTS), metavar="FAULT", help=f"one of {', '.join(FAULTS)}; writes no page"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=1.0,
        metavar="TIMES",
        help="what bounds of time are multiplied by, where others use the machine",
    )
    given = parser.parse_args()
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
    names = (given.only,) if given.only else QUICK if given.quick else tuple(FAULTS)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gateway-faults-") as folder:
        results = [result for name in names if (result := try_fault(name, Path(folder), given.patience))]
    seconds = time.monotonic() - started
    cells = [cell for result in results for cell in result.cells.values()]
    good = sum(cell.holds for cell in cells)
    say(f"⏱  {seconds:.0f} s; {good} of {len(cells)} cells as specified")
    holds = len(results) == len(names) and all(result.holds for result in results)
    if names == tuple(FAULTS) and len(results) == len(names):
        page.write(results, seconds, given.patience)
        say("📝 docs/reliability.md, benchmarks/faults.json")
    return 0 if holds else 1


def try_fault(name: str, folder: Path, patience: float) -> RowResult | None:
    """Try one fault and say what came of it; None when it could not be tried."""
    fault, log = FAULTS[name], io.StringIO()
    started = time.monotonic()
    try:
        with contextlib.redirect_stdout(log):
            logs.configure("INFO", "json")
            result = asyncio.run(run_row(fault, folder, patience=patience))
    except (BenchmarkFailed, OSError) as error:
        say(f"❌ {name}: {error}")
        return None
    result.problems += log_leaks(log.getvalue())
    say(f"{'✅' if result.holds else '❌'} {name}: {fault.title} ({time.monotonic() - started:.0f} s)")
    for column, cell in result.cells.items():
        say(f"   {page.sign(cell)} {COLUMNS[column]}: {page.told(cell)}{page.listed(cell.problems)}")
    for problem in result.problems:
        say(f"   ❌ {problem}")
    return result


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
