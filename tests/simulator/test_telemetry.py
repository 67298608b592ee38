"""Telemetry beyond what was recorded: time to live, deletions, calendars, forms of keys and numbers."""

from typing import Any

import httpx
import pytest

from tb_simulator.answers import PlainError
from tb_simulator.payloads import telemetry_points
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tb_simulator.values import as_text, coerce_number, java_double
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
    assert (await history(tenant, path, key=["a,b", "b"])).keys() == {"a,b", "b"}


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
        found = await history(tenant, path, keys="k", agg="COUNT", **query)
        assert found["status"] == 400


@pytest.mark.parametrize(
    ("function", "value"), [("MIN", 1), ("MAX", 2.5), ("SUM", 3.5), ("AVG", 1.75), ("COUNT", 4)]
)
async def test_functions_over_mixed_values(
    tenant: httpx.AsyncClient, path: str, function: str, value: float
) -> None:
    body = [{"ts": ts, "values": {"k": v}} for ts, v in enumerate((1, 2.5, "text", True))]
    await tenant.post(f"{path}/timeseries/ANY", json=body)
    found = await history(tenant, path, keys="k", agg=function, interval=10, endTs=10)
    assert found == {"k": [{"ts": 5, "value": value}]}


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
