"""A Prometheus that scrapes both replicas during the load, and what dashboard and alerts get from it."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlencode

import orjson
import yaml

from benchmarks.chaos.stack import OK, program
from benchmarks.processes import (
    HOST,
    ROOT,
    BenchmarkFailed,
    Child,
    Children,
    fetch,
    free_port,
    wait_until_ready,
)

DEPLOYED = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
SCRAPE_SECONDS = 5
#: Grafana's `$__rate_interval`: four scrapes.
RATE_INTERVAL = f"{4 * SCRAPE_SECONDS}s"


class Asked(NamedTuple):
    """One query of a panel or alert."""

    title: str
    expression: str


@dataclass(frozen=True)
class Monitored:
    """What Prometheus had to say after the load."""

    panel_queries: Sequence[Asked]
    empty: Sequence[Asked]
    #: Those that were above zero at some time.
    moved: int
    alerts: Sequence[Asked]
    broken_alerts: Sequence[str]
    #: Alerts whose expression was true at some time, and those that fired.
    true: Sequence[str]
    fired: Sequence[str]


def start(children: Children, ports: Sequence[int]) -> Child:
    """Start it with the configuration of `deploy/`, but for targets and pace."""
    configuration = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text("utf-8"))
    pace = f"{SCRAPE_SECONDS}s"
    configuration["global"] = {"scrape_interval": pace, "scrape_timeout": pace, "evaluation_interval": pace}
    configuration["rule_files"] = [str(DEPLOYED / name) for name in configuration["rule_files"]]
    (job,) = configuration["scrape_configs"]
    job["static_configs"] = [{"targets": [f"{HOST}:{port}" for port in ports]}]
    file, port = children.folder / "prometheus.yml", free_port()
    file.write_text(yaml.safe_dump(configuration), "utf-8")
    command = (
        program("prometheus", "prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={children.folder / 'prometheus'}",
        f"--web.listen-address={HOST}:{port}",
    )
    child = children.start("prometheus", command, port=port)
    wait_until_ready(child, "/-/ready", {})
    return child


def ask(prometheus: Child, began: float, ended: float) -> Monitored:
    """Ask every query of dashboard and alerts for the time of the load, in seconds since the epoch."""
    panels, alerts = list(panel_queries()), list(alert_rules())
    span = {"start": began, "end": ended, "step": SCRAPE_SECONDS}
    answers = {each: _values(prometheus, each, span) for each in panels}
    rules = _api(prometheus, "rules", {})["groups"]
    broken = [
        f"{rule['name']}: {rule.get('lastError')}"
        for group in rules
        for rule in group["rules"]
        if rule["health"] != "ok"
    ]
    fired = _api(prometheus, "query_range", {"query": 'ALERTS{alertstate="firing"}', **span})["result"]
    return Monitored(
        panel_queries=panels,
        empty=[each for each in panels if not answers[each]],
        moved=sum(any(value > 0 for value in values) for values in answers.values()),
        alerts=alerts,
        broken_alerts=broken,
        true=[alert.title for alert in alerts if _values(prometheus, alert, span)],
        fired=sorted({series["metric"]["alertname"] for series in fired}),
    )


def panel_queries() -> Iterator[Asked]:
    """Yield the queries of all panels, as Grafana would ask them for all instances."""
    for panel in orjson.loads(DASHBOARD.read_bytes())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", RATE_INTERVAL).replace("$instance", ".+")
            yield Asked(panel["title"], expression)


def alert_rules() -> Iterator[Asked]:
    """Yield the expressions of all alerts."""
    for group in yaml.safe_load((DEPLOYED / "alerts.yml").read_text("utf-8"))["groups"]:
        for rule in group["rules"]:
            yield Asked(rule["alert"], rule["expr"])


def _values(prometheus: Child, asked: Asked, span: dict[str, float]) -> list[float]:
    result = _api(prometheus, "query_range", {"query": asked.expression, **span})["result"]
    values = [float(value) for series in result for _, value in series["values"]]
    return [value for value in values if not math.isnan(value)]


def _api(prometheus: Child, path: str, parameters: dict[str, Any]) -> dict[str, Any]:
    status, body = fetch(prometheus.port, f"/api/v1/{path}?{urlencode(parameters)}", {})
    if status != OK:
        raise BenchmarkFailed(f"Prometheus refuses {parameters.get('query')}: {body[:300]!r}")
    data: dict[str, Any] = orjson.loads(body)["data"]
    return data


def wall_clock() -> float:
    """Return the time that Prometheus goes by."""
    return time.time()
