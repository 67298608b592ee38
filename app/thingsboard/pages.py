"""ThingsBoard's pages."""

from dataclasses import dataclass
from typing import Any

from app.errors import UpstreamGarbled


@dataclass(frozen=True, slots=True)
class Page:
    """One page of ThingsBoard objects, which are passed on unchanged."""

    items: list[dict[str, Any]]
    total_pages: int
    total_elements: int
    has_next: bool


def read_page(value: Any) -> Page:
    """Read `{"data","totalPages","totalElements","hasNext"}`."""
    try:
        return Page(
            list(value["data"]), int(value["totalPages"]), int(value["totalElements"]), bool(value["hasNext"])
        )
    except (KeyError, TypeError, ValueError):
        raise UpstreamGarbled(note="not_a_page") from None
