"""What happens in a room reaches its people's pages, and nobody else's."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tb_simulator.demo import SampleDevices
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tests.smart_home.conftest import SECRET, Person, Product

PATIENCE = 20


@contextlib.asynccontextmanager
async def page(product: Product, token: str, **options: Any) -> AsyncIterator[ClientConnection]:
    url = product.url.replace("http", "ws") + "/live"
    async with connect(url, proxy=None, **options) as socket:
        await socket.send(json.dumps({"token": token}))
        yield socket


async def next_of(socket: ClientConnection, kind: str, **members: Any) -> dict[str, Any]:
    """Return the next event of a kind with these members."""
    async with asyncio.timeout(PATIENCE):
        while True:
            event: dict[str, Any] = json.loads(await socket.recv())
            if event["type"] == kind and members.items() <= event.items():
                return event


async def closing_of(socket: ClientConnection) -> int:
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(PATIENCE):
            while True:
                await socket.recv()
    assert socket.close_code is not None
    return socket.close_code


async def room_of(person: Person, number: int = 0) -> str:
    identifier: str = (await person.add_room(await person.add_home(), number))["id"]
    return identifier


async def test_values_come_by_themselves_with_their_types(
    product: Product, simulator: Simulator, devices: SampleDevices
) -> None:
    alice = await product.person()
    room = await room_of(alice)
    async with page(product, alice.tokens["access_token"]) as socket:
        await next_of(socket, "ready", live=True)
        now = simulator.world.now() + 5_000
        simulator.world.telemetry.save(devices.devices[0].id, [Point("temperature", now, 17.25)])
        event = await next_of(socket, "telemetry", key="temperature", ts=now)
        assert event == {
            "type": "telemetry",
            "room_id": room,
            "key": "temperature",
            "ts": now,
            "value": 17.25,
        }
        assert (await next_of(socket, "telemetry", key="light"))["value"] is False


async def test_a_page_hears_of_its_own_rooms_only(
    product: Product, simulator: Simulator, devices: SampleDevices
) -> None:
    alice, bob = await product.person("alice"), await product.person("bob")
    hers, his = await room_of(alice, 0), await room_of(bob, 1)
    async with (
        page(product, alice.tokens["access_token"]) as of_alice,
        page(product, bob.tokens["access_token"]) as of_bob,
    ):
        for socket, room in ((of_alice, hers), (of_bob, his)):
            seen = {(await next_of(socket, "telemetry"))["room_id"] for _ in range(20)}
            assert seen == {room}


async def test_rooms_come_and_go_while_the_page_is_open(
    product: Product, simulator: Simulator, devices: SampleDevices
) -> None:
    alice = await product.person()
    home = await alice.add_home()
    async with page(product, alice.tokens["access_token"]) as socket:
        await next_of(socket, "ready")
        room = (await alice.add_room(home))["id"]
        await next_of(socket, "rooms")
        await next_of(socket, "telemetry", room_id=room)
        await alice.call("DELETE", f"/rooms/{room}", 204)
        await next_of(socket, "rooms")
        second = (await alice.add_room(home, 1))["id"]
        await next_of(socket, "telemetry", room_id=second)
        late = [json.loads(await socket.recv()) for _ in range(20)]
        assert not [event for event in late if event.get("room_id") == room]


async def test_all_pages_share_one_socket_to_the_gateway(product: Product, simulator: Simulator) -> None:
    alice, bob = await product.person("alice"), await product.person("bob")
    await room_of(alice, 0)
    await room_of(bob, 1)
    async with contextlib.AsyncExitStack() as stack:
        for person in (alice, alice, bob):
            socket = await stack.enter_async_context(page(product, person.tokens["access_token"]))
            await next_of(socket, "telemetry")
        assert product.app.state.services.hub.link.is_up
        assert simulator.calls["GET /api/ws"] <= 1


async def test_an_online_device_is_told_and_one_that_goes_offline_too(
    product: Product, simulator: Simulator, devices: SampleDevices
) -> None:
    alice = await product.person()
    room = await room_of(alice)
    async with page(product, alice.tokens["access_token"]) as socket:
        await next_of(socket, "status", room_id=room, online=True)
        simulator.world.attributes.save(devices.devices[0].id, "SERVER_SCOPE", {"active": False})
        await next_of(socket, "status", room_id=room, online=False)


async def test_a_restart_of_thingsboard_is_a_pause_only(
    product: Product, simulator: Simulator, devices: SampleDevices
) -> None:
    alice = await product.person()
    await room_of(alice)
    async with page(product, alice.tokens["access_token"]) as socket:
        await next_of(socket, "telemetry")
        await simulator.restart(0.2)
        later = simulator.world.now()
        async with asyncio.timeout(PATIENCE):
            while (await next_of(socket, "telemetry"))["ts"] < later:
                pass


@pytest.mark.parametrize(
    "frame", ["garbage", "[]", '{"token": 5}', '{"token": "x"}', "{}", '{"token": "x.y.z"}']
)
async def test_a_page_without_a_good_token_is_sent_away(lonely: Product, frame: str) -> None:
    async with connect(lonely.url.replace("http", "ws") + "/live", proxy=None) as socket:
        await socket.send(frame)
        assert await closing_of(socket) == 4401


async def test_a_page_is_closed_when_its_token_ends(lonely: Product) -> None:
    alice = await lonely.person()
    claims = jwt.decode(alice.tokens["access_token"], options={"verify_signature": False})
    short = jwt.encode(claims | {"exp": claims["iat"] + 3}, SECRET, algorithm="HS256")
    async with page(lonely, short) as socket:
        await next_of(socket, "ready", live=False)
        assert await closing_of(socket) == 4403


async def test_another_sites_page_cannot_listen(lonely: Product) -> None:
    alice = await lonely.person()
    with pytest.raises(InvalidStatus):
        async with page(lonely, alice.tokens["access_token"], origin="https://evil.example.com"):
            pass
    async with page(lonely, alice.tokens["access_token"], origin=lonely.url) as socket:
        await next_of(socket, "ready")


async def test_a_user_has_ten_pages_at_most(lonely: Product) -> None:
    alice = await lonely.person()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            socket = await stack.enter_async_context(page(lonely, alice.tokens["access_token"]))
            await next_of(socket, "ready")
        eleventh = await stack.enter_async_context(page(lonely, alice.tokens["access_token"]))
        assert await closing_of(eleventh) == 4429
    async with page(lonely, alice.tokens["access_token"]) as socket:
        await next_of(socket, "ready")


async def test_a_large_frame_ends_the_connection(lonely: Product) -> None:
    async with connect(lonely.url.replace("http", "ws") + "/live", proxy=None) as socket:
        await socket.send("x" * 20_000)
        assert await closing_of(socket) == 1009
