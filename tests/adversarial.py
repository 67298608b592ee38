"""A run of schemathesis, with a fixed seed; `scripts/adversarial` goes on at random."""

import re
import subprocess
import sys

from benchmarks.processes import ROOT


def answers_of(*arguments: str) -> dict[str, int]:
    """Call every operation, and return how many answers had each status."""
    run = subprocess.run(
        [sys.executable, "-m", "scripts.run_adversarial", "--seed", "1", *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-8_000:] + run.stderr[-2_000:]
    answers = {status: int(number) for number, status in re.findall(r"(\d+) x (\d{3})", run.stdout)}
    # It got through to the routes, and was refused as it should be.
    assert answers["200"] > 100
    assert answers["401"] > 100
    assert answers["422"] > 500
    assert "500" not in answers
    return answers
