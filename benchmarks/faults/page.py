"""Writes the tables into `docs/reliability.md`, between its markers, and `benchmarks/faults.json`."""

import os
from collections.abc import Iterable, Iterator, Sequence

import orjson

from benchmarks.faults.catalogue import COLUMNS, GROUPS
from benchmarks.faults.cells import Cell
from benchmarks.faults.matrix import RowResult
from benchmarks.faults.site import QUEUE_SECONDS, TIMEOUT_SECONDS
from benchmarks.processes import ROOT

RESULTS = ROOT / "benchmarks" / "faults.json"
PAGE = ROOT / "docs" / "reliability.md"
PATIENTLY = " Others used the machine: bounds of time were {:g} times those above."
BEGIN, END = "<!-- scripts/fault_matrix writes from here -->", "<!-- to here -->"


def told(cell: Cell) -> str:
    """Return what a cell says: answers, the longest wait, calls by calls needed, the time to recover."""
    parts = [answers_of(cell), f"{cell.wait_seconds:.2f} s"]
    if cell.amplification is not None:
        parts.append(f"x{cell.amplification:.2f}")
    if cell.recovery_seconds is not None:
        parts.append(f"back {cell.recovery_seconds:.2f} s")
    return " · ".join(parts)


def sign(cell: Cell) -> str:
    """Return the verdict."""
    return "✅" if cell.holds else "❌"


def answers_of(cell: Cell) -> str:
    """Return the words, the most frequent first."""
    return ", ".join(word for word, _ in cell.words.most_common()) or "nothing"


def listed(problems: Iterable[str]) -> str:
    """Return problems as the end of a line."""
    text = "; ".join(problems)
    return f" ({text})" if text else ""


def write(results: Sequence[RowResult], seconds: float, patience: float) -> None:
    """Write both."""
    cells = [cell.as_json() for result in results for cell in result.cells.values()]
    RESULTS.write_bytes(orjson.dumps(cells, option=orjson.OPT_INDENT_2) + b"\n")
    PAGE.write_text(
        replaced(PAGE.read_text("utf-8"), "\n".join(content(results, seconds, patience))), "utf-8"
    )


def replaced(page: str, text: str) -> str:
    """Return the page with this text between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def content(results: Sequence[RowResult], seconds: float, patience: float) -> Iterator[str]:
    """Yield the lines between the markers."""
    cells = [cell for result in results for cell in result.cells.values()]
    good, lost = sum(cell.holds for cell in cells), sum(cell.lost for cell in cells)
    yield (
        f"{good} of {len(cells)} cells were as specified, in {seconds:.0f} s on {os.cpu_count()} cores. "
        f"{sum(cell.acknowledged for cell in cells):,} points were acknowledged and {lost} of them lost. "
        f"`TB_TIMEOUT_SECONDS` was {TIMEOUT_SECONDS:g} and `TB_QUEUE_SECONDS` {QUEUE_SECONDS:g}: they limit "
        f"the waits.{PATIENTLY.format(patience) if patience != 1 else ''}"
    )
    by_name = {result.fault.name: result for result in results}
    for title, group in GROUPS.items():
        rows = [by_name[fault.name] for fault in group]
        yield from ("", f"### {title}", "", "Answers and longest waits:", "")
        yield from table(["fault", *COLUMNS.values()], (answer_row(row) for row in rows))
        yield from ("", "Beside them, worst of all kinds of requests:", "")
        yield from table(
            ["fault", "calls by calls needed", "good again after", "tasks left", "as specified"],
            (figure_row(row) for row in rows),
        )
    yield from ("", "### What to do", "")
    rows = [by_name[fault.name] for group in GROUPS.values() for fault in group]
    texts = ([row.fault.title, row.fault.caller, row.fault.operator] for row in rows)
    yield from table(["fault", "what a caller sees", "what an operator does"], texts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def answer_row(row: RowResult) -> list[str]:
    """Return a cell for each kind of request."""
    shown = []
    for column in COLUMNS:
        cell = row.cells[column]
        wait = "" if column == "listening" else f" {cell.wait_seconds:.1f} s"
        shown.append(f"{sign(cell)} {answers_of(cell)}{wait}{listed(cell.problems)}")
    return [row.fault.title, *shown]


def figure_row(row: RowResult) -> list[str]:
    """Return what is the same question for all kinds."""
    cells = row.cells.values()
    worst = max((cell for cell in cells if cell.needed), key=lambda cell: cell.calls / cell.needed)
    recoveries = [cell.recovery_seconds for cell in cells if cell.recovery_seconds is not None]
    return [
        row.fault.title,
        f"{worst.calls} / {worst.needed} ({COLUMNS[worst.column]})",
        f"{max(recoveries, default=0.0):.1f} s",
        str(row.tasks_left),
        "✅" if row.holds else f"❌{listed(row.problems)}",
    ]
