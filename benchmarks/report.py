"""Writes `results.json`, `docs/performance.md` and its plots."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from benchmarks import svg
from benchmarks.bench import Bench
from benchmarks.figures import Result
from benchmarks.processes import ROOT

RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
MIB = 1 << 20

HEAD = """# Performance

What the gateway costs, measured against budgets and against other ways to do the same. Written by
`scripts/bench`, not by hand; `scripts/bench --quick` measures the same in under three minutes, and
`benchmarks/results.json` holds the table for programs.

{machine}

| line | budget | measured | |
|---|---|---|---|
"""
HOW = """## How it is measured

- **CPU** is user and system time of the process and its children from `/proc`, divided by the requests
  answered: not wall time, and nothing of the load generator or the upstream. 32 keep-alive connections in a
  closed loop; who is measured changes every round, and the best round counts. Every stage of the gateway is
  on: allowed hosts, CORS, trusted proxies, rate limits, access log to a file.
- **The upstream** of these measurements answers a page of ten devices ({page} bytes) from memory. The *empty
  FastAPI route* encodes such a page and does nothing else; the *naive proxy* is FastAPI with httpx, a key
  check, and JSON decoded and encoded; nginx, HAProxy and Caddy check a key, rewrite the path, add the token
  and pass the bytes on, nginx and HAProxy with one worker.
- **Latency** is an open loop of 150 requests a second on one connection. It counts from the moment a request
  was due, so that a stall is charged to every request that it delays (no coordinated omission). "Added" is
  the percentile through the gateway minus the one of calling directly.
- **Throughput** has an upstream that answers 690 calls a second, one after the other.
- **Calls** are counted by the ThingsBoard simulator; "before the first byte" counts those answered by then.
- **Memory** is what the largest resident size (`VmHWM`) rose to during the work, less what was resident
  before it.
- Ratios are of one run, so they hold on a busy machine too; milliseconds are of this machine.
"""


@dataclass(frozen=True)
class Run:
    """What is worth knowing of a run as a whole."""

    name: str
    seconds: float
    #: Share of the machine's CPU that others used meanwhile.
    disturbance: float

    @property
    def machine(self) -> str:
        """Describe the machine in general words."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (MIB << 10)
        return (
            f"A {self.name} run of {self.seconds:.0f} s on {os.cpu_count()} cores ({platform.machine()}), "
            f"{memory:.0f} GiB of memory, {platform.system()}, {platform.python_implementation()} "
            f"{platform.python_version()}. Generator, gateway and upstream shared these cores, and other "
            f"programs used {self.disturbance:.0%} of them meanwhile."
        )


def write(bench: Bench, run: Run) -> None:
    """Write all of it."""
    results = [result for group in bench.results.values() for result in group]
    RESULTS.write_bytes(as_json(results))
    IMAGES.mkdir(parents=True, exist_ok=True)
    images = plots(bench, results)
    for name, content in images.items():
        (IMAGES / f"performance-{name}.svg").write_text(content, "utf-8")
    PAGE.write_text(page(bench, run, results, images), "utf-8")


def as_json(results: Iterable[Result]) -> bytes:
    """Return the content of `results.json`."""
    return orjson.dumps([result.as_json() for result in results], option=orjson.OPT_INDENT_2) + b"\n"


def plots(bench: Bench, results: Sequence[Result]) -> dict[str, str]:
    """Return the plots by name."""
    shares = {result.line: result.share for result in results if result.share is not None}
    images = {"budgets": svg.bars("Share of the budget that is used", shares, unit="", limit=1.0)}
    if bench.cpu_ms:
        ordered = dict(sorted(bench.cpu_ms.items(), key=lambda item: item[1]))
        images["cpu"] = svg.bars("CPU of one list call", ordered, unit="ms", digits=3)
    if bench.latency_ms:
        images["latency"] = svg.curves("Latency on one connection", bench.latency_ms, unit="ms")
    return images


def page(bench: Bench, run: Run, results: Sequence[Result], images: Mapping[str, str]) -> str:
    """Return the page."""
    parts = [HEAD.format(machine=run.machine)]
    parts += [
        f"| {result.line} | {typeset(result.budget)} | {result.shown} | {result.verdict} |\n"
        for result in results
    ]
    parts += [f"\n![{name}](images/performance-{name}.svg)\n" for name in images]
    parts += _latency_table(bench.latency_ms)
    notes = [f"- {text}\n" for texts in bench.notes.values() for text in texts]
    parts += ["\n## In numbers\n\n", *notes, "\n", HOW.format(page=_page_size())]
    return "".join(parts)


def typeset(budget: str) -> str:
    """Return a budget for readers."""
    return budget.replace("<=", "≤").replace(">=", "≥")


def _latency_table(curves: Mapping[str, Mapping[float, float]]) -> list[str]:
    if not curves:
        return []
    shares = list(next(iter(curves.values())))
    head = "| ms | " + " | ".join(f"p{share * 100:g}" for share in shares) + " |\n"
    rule = "|---|" + "---|" * len(shares) + "\n"
    rows = [
        f"| {name} | " + " | ".join(f"{curve[share]:.2f}" for share in shares) + " |\n"
        for name, curve in curves.items()
    ]
    return ["\n", head, rule, *rows]


def _page_size() -> int:
    from benchmarks.stub_thingsboard import PAGE as STUB_PAGE  # noqa: PLC0415 - a baseline, needed for this only

    return len(STUB_PAGE)
