"""Reads what `/metrics` answers."""

from collections.abc import Iterator

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

Labels = frozenset[tuple[str, str]]


class Scrape:
    """The samples of one answer."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: list[Sample] = [each for family in self.families.values() for each in family.samples]

    def find(self, name: str, **labels: str) -> Iterator[Sample]:
        wanted = labels.items()
        return (each for each in self.samples if each.name == name and wanted <= each.labels.items())

    def total(self, name: str, **labels: str) -> float:
        """Add up all series of a metric that have these labels."""
        return sum(each.value for each in self.find(name, **labels))


async def scrape(client: httpx.AsyncClient) -> Scrape:
    answer = await client.get("/metrics", headers={"X-API-Key": ""})
    assert answer.status_code == 200, answer.text
    return Scrape(answer.text)
