"""Telemetry beyond what was recorded: time to live, deletions, calendars, forms of keys and numbers."""

from typing import Any

import httpx
import pytest

from tb_simulator.answers import PlainError
from tb_simulator.payloads import telemetry_points
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tb_simulator.values import as_text, coerce_number, java_double, postgresql_double
from tb_simulator.world import Settings, World

STRICT = {"useStrictDataTypes": "true"}
JANUARY, FEBRUARY, MARCH = 1_735_689_600_000, 1_738_368_000_000, 1_740_787_200_000


@pytest.fixture
def path(device_id: str) -> str:
    return f"/api/plugins/telemetry/DEVICE/{device_id}"


async def history(client: httpx.AsyncClient, path: str, **query: Any) -> Any:
    query = {"startTs": 0, "endTs": 4_000_000_000_000, "orderBy": "ASC", **STRICT, **query}
    return (await client.get(f"{path}/values/timeseries", params=query)).json()


def test_points_outlive_their_time_to_live_in_latest_only() -> None:
    now = 1000
    world = World(Settings(now_ms=lambda: now))
    world.telemetry.save("d", [Point("k", 1, 1)], ttl_seconds=10)
    world.telemetry.save("d", [Point("k", 2, 2)])
    now = 12_000
    series = world.telemetry.series("d", "k")
    assert series is not None
    assert series.ts == [2]
    assert world.telemetry.latest("d") == {"k": (2, 2)}


async def test_an_older_point_does_not_move_latest(tenant: httpx.AsyncClient, path: str) -> None:
    for ts in (20, 10):
        body = {"ts": ts, "values": {"k": ts}}
        assert (await tenant.post(f"{path}/timeseries/ANY", json=body)).status_code == 200
    latest = await tenant.get(f"{path}/values/timeseries", params={"keys": "k", **STRICT})
    assert latest.json() == {"k": [{"ts": 20, "value": 20}]}
    assert await history(tenant, path, keys="k") == {"k": [{"ts": 10, "value": 10}, {"ts": 20, "value": 20}]}


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ({"rewriteLatestIfDeleted": "true"}, {"k": [{"ts": 1, "value": 1}]}),
        # It looks for a point before the range's start - 1.
        ({"rewriteLatestIfDeleted": "true", "startTs": "2"}, {}),
        ({"deleteLatest": "false"}, {"k": [{"ts": 4, "value": 4}]}),
        ({}, {}),
    ],
)
async def test_what_a_deletion_does_to_latest(
    tenant: httpx.AsyncClient, path: str, query: dict[str, str], left: dict[str, Any]
) -> None:
    body = [{"ts": ts, "values": {"k": ts}} for ts in (1, 3, 4)]
    await tenant.post(f"{path}/timeseries/ANY", json=body)
    deletion = {"keys": "k", "startTs": "3", "endTs": "5", **query}
    assert (await tenant.delete(f"{path}/timeseries/delete", params=deletion)).status_code == 200
    latest = await tenant.get(f"{path}/values/timeseries", params=STRICT)
    assert latest.json() == left
    assert await history(tenant, path, keys="k") == {"k": [{"ts": 1, "value": 1}]}


async def test_keys_are_split_at_commas_and_key_is_not(tenant: httpx.AsyncClient, path: str) -> None:
    await tenant.post(f"{path}/timeseries/ANY", json={"ts": 1, "values": {"a": 1, "b": 2, "a,b": 3}})
    assert (await history(tenant, path, keys=["a", "b"])).keys() == {"a", "b"}
    assert (await history(tenant, path, keys="x", key=["a,b", "b"])).keys() == {"a,b", "b"}
    assert await history(tenant, path, keys="a, b") == {"a": [{"ts": 1, "value": 1}]}


async def test_without_keys_there_is_no_history(tenant: httpx.AsyncClient, path: str) -> None:
    """`key` is not what ThingsBoard tells the two by: the range, the function and the limit are ignored."""
    await tenant.post(f"{path}/timeseries/ANY", json=[{"ts": ts, "values": {"a,b": ts}} for ts in (1, 2, 3)])
    latest = {"a,b": [{"ts": 3, "value": 3}]}
    assert await history(tenant, path, key="a,b") == latest
    assert await history(tenant, path, key="a,b", endTs=2, agg="COUNT", interval=10) == latest
    assert len((await history(tenant, path, key="a,b", keys="a,b"))["a,b"]) == 3


@pytest.mark.parametrize(
    ("kind", "zone", "times"),
    [
        ("MONTH", "UTC", [(JANUARY + FEBRUARY) // 2, (FEBRUARY + MARCH) // 2]),
        ("QUARTER", "UTC", [(JANUARY + MARCH) // 2]),
        # 1 January 2025 is a Wednesday: Sunday's week ends after four days, Monday's after five.
        ("WEEK", "UTC", [JANUARY + 2 * 86_400_000]),
        ("WEEK_ISO", "UTC", [JANUARY + 5 * 43_200_000]),
        ("MONTH", "America/New_York", [JANUARY + 5 * 1_800_000]),
    ],
)
async def test_calendar_buckets(
    tenant: httpx.AsyncClient, path: str, kind: str, zone: str, times: list[int]
) -> None:
    body = [{"ts": ts, "values": {"k": 1}} for ts in (JANUARY, FEBRUARY)]
    await tenant.post(f"{path}/timeseries/ANY", json=body)
    query = {"intervalType": kind, "timeZone": zone, "agg": "COUNT", "startTs": JANUARY, "endTs": MARCH}
    found = await history(tenant, path, keys="k", **query)
    assert [row["ts"] for row in found["k"]][: len(times)] == times


async def test_an_unknown_zone_and_interval_type_are_refused(tenant: httpx.AsyncClient, path: str) -> None:
    await tenant.post(f"{path}/timeseries/ANY", json={"ts": 1, "values": {"k": 1}})
    for query in ({"intervalType": "MONTH", "timeZone": "Nowhere/At_All"}, {"intervalType": "DAY"}):
        found = await history(tenant, path, keys="k", agg="COUNT", endTs=MARCH, **query)
        assert found["status"] == 400


@pytest.mark.parametrize(("kind", "days"), [("WEEK", 7), ("WEEK_ISO", 7), ("MONTH", 30), ("QUARTER", 90)])
async def test_calendar_intervals_are_counted_by_their_days(
    tenant: httpx.AsyncClient, path: str, kind: str, days: int
) -> None:
    query = {"keys": "k", "startTs": 0, "agg": "COUNT", "intervalType": kind}
    for intervals, status in ((700, 200), (701, 400)):
        end = intervals * days * 86_400_000
        answer = await tenant.get(f"{path}/values/timeseries", params={**query, "endTs": end})
        assert answer.status_code == status


async def test_short_zone_names_are_javas(tenant: httpx.AsyncClient, path: str) -> None:
    """In July New York is four hours behind UTC, while Python's EST stays at five."""
    july = 1_751_328_000_000
    await tenant.post(f"{path}/timeseries/ANY", json={"ts": july + 1, "values": {"k": 1}})
    query = {"intervalType": "MONTH", "agg": "COUNT", "startTs": july, "endTs": july + 86_400_000}
    found = [await history(tenant, path, keys="k", timeZone=z, **query) for z in ("EST", "America/New_York")]
    assert found[0] == found[1] == {"k": [{"ts": july + 7_200_000, "value": 1}]}


@pytest.mark.parametrize(
    ("function", "value"), [("MIN", 1), ("MAX", 2.5), ("SUM", 3.5), ("AVG", 1.75), ("COUNT", 1)]
)
async def test_functions_over_mixed_values(
    tenant: httpx.AsyncClient, path: str, function: str, value: float
) -> None:
    body = [{"ts": ts, "values": {"k": v}} for ts, v in enumerate((1, 2.5, "text", True))]
    await tenant.post(f"{path}/timeseries/ANY", json=body)
    found = await history(tenant, path, keys="k", agg=function, interval=10, endTs=10)
    assert found == {"k": [{"ts": 5, "value": value}]}


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ((1, 2.5, True, "a", "b", {}), 1),
        ((1, 2.5, "a", "b", {}), 2),
        ((1, 2.5, {}), 1),
        ((1, 2.5), 2),
    ],
)
async def test_only_one_type_is_counted(
    tenant: httpx.AsyncClient, path: str, values: tuple[Any, ...], count: int
) -> None:
    body = [{"ts": ts, "values": {"k": v}} for ts, v in enumerate(values)]
    await tenant.post(f"{path}/timeseries/ANY", json=body)
    found = await history(tenant, path, keys="k", agg="COUNT", interval=10, endTs=10)
    assert found == {"k": [{"ts": 5, "value": count}]}


@pytest.mark.parametrize(
    ("values", "greatest"),
    [((-7.5, -3), 5e-324), ((-7.5, True), 5e-324), ((-7.5, 3), 3.0), ((-7.5, -1.5), -1.5), ((-7, -3), -3)],
)
async def test_the_maximum_of_doubles_among_others_is_never_negative(
    tenant: httpx.AsyncClient, path: str, values: tuple[Any, ...], greatest: float
) -> None:
    body = [{"ts": ts, "values": {"k": v}} for ts, v in enumerate(values)]
    await tenant.post(f"{path}/timeseries/ANY", json=body)
    found = await history(tenant, path, keys="k", agg="MAX", interval=10, endTs=10)
    assert found == {"k": [{"ts": 5, "value": greatest}]}


async def test_the_extremes_of_text_are_text(tenant: httpx.AsyncClient, path: str) -> None:
    body = [{"ts": ts, "values": {"k": v}} for ts, v in enumerate(("b", "a"))]
    await tenant.post(f"{path}/timeseries/ANY", json=body)
    found = await history(tenant, path, keys="k", agg="MIN", interval=10, endTs=10)
    assert found == {"k": [{"ts": 5, "value": "a"}]}


async def test_a_large_unsorted_batch_is_stored_sorted(
    simulator: Simulator, tenant: httpx.AsyncClient, path: str, device_id: str
) -> None:
    simulator.world.telemetry.load(device_id, "k", range(0, 4000, 2), range(2000))
    body = [{"ts": ts, "values": {"k": -ts}} for ts in range(3999, 0, -2)]
    assert (await tenant.post(f"{path}/timeseries/ANY", json=body)).status_code == 200
    found = (await history(tenant, path, keys="k", limit=100_000))["k"]
    assert [row["ts"] for row in found] == list(range(4000))


async def test_a_body_over_16_mib_is_refused(tenant: httpx.AsyncClient, path: str) -> None:
    answer = await tenant.post(f"{path}/timeseries/ANY", content=b'{"k":"' + b"x" * 16 * 1024 * 1024 + b'"}')
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("text", "stored"),
    [("1e5", 100_000), ("1.5e3", 1500), ("20.0", 20.0), ("1e20", "100000000000000000000"), ("-0.5", -0.5)],
)
def test_numbers_are_stored_as_they_are_written(text: str, stored: Any) -> None:
    assert coerce_number(text) == stored
    assert type(coerce_number(text)) is type(stored)


@pytest.mark.parametrize(
    ("number", "text"), [(21.5, "21.5"), (1e7, "1.0E7"), (12345678.9, "1.23456789E7"), (0.00012, "1.2E-4")]
)
def test_doubles_are_shown_as_java_shows_them(number: float, text: str) -> None:
    assert java_double(number) == text
    assert as_text(number) == text


def test_objects_keep_the_numbers_they_were_written_with() -> None:
    (point,) = telemetry_points(b'{"cfg":{"a":0.30000000000000004000,"b":123456789012345678901}}', 0)
    assert point.value == '{"a":0.30000000000000004000,"b":123456789012345678901}'


@pytest.mark.parametrize(
    "body", [b'{"ts":"x","values":{"a":1}}', b'{"ts":1,"values":5}', b"[5]", b'[{"ts":1,"values":{}}]']
)
def test_other_bodies_that_are_refused(body: bytes) -> None:
    with pytest.raises(PlainError) as refused:
        telemetry_points(body, 0)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (25.0, "25"),
        (-0.5, "-0.5"),
        (0.0, "0"),
        (0.0001, "0.0001"),
        (5e-05, "5e-05"),
        (123456789012345.0, "123456789012345"),
        (1e15, "1e+15"),
        (-1.25e-300, "-1.25e-300"),
    ],
)
def test_entity_queries_show_doubles_as_postgresql_does(number: float, text: str) -> None:
    assert postgresql_double(number) == text


async def test_a_query_for_a_key_that_postgresql_cannot_hold_is_a_500(
    tenant: httpx.AsyncClient, path: str, device_id: str
) -> None:
    body = {
        "entityFilter": {"type": "entityList", "entityType": "DEVICE", "entityList": [device_id]},
        "latestValues": [{"type": "TIME_SERIES", "key": "a\0"}],
        "pageLink": {"pageSize": 1, "page": 0},
    }
    assert (await tenant.post("/api/entitiesQuery/find", json=body)).status_code == 500
    for key in ("k" * 256, "a\0"):
        answer = await tenant.get(f"{path}/values/timeseries", params={"keys": key})
        assert answer.status_code == 500
