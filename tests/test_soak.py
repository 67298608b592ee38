"""The soak in its short form: traffic of all kinds, and nothing that grows."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from benchmarks.processes import ROOT
from benchmarks.soak import Sample, Traffic, faults_of


def test_nothing_grows_under_traffic_of_all_kinds() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.4"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr[-2_000:]


@pytest.mark.parametrize(
    ("memory", "files", "fault"),
    [
        (lambda number: 100.0, lambda number: 30, None),
        (lambda number: 100.0 + number / 10, lambda number: 30, "memory grew"),
        (lambda number: 100.0, lambda number: 30 + number, "files more"),
    ],
    ids=["flat", "memory grows", "files stay open"],
)
def test_what_grows_is_found(
    memory: Callable[[int], float], files: Callable[[int], int], fault: str | None
) -> None:
    traffic = Traffic(1, None)  # type: ignore[arg-type]
    traffic.done.update(kind.__name__ for kind in traffic.kinds())
    samples = [Sample(number / 10, memory(number), files(number)) for number in range(200)]
    faults = faults_of(samples, traffic)
    assert all(fault is not None and fault in each for each in faults)
    assert bool(faults) == bool(fault)
