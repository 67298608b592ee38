"""HEAD: how many points a history has, before it is fetched."""

from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.serving import serve
from tests.telemetry_world import DEVICES, START, UNKNOWN, VALUES, device_id, load


@pytest.fixture
def device(simulator: Simulator) -> str:
    """A device with two keys, one of them of mixed types, which ThingsBoard's COUNT miscounts."""
    found = device_id(simulator)
    load(simulator, found, "temperature", [(START + n, n) for n in range(25_000)])
    load(simulator, found, "mixed", [(START + n, n if n % 2 else "on") for n in range(1_000)])
    return found


@pytest.mark.parametrize("path", ["telemetry", "telemetry/export"])
async def test_a_head_tells_the_number_of_points(gateway: httpx.AsyncClient, device: str, path: str) -> None:
    answer = await gateway.head(f"{DEVICES}/{device}/{path}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["x-total-count"] == "26000"
    assert answer.headers["x-total-count-exact"] == "true"
    assert "content-length" not in answer.headers
    span = f"keys=temperature&start_ts={START + 10}&end_ts={START + 30}"
    assert (await gateway.head(f"{DEVICES}/{device}/{path}?{span}")).headers["x-total-count"] == "20"


@pytest.mark.parametrize("query", ["", "?format=csv", "?format=jsonl", "?format=xlsx", "?format=parquet"])
async def test_a_head_has_the_headers_of_its_get(gateway: httpx.AsyncClient, device: str, query: str) -> None:
    url = f"{DEVICES}/{device}/telemetry{query}"
    head, get = await gateway.head(url), await gateway.get(url, headers={"Accept-Encoding": "identity"})
    for name in ("content-type", "content-disposition", "vary"):
        assert head.headers.get(name) == get.headers.get(name)


async def test_a_long_history_is_counted_by_thingsboard(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    load(simulator, device, "temperature", [(START + n, n) for n in range(300_000)])
    answer = await gateway.head(f"{DEVICES}/{device}/telemetry/export")
    assert answer.headers["x-total-count"] == "300000"
    assert answer.headers["x-total-count-exact"] == "false"
    assert simulator.calls[VALUES] <= 2


async def test_a_range_that_takes_too_long_is_counted_in_parts(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    load(simulator, device, "temperature", [(START + n, n) for n in range(1_600)])
    simulator.faults.status(504, path="values/timeseries", count=1)
    query = f"start_ts={START}&end_ts={START + 1_600}"
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry/count?{query}")
    assert (answer.json()["total"], answer.json()["exact"]) == (1_600, True)
    assert simulator.calls[VALUES] == 1 + 16 + 2


REFUSED: dict[str, tuple[str, int]] = {
    "unknown device": (f"{UNKNOWN}/telemetry", 404),
    "unknown parameter": ("{device}/telemetry?nope=1", 422),
    "cursor": (f"{{device}}/telemetry/export?cursor={START}", 422),
    "unknown format": ("{device}/telemetry/export?format=json", 422),
    "wide JSON": ("{device}/telemetry?layout=wide", 400),
}


@pytest.mark.parametrize(("path", "status"), REFUSED.values(), ids=REFUSED)
async def test_a_head_is_refused_as_its_get(
    gateway: httpx.AsyncClient, device: str, path: str, status: int
) -> None:
    answer = await gateway.head(f"{DEVICES}/{path.format(device=device)}")
    assert answer.status_code == status


async def test_a_head_needs_the_scope(make_gateway: Any, keys_file: Any, device: str) -> None:
    gateway = make_gateway(
        key="writer-key-0000000001",
        api_key=None,
        api_keys_file=keys_file(w=("writer-key-0000000001", ["telemetry:write"])),
    )
    assert (await gateway.head(f"{DEVICES}/{device}/telemetry")).status_code == 403


async def test_a_head_leaves_the_connection_in_order(make_gateway: Any, device: str) -> None:
    """No body, no chunk, and the next request on the same connection is answered."""
    gateway = make_gateway()
    async with (
        serve(gateway.app) as url,
        httpx.AsyncClient(base_url=url, headers=dict(gateway.headers)) as client,
    ):
        for _ in range(2):
            head = await client.head(f"{DEVICES}/{device}/telemetry/export?keys=mixed")
            assert (head.status_code, head.headers["x-total-count"]) == (200, "1000")
            missing = await client.head(f"{DEVICES}/{UNKNOWN}/telemetry/export")
            assert missing.status_code == 404
            assert (await client.get(f"{DEVICES}/{device}/keys")).status_code == 200
