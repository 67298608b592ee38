"""What ThingsBoard gets wrong for unusual keys and mixed types, and the gateway right."""

from typing import Any
from zoneinfo import ZoneInfo

import httpx
import orjson
import pytest

from app.thingsboard.transport import Answer, Transport
from tb_simulator.server import Simulator
from tests.telemetry_world import DEVICES, START, VALUES, device_id, json_value, load
from tests.test_telemetry_query import ask, ms

HOUR = 3_600_000
MIXED = [(START, 1), (START + 1, 2.5), (START + 2, "n/a"), (START + 3, True), (START + 4, json_value("{}"))]
LONG = 250_000
ALL = {"start_ts": START, "end_ts": START + HOUR}


async def count(gateway: httpx.AsyncClient, device: str) -> dict[str, Any]:
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry/count")
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("key", ["a,b", " a,b ", " outer blanks ", ",,"])
async def test_any_key_has_its_history(gateway: httpx.AsyncClient, simulator: Simulator, key: str) -> None:
    """ThingsBoard answers only the latest value when a call has `key` but no `keys`."""
    device = device_id(simulator)
    load(simulator, device, key, [(START + n, n) for n in range(4)])
    load(simulator, device, "a", [(START, "other")])
    span = f"start_ts={START + 1}&end_ts={START + 4}"
    points = [{"ts": START + n, "value": n} for n in (1, 2, 3)]
    base = f"{DEVICES}/{device}/telemetry"
    assert (await gateway.get(f"{base}?{span}")).json()["data"][key] == points
    lines = (await gateway.get(f"{base}/export?format=jsonl&{span}")).text.splitlines()
    assert [orjson.loads(line) for line in lines] == [
        {"ts": p["ts"], "key": key, "value": p["value"]} for p in points
    ]
    assert (await gateway.get(f"{base}/count?{span}")).json()["counts"][key] == 3
    query = {"keys": [key], "start_ts": START + 1, "end_ts": START + 4}
    assert (await ask(gateway, device, **query))["data"] == {key: points}
    bucket = {"ts": START + 1, "end_ts": START + 4}
    for agg, value in (("SUM", 6), ("COUNT", 3), ("MAX", 3)):
        assert (await ask(gateway, device, **query, agg=agg))["data"][key] == [{**bucket, "value": value}]
    latest = (await gateway.get(f"{base}/latest")).json()["data"]
    assert latest[key] == {"ts": START + 3, "value": 3}


async def test_points_of_all_types_are_counted(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    load(simulator, device, "mixed", MIXED)
    load(simulator, device, "mostly", [(START, "n/a"), *((START + n, n) for n in range(1, 15_000))])
    load(simulator, device, "plain", [(START, 1)])
    answer = await count(gateway, device)
    assert answer["counts"] == {"mixed": 5, "mostly": 15_000, "plain": 1}
    assert (answer["total"], answer["exact"], answer["at_least"]) == (15_006, True, [])

    query = {"start_ts": START, "end_ts": START + 6, "interval": 3, "agg": "COUNT", "keys": ["mixed"]}
    page = await ask(gateway, device, **query)
    assert [bucket["value"] for bucket in page["data"]["mixed"]] == [3, 2]
    assert page["warnings"] == []


async def test_many_small_keys_are_counted_in_few_calls(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    for number in range(90):
        load(simulator, device, f"k{number}", MIXED)
    assert (await count(gateway, device))["total"] == 450
    assert simulator.calls[VALUES] == 2


async def test_a_count_of_more_points_than_are_read_says_so(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    load(simulator, device, "long", [(START + n, n) for n in range(LONG)])
    load(simulator, device, "few", MIXED)
    answer = await count(gateway, device)
    assert answer["counts"] == {"long": LONG, "few": 5}
    assert (answer["exact"], answer["at_least"]) == (False, ["long"])
    assert simulator.calls[VALUES] == 2

    page = await ask(gateway, device, **ALL, agg="COUNT")
    assert {key: points[0]["value"] for key, points in page["data"].items()} == {"long": LONG, "few": 5}
    assert page["warnings"] == []


TOO_LONG = {
    "seen in the newest points": [*((START + n, "x") for n in range(LONG)), (START + LONG, 1)],
    "seen while reading": [(START, "x"), *((START + n, n) for n in range(1, LONG))],
}


@pytest.mark.parametrize("points", TOO_LONG.values(), ids=TOO_LONG.keys())
async def test_a_count_that_is_too_low_has_a_warning(
    gateway: httpx.AsyncClient, simulator: Simulator, points: list[tuple[int, Any]]
) -> None:
    device = device_id(simulator)
    load(simulator, device, "long", points)
    page = await ask(gateway, device, **ALL, agg="COUNT")
    (bucket,) = page["data"]["long"]
    assert 200_000 <= bucket["value"] < len(points)
    assert [warning["key"] for warning in page["warnings"]] == ["long"]
    assert "too low" in page["warnings"][0]["reason"]
    answer = await count(gateway, device)
    assert (answer["exact"], answer["at_least"]) == (False, ["long"])


@pytest.mark.parametrize(
    ("values", "greatest"),
    [((-7.5, -3), -3), ((-7.5, True), -7.5), ((-7.5, "n/a"), -7.5), ((-7.5, 0), 0), ((5e-324, -1), 5e-324)],
)
async def test_the_greatest_value_may_be_negative(
    gateway: httpx.AsyncClient, simulator: Simulator, values: tuple[Any, ...], greatest: float
) -> None:
    device = device_id(simulator)
    load(simulator, device, "k", [(START + 10 * n, value) for n, value in enumerate((*values, *values, 4))])
    query = {"start_ts": START, "end_ts": START + 60, "interval": 20, "agg": "MAX"}
    page = await ask(gateway, device, **query)
    assert [bucket["value"] for bucket in page["data"]["k"]] == [greatest, greatest, 4]
    assert page["warnings"] == []
    assert simulator.calls[VALUES] == 2


async def test_maxima_hidden_in_many_places_are_looked_for_together(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    """One by one they would take a call each: 400 of them."""
    device = device_id(simulator)
    hidden = [
        point for n in range(0, 100, 2) for point in ((START + 10 * n, -1.5), (START + 10 * n + 1, True))
    ]
    plain = [(START + 10 * n + 5, 7) for n in range(1, 100, 2)]
    keys = [f"k{number}" for number in range(8)]
    for key in keys:
        load(simulator, device, key, sorted(hidden + plain))
    query = {"start_ts": START, "end_ts": START + 1_000, "interval": 10, "agg": "MAX"}
    page = await ask(gateway, device, **query)
    for key in keys:
        assert [bucket["value"] for bucket in page["data"][key]] == [-1.5, 7] * 50
    assert page["warnings"] == []
    assert simulator.calls[VALUES] <= 10


async def test_a_maximum_among_too_many_points_is_null_with_a_warning(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    points = [(START + n, -1.5 if n % 2 else True) for n in range(LONG)]
    load(simulator, device, "k", points)
    half = LONG // 2
    query = {"start_ts": START, "end_ts": START + LONG, "interval": half, "agg": "MAX"}
    page = await ask(gateway, device, **query)
    assert [bucket["value"] for bucket in page["data"]["k"]] == [-1.5, None]
    assert "MAX is null in 1 bucket" in page["warnings"][0]["reason"]


class Replacing:
    """A transport that answers history calls with a body of its own."""

    def __init__(self, inner: Transport, body: Any) -> None:
        self.inner, self.body = inner, orjson.dumps(body)

    async def send(self, method: str, target: str, **options: Any) -> Answer:
        """Send, or answer the body."""
        if "values/timeseries" in target:
            return Answer(200, "application/json", self.body)
        return await self.inner.send(method, target, **options)

    async def aclose(self) -> None:
        """Close the transport inside."""
        await self.inner.aclose()


@pytest.mark.parametrize("agg", ["COUNT", "AVG", "SUM"])
@pytest.mark.parametrize("value", ["3", True, None, {}])
async def test_an_aggregate_that_is_no_number_is_thingsboards_fault(
    gateway: httpx.AsyncClient, simulator: Simulator, agg: str, value: Any
) -> None:
    device = device_id(simulator)
    load(simulator, device, "k", [(START, 1)])
    connection = gateway.app.state.upstreams["default"].client.connection  # type: ignore[attr-defined]  # set by `make_gateway`
    connection.transport = Replacing(connection.transport, {"k": [{"ts": START + HOUR // 2, "value": value}]})
    answer = await gateway.post(f"{DEVICES}/{device}/telemetry/query", json={**ALL, "agg": agg})
    assert answer.status_code == 502


async def test_a_century_of_months_takes_calls_of_689(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    """ThingsBoard takes a month for 30 days, so that 700 of them are more than its 700 intervals."""
    device = device_id(simulator)
    load(simulator, device, "k", [(ms("2001-05-10", "UTC"), 2)])
    start, end = ms("1925-01-01", "UTC"), ms("2025-01-01", "UTC")
    query = {"start_ts": start, "end_ts": end, "interval": "month", "agg": "SUM", "limit": 10_000}
    page = await ask(gateway, device, **query)
    assert page["data"]["k"] == [
        {"ts": ms("2001-05-01", "UTC"), "end_ts": ms("2001-06-01", "UTC"), "value": 2}
    ]
    assert simulator.calls[VALUES] == 2


@pytest.mark.parametrize("unit", ["week", "month"])
@pytest.mark.parametrize("zone", ["EST", "MST", "HST", "CET"])
async def test_zones_that_java_reads_otherwise_are_cut_here(
    gateway: httpx.AsyncClient, simulator: Simulator, zone: str, unit: str
) -> None:
    device = device_id(simulator)
    start, end = ms("2026-06-01", zone), ms("2026-08-31", zone)
    load(simulator, device, "k", [(ts, 1) for ts in range(start, end, HOUR)])
    query = {"start_ts": start, "end_ts": end, "interval": unit, "time_zone": zone, "agg": "SUM"}
    buckets = (await ask(gateway, device, **query))["data"]["k"]
    assert len(buckets) == {"week": 13, "month": 3}[unit]
    assert [bucket["value"] for bucket in buckets] == [(b["end_ts"] - b["ts"]) // HOUR for b in buckets]
    assert buckets[0]["ts"] == start
    assert ZoneInfo(zone).key == zone
