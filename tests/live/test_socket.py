"""The WebSocket: keys, frames, devices that come and go, and how it ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.api import live_pace
from app.factory import create_app
from app.middleware import first_frame
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tests.conftest import API_KEY, KEY_HEADER, SettingsFactory
from tests.live.conftest import feed_of
from tests.live.reading import served
from tests.serving import serve

T = 1_760_000_000_000
PATH = "/api/v1/tb/ws"
PAGE = "https://app.example.com"


@asynccontextmanager
async def opened(client: httpx.AsyncClient, **options: Any) -> AsyncIterator[ClientConnection]:
    options.setdefault("additional_headers", KEY_HEADER)
    url = str(client.base_url).rstrip("/").replace("http", "ws")
    async with connect(url + options.pop("path", PATH), **options) as socket:
        yield socket


async def ask(socket: ClientConnection, frame: Any) -> list[dict[str, Any]]:
    """Send a frame; return what comes up to its answer."""
    await socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))
    frames = []
    async with asyncio.timeout(10):
        while not frames or frames[-1]["type"] not in {"ack", "error"}:
            frames.append(json.loads(await socket.recv()))
    return frames


async def take(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(10):
        frame: dict[str, Any] = json.loads(await socket.recv())
    return frame


def subscribe(*device_ids: str, **more: Any) -> dict[str, Any]:
    return {"type": "subscribe", "id": 1, "device_ids": device_ids, **more}


async def test_devices_come_and_go_on_one_connection(
    simulator: Simulator, client: httpx.AsyncClient, device: str
) -> None:
    save = simulator.world.telemetry.save
    other = next(each.id for each in simulator.world.every("DEVICE") if each.id != device)
    save(device, [Point("n", T, 1), Point("m", T, 1)])
    async with opened(client) as socket:
        *first, ack = await ask(socket, subscribe("name:Thermostat T1", keys=["n"]))
        assert [each["type"] for each in first] == ["status", "telemetry"]
        assert (ack["id"], ack["device_ids"]) == (1, {"name:Thermostat T1": device})
        await ask(socket, subscribe(other, first_values=False))
        save(device, [Point("m", T + 1, 2), Point("n", T + 1, 2)])
        save(other, [Point("k", T, True)])
        events = [await take(socket) for _ in range(2)]
        assert [(each["device_id"], each["key"], each["value"]) for each in events] == [
            (device, "n", 2),
            (other, "k", True),
        ]
        (ack,) = await ask(socket, {"type": "unsubscribe", "device_ids": [device]})
        assert "id" not in ack
        save(device, [Point("n", T + 2, 3)])
        save(other, [Point("k", T + 2, False)])
        assert (await take(socket))["value"] is False
        # What was missed comes after the id of the last event.
        frames = await ask(socket, subscribe(device, keys=["n"], last_event_ids={device: events[0]["id"]}))
        assert [each.get("value") for each in frames] == [3, None]
    assert simulator.calls["WS /api/ws"] == 1


async def test_a_subscription_is_for_all_its_devices_or_none(
    simulator: Simulator, client: httpx.AsyncClient, device: str
) -> None:
    async with opened(client) as socket:
        (error,) = await ask(socket, subscribe(device, "name:nobody"))
        assert (error["status"], error["details"]["device_id"], error["id"]) == (404, "name:nobody", 1)
        simulator.world.telemetry.save(device, [Point("n", T, 1)])
        (error,) = await ask(socket, "junk")
        assert error["status"] == 400


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        ("[]", "frame"),
        (b"\xff", "frame"),
        ("{}", "type"),
        ({"type": "nonsense", "device_ids": ["x"]}, "type"),
        ({"type": "subscribe"}, "device_ids"),
        (subscribe(), "device_ids"),
        (subscribe("nonsense"), "device_ids"),
        (subscribe("x", keys=[""]), "keys.0"),
        (subscribe("x", first="yes"), "first"),
        (subscribe("x", id=[1]), "id"),
        (subscribe("x", last_event_ids={"x": "nonsense"}), "last_event_ids"),
    ],
)
async def test_a_bad_frame_is_answered_and_the_connection_goes_on(
    client: httpx.AsyncClient, frame: Any, field: str
) -> None:
    async with opened(client) as socket:
        for _ in range(2):
            (error,) = await ask(socket, frame)
            assert error["error_code"] == "VALIDATION_ERROR"
            assert error["details"]["field"] == field


async def test_too_large_a_frame_ends_the_connection(client: httpx.AsyncClient) -> None:
    async with opened(client) as socket:
        await socket.send("x" * 70_000)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_a_browser_sends_its_key_as_first_frame(
    simulator: Simulator, make_settings: SettingsFactory, device: str
) -> None:
    async with (
        served(create_app(make_settings(backend_cors_origins=(PAGE,)))) as client,
        opened(client, additional_headers={}, origin=PAGE) as socket,
    ):
        await socket.send(json.dumps({"api_key": API_KEY}))
        assert (await ask(socket, subscribe(device)))[-1]["type"] == "ack"


@pytest.mark.parametrize(
    "first", ['{"api_key":"wrong-key-0123456789"}', "junk", "{}", '{"api_key":5}', b"\xff"]
)
async def test_a_wrong_key_as_first_frame_is_refused(client: httpx.AsyncClient, first: str) -> None:
    async with opened(client, additional_headers={}) as socket:
        await socket.send(first)
        error = await take(socket)
        assert (error["type"], error["status"]) == ("error", 401)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_wrong_first_frames_count_as_failed_keys(client: httpx.AsyncClient) -> None:
    statuses = []
    for _ in range(21):
        async with opened(client, additional_headers={}) as socket:
            await socket.send('{"api_key":"wrong-key-0123456789"}')
            statuses.append((await take(socket))["status"])
    assert statuses == [401] * 20 + [429]


async def test_whoever_says_nothing_is_cut(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_frame, "FIRST_FRAME_SECONDS", 0.05)
    async with opened(client, additional_headers={}) as socket:
        assert (await take(socket))["status"] == 401


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"additional_headers": {"X-API-Key": "wrong-key-0123456789"}}, 401),
        ({"origin": "https://evil.example"}, 403),
        ({"path": "/api/v1/tb/nothing"}, 404),
        ({"path": "/api/v1/tb/nothing", "additional_headers": {}}, 401),
        ({"path": f"{PATH}?x=1"}, 422),
    ],
)
async def test_a_refused_handshake_says_why(
    client: httpx.AsyncClient, options: dict[str, Any], status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with opened(client, **options):
            raise AssertionError
    answer = refused.value.response
    assert answer.status_code == status
    assert json.loads(answer.body or b"")["request_id"] == answer.headers["x-request-id"]


async def test_a_connection_is_one_line_in_the_access_log(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(client):
        pass
    await asyncio.sleep(0)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"WEBSOCKET"' in line]
    assert [(line["status"], line["route"], line["key_id"]) for line in lines] == [(101, PATH, "default")]


async def test_it_says_goodbye_when_the_server_stops(make_settings: SettingsFactory, device: str) -> None:
    app = create_app(make_settings())
    async with AsyncExitStack() as stack:
        async with serve(app, timeout_graceful_shutdown=30) as url:
            address = url.replace("http", "ws") + PATH
            socket = await stack.enter_async_context(connect(address, additional_headers=KEY_HEADER))
            await ask(socket, subscribe(device))
        assert (await take(socket))["type"] == "closing"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    assert len(app.state.streams) == len(app.state.channels) == 0


async def test_a_gone_device_leaves_the_others(
    app: FastAPI, simulator: Simulator, client: httpx.AsyncClient, device: str
) -> None:
    feed_of(app).recheck_seconds = 0.01
    other = next(each.id for each in simulator.world.every("DEVICE") if each.id != device)
    async with opened(client) as socket:
        await ask(socket, subscribe(device, first_values=False))
        await ask(socket, subscribe(other, first_values=False))
        assert (await client.delete(f"/api/v1/tb/devices/{device}")).status_code == 200
        assert (await take(socket))["type"] == "gone"
        simulator.world.telemetry.save(other, [Point("n", T, 1)])
        assert (await take(socket))["value"] == 1


async def test_frames_that_name_many_devices_wait_for_their_turn(
    simulator: Simulator, client: httpx.AsyncClient, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_pace, "DEVICES_AT_ONCE", 5)
    monkeypatch.setattr(live_pace, "DEVICES_A_SECOND", 100)
    names = [f"name:{each.name}" for each in simulator.world.every("DEVICE")][:5]
    now = asyncio.get_running_loop().time
    async with opened(client) as socket:
        for number in range(3):
            began = now()
            (*_, ack) = await ask(socket, subscribe(*names, first_values=False))
            assert ack["type"] == "ack"
            # The first five are free, each further one takes 10 ms; what is named again is looked up again.
            assert now() - began >= (0 if number == 0 else 0.03)
            # To hear no more of what is heard is not looked up, so it does not wait, nor make others wait.
            (ack,) = await ask(socket, {"type": "unsubscribe", "device_ids": [*ack["device_ids"].values()]})
            assert ack["type"] == "ack"


async def test_devices_that_frames_name_are_charged(
    simulator: Simulator, make_settings: SettingsFactory, device: str
) -> None:
    settings = make_settings(rate_limit="4/hour", rate_limit_bulk_cost="devices")
    others = [each.id for each in simulator.world.every("DEVICE") if each.id != device]
    async with served(create_app(settings)) as client, opened(client) as socket:
        # The connection was a request and has paid for the first one.
        assert (await ask(socket, subscribe(device, first_values=False)))[-1]["type"] == "ack"
        (error,) = await ask(socket, subscribe(*others[:5]))
        assert (error["status"], error["details"]["limit"]) == (400, 4)
        (error,) = await ask(socket, subscribe(*others[:4]))
        assert (error["status"], error["error_code"]) == (429, "RATE_LIMIT_EXCEEDED")
        assert error["retry_after"] > 1
        (*_, ack) = await ask(socket, subscribe(*others[:3], first_values=False))
        assert ack["type"] == "ack"
        (*_, error) = await ask(socket, subscribe(others[4]))
        assert error["status"] == 429
