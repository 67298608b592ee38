"""What the run showed: the verdict, the plot, and the section of `docs/reliability.md`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import svg
from benchmarks.chaos.callers import CROWDS
from benchmarks.chaos.monitoring import Monitored
from benchmarks.chaos.tally import Event, Outcome, Tally
from benchmarks.processes import ROOT

PAGE = ROOT / "docs" / "reliability.md"
PLOT = ROOT / "docs" / "images" / "reliability-load.svg"
BEGIN = "<!-- Written by python -m benchmarks.chaos: run it instead of editing. -->\n"
END = "<!-- End of what python -m benchmarks.chaos writes. -->\n"
KILLED, STOPPED, THINGSBOARD, REDIS = (
    "a replica is killed (`kill -9`)",
    "the other one is stopped (SIGTERM)",
    "ThingsBoard restarts",
    "Redis is killed",
)
#: Callers must not notice these at all.
UNNOTICED = (STOPPED, REDIS)
#: What is sent later than so after the beginning of an event, its crowd included, was not in hand.
IN_HAND_SECONDS = 1.0
HEIGHT = 220
SECTION = """
## All of it within one load

`.venv/bin/python -m benchmarks.chaos` (it needs nginx, Redis and Prometheus, and six minutes; `--minutes 1`
tries less and writes nothing) runs two replicas, one of them with two workers, behind the nginx configuration
of `deploy/`, with a real Redis and the simulator as ThingsBoard. It sends {rate} requests a second for
{minutes} minutes in an open loop drawn from a seed: newest values, lists, histories, exports of 200,000
points, uploads, bulk uploads, commands, wrong keys, and {readers} live streams that come back with
`Last-Event-ID`. Right before each event {crowd} more are sent at once, so that it meets work in hand.

| what happens | over after | requests meanwhile | failed | how |
|---|---|---|---|---|
{rows}| nothing | | {calm} | {calm_failed} | |

An event is over five seconds after what was away is back.

![Answered and failed requests by the second](images/reliability-load.svg)

- **Acknowledged points lost: {lost}** of {acknowledged}, each looked up in ThingsBoard itself afterwards.
  {in_doubt} more were sent and never acknowledged.
- **Wrong answers: {wrong}** of {total}. Each value was the one that was sent for its device, key and time. A
  read held all points that had been acknowledged before it began (newest values: two seconds before, because
  the replicas kept them for one). Lists were complete, exports whole, byte for byte, or visibly broken. Every
  error was a 502, 503 or 504 in the gateway's shape.
- **Commands**: {commands} were sent, {delivered_twice} came to their device more than once.
- **Streams** broke {breaks} times and delivered {points} points: all that were acknowledged, in their order.
  `gap` was told {announced} times.
- **Error budget**: {failed} of {total} requests failed ({share}); of those outside ThingsBoard's restart,
  {share_without}. What may fail: while ThingsBoard is away, what needs it; when a replica is killed, what it
  had in hand, except reads whose answer had not begun. Nothing may fail because a replica is stopped, because
  Redis dies, or without an event; the command fails otherwise.
- **Monitoring**: a Prometheus scraped both replicas meanwhile. Of {queries} queries of the dashboard {empty}
  had no data, and {moved} were above zero at some time. All {alerts} alerts could be judged. True at some
  time: {true}; for long enough to fire: {fired}.

"""
SHOWN = 20


@dataclass(frozen=True)
class Live:
    """What readers of streams got."""

    readers: int
    points: int
    breaks: int
    announced: int


@dataclass(frozen=True)
class Findings:
    """All that is known after a run."""

    seconds: float
    tally: Tally
    events: Sequence[Event]
    acknowledged: int
    in_doubt: int
    lost: Sequence[str]
    commands: int
    delivered_twice: int
    live: Live
    monitored: Monitored

    def faults(self) -> list[str]:
        """Return all that must not be."""
        tally = self.tally
        faults = [f"wrong: {fault}" for fault in tally.wrong] + [f"lost: {fault}" for fault in self.lost]
        for outcome in tally.failed:
            event = outcome.meets(self.events)
            is_in_hand = event is not None and outcome.began < event.began + IN_HAND_SECONDS
            if event is None or event.name in UNNOTICED or (event.name == KILLED and not is_in_hand):
                faults.append(f"{event.name if event else 'without an event'}: {outcome}")
        faults += [f"no data: {asked.title}: {asked.expression}" for asked in self.monitored.empty]
        faults += [f"alert: {fault}" for fault in self.monitored.broken_alerts]
        if self.delivered_twice:
            faults.append(f"{self.delivered_twice} commands were delivered more than once")
        if not self.live.breaks:
            faults.append("no stream broke: the run has tried nothing")
        if self.events[-1].ended > self.seconds:
            faults.append("the load ended before the last event was over")
        return faults


def write(findings: Findings) -> None:
    """Write section and plot."""
    PLOT.write_text(plot(findings), "utf-8")
    page = PAGE.read_text("utf-8")
    before, found, rest = page.partition(BEGIN)
    after = rest.partition(END)[2] if found else ""
    PAGE.write_text(
        f"{before if found else before.rstrip() + chr(10) * 2}{BEGIN}{section(findings)}{END}{after}", "utf-8"
    )


def section(findings: Findings) -> str:
    """Return the section, as Markdown."""
    tally, live, monitored = findings.tally, findings.live, findings.monitored
    total, failed = len(tally.outcomes), len(tally.failed)
    calm = tally.during(None, findings.events)
    return SECTION.format(
        rate=f"{total / findings.seconds:.0f}",
        minutes=f"{findings.seconds / 60:g}",
        readers=live.readers,
        crowd=sum(sum(counts.values()) for _, counts in CROWDS),
        rows="".join(rows(findings)),
        calm=f"{len(calm):,}",
        calm_failed=sum(each.failure is not None for each in calm),
        lost=len(findings.lost),
        acknowledged=f"{findings.acknowledged:,}",
        in_doubt=f"{findings.in_doubt:,}",
        wrong=len(tally.wrong),
        total=f"{total:,}",
        commands=f"{findings.commands:,}",
        delivered_twice=findings.delivered_twice,
        breaks=live.breaks,
        points=f"{live.points:,}",
        announced=live.announced,
        failed=failed,
        share=share(failed, total),
        share_without=share(*without(findings, THINGSBOARD)),
        queries=len(monitored.panel_queries),
        empty=len(monitored.empty),
        moved=monitored.moved,
        alerts=len(monitored.alerts),
        true=names(monitored.true),
        fired=names(monitored.fired),
    )


def rows(findings: Findings) -> Iterator[str]:
    """Yield a row of the table for each event."""
    for event in findings.events:
        meanwhile = findings.tally.during(event, findings.events)
        kinds = findings.tally.kinds(meanwhile)
        how = "; ".join(f"{failure}: {told(counts)}" for failure, counts in kinds.items())
        failed = sum(counts.total() for counts in kinds.values())
        seconds = event.ended - event.began
        yield f"| {event.name} | {seconds:.0f} s | {len(meanwhile):,} | {failed} | {how} |\n"


def told(counts: Counter[str]) -> str:
    """Return counts for readers, the largest first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def without(findings: Findings, name: str) -> tuple[int, int]:
    """Return failed and all requests but for those of an event."""
    events = findings.events
    met = [(each, each.meets(events)) for each in findings.tally.outcomes]
    rest = [each for each, event in met if event is None or event.name != name]
    return sum(each.failure is not None for each in rest), len(rest)


def share(part: int, whole: int) -> str:
    """Return a share for readers."""
    return f"{part / whole:.2%}"


def names(titles: Sequence[str]) -> str:
    """Return names of alerts for readers."""
    return ", ".join(f"`{title}`" for title in titles) or "none"


def plot(findings: Findings) -> str:
    """Draw answered and failed requests by the second in which they were sent, and the events behind them."""
    seconds = int(findings.seconds) + 1
    good, bad = (by_second(findings.tally.outcomes, is_failed=is_failed) for is_failed in (False, True))
    most = max(good[second] + bad[second] for second in range(seconds))
    left, top = svg.MARGIN / 2, svg.TOP + 24
    width, bottom = (svg.WIDTH - 2 * left) / seconds, top + HEIGHT
    shade = f'height="{HEIGHT + 8}" fill="{svg.LINE}" fill-opacity="0.25"'
    parts = []
    for number, event in enumerate(findings.events, 1):
        x = left + event.began * width
        caption = f"{event.name.replace('`', '')}, after {event.began:.0f} s"
        parts += [
            f'<rect x="{x:.1f}" y="{top - 8}" width="{(event.ended - event.began) * width:.1f}" {shade}/>',
            f'<text x="{x:.1f}" y="{top - 14}">{number}</text>',
            f'<text x="{left}" y="{bottom + 20 + number * 20}">{number}: {caption}</text>',
        ]
    for second in range(seconds):
        low = float(bottom)
        for colour, counted in ((svg.NEUTRAL, good), (svg.BAD, bad)):
            height = counted[second] * HEIGHT / most
            low -= height
            if counted[second]:
                parts.append(
                    f'<rect x="{left + second * width:.1f}" y="{low:.1f}" width="{width * 0.85:.2f}" '
                    f'height="{height:.1f}" fill="{colour}"/>'
                )
    parts.append(f'<text x="{left}" y="{top - 14}">{most} a second at most</text>')
    parts.append(f'<path d="M{left} {bottom}H{svg.WIDTH - left}" stroke="{svg.LINE}"/>')
    return svg.document(bottom + 110, parts, title="Requests by the second: answered (blue), failed (red)")


def by_second(outcomes: Sequence[Outcome], *, is_failed: bool) -> Counter[int]:
    """Count requests by the second in which they began."""
    return Counter(int(each.began) for each in outcomes if (each.failure is not None) is is_failed)
