"""Whose commands and stored RPCs a caller reaches. ThingsBoard shows any RPC to every login of the tenant."""

import asyncio
import uuid
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.restrictions.conftest import house, keys
from tests.restrictions.world import House, told, view_of
from tests.rpc.conftest import BASE, UNKNOWN, HttpDevice

__all__ = ["house", "keys"]

COMMAND = {"method": "m", "timeout": 5_000}


async def stored(client: httpx.AsyncClient, device_id: str) -> str:
    answer = await client.post(f"{BASE}/devices/{device_id}/rpc/persistent", json=COMMAND)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["rpc_id"])


@pytest.mark.parametrize("way", ["oneway", "twoway", "persistent"])
async def test_a_customer_user_commands_no_device_of_another(
    customer_gateway: httpx.AsyncClient, foreign: HttpDevice, simulator: Simulator, way: str
) -> None:
    answer = await customer_gateway.post(f"{foreign.path}/rpc/{way}", json=COMMAND)
    missing = await customer_gateway.post(f"{BASE}/devices/{UNKNOWN}/rpc/{way}", json=COMMAND)
    assert (answer.status_code, told(answer)) == (404, told(missing))
    assert not simulator.world.rpcs._line(foreign.id).queued


async def test_a_customer_user_sees_no_rpc_of_another_s_device(
    gateway: httpx.AsyncClient, customer_gateway: httpx.AsyncClient, foreign: HttpDevice
) -> None:
    rpc_id = await stored(gateway, foreign.id)
    assert (await gateway.get(f"{BASE}/rpc/{rpc_id}")).status_code == 200
    missing = await customer_gateway.get(f"{BASE}/rpc/{uuid.uuid4()}")
    assert missing.status_code == 404
    for path in (f"{BASE}/rpc/{rpc_id}", f"{BASE}/rpc/{rpc_id}/events", f"{foreign.path}/rpc"):
        answer = await customer_gateway.get(path)
        assert told(answer) == told(missing)
    assert told(await customer_gateway.delete(f"{BASE}/rpc/{rpc_id}")) == told(missing)
    assert (await gateway.get(f"{BASE}/rpc/{rpc_id}")).json()["data"]["status"] == "QUEUED"


async def test_a_customer_user_reads_its_own_and_may_not_delete_it(
    customer_gateway: httpx.AsyncClient, device: HttpDevice
) -> None:
    rpc_id = await stored(customer_gateway, device.id)
    found = (await customer_gateway.get(f"{BASE}/rpc/{rpc_id}")).json()["data"]
    assert found["deviceId"]["id"] == device.id
    listed = (await customer_gateway.get(f"{device.path}/rpc")).json()
    assert [each["id"]["id"] for each in listed["data"]] == [rpc_id]
    answer = await customer_gateway.delete(f"{BASE}/rpc/{rpc_id}")
    assert (answer.status_code, answer.json()["error_code"]) == (403, "AUTHORIZATION_FAILED")
    assert "account" in answer.json()["message"]
    assert (await customer_gateway.get(f"{BASE}/rpc/{rpc_id}")).status_code == 200


@pytest.mark.parametrize("restriction", ["devices", "types", "customer", "asset"])
async def test_a_restricted_key_reaches_the_rpcs_of_its_devices_only(
    keys: SimpleNamespace, house: House, restriction: str
) -> None:
    client: httpx.AsyncClient = getattr(keys, restriction)
    own = house.seen(keys.given[restriction], "DEVICE")
    missing = told(await client.get(f"{BASE}/rpc/{uuid.uuid4()}"))
    assert missing[0] == 404
    for device_id in sorted(house.seen({}, "DEVICE")):
        rpc_id = await stored(keys.free, device_id)
        answers = [
            await client.get(f"{BASE}/rpc/{rpc_id}"),
            await client.get(f"{BASE}/devices/{device_id}/rpc"),
            await client.delete(f"{BASE}/rpc/{rpc_id}"),
        ]
        if device_id in own:
            assert [answer.status_code for answer in answers] == [200, 200, 200]
        else:
            assert [told(answer) for answer in answers] == [missing] * 3
            events = await client.get(f"{BASE}/rpc/{rpc_id}/events")
            assert told(events) == missing
            assert (await keys.free.get(f"{BASE}/rpc/{rpc_id}")).status_code == 200


async def test_a_stream_ends_for_a_key_that_may_not_see_the_device_any_more(
    keys: SimpleNamespace, house: House
) -> None:
    rpc_id = await stored(keys.free, house.lamp)
    view = view_of(keys.app, keys.given["customer"])
    states = view.rpc.follow(await view.rpc.get(rpc_id))
    assert (await anext(states))["status"] == "QUEUED"
    house.give_to(house.lamp, house.bert)
    keys.clock.seconds += 3_600
    await keys.free.delete(f"{BASE}/devices/{house.lamp}")
    last = await anext(states)
    assert (last["status"], last["response"]) == ("DELETED", None)
    assert [each async for each in states] == []


async def test_an_answer_given_after_a_device_was_lost_is_not_shown(
    keys: SimpleNamespace, house: House, simulator: Simulator
) -> None:
    rpc_id = await stored(keys.free, house.lamp)
    view = view_of(keys.app, keys.given["customer"])
    states = view.rpc.follow(await view.rpc.get(rpc_id))
    await anext(states)
    house.give_to(house.lamp, house.bert)
    keys.clock.seconds += 3_600
    message = await simulator.world.rpcs.poll(house.lamp, 1_000)
    assert message is not None
    simulator.world.rpcs.answer(house.lamp, message.number, b'"a secret"')
    assert [(each["status"], each["response"]) async for each in states] == [("DELETED", None)]


async def test_commands_of_all_kinds_need_their_scopes(
    make_gateway: Any, keys_file: Any, device: HttpDevice
) -> None:
    secret = "a-key-that-only-reads-telemetry"
    client = make_gateway(
        api_key=None, key=secret, api_keys_file=keys_file(reader=(secret, ["telemetry:read"]))
    )
    rpc_id = uuid.uuid4()
    answers = await asyncio.gather(
        *(
            client.post(f"{device.path}/rpc/{way}", json=COMMAND)
            for way in ("oneway", "twoway", "persistent")
        ),
        client.get(f"{device.path}/rpc"),
        client.get(f"{BASE}/rpc/{rpc_id}"),
        client.get(f"{BASE}/rpc/{rpc_id}/events"),
        client.delete(f"{BASE}/rpc/{rpc_id}"),
    )
    for answer in answers:
        assert (answer.status_code, answer.json()["details"]["missing_scopes"]) == (403, ["rpc:send"])
