"""A real Prometheus of our own, which scrapes a gateway and judges the alerts of `deploy/`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.processes import free_port
from tests.processes import PATIENCE, Process, program

DEPLOYED = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"


class Prometheus:
    """Asks it."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query, each with its labels and `value`."""
        answer = await self._client.get("/api/v1/query", params={"query": expression})
        told = answer.json()
        assert told["status"] == "success", (expression, told)
        found: list[dict[str, Any]] = told["data"]["result"]
        return found

    async def rules(self) -> Iterator[dict[str, Any]]:
        """Return the rules as it judged them last."""
        groups = (await self._client.get("/api/v1/rules")).json()["data"]["groups"]
        return (rule for group in groups for rule in group["rules"])

    async def scrapes(self) -> int:
        """Return how many scrapes brought something; one that takes too long is an `up` of 0."""
        found = await self.query('sum_over_time(up{job="gateway"}[10m])')
        return int(found[0]["value"][1]) if found else 0

    async def scrape_again(self) -> None:
        """Wait until it has scraped twice more: what was counted before now is stored then."""
        async with asyncio.timeout(PATIENCE):
            until = await self.scrapes() + 2
            while await self.scrapes() < until:
                pass


@asynccontextmanager
async def running_prometheus(gateway_url: str, directory: Path) -> AsyncIterator[Prometheus]:
    """Run it with the configuration of `deploy/`, but for the target and the pace."""
    configuration = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text())
    configuration["global"] = {
        "scrape_interval": "250ms",
        "scrape_timeout": "250ms",
        "evaluation_interval": "250ms",
    }
    configuration["rule_files"] = [str(DEPLOYED / name) for name in configuration["rule_files"]]
    (job,) = configuration["scrape_configs"]
    job["static_configs"] = [{"targets": [gateway_url.removeprefix("http://")]}]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    process = await Process.start(
        program("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    try:
        await process.read_until("Server is ready")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield Prometheus(client)
    finally:
        await process.kill()
