"""Server-sent events over a real server: everything once, in order, whatever happens in between."""

import asyncio
from contextlib import AsyncExitStack

import httpx
import pytest
from fastapi import FastAPI

from app.factory import create_app
from app.services import live_channels
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tb_simulator.values import JsonText
from tests.conftest import KEY_HEADER, SettingsFactory
from tests.live.conftest import feed_of
from tests.live.reading import BASE, served, stream
from tests.serving import serve

T = 1_760_000_000_000
UNKNOWN = "00000000-0000-0000-0000-000000000007"


def save(simulator: Simulator, device: str, *numbers: int, key: str = "n") -> None:
    for number in numbers:
        simulator.world.telemetry.save(device, [Point(key, T + number, number)])


async def test_a_subscriber_sees_every_number_once_though_the_socket_is_cut_twenty_times(
    simulator: Simulator, client: httpx.AsyncClient, device: str
) -> None:
    save(simulator, device, 0)
    async with stream(client, f"/devices/{device}/telemetry/stream?keys=n") as events:
        found, n = await events.until("n", 0), 0
        for _ in range(20):
            save(simulator, device, n + 1)
            simulator.world.feed.cut_sessions()
            save(simulator, device, n + 2)
            await asyncio.sleep(0)
            save(simulator, device, n + 3)
            n += 3
            found += await events.until("n", n)
    assert found == list(range(n + 1))
    assert simulator.calls["WS /api/ws"] == 21


async def test_a_reader_who_comes_back_to_another_gateway_misses_nothing_and_hears_nothing_twice(
    simulator: Simulator, make_settings: SettingsFactory, device: str
) -> None:
    """What a reader has heard is in its id alone: the gateway may have been restarted meanwhile."""
    save(simulator, device, 0)
    save(simulator, device, 0, key="quiet")
    target, last_id, found = f"/devices/{device}/telemetry/stream", None, []
    for round_number in range(3):
        async with served(create_app(make_settings())) as client, stream(client, target, last_id) as events:
            first = 10 * round_number
            save(simulator, device, *range(first + 1, first + 4))
            found += await events.until("n", first + 3)
            last_id = events.last_id
        # Missed: known keys, and one that is new.
        save(simulator, device, *range(first + 4, first + 11))
        save(simulator, device, first + 4, first + 5, key=f"new{round_number}")
    assert found == [*range(24)]
    async with served(create_app(make_settings())) as client, stream(client, target, last_id) as events:
        missed = []
        async for told in events:
            missed.append((told.data["key"], told.data["value"]))
            if len(missed) == 9:
                break
        assert sorted(missed) == sorted([("new2", 24), ("new2", 25), *(("n", n) for n in range(24, 31))])
        save(simulator, device, 31)
        assert await events.until("n", 31) == [31]


async def test_late_points_and_new_keys_come_with_their_types(
    simulator: Simulator, client: httpx.AsyncClient, device: str
) -> None:
    write = simulator.world.telemetry.save
    write(device, [Point("k", T, "ON")])
    async with stream(client, f"/devices/{device}/telemetry/stream") as events:
        values = [25, 25.5, True, "true", "text", JsonText('{"a":[1]}'), '{"a":1}', 2**53 + 1, 0.1]
        assert await events.until("k", "ON") == ["ON"]
        for number, value in enumerate(values):
            write(device, [Point(f"new{number}", T + number, value)])
            expected = {"a": [1]} if isinstance(value, JsonText) else value
            (found,) = await events.until(f"new{number}", expected)
            assert type(found) is type(expected)
        write(device, [Point("k", T - 5, "late")])
        assert await events.until("k", "late") == ["late"]
        # Its type changes: read again.
        write(device, [Point("k", T + 1, 7)])
        assert (await events.until("k", 7))[-1] == 7


async def test_a_batch_comes_sorted_and_a_deleted_key_says_nothing(
    simulator: Simulator, client: httpx.AsyncClient, device: str
) -> None:
    async with stream(client, f"/devices/{device}/telemetry/stream?keys=n,m") as events:
        simulator.world.telemetry.save(device, [Point("n", T + n, n) for n in (3, 1, 2, 0)])
        assert await events.until("n", 3) == [0, 1, 2, 3]
        simulator.world.telemetry.delete(device, ["n"], (0, 2 * T))
        save(simulator, device, 4, key="m")
        assert (await anext(events)).data["key"] == "m"


async def test_attributes_and_online_come_when_they_change(
    simulator: Simulator, client: httpx.AsyncClient, device: str
) -> None:
    simulator.world.attributes.save(device, "SHARED_SCOPE", {"fw": "1.0"})
    target = f"/devices/{device}/telemetry/stream?attributes=true"
    async with stream(client, target) as events:
        first = [await anext(events) for _ in range(2)]
        assert [(each.event, each.data.get("active"), each.data.get("value")) for each in first] == [
            ("status", False, None),
            ("attribute", None, "1.0"),
        ]
        assert all(each.data["first"] for each in first)
        simulator.world.attributes.device_spoke(device)
        told = await anext(events)
        assert (told.event, told.data["active"]) == ("status", True)
        simulator.world.attributes.device_spoke(device)
        simulator.world.attributes.save(device, "SERVER_SCOPE", {"limit": 5, "lastActivityTime": 1})
        told = await anext(events)
        assert (told.event, told.data["scope"], told.data["key"], told.data["value"]) == (
            "attribute",
            "SERVER_SCOPE",
            "limit",
            5,
        )


async def test_a_stalled_reader_is_dropped_with_a_reason_and_delays_nobody(
    simulator: Simulator, client: httpx.AsyncClient, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_channels, "MOST_WAITING_BYTES", 20_000)
    target = f"/devices/{device}/telemetry/stream?keys=n"
    async with stream(client, target) as stalled, stream(client, target) as events:
        text = "x" * 10_000
        for number in range(600):
            simulator.world.telemetry.save(device, [Point("n", T + number, f"{number} {text}")])
            await events.until("n", f"{number} {text}")
        told = await stalled.rest()
    assert told[-1].event == "dropped"
    assert "faster" in told[-1].data["reason"]
    assert len(told) < 600


async def test_a_deleted_device_ends_in_gone(
    app: FastAPI, simulator: Simulator, client: httpx.AsyncClient, device: str
) -> None:
    feed_of(app).recheck_seconds = 0.01
    async with stream(client, f"/devices/{device}/telemetry/stream?first_values=false") as events:
        assert (await client.delete(f"{BASE}/devices/{device}")).status_code == 200
        (told,) = await events.rest()
    assert (told.event, told.data["device_id"]) == ("gone", device)
    answer = await client.get(f"{BASE}/devices/{device}/telemetry/stream")
    assert answer.status_code == 404


async def test_streams_say_goodbye_when_the_server_stops(
    simulator: Simulator, make_settings: SettingsFactory, device: str
) -> None:
    app = create_app(make_settings())
    target = f"/devices/{device}/telemetry/stream?first_values=false"
    async with httpx.AsyncClient(headers=KEY_HEADER) as client, AsyncExitStack() as reading:
        async with serve(app, timeout_graceful_shutdown=30) as url:
            client.base_url = httpx.URL(url)
            events = await reading.enter_async_context(stream(client, target))
        (told,) = await events.rest()
    assert told.event == "closing"
    assert len(app.state.streams) == len(app.state.channels) == 0


@pytest.mark.parametrize(
    ("target", "status", "field"),
    [
        (f"/devices/{UNKNOWN}/telemetry/stream", 404, None),
        (f"/telemetry/stream?device_ids={UNKNOWN}", 404, None),
        ("/telemetry/stream?device_ids=nonsense", 422, "device_ids"),
        ("/telemetry/stream?device_ids=,", 422, "device_ids"),
        ("/telemetry/stream", 422, "device_ids"),
        (f"/devices/{UNKNOWN}/telemetry/stream?keys=", 422, "keys"),
        (f"/devices/{UNKNOWN}/telemetry/stream?key=n", 422, "key"),
    ],
)
async def test_what_is_wrong_is_told_before_the_stream_begins(
    client: httpx.AsyncClient, target: str, status: int, field: str | None
) -> None:
    answer = await client.get(BASE + target)
    assert answer.status_code == status, answer.text
    details = answer.json()["details"]
    assert details.get("field") == field
    assert status != 404 or details["device_id"] == UNKNOWN


@pytest.mark.parametrize("last_id", ["nonsense", "AQ", "AQAA" * 3, "A" * 9_000, "Ag==x", "é"])
async def test_a_forged_id_is_refused(client: httpx.AsyncClient, device: str, last_id: str) -> None:
    headers = {"Last-Event-ID": last_id.encode()}
    answer = await client.get(f"{BASE}/devices/{device}/telemetry/stream", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == "Last-Event-ID"


async def test_thousands_of_points_in_one_frame_reach_everybody(
    simulator: Simulator, client: httpx.AsyncClient, device: str
) -> None:
    async with stream(client, f"/devices/{device}/telemetry/stream?keys=n") as events:
        simulator.world.telemetry.save(device, [Point("n", T + n, n) for n in range(5_000)])
        assert await events.until("n", 4_999) == list(range(5_000))
