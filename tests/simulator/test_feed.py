"""The WebSocket beyond what was recorded: what it does not check, what it forgets, how it ends."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point

Open = Callable[[httpx.AsyncClient], Awaitable[ClientConnection]]


def address(simulator: Simulator, path: str = "/api/ws") -> str:
    return simulator.url.replace("http", "ws") + path


def token(client: httpx.AsyncClient) -> str:
    return str(client.headers["X-Authorization"]).removeprefix("Bearer ")


@pytest.fixture
async def open_feed(simulator: Simulator) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def open_feed(client: httpx.AsyncClient) -> ClientConnection:
            socket = await stack.enter_async_context(connect(address(simulator)))
            await socket.send(json.dumps({"authCmd": {"cmdId": 0, "token": token(client)}, "cmds": []}))
            return socket

        yield open_feed


async def ask(socket: ClientConnection, kind: str, number: int, entity_id: str, **more: Any) -> Any:
    command = {"type": kind, "cmdId": number, "entityType": "DEVICE", "entityId": entity_id, **more}
    await socket.send(json.dumps({"cmds": [command]}))
    return json.loads(await socket.recv()) if not more.get("unsubscribe") else None


async def test_attributes_are_not_checked_and_telemetry_is(
    open_feed: Open, customer: httpx.AsyncClient, device_id: str
) -> None:
    socket = await open_feed(customer)
    assert (await ask(socket, "ATTRIBUTES", 1, device_id, scope="SERVER_SCOPE"))["data"].keys() == {"active"}
    assert (await ask(socket, "ATTRIBUTES", 2, "00000000-0000-0000-0000-000000000007"))["data"] == {}
    assert (await ask(socket, "TIMESERIES", 3, device_id))["errorMsg"] == "Failed to fetch data!"


async def test_a_reused_number_gets_both_devices(
    simulator: Simulator, open_feed: Open, tenant: httpx.AsyncClient
) -> None:
    socket = await open_feed(tenant)
    first, second = [e.id for e in simulator.world.every("DEVICE") if e.name.startswith("Thermostat")]
    for entity_id in (first, second):
        await ask(socket, "TIMESERIES", 5, entity_id)
    for entity_id in (first, second):
        simulator.world.telemetry.save(entity_id, [Point("k", 1, entity_id)])
    frames = [json.loads(await socket.recv()) for _ in range(2)]
    assert [frame["subscriptionId"] for frame in frames] == [5, 5]
    assert [frame["data"]["k"][0][1] for frame in frames] == [first, second]


async def test_latest_telemetry_brings_no_late_points(
    simulator: Simulator, open_feed: Open, tenant: httpx.AsyncClient, device_id: str
) -> None:
    socket = await open_feed(tenant)
    simulator.world.telemetry.save(device_id, [Point("k", 10, 1), Point("other", 10, 1)])
    more = {"scope": "LATEST_TELEMETRY", "keys": "k"}
    assert (await ask(socket, "TIMESERIES", 5, device_id, **more))["data"] == {"k": [[10, "1"]]}
    simulator.world.telemetry.save(device_id, [Point("k", 9, 2), Point("k", 11, 3), Point("other", 12, 4)])
    assert json.loads(await socket.recv())["data"] == {"k": [[11, "3"]]}


async def test_unsubscribing_without_an_entity_ends_everything(
    simulator: Simulator, open_feed: Open, tenant: httpx.AsyncClient, device_id: str
) -> None:
    socket = await open_feed(tenant)
    await ask(socket, "TIMESERIES", 5, device_id)
    await socket.send(json.dumps({"cmds": [{"type": "TIMESERIES", "cmdId": 5, "unsubscribe": True}]}))
    answer = await ask(socket, "TIMESERIES", 6, device_id)
    assert (answer["subscriptionId"], answer["errorMsg"]) == (0, "Session meta-data not found!")


async def test_a_rewritten_latest_value_is_pushed_again(
    simulator: Simulator, open_feed: Open, tenant: httpx.AsyncClient, device_id: str
) -> None:
    simulator.world.telemetry.save(device_id, [Point("k", 1, 1), Point("k", 3, 2)])
    socket = await open_feed(tenant)
    await ask(socket, "TIMESERIES", 5, device_id)
    simulator.world.telemetry.delete(device_id, ["k"], (3, 4), rewrite=True)
    assert json.loads(await socket.recv())["data"] == {"k": [[1, "1"]]}


async def test_an_api_key_is_refused(simulator: Simulator, tenant: httpx.AsyncClient) -> None:
    body = {"description": "feed", "enabled": True}
    key = (await tenant.post("/api/apiKey", json=body)).json()["value"]
    async with connect(address(simulator)) as socket:
        await socket.send(json.dumps({"authCmd": {"cmdId": 0, "token": key}, "cmds": []}))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1007


async def test_a_large_frame_closes_with_1009(open_feed: Open, tenant: httpx.AsyncClient) -> None:
    socket = await open_feed(tenant)
    await socket.send(json.dumps({"cmds": [], "padding": "x" * 32_768}))
    with pytest.raises(ConnectionClosed) as closed:
        await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_an_open_socket_outlives_its_token(
    simulator: Simulator, open_feed: Open, tenant: httpx.AsyncClient, device_id: str
) -> None:
    socket = await open_feed(tenant)
    assert (await ask(socket, "TIMESERIES", 5, device_id))["errorCode"] == 0
    simulator.faults.expire_tokens()
    assert (await ask(socket, "TIMESERIES", 6, device_id))["errorCode"] == 0


async def test_the_old_address_takes_the_token_in_its_query_and_the_old_form(
    simulator: Simulator, tenant: httpx.AsyncClient, device_id: str
) -> None:
    path = f"/api/ws/plugins/telemetry?token={token(tenant)}"
    async with connect(address(simulator, path)) as socket:
        commands = {"tsSubCmds": [{"entityType": "DEVICE", "entityId": device_id, "cmdId": 10}]}
        await socket.send(json.dumps({**commands, "attrSubCmds": [], "historyCmds": []}))
        assert json.loads(await socket.recv())["subscriptionId"] == 10


async def test_sessions_can_be_closed_muted_and_cut(
    simulator: Simulator, open_feed: Open, tenant: httpx.AsyncClient, device_id: str
) -> None:
    socket = await open_feed(tenant)
    await ask(socket, "TIMESERIES", 5, device_id)
    simulator.world.feed.muted = True
    simulator.world.telemetry.save(device_id, [Point("k", 1, 1)])
    simulator.world.feed.close_sessions(1008, "limit")
    with pytest.raises(ConnectionClosed) as closed:
        await socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "limit")
    other = await open_feed(tenant)
    simulator.world.feed.muted = False
    await ask(other, "TIMESERIES", 5, device_id)
    simulator.world.feed.cut_sessions()
    with pytest.raises(ConnectionClosed) as cut:
        await other.recv()
    assert cut.value.rcvd is None


async def test_entity_data_tells_of_attributes_and_deleted_keys(
    simulator: Simulator, open_feed: Open, tenant: httpx.AsyncClient, device_id: str
) -> None:
    socket = await open_feed(tenant)
    keys = [{"type": "TIME_SERIES", "key": "k"}, {"type": "ATTRIBUTE", "key": "active"}]
    reference = {"entityType": "DEVICE", "id": device_id}
    query = {
        "entityFilter": {"type": "singleEntity", "singleEntity": reference},
        "latestValues": keys,
        "pageLink": {"page": 0, "pageSize": 10},
    }
    first = await ask(socket, "ENTITY_DATA", 7, device_id, query=query, latestCmd={"keys": keys})
    assert first["data"]["data"][0]["latest"]["ATTRIBUTE"]["active"]["value"] == "false"
    simulator.world.attributes.device_spoke(device_id)
    active = json.loads(await socket.recv())["update"][0]["latest"]
    assert active["ATTRIBUTE"]["active"]["value"] == "true"
    simulator.world.telemetry.save(device_id, [Point("k", 1, 1)])
    assert json.loads(await socket.recv())["update"][0]["latest"]["TIME_SERIES"]["k"]["value"] == "1"
    simulator.world.telemetry.delete(device_id, ["k"], (0, 9))
    assert json.loads(await socket.recv())["update"][0]["latest"] == {
        "TIME_SERIES": {"k": {"ts": 0, "value": ""}}
    }


async def test_an_unknown_path_is_no_websocket(simulator: Simulator) -> None:
    with pytest.raises(Exception, match="404"):
        await connect(address(simulator, "/api/nope"))
