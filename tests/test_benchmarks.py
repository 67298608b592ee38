"""The parts of the benchmarks that must not lie: statistics, the open loop's clock, what is written."""

import json
import os
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import __main__ as command
from benchmarks import report, svg
from benchmarks.bench import QUICK, Bench
from benchmarks.figures import Result, best_percentiles, percentile, percentiles, rounded
from benchmarks.load import OpenLoop, Specification, encoder
from benchmarks.processes import BenchmarkFailed, Children, cpu_of, free_port, tree_of, wait_until_ready
from benchmarks.report import RESULTS, Run

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the accounting is Linux's")

RESULT_LINES = [
    Result.at_most("list call", 0.7, 1.18234, "ms"),
    Result.at_least("distinct reads", 0.8, 0.93, "times"),
    Result.not_built("live <subscribers> & more", "<= 1", "sockets"),
]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 5), (0.51, 6), (0.9, 9), (0.99, 10), (1.0, 10)]
)
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_at_most_the_rest_exceeds_a_percentile(values: list[float], share: float) -> None:
    value = percentile(values, share)
    assert value in values
    assert sum(each <= value for each in values) >= share * len(values) - 1e-6


def test_percentiles_need_values_and_a_share() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile([1], 50)


def test_the_best_curve_takes_each_share_from_its_least_disturbed_round() -> None:
    calm, disturbed = [1.0] * 99 + [2.0], [1.5] * 90 + [100.0] * 10
    assert best_percentiles([calm, disturbed]) == percentiles(calm)


def test_a_result_knows_whether_it_holds_and_how_much_of_the_budget_is_used() -> None:
    most, least, missing = RESULT_LINES
    assert (most.holds, least.holds, missing.holds) == (False, True, None)
    assert most.share == pytest.approx(1.18234 / 0.7)
    assert least.share == pytest.approx(0.8 / 0.93)
    assert Result.at_most("edge", 3, 3, "calls").holds
    assert (most.shown, missing.shown) == ("1.18 ms", "not built")


@pytest.mark.parametrize(("value", "expected"), [(1.18234, 1.18), (15_234.0, 15_200), (0.0, 0), (3.0, 3)])
def test_results_have_three_digits(value: float, expected: float) -> None:
    assert rounded(value) == expected


@given(
    st.lists(st.floats(0.0001, 0.5), min_size=1, max_size=60),
    st.integers(1, 4),
    st.sampled_from([10.0, 100.0]),
)
def test_every_latency_counts_from_when_the_request_was_due(
    services: list[float], connections: int, rate: float
) -> None:
    """Against a simulated server: latency is waiting plus service, so a stall is charged to all it delays."""
    now = 0.0
    ends: dict[str, float] = {}

    def send(connection: str, number: int) -> None:
        ends[connection] = now + services[number]

    loop = OpenLoop(rate, [f"connection {number}" for number in range(connections)], send)
    while len(loop.latencies) < len(services):
        next_due = loop.due(loop.arrived) if loop.arrived < len(services) else float("inf")
        next_end = min(ends.values(), default=float("inf"))
        now = min(next_due, next_end)
        if next_due <= next_end:
            loop.arrive()
        else:
            connection = min(ends, key=lambda name: ends[name])
            del ends[connection]
            loop.finish(connection, now)
    assert loop.arrived == len(services)
    # The last answer comes when the work is done: no request was left out or moved to a later time.
    free = [0.0] * connections
    expected = []
    for number, service in enumerate(services):
        first = free.index(min(free))
        free[first] = max(free[first], number / rate) + service
        expected.append(free[first] - number / rate)
    assert sorted(loop.latencies) == pytest.approx(sorted(expected))


def test_one_stall_is_charged_to_all_requests_that_it_delays() -> None:
    sent: list[int] = []
    loop = OpenLoop(100.0, ["only"], lambda _, number: sent.append(number))
    for _ in range(100):
        loop.arrive()
    for number in range(100):
        loop.finish("only", 1.0 + number * 0.001)
    assert sent == list(range(100))
    assert percentile(loop.latencies, 0.5) > 0.5


def test_a_numbered_target_makes_distinct_requests() -> None:
    encode = encoder(Specification(1234, "/api/{n}?x=1", {"X-API-Key": "k"}, method="POST", body='{"a":1}'))
    assert encode(7) == (
        b"POST /api/000000000007?x=1 HTTP/1.1\r\nHost: 127.0.0.1:1234\r\nX-API-Key: k\r\n"
        b'Content-Length: 7\r\n\r\n{"a":1}'
    )
    assert encode(8) != encode(7)


@pytest.mark.parametrize(
    "plot",
    [
        svg.bars("a < b & c", {"<one>": 0.5, "two": 3.0, "none": 0.0}, unit="ms", limit=1.0),
        svg.bars("without a limit", {"one": 2.0}, unit=""),
        svg.bars("nothing", {}, unit="ms"),
        svg.curves("latency", {"<us>": {0.5: 1.0, 0.99: 20.0}, "them": {0.5: 0.2, 0.99: 0.9}}, unit="ms"),
        svg.curves("all alike", {"us": {0.5: 1.0}}, unit="ms"),
    ],
)
def test_plots_are_well_formed(plot: str) -> None:
    root = ET.fromstring(plot)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("aria-label")


def test_bars_beyond_the_budget_differ_from_those_within() -> None:
    plot = svg.bars("budget", {"good": 0.5, "bad": 2.0}, unit="", limit=1.0)
    assert plot.count(svg.GOOD) == plot.count(svg.BAD) == 1


def check_schema(results: object) -> None:
    assert isinstance(results, list)
    assert results
    for result in results:
        assert set(result) == {"line", "budget", "measured", "unit", "holds"}
        assert isinstance(result["holds"], bool | None)
        assert isinstance(result["measured"], int | float | None)
        assert (result["measured"] is None) == (result["holds"] is None)
        assert all(isinstance(result[name], str) and result[name] for name in ("line", "budget", "unit"))
    assert len({result["line"] for result in results}) == len(results)


def test_results_have_the_promised_members() -> None:
    written = json.loads(report.as_json(RESULT_LINES))
    check_schema(written)
    assert written[0] == {
        "line": "list call",
        "budget": "<= 0.7",
        "measured": 1.18,
        "unit": "ms",
        "holds": False,
    }


def test_the_results_that_are_kept_here_have_them_too() -> None:
    check_schema(json.loads(RESULTS.read_bytes()))


def test_the_page_tells_every_line_and_shows_every_plot() -> None:
    curve = {0.5: 1.0, 0.99: 2.0}
    with Children() as children:
        bench = Bench(QUICK, children, cpu_ms={"gateway": 0.5}, latency_ms={"gateway": curve})
        bench.note("list", "A sentence.")
        images = report.plots(bench, RESULT_LINES)
        page = report.page(bench, Run("quick", 100.0, 0.25), RESULT_LINES, images)
    assert set(images) == {"budgets", "cpu", "latency"}
    assert all(f"images/performance-{name}.svg" in page for name in images)
    assert all(result.line in page for result in RESULT_LINES)
    assert "| list call | ≤ 0.7 | 1.18 ms | ❌ |" in page
    assert "- A sentence." in page
    assert os.uname().nodename not in page


def test_an_unknown_line_is_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "nothing"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert "'nothing'" in capfd.readouterr().err


@needs_proc
def test_cpu_is_that_of_the_whole_tree_and_children_are_ended() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with Children() as children:
        child = children.start("busy", (sys.executable, "-c", code), port=free_port())
        while len(tree_of(child.process.pid)) < 2 or not child.cpu_seconds():
            assert child.process.poll() is None
        grandchild = tree_of(child.process.pid)[1]
        while cpu_of(grandchild) < 0.1:
            assert child.process.poll() is None
        assert child.cpu_seconds() >= 0.1
        assert child.memory_peak() > 1 << 20
        folder = children.folder
    assert child.process.poll() is not None
    assert not folder.exists()


def test_a_server_that_ends_at_once_is_told_with_its_last_lines() -> None:
    with Children() as children:
        child = children.start("broken", (sys.executable, "-c", "print('no port left')"), port=free_port())
        with pytest.raises(BenchmarkFailed, match="no port left"):
            wait_until_ready(child, "/", {})
