"""The judge of the chaos run: each lie it is there for is found, and the truth passes."""

from typing import Any

import pytest

from benchmarks.chaos import report
from benchmarks.chaos.callers import RATES, schedule
from benchmarks.chaos.monitoring import Monitored, alert_rules, panel_queries
from benchmarks.chaos.report import Findings, Live
from benchmarks.chaos.tally import Event, Outcome, Tally
from benchmarks.chaos.truth import SERIAL, SINGLE, STALE_SECONDS, Ledger, Reading, value_of

DEVICE = 3


def sent(ledger: Ledger, key: str, count: int) -> list[Reading]:
    """Send points and acknowledge them at second 10; return them as they should be read."""
    times = ledger.send(DEVICE, key, count, 9.0)
    ledger.acknowledge(DEVICE, key, times, 10.0)
    return [Reading(ts, value_of(DEVICE, key, ts)) for ts in times]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def test_what_was_sent_is_right(ledger: Ledger) -> None:
    points = sent(ledger, SINGLE, 4)
    assert ledger.faults_of_series(DEVICE, SINGLE, points, 11.0) == []
    assert ledger.faults_of_latest(DEVICE, SINGLE, points[-1], 11.0) == []
    assert (ledger.acknowledged, ledger.in_doubt) == (4, 0)


def test_points_in_doubt_may_be_there_or_not(ledger: Ledger) -> None:
    points = sent(ledger, SINGLE, 2)
    (ts,) = ledger.send(DEVICE, SINGLE, 1, 11.0)
    more = [*points, Reading(ts, value_of(DEVICE, SINGLE, ts))]
    for readings in (points, more):
        assert ledger.faults_of_series(DEVICE, SINGLE, readings, 12.0) == []
        assert ledger.faults_of_latest(DEVICE, SINGLE, readings[-1], 20.0) == []
    assert ledger.in_doubt == 1


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda points: points[:-1], "acknowledged and is missing"),
        (lambda points: points[::-1], "order"),
        (lambda points: [points[0], *points], "order"),
        (lambda points: [points[0]._replace(value=-1.0), *points[1:]], "another value"),
        (lambda points: [points[0]._replace(value=str(points[0].value)), *points[1:]], "another value"),
        (lambda points: [*points, Reading(points[-1].ts + 1, 1.0)], "never sent"),
    ],
)
def test_a_spoilt_series_is_found(ledger: Ledger, spoil: Any, fault: str) -> None:
    points = sent(ledger, SINGLE, 4)
    assert any(fault in found for found in ledger.faults_of_series(DEVICE, SINGLE, spoil(points), 11.0))


def test_a_read_owes_only_what_was_acknowledged_before_it_began(ledger: Ledger) -> None:
    points = sent(ledger, SINGLE, 2)
    assert ledger.faults_of_series(DEVICE, SINGLE, points[:1], 9.5) == []
    assert ledger.faults_of_latest(DEVICE, SINGLE, points[0], 10.0 + STALE_SECONDS) == []
    assert ledger.faults_of_latest(DEVICE, SINGLE, points[0], 10.1 + STALE_SECONDS)
    assert ledger.faults_of_latest(DEVICE, SINGLE, None, 10.1 + STALE_SECONDS)


def test_a_stream_owes_all_but_what_a_gap_announced(ledger: Ledger) -> None:
    points = sent(ledger, SERIAL, 5)
    last = points[-1].ts

    def faults(heard: list[Reading], announced: int = 0) -> list[str]:
        return ledger.faults_of_stream(DEVICE, heard, announced, until=last)

    assert faults(points) == []
    # It began with the newest value of its time.
    assert faults(points[2:]) == []
    assert faults([points[0], points[4]], announced=points[3].ts) == []
    assert faults([points[0], points[4]])
    assert faults(points[:-1])
    assert faults([])
    assert faults([*points[:2], points[0], *points[2:]])
    assert faults([points[0], *points])
    ledger.tracks[DEVICE, SERIAL].repeated.add(points[0].ts)
    assert faults([points[0], *points]) == []


def test_a_load_is_drawn_from_its_seed_at_its_rates() -> None:
    load = list(schedule(1, 100, 20))
    assert load == list(schedule(1, 100, 20))
    assert load != list(schedule(2, 100, 20))
    assert load == sorted(load)
    assert {operation for _, operation, _ in load} == RATES.keys()
    assert 0.8 < len(load) / (100 * sum(RATES.values())) < 1.2


EVENTS = [
    Event(name, began, began + 10)
    for name, began in (
        (report.KILLED, 10.0),
        (report.STOPPED, 30.0),
        (report.THINGSBOARD, 50.0),
        (report.REDIS, 70.0),
    )
]


def findings(*outcomes: Outcome, **changed: Any) -> Findings:
    told: dict[str, Any] = {
        "seconds": 90.0,
        "tally": Tally([Outcome("latest", second, second + 0.1) for second in range(90)] + list(outcomes)),
        "events": EVENTS,
        "acknowledged": 1,
        "in_doubt": 0,
        "lost": [],
        "commands": 1,
        "delivered_twice": 0,
        "live": Live(readers=1, points=1, breaks=1, announced=0),
        "monitored": Monitored(list(panel_queries()), [], 1, list(alert_rules()), [], [], []),
    }
    return Findings(**told | changed)


def failure(second: float) -> Outcome:
    return Outcome("upload", second, second + 1, "503 UPSTREAM_UNAVAILABLE")


@pytest.mark.parametrize(
    ("second", "is_allowed"), [(5, False), (9.5, True), (15, False), (35, False), (55, True), (75, False)]
)
def test_only_a_killed_replica_and_a_thingsboard_that_is_away_may_cost_requests(
    second: float, is_allowed: bool
) -> None:
    assert bool(findings(failure(second)).faults()) is not is_allowed


@pytest.mark.parametrize(
    "changed",
    [
        {"lost": ["a point"]},
        {"delivered_twice": 1},
        {"tally": Tally([], ["a wrong answer"])},
        {"live": Live(readers=1, points=1, breaks=0, announced=0)},
        {"seconds": 75.0},
        {"monitored": Monitored([], list(panel_queries())[:1], 0, [], [], [], [])},
        {"monitored": Monitored([], [], 0, [], ["an alert that cannot be judged"], [], [])},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_whatever_must_not_be_fails_the_run(changed: dict[str, Any]) -> None:
    assert findings().faults() == []
    assert len(findings(**changed).faults()) == 1


def test_the_section_stands_between_its_marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    page, plot = tmp_path / "page.md", tmp_path / "plot.svg"
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "PLOT", plot)
    page.write_text("# Page\n\nBefore.\n")
    report.write(findings(failure(55)))
    once = page.read_text()
    assert once.startswith("# Page\n\nBefore.\n\n" + report.BEGIN)
    assert "| 1 | 503 UPSTREAM_UNAVAILABLE: 1 upload |" in once
    assert "1 of 91 requests failed (1.10%)" in once
    page.write_text(once + "\n## After\n")
    report.write(findings(failure(55)))
    assert page.read_text() == once + "\n## After\n"
    assert plot.read_text().startswith("<svg")
