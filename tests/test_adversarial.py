"""Every operation called by schemathesis, with a fixed seed; `scripts/adversarial` goes on at random."""

import re
import subprocess
import sys

import httpx
import pytest

from benchmarks.processes import ROOT


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "arguments",
    [("--examples", "3"), ("--faults", "--phases", "coverage")],
    ids=["thingsboard is well", "thingsboard fails in one call of three"],
)
def test_every_answer_is_in_the_document_whatever_is_sent(arguments: tuple[str, ...]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "scripts.run_adversarial", "--seed", "1", *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-8_000:] + run.stderr[-2_000:]
    answers = {status: int(number) for number, status in re.findall(r"(\d+) x (\d{3})", run.stdout)}
    # It got through to the routes, was refused as it should be, and met the faults where there are any.
    assert answers["200"] > 100
    assert answers["401"] > 100
    assert answers["422"] > 500
    assert ("502" in answers) == ("--faults" in arguments)
    assert "500" not in answers


@pytest.mark.parametrize("query", ["?=1", "?=", "?page=0&=x"])
async def test_a_parameter_without_a_name_is_called_so(gateway: httpx.AsyncClient, query: str) -> None:
    """Found here: the answer named the field ''."""
    answer = await gateway.get(f"/api/v1/tb/devices{query}")
    assert answer.status_code == 422
    details = answer.json()["details"]
    assert details["field"] == "query"
    assert details["issue"].startswith("a parameter without a name")
