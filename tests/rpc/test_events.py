"""The stream of an RPC's states: one poller, however many listen, and an end."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.keys import store as key_store
from app.thingsboard import rpc_states
from app.thingsboard.rpc_states import RpcStates
from tb_simulator.server import Simulator
from tests.conftest import KEY_HEADER, GatewayFactory
from tests.rpc.conftest import BASE, HttpDevice
from tests.serving import serve

COMMAND = {"method": "m", "params": {"a": 1}}
Event = tuple[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_states, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(rpc_states, "LONGEST_SECONDS", 0.02)


@pytest.fixture
async def served(make_gateway: GatewayFactory) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serve(make_gateway().app) as url,
        httpx.AsyncClient(base_url=url, headers=KEY_HEADER, timeout=60) as client,
    ):
        client.app = None  # type: ignore[attr-defined]  # the tests that look inside make their own
        yield client


async def store(client: httpx.AsyncClient, device: HttpDevice, **more: Any) -> str:
    answer = await client.post(f"{device.path}/rpc/persistent", json={**COMMAND, **more})
    assert answer.status_code == 202
    return str(answer.json()["rpc_id"])


async def events_of(answer: httpx.Response) -> AsyncIterator[Event]:
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    name = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def stream(client: httpx.AsyncClient, rpc_id: str) -> Any:
    return client.stream("GET", f"{BASE}/rpc/{rpc_id}/events")


async def test_each_state_comes_and_the_last_one_ends_it(
    served: httpx.AsyncClient, device: HttpDevice
) -> None:
    rpc_id = await store(served, device)
    async with stream(served, rpc_id) as answer:
        events = events_of(answer)
        assert await anext(events) == (
            "state",
            {
                "rpc_id": rpc_id,
                "device_id": device.id,
                "status": "QUEUED",
                "outcome": "queued",
                "is_final": False,
                "is_oneway": False,
                "response": None,
            },
        )
        message = await device.take()
        assert message is not None
        name, state = await anext(events)
        assert (name, state["status"], state["outcome"], state["is_final"]) == (
            "state",
            "DELIVERED",
            "sent",
            False,
        )
        await device.answer(message, b'{"ok":true}')
        name, state = await anext(events)
        assert (state["status"], state["outcome"], state["is_final"]) == ("SUCCESSFUL", "answered", True)
        assert state["response"] == {"ok": True}
        assert [event async for event in events] == []


async def test_a_oneway_command_ends_when_it_is_delivered(
    served: httpx.AsyncClient, device: HttpDevice
) -> None:
    rpc_id = await store(served, device, oneway=True)
    async with stream(served, rpc_id) as answer:
        events = events_of(answer)
        await anext(events)
        await device.take()
        rest = [event async for event in events]
    assert [(state["status"], state["is_final"]) for _, state in rest] == [("DELIVERED", True)]


async def test_one_that_is_over_is_told_once(served: httpx.AsyncClient, device: HttpDevice) -> None:
    rpc_id = await store(served, device)
    await device.obey(b"1")
    async with stream(served, rpc_id) as answer:
        states = [state async for _, state in events_of(answer)]
    assert [(state["status"], state["response"]) for state in states] == [("SUCCESSFUL", 1)]


async def test_one_that_is_deleted_is_gone(served: httpx.AsyncClient, device: HttpDevice) -> None:
    rpc_id = await store(served, device)
    async with stream(served, rpc_id) as answer:
        events = events_of(answer)
        await anext(events)
        assert (await served.delete(f"{BASE}/rpc/{rpc_id}")).status_code == 200
        assert [event async for event in events] == [("gone", {"rpc_id": rpc_id, "device_id": device.id})]


async def test_many_listeners_share_one_poller_which_ends_with_them(
    make_gateway: GatewayFactory, device: HttpDevice, simulator: Simulator
) -> None:
    app = make_gateway().app
    states: RpcStates = app.state.upstreams["default"].client.rpc._states
    async with (
        serve(app) as url,
        httpx.AsyncClient(base_url=url, headers=KEY_HEADER, timeout=60) as client,
    ):
        rpc_id = await store(client, device)

        async def listen() -> list[str]:
            async with stream(client, rpc_id) as answer:
                return [state["status"] async for _, state in events_of(answer)]

        listeners = [asyncio.create_task(listen()) for _ in range(20)]
        leaver = asyncio.create_task(listen())
        while states.pollers == 0 or states._followed[rpc_id].listeners < 21:  # noqa: ASYNC110 - no wait
            await asyncio.sleep(0)
        assert states.pollers == 1
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        await device.obey(b"1")
        for told in await asyncio.gather(*listeners):
            assert told[0] == "QUEUED"
            assert told[-1] == "SUCCESSFUL"
        while states.pollers:  # noqa: ASYNC110 - turns of the loop, not a wait
            await asyncio.sleep(0)


async def test_nobody_polls_after_the_last_listener(make_gateway: GatewayFactory, device: HttpDevice) -> None:
    app = make_gateway().app
    states: RpcStates = app.state.upstreams["default"].client.rpc._states
    async with (
        serve(app) as url,
        httpx.AsyncClient(base_url=url, headers=KEY_HEADER, timeout=60) as client,
    ):
        rpc_id = await store(client, device)
        async with stream(client, rpc_id) as answer:
            await anext(events_of(answer))
            assert states.pollers == 1
        while states.pollers:  # noqa: ASYNC110 - turns of the loop, not a wait
            await asyncio.sleep(0)


async def test_a_restart_of_thingsboard_is_a_pause(
    served: httpx.AsyncClient, device: HttpDevice, simulator: Simulator
) -> None:
    rpc_id = await store(served, device)
    async with stream(served, rpc_id) as answer:
        events = events_of(answer)
        await anext(events)
        await simulator.stop_listening()
        await asyncio.sleep(0.1)
        await simulator.start_listening()
        await device.obey(b"1")
        states = [state["status"] async for _, state in events]
    assert states[-1] == "SUCCESSFUL"


async def test_a_thingsboard_that_stays_away_ends_it_with_a_reason(
    served: httpx.AsyncClient, device: HttpDevice, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_states, "MOST_FAILURES", 3)
    rpc_id = await store(served, device)
    async with stream(served, rpc_id) as answer:
        events = events_of(answer)
        await anext(events)
        simulator.faults.status(500, path="rpc/persistent")
        (name, data), *rest = [event async for event in events]
    assert (name, data["error_code"], rest) == ("error", "UPSTREAM_ERROR", [])


async def test_a_revoked_key_ends_its_stream(
    make_gateway: GatewayFactory, device: HttpDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_store, "SETTLE_SECONDS", 0.0)
    secret, path = "a-key-that-commands-devices", tmp_path / "keys.toml"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    key = f'[[keys]]\nname = "k"\nid = "k"\nscopes = ["rpc:send"]\nsha256 = "{digest}"\n'
    other = key.replace('"k"', '"other"').replace(digest, "0" * 64)
    path.write_text(key + other)
    app = make_gateway(api_key=None, key=None, api_keys_file=path).app
    async with (
        serve(app) as url,
        httpx.AsyncClient(base_url=url, headers={"X-API-Key": secret}, timeout=60) as client,
    ):
        rpc_id = await store(client, device)
        async with stream(client, rpc_id) as answer:
            events = events_of(answer)
            await anext(events)
            path.write_text(other)
            (name, _), *rest = [event async for event in events]
        assert (name, rest) == ("closing", [])


async def test_a_stopping_gateway_says_goodbye(make_gateway: GatewayFactory, device: HttpDevice) -> None:
    app = make_gateway().app
    async with serve(app) as url, httpx.AsyncClient(base_url=url, headers=KEY_HEADER, timeout=60) as client:
        rpc_id = await store(client, device)
        async with stream(client, rpc_id) as answer:
            events = events_of(answer)
            await anext(events)
            app.state.streams.drain()
            (name, _), *rest = [event async for event in events]
        assert (name, rest) == ("closing", [])


async def test_streams_of_a_key_are_counted(make_gateway: GatewayFactory, device: HttpDevice) -> None:
    app = make_gateway(streams_per_key=1).app
    async with serve(app) as url, httpx.AsyncClient(base_url=url, headers=KEY_HEADER, timeout=60) as client:
        rpc_id = await store(client, device)
        async with stream(client, rpc_id) as answer:
            await anext(events_of(answer))
            assert (await client.get(f"{BASE}/rpc/{rpc_id}/events")).status_code == 429
        async with asyncio.timeout(30):
            while len(app.state.streams):
                await client.get("/health")
        async with stream(client, rpc_id) as answer:
            await anext(events_of(answer))


async def test_what_is_wrong_is_said_before_the_stream_begins(
    served: httpx.AsyncClient, simulator: Simulator, device: HttpDevice
) -> None:
    rpc_id = await store(served, device)
    simulator.faults.status(500, path="rpc/persistent", count=1)
    answer = await served.get(f"{BASE}/rpc/{rpc_id}/events")
    assert (answer.status_code, answer.json()["error_code"]) == (502, "UPSTREAM_ERROR")
