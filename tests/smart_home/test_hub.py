"""The link to the gateway and the queues behind it, against a gateway that can be made to misbehave."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from examples.smart_home.live.hub import Hub
from examples.smart_home.live.link import BATCH
from examples.smart_home.live.queue import RESYNC, EventQueue
from examples.smart_home.models import Room

PATIENCE = 20
KEY = "key-of-the-hub"


class StubGateway:
    """Takes subscriptions as the gateway does: one unknown device voids its whole frame."""

    def __init__(self) -> None:
        self.sockets: list[ServerConnection] = []
        self.subscribed: set[str] = set()
        self.unknown: set[str] = set()
        self.frames: list[dict[str, Any]] = []
        self.changed = asyncio.Event()
        self.url = ""
        self.server: Server

    async def handle(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        assert socket.request.headers["X-API-Key"] == KEY
        assert socket.request.path == "/api/v1/tb/ws"
        self.sockets.append(socket)
        self.subscribed.clear()
        async for text in socket:
            frame = json.loads(text)
            self.frames.append(frame)
            devices = set(frame["device_ids"])
            if frame["type"] == "unsubscribe":
                self.subscribed -= devices
            elif devices & self.unknown:
                error = {"type": "error", "id": frame["id"], "error_code": "RESOURCE_NOT_FOUND"}
                await socket.send(json.dumps(error))
                continue
            else:
                self.subscribed |= devices
            await socket.send(json.dumps({"type": "ack", "id": frame["id"], "device_ids": {}}))
            self.changed.set()

    async def push(self, device: UUID, **members: Any) -> None:
        await self.sockets[-1].send(json.dumps({"device_id": str(device)} | members))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def gateway() -> AsyncIterator[StubGateway]:
    stub = StubGateway()
    async with serve(stub.handle, "127.0.0.1", 0) as stub.server:
        stub.url = f"http://127.0.0.1:{next(iter(stub.server.sockets)).getsockname()[1]}"
        yield stub


def room_with(device: UUID, visible_from: int = 0) -> Room:
    return Room(
        id=uuid4(), home_id=uuid4(), name="x", tb_device_id=device, visible_from=visible_from, created_at=0
    )


class House:
    """Rooms by user, and a hub that reads them."""

    def __init__(self, url: str) -> None:
        self.rooms: dict[UUID, list[Room]] = {}
        self.hub = Hub(url, KEY, self.load)

    async def load(self, user_id: UUID) -> Sequence[Room]:
        return list(self.rooms.get(user_id, ()))


@pytest.fixture
async def house(gateway: StubGateway) -> AsyncIterator[House]:
    house = House(gateway.url)
    running = asyncio.create_task(house.hub.link.run())
    yield house
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def next_of(queue: EventQueue, kind: str, **members: Any) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while True:
            event = await queue.get()
            if event["type"] == kind and members.items() <= event.items():
                return event


async def test_only_what_somebody_looks_at_is_subscribed(gateway: StubGateway, house: House) -> None:
    alice, device, other = uuid4(), uuid4(), uuid4()
    house.rooms[alice] = [room_with(device)]
    assert not gateway.sockets, "nobody looks, so there is no connection"
    async with house.hub.listen(alice) as queue:
        await gateway.until(lambda: gateway.subscribed == {str(device)})
        house.rooms[alice] = [room_with(other)]
        await house.hub.rooms_changed(alice)
        await gateway.until(lambda: gateway.subscribed == {str(other)})
        await next_of(queue, "rooms")
    await gateway.until(lambda: gateway.subscribed == set())
    assert len(gateway.sockets) == 1


async def test_two_pages_of_one_room_are_one_subscription(gateway: StubGateway, house: House) -> None:
    alice, device = uuid4(), uuid4()
    house.rooms[alice] = [room_with(device)]
    async with house.hub.listen(alice) as first:
        await next_of(first, "ready", live=True)
        async with house.hub.listen(alice) as second:
            await gateway.push(device, type="telemetry", key="t", ts=1, value=2)
            for queue in (first, second):
                assert (await next_of(queue, "telemetry"))["value"] == 2
        await gateway.push(device, type="telemetry", key="t", ts=2, value=3)
        assert (await next_of(first, "telemetry"))["value"] == 3
    assert [frame["type"] for frame in gateway.frames][:1] == ["subscribe"]
    assert [frame["type"] for frame in gateway.frames].count("subscribe") == 1


async def test_a_broken_link_comes_back_and_says_so(gateway: StubGateway, house: House) -> None:
    alice, device = uuid4(), uuid4()
    house.rooms[alice] = [room_with(device)]
    async with house.hub.listen(alice) as queue:
        for _ in range(3):
            await next_of(queue, "ready", live=True)
            gateway.sockets[-1].transport.abort()
            await next_of(queue, "ready", live=False)
        await next_of(queue, "ready", live=True)
        await gateway.push(device, type="telemetry", key="t", ts=1, value=True)
        assert (await next_of(queue, "telemetry"))["value"] is True
    assert len(gateway.sockets) == 4


async def test_a_device_that_is_refused_spoils_no_other(gateway: StubGateway, house: House) -> None:
    alice, gone = uuid4(), uuid4()
    good = [uuid4() for _ in range(5)]
    gateway.unknown = {str(gone)}
    house.rooms[alice] = [room_with(device) for device in (*good, gone)]
    async with house.hub.listen(alice):
        await gateway.until(lambda: gateway.subscribed == set(map(str, good)))


async def test_many_devices_are_named_in_several_frames(gateway: StubGateway, house: House) -> None:
    alice = uuid4()
    devices = {uuid4() for _ in range(2 * BATCH + 1)}
    house.rooms[alice] = [room_with(device) for device in devices]
    async with house.hub.listen(alice):
        await gateway.until(lambda: gateway.subscribed == set(map(str, devices)))
    assert max(len(frame["device_ids"]) for frame in gateway.frames) == BATCH


async def test_what_was_before_the_claim_is_not_passed_on(gateway: StubGateway, house: House) -> None:
    alice, device = uuid4(), uuid4()
    house.rooms[alice] = [room_with(device, visible_from=1000)]
    async with house.hub.listen(alice) as queue:
        await next_of(queue, "ready", live=True)
        for ts in (999, 1000):
            await gateway.push(device, type="telemetry", key="t", ts=ts, value=ts)
        assert (await next_of(queue, "telemetry"))["ts"] == 1000


async def test_frames_that_make_no_sense_harm_nothing(gateway: StubGateway, house: House) -> None:
    alice, device = uuid4(), uuid4()
    house.rooms[alice] = [room_with(device)]
    async with house.hub.listen(alice) as queue:
        await next_of(queue, "ready", live=True)
        for text in ("garbage", "[]", "{}", '{"type": 5}', '{"type": "telemetry"}', '{"type": "error"}'):
            await gateway.sockets[-1].send(text)
        await gateway.push(uuid4(), type="telemetry", key="t", ts=1, value=1)
        for kind in ("gap", "gone", "attribute", "status"):
            await gateway.push(device, type=kind, active=False, ts=5)
        assert [(await queue.get())["type"] for _ in range(3)] == ["gap", "gone", "status"]


async def test_a_slow_page_loses_the_oldest_of_the_same_key_and_is_told() -> None:
    queue = EventQueue(most=3)
    for number in range(5):
        queue.put("temperature", {"type": "telemetry", "value": number})
    queue.put("light", {"type": "telemetry", "value": True})
    assert await queue.get() == RESYNC
    assert [(await queue.get())["value"] for _ in range(3)] == [3, 4, True]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await queue.get()
            pytest.fail("it should be empty")


async def test_a_full_queue_keeps_what_is_rare() -> None:
    queue = EventQueue(most=3)
    queue.put("light", {"value": "rare"})
    for number in range(100):
        queue.put("temperature", {"value": number})
    assert await queue.get() == RESYNC
    assert [(await queue.get())["value"] for _ in range(3)] == ["rare", 98, 99]
