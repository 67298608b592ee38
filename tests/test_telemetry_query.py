"""The query route: pages of points, aggregates, calendars."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.conftest import GatewayFactory
from tests.telemetry_world import DEVICES, START, VALUES, device_id, json_value, load

HOUR = 3_600_000
DAY = 24 * HOUR


def ms(text: str, zone: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1000


async def ask(gateway: httpx.AsyncClient, device: str, **query: Any) -> dict[str, Any]:
    answer = await gateway.post(f"{DEVICES}/{device}/telemetry/query", json=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_default_is_the_last_day_of_all_keys(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    now = simulator.world.now()
    load(simulator, device, "old", [(now - DAY - 60_000, 1)])
    load(simulator, device, "new", [(now - DAY - 60_000, 1), (now - HOUR, 2.5)])
    answer = await ask(gateway, device)
    assert answer["data"] == {"old": [], "new": [{"ts": now - HOUR, "value": 2.5}]}
    span = answer["metadata"]["time_range"]
    assert span["duration_hours"] == 24
    assert answer["query"] == {
        "keys": ["old", "new"],
        "start_ts": span["start"],
        "end_ts": span["end"],
        "limit": 1000,
        "interval": None,
        "agg": "NONE",
        "time_zone": "UTC",
        "fill": None,
        "order": "ASC",
    }
    assert answer["metadata"] == {
        "total_points": 1,
        "keys_found": ["old", "new"],
        "keys_missing": [],
        "time_range": span,
        "truncated": False,
        "next_cursor": None,
    }


async def test_an_end_alone_means_the_day_before_it(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    answer = await ask(gateway, device_id(simulator), end_ts="2026-03-01T00:00:00Z")
    assert answer["query"]["start_ts"] == ms("2026-02-28", "UTC")


async def test_unknown_keys_are_missing_not_wrong(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(START, 1)])
    for more in ({}, {"agg": "MAX", "fill": "null"}):
        answer = await ask(
            gateway, device, keys=["a", "nope", "a"], start_ts=START, end_ts=START + 10, **more
        )
        assert answer["data"]["nope"] == []
        assert answer["query"]["keys"] == ["a", "nope"]
        assert answer["metadata"]["keys_missing"] == ["nope"]
        assert answer["metadata"]["keys_found"] == ["a"]


@pytest.mark.parametrize("order", ["ASC", "DESC"])
async def test_a_limit_is_for_each_key_and_the_cursor_goes_on(
    gateway: httpx.AsyncClient, simulator: Simulator, order: str
) -> None:
    device = device_id(simulator)
    points = {"a": [(START + n, n) for n in range(7)], "b": [(START + 3 * n, n) for n in range(5)]}
    for key, values in points.items():
        load(simulator, device, key, values)
    query = {"start_ts": START, "end_ts": START + 100, "limit": 3, "order": order}
    first = await ask(gateway, device, **query)
    assert {key: len(page) for key, page in first["data"].items()} == {"a": 3, "b": 3}
    assert first["metadata"]["truncated"] is True
    read: dict[str, list[tuple[int, int]]] = {"a": [], "b": []}
    page = first
    for _ in range(10):
        for key, values in page["data"].items():
            read[key] += [(point["ts"], point["value"]) for point in values]
        if not page["metadata"]["truncated"]:
            break
        page = await ask(gateway, device, **{**query, "limit": 2}, cursor=page["metadata"]["next_cursor"])
    step = 1 if order == "ASC" else -1
    assert read == {key: values[::step] for key, values in points.items()}


async def test_a_cursor_fixes_the_range_of_a_query_up_to_now(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    now = simulator.world.now()
    load(simulator, device, "a", [(now - 1000 + n, n) for n in range(3)])
    first = await ask(gateway, device, limit=2)
    load(simulator, device, "a", [(now - 1000 + n, n) for n in range(3)] + [(now + 5_000, 9)])
    second = await ask(gateway, device, limit=2, cursor=first["metadata"]["next_cursor"])
    assert [point["value"] for point in second["data"]["a"]] == [2]
    assert second["query"]["end_ts"] == first["query"]["end_ts"]


MISFITS = {
    "other keys": {"keys": ["b"]},
    "other aggregation": {"agg": "MAX"},
    "other order": {"order": "DESC"},
    "other start": {"start_ts": START + 1},
    "other end": {"end_ts": START + 50},
    "other zone": {"time_zone": "Europe/Berlin"},
}


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS.keys())
async def test_a_cursor_fits_only_its_own_query(
    gateway: httpx.AsyncClient, simulator: Simulator, change: dict[str, Any]
) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(START + n, n) for n in range(5)])
    query = {"keys": ["a"], "start_ts": START, "end_ts": START + 100, "limit": 1}
    cursor = (await ask(gateway, device, **query))["metadata"]["next_cursor"]
    changed = {**query, **change, "cursor": cursor}
    answer = await gateway.post(f"{DEVICES}/{device}/telemetry/query", json=changed)
    assert (answer.status_code, answer.json()["details"]["field"]) == (400, "cursor")
    elsewhere = f"{DEVICES}/{device_id(simulator, 'Test Device A2')}/telemetry/query"
    answer = await gateway.post(elsewhere, json={**query, "cursor": cursor})
    assert (answer.status_code, answer.json()["details"]["field"]) == (400, "cursor")


BAD_QUERIES = {
    "interval without aggregation": ({"interval": "day"}, 400, "interval"),
    "fill without aggregation": ({"fill": "null"}, 400, "fill"),
    "garbage cursor": ({"cursor": "%%%"}, 400, "cursor"),
    "foreign cursor": ({"cursor": "e30"}, 400, "cursor"),
    "unknown zone": ({"agg": "AVG", "time_zone": "Europe/Atlantis"}, 422, "time_zone"),
    "zone outside the database": ({"time_zone": "../etc/passwd"}, 422, "time_zone"),
    "unknown unit": ({"agg": "AVG", "interval": "year"}, 422, "interval"),
    "no interval": ({"agg": "AVG", "interval": 0}, 422, "interval"),
    "broken interval": ({"agg": "AVG", "interval": 1.5}, 422, "interval"),
    "limit 0": ({"limit": 0}, 422, "limit"),
    "limit too high": ({"limit": 10_001}, 422, "limit"),
    "limit as text": ({"limit": "5"}, 422, "limit"),
    "unknown function": ({"agg": "MEDIAN"}, 422, "agg"),
    "no keys": ({"keys": []}, 422, "keys"),
    "empty key": ({"keys": [""]}, 422, "keys.0"),
    "too many keys": ({"keys": [f"k{n}" for n in range(101)]}, 422, "keys"),
    "unknown field": ({"aggregation": "AVG"}, 422, "aggregation"),
    "seconds": ({"start_ts": 1_760_000_000}, 400, "start_ts"),
    "end before start": ({"start_ts": START, "end_ts": START}, 400, "end_ts"),
    "a list as time": ({"start_ts": [START]}, 422, None),
}


@pytest.mark.parametrize(("query", "status", "field"), BAD_QUERIES.values(), ids=BAD_QUERIES.keys())
async def test_a_senseless_query_names_the_field(
    gateway: httpx.AsyncClient, simulator: Simulator, query: dict[str, Any], status: int, field: str | None
) -> None:
    answer = await gateway.post(f"{DEVICES}/{device_id(simulator)}/telemetry/query", json=query)
    assert answer.status_code == status
    if field:
        assert answer.json()["details"]["field"] == field
    assert simulator.calls[VALUES] == 0


async def test_buckets_have_their_bounds_and_are_clipped(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(START + 1000 * n, n) for n in range(25)])
    answer = await ask(
        gateway, device, start_ts=START + 1000, end_ts=START + 12_500, interval=5000, agg="COUNT"
    )
    assert answer["data"]["a"] == [
        {"ts": START + 1000, "end_ts": START + 6000, "value": 5},
        {"ts": START + 6000, "end_ts": START + 11_000, "value": 5},
        {"ts": START + 11_000, "end_ts": START + 12_500, "value": 2},
    ]


@pytest.mark.parametrize(
    ("agg", "value"), [("AVG", 3.0), ("MIN", 1), ("MAX", 5), ("SUM", 9), ("COUNT", 3)], ids=str
)
async def test_an_aggregation_without_interval_is_one_bucket(
    gateway: httpx.AsyncClient, simulator: Simulator, agg: str, value: float
) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(START, 1), (START + 1, 3), (START + DAY, 5)])
    answer = await ask(gateway, device, start_ts=START, end_ts=START + 2 * DAY, agg=agg.lower())
    assert answer["data"]["a"] == [{"ts": START, "end_ts": START + 2 * DAY, "value": value}]


async def test_empty_buckets_are_left_out_or_null(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(START, 1), (START + 2 * HOUR, 3)])
    query = {"start_ts": START, "end_ts": START + 3 * HOUR, "interval": HOUR, "agg": "MAX"}
    answer = await ask(gateway, device, **query)
    assert [(p["ts"] - START, p["value"]) for p in answer["data"]["a"]] == [(0, 1), (2 * HOUR, 3)]
    filled = await ask(gateway, device, **query, fill="null", order="DESC")
    assert [p["value"] for p in filled["data"]["a"]] == [3, None, 1]


@pytest.mark.parametrize("agg", ["AVG", "SUM"])
async def test_text_has_no_average_but_a_real_zero_stays(
    gateway: httpx.AsyncClient, simulator: Simulator, agg: str
) -> None:
    device = device_id(simulator)
    load(
        simulator,
        device,
        "state",
        [(START, "ON"), (START + HOUR, True), (START + 2 * HOUR, json_value("{}"))],
    )
    load(simulator, device, "balance", [(START, -1), (START + 1, 1), (START + HOUR, 0)])
    load(simulator, device, "mixed", [(START, "n/a"), (START + HOUR, 4), (START + HOUR + 1, "n/a")])
    query = {"start_ts": START, "end_ts": START + 3 * HOUR, "interval": HOUR, "agg": agg}
    answer = await ask(gateway, device, **query)
    values = {key: [point["value"] for point in points] for key, points in answer["data"].items()}
    assert values == {"state": [None] * 3, "balance": [0, 0], "mixed": [None, 4]}
    assert {warning["key"] for warning in answer["warnings"]} == {"state", "mixed"}
    assert "3 bucket" in answer["warnings"][0]["reason"]
    assert simulator.calls[VALUES] == 2


async def test_many_intervals_take_several_calls(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(START + 60_000 * n, n) for n in range(2_000)])
    answer = await ask(
        gateway,
        device,
        start_ts=START,
        end_ts=START + 2_000 * 60_000,
        interval=60_000,
        agg="MAX",
        limit=10_000,
    )
    assert [p["value"] for p in answer["data"]["a"]] == list(range(2_000))
    assert simulator.calls[VALUES] == 3


@pytest.mark.parametrize("order", ["ASC", "DESC"])
async def test_an_aggregate_goes_on_at_its_cursor(
    gateway: httpx.AsyncClient, simulator: Simulator, order: str
) -> None:
    device = device_id(simulator)
    load(simulator, device, "a", [(START + 1000 * n, n) for n in range(100)])
    query = {"start_ts": START + 500, "end_ts": START + 95_500, "interval": 10_000, "agg": "COUNT"}
    whole = (await ask(gateway, device, **query, order=order))["data"]["a"]
    assert len(whole) == 10
    cursor, read = None, []
    while True:
        page = await ask(gateway, device, **query, order=order, limit=3, cursor=cursor)
        read += page["data"]["a"]
        cursor = page["metadata"]["next_cursor"]
        if cursor is None:
            break
    assert read == whole


@pytest.mark.parametrize("order", ["ASC", "DESC"])
async def test_billions_of_empty_buckets_are_stepped_over(
    gateway: httpx.AsyncClient, simulator: Simulator, order: str
) -> None:
    device = device_id(simulator)
    times = [START, START + 1, START + 40 * DAY, START + 90 * DAY + 7]
    load(simulator, device, "a", [(ts, 1) for ts in times[::2]])
    load(simulator, device, "b", [(ts, 1) for ts in times[1::2]])
    query = {"start_ts": START - 400 * DAY, "end_ts": START + 500 * DAY, "interval": 1, "agg": "MAX"}
    answer = await ask(gateway, device, **query, order=order)
    step = 1 if order == "ASC" else -1
    for key, expected in (("a", times[::2]), ("b", times[1::2])):
        assert [bucket["ts"] for bucket in answer["data"][key]] == expected[::step]
    assert answer["metadata"]["truncated"] is False
    # Two runs of 1,000 buckets and a look for the next point, five times at most.
    assert simulator.calls[VALUES] <= 15


CHANGES = [
    ("Europe/Berlin", "2026-03-28", "2026-03-31", [24, 23, 24]),
    ("Europe/Berlin", "2026-10-24", "2026-10-27", [24, 25, 24]),
    ("America/New_York", "2026-03-07", "2026-03-10", [24, 23, 24]),
    ("America/New_York", "2026-10-31", "2026-11-03", [24, 25, 24]),
    ("Australia/Lord_Howe", "2025-10-04", "2025-10-07", [24, 23.5, 24]),
    ("Australia/Lord_Howe", "2026-04-04", "2026-04-07", [24, 24.5, 24]),
    ("America/Sao_Paulo", "2018-11-03", "2018-11-06", [24, 23, 24]),
    ("Asia/Beirut", "2026-03-28", "2026-03-31", [24, 23, 24]),
]


@pytest.mark.parametrize(("zone", "first", "last", "hours"), CHANGES, ids=lambda value: str(value)[:20])
async def test_days_follow_the_clock_changes(
    gateway: httpx.AsyncClient, simulator: Simulator, zone: str, first: str, last: str, hours: list[float]
) -> None:
    device = device_id(simulator)
    start, end = ms(first, zone), ms(last, zone)
    half_hour = HOUR // 2
    load(simulator, device, "a", [(ts, 1) for ts in range(start, end, half_hour)])
    query = {"start_ts": start, "end_ts": end, "interval": "day", "time_zone": zone}
    days = (await ask(gateway, device, **query, agg="COUNT"))["data"]["a"]
    assert [(day["end_ts"] - day["ts"]) / HOUR for day in days] == hours
    assert [day["value"] for day in days] == [length * 2 for length in hours]
    assert simulator.calls[VALUES] <= 3


async def test_a_year_of_days_takes_few_calls(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    zone = "Europe/Berlin"
    start, end = ms("2026-01-01", zone), ms("2027-01-01", zone)
    load(simulator, device, "a", [(ts, 1) for ts in range(start, end, HOUR)])
    query = {"start_ts": start, "end_ts": end, "interval": "day", "time_zone": zone, "agg": "COUNT"}
    days = (await ask(gateway, device, **query))["data"]["a"]
    assert len(days) == 365
    assert {day["value"] for day in days} == {23, 24, 25}
    assert simulator.calls[VALUES] <= 6


@pytest.mark.parametrize(
    ("unit", "count", "first"), [("week", 53, "2025-12-29"), ("month", 12, "2026-01-01")]
)
async def test_weeks_and_months_are_thingsboards_own(
    gateway: httpx.AsyncClient, simulator: Simulator, unit: str, count: int, first: str
) -> None:
    device = device_id(simulator)
    zone = "America/New_York"
    start, end = ms(first, zone), ms("2027-01-01", zone)
    load(simulator, device, "a", [(ts, 1) for ts in range(start, end, HOUR)])
    query = {"start_ts": start, "end_ts": end, "interval": unit, "time_zone": zone, "agg": "SUM"}
    found = (await ask(gateway, device, **query))["data"]["a"]
    assert len(found) == count
    assert [bucket["value"] for bucket in found] == [(b["end_ts"] - b["ts"]) // HOUR for b in found]
    assert simulator.calls[VALUES] == 1


async def test_hours_start_where_the_local_clock_does(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    start, end = ms("2026-01-01T00:10", "Asia/Kathmandu"), ms("2026-01-01T03:00", "Asia/Kathmandu")
    load(simulator, device, "a", [(start, 1), (end - 1, 2)])
    query = {
        "start_ts": start,
        "end_ts": end,
        "interval": "hour",
        "time_zone": "Asia/Kathmandu",
        "agg": "SUM",
    }
    found = (await ask(gateway, device, **query, fill="null"))["data"]["a"]
    assert [(b["end_ts"] - b["ts"]) // 60_000 for b in found] == [50, 60, 60]
    assert [b["value"] for b in found] == [1, None, 2]


async def test_an_answer_has_a_hundred_thousand_points_at_most(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    for number in range(40):
        load(simulator, device, f"k{number}", [(START + n, n) for n in range(2_600)])
    answer = await ask(gateway, device, start_ts=START, end_ts=START + 10_000, limit=10_000)
    assert answer["metadata"]["total_points"] == 100_000
    assert (answer["query"]["limit"], answer["metadata"]["truncated"]) == (2_500, True)


async def test_a_fault_of_thingsboard_is_told_as_such(
    make_gateway: GatewayFactory, simulator: Simulator
) -> None:
    gateway = make_gateway(tb_queue_seconds=0)
    device = device_id(simulator)
    load(simulator, device, "a", [(START, 1)])
    for status, expected in ((500, 502), (504, 504), (429, 429)):
        simulator.faults.status(status, path="values/timeseries", count=1)
        query = {"start_ts": START, "agg": "AVG"}
        answer = await gateway.post(f"{DEVICES}/{device}/telemetry/query", json=query)
        assert answer.status_code == expected


async def test_empty_buckets_do_not_use_up_the_limit(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    """Sixty days by the hour are 1,440 buckets; only two of them hold anything."""
    device = device_id(simulator)
    hour = 3_600_000
    load(simulator, device, "k", [(START, 1), (START + 1_430 * hour, 2)])
    query = {"keys": ["k"], "start_ts": START, "end_ts": START + 1_440 * hour, "interval": hour, "agg": "MAX"}
    for order in ("ASC", "DESC"):
        answer = await gateway.post(f"{DEVICES}/{device}/telemetry/query", json={**query, "order": order})
        body = answer.json()
        assert sorted(point["value"] for point in body["data"]["k"]) == [1, 2]
        assert body["metadata"]["truncated"] is False
