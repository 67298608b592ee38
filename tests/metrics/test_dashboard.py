"""The dashboard and the alerts of `deploy/` ask for what the gateway really tells."""

import asyncio
import importlib.util
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.factory import create_app
from app.settings import Settings
from tb_simulator.server import Simulator
from tests.conftest import API_KEY, TENANT, SettingsFactory
from tests.metrics.prometheus import DEPLOYED, running_prometheus
from tests.metrics.scraping import Scrape, scrape
from tests.processes import program
from tests.redis_server import running_redis
from tests.serving import serve

ROOT = Path(__file__).resolve().parents[2]
BASE = "/api/v1/tb"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((DEPLOYED / "alerts.yml").read_text())
RUNBOOK = (ROOT / "docs/operations.md").read_text()
#: What Prometheus adds to every series.
ADDED = {"instance", "job", "le"}


def panel_queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


QUERIES = [*panel_queries(), *((rule["alert"], rule["expr"]) for rule in alerts())]


@pytest.fixture
async def gateway_url(make_settings: SettingsFactory) -> AsyncIterator[str]:
    async with running_redis() as redis:
        settings = make_settings(
            redis_url=redis.url, rate_limit_requests=60, latest_cache_seconds=1, tb_max_connections=4
        )
        async with serve(create_app(settings)) as url:
            yield url


async def load(url: str, simulator: Simulator) -> None:
    """Ask for everything once: good and bad, in and out, live too."""
    devices = [device.id for device in simulator.world.every("DEVICE")]
    one = f"{BASE}/devices/{devices[0]}"
    points = {"temperature": [{"ts": 1_700_000_000_000 + number, "value": number} for number in range(10)]}
    async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": API_KEY}, timeout=30) as client:
        for _ in range(3):
            assert (await client.get(f"{BASE}/devices")).status_code == 200
            assert (await client.get(f"{one}/telemetry/latest")).status_code == 200
        assert (await client.post(f"{one}/telemetry", json=points)).status_code == 201
        assert (await client.post(f"{BASE}/telemetry/bulk", json={devices[0]: points})).status_code == 200
        ranged = {"start_ts": 1_700_000_000_000, "end_ts": 1_700_000_001_000, "format": "csv"}
        assert (await client.get(f"{one}/telemetry/export", params=ranged)).status_code == 200
        assert (await client.get(f"{BASE}/nowhere")).status_code == 404
        assert (await client.get(f"{BASE}/devices", headers={"X-API-Key": "wrong"})).status_code == 401
        command = {"method": "blink", "timeout": 5000, "fail_fast": True}
        assert (await client.post(f"{one}/rpc/twoway", json=command)).status_code == 409
        async with client.stream("GET", f"{one}/telemetry/stream") as stream:
            assert stream.status_code == 200
            async for line in stream.aiter_lines():
                if line.startswith("event: telemetry"):
                    break
        simulator.faults.status(500, path="deviceInfos", count=1)
        assert (await client.get(f"{BASE}/devices", params={"page": 1})).status_code == 502


async def use_up_the_limit(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": API_KEY}) as client:
        while (await client.get(f"{BASE}/whoami")).status_code != 429:
            pass


def labels_in(expression: str) -> set[str]:
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    matched = re.findall(r"[{,]\s*(\w+)\s*(?:=~|!=|!~|=)", expression)
    return {label.strip() for group in grouped for label in group.split(",")} | set(matched)


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_queries_name_what_there_is(title: str, expression: str, told: Scrape) -> None:
    labels: dict[str, set[str]] = {"up": set(), "gateway_cut_answers_total": {"route"}}
    for sample in told.samples:
        labels.setdefault(sample.name, set()).update(sample.labels)
    named = set(re.findall(r"\b(?:gateway_|process_|up\b)\w*", re.sub(r'"[^"]*"', "", expression)))
    assert named
    assert named <= labels.keys(), f"{title} asks for what is not told"
    assert labels_in(expression) <= ADDED.union(*(labels[name] for name in named)), title


@pytest.fixture(scope="module")
def told() -> Scrape:
    """What a gateway tells after the load, asked once for all queries."""

    async def ask() -> Scrape:
        async with Simulator() as simulator:
            settings = Settings(
                _env_file=None,
                tb_host=simulator.url,
                tb_username=TENANT[0],
                tb_password=TENANT[1],
                api_key=API_KEY,
                rate_limit_requests=60,
            )
            async with serve(create_app(settings)) as url, httpx.AsyncClient(base_url=url) as client:
                await load(url, simulator)
                await use_up_the_limit(url)
                return await scrape(client)

    return asyncio.run(ask())


@pytest.mark.redis
async def test_every_panel_shows_data_after_the_load(
    gateway_url: str, simulator: Simulator, tmp_path: Path
) -> None:
    async with running_prometheus(gateway_url, tmp_path) as prometheus:
        # Twice: a rate needs a series that was there before it grew.
        for _ in range(2):
            await load(gateway_url, simulator)
            await prometheus.scrape_again()
        await use_up_the_limit(gateway_url)
        await prometheus.scrape_again()
        empty = []
        for title, expression in panel_queries():
            asked = expression.replace("$__rate_interval", "5m").replace("$instance", ".+")
            found = await prometheus.query(asked)
            if not any(series["value"][1] != "NaN" for series in found):
                empty.append(f"{title}: {asked}")
        assert empty == []
        for rule in await prometheus.rules():
            assert rule["health"] == "ok", rule


def test_the_dashboard_is_fresh() -> None:
    path = ROOT / "scripts" / "generate_dashboard.py"
    spec = importlib.util.spec_from_file_location("generate_dashboard", path)
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.DOCUMENT.read_text() == generator.text(), "run scripts/generate_dashboard.py"


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


class TestAlerts:
    """They fire when they should, and the runbook knows each."""

    def test_prometheus_takes_them(self) -> None:
        command = [program("promtool", "prometheus"), "check", "config", str(DEPLOYED / "prometheus.yml")]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr

    def test_they_fire_when_they_should_and_only_then(self) -> None:
        cases = Path(__file__).with_name("alerts_test.yml")
        command = [program("promtool", "prometheus"), "test", "rules", str(cases)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        tried = set(re.findall(r'alertname="(\w+)"', cases.read_text()))
        assert tried == {rule["alert"] for rule in alerts()}

    @pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
    def test_the_runbook_has_it(self, rule: dict[str, Any]) -> None:
        assert f"### {rule['alert']}\n" in RUNBOOK
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
