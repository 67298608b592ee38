"""A run of schemathesis, with a fixed seed; `scripts/adversarial` goes on at random."""

import re
import subprocess
import sys
from dataclasses import dataclass

from benchmarks.processes import ROOT


@dataclass(frozen=True)
class Run:
    """What came of one: answers by status, links followed, later calls of what had been deleted."""

    answers: dict[str, int]
    links: int
    too_late: int


def run(*arguments: str) -> Run:
    """Call every operation; what is wrong with an answer, or never called, fails."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.run_adversarial", "--seed", "1", *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    answers = {status: int(number) for number, status in re.findall(r"(\d+) x (\d{3})", done.stdout)}
    # It got through to the routes, and was refused as it should be.
    assert answers["200"] > 100
    assert answers["401"] > 100
    assert answers["422"] > 500
    assert "500" not in answers
    return Run(
        answers,
        links=number_in(r"API Links: +(\d+) covered", done.stdout),
        too_late=number_in(r"(\d+) calls of what had been deleted", done.stdout),
    )


def number_in(pattern: str, text: str) -> int:
    """Return the number that a line tells."""
    found = re.search(pattern, text)
    assert found, f"{pattern} is not in\n{text[-2_000:]}"
    return int(found[1])
