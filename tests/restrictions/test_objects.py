"""Single objects: what a key does not see is missing, in every way that a caller could tell."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.restrictions.world import BASE, MISSING, NAMES, TS, House, client_of, told, view_of, write_keys


@pytest.mark.parametrize("name", NAMES)
async def test_a_key_sees_the_devices_and_assets_of_its_restriction_and_no_others(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    client: httpx.AsyncClient = getattr(keys, name)
    for plural, kind in (("devices", "DEVICE"), ("assets", "ASSET")):
        seen = set()
        for entity in [*house.world.every(kind)]:
            by_id = await client.get(f"{BASE}/{plural}/{entity.id}")
            by_name = await client.get(f"{BASE}/{plural}/name:{entity.name}")
            keys_of = await client.get(f"{BASE}/{plural}/{entity.id.upper()}/keys")
            assert {by_id.status_code, by_name.status_code, keys_of.status_code} in ({200}, {404})
            seen |= {entity.id} if by_id.status_code == 200 else set()
        assert seen == house.seen(keys.given[name], kind)


@pytest.mark.parametrize("name", NAMES)
async def test_the_oracle_is_not_empty(house: House, name: str) -> None:
    """Else the tests above and beside would hold for a gateway that shows nothing."""
    given = house.restrictions()[name]
    assert bool(house.seen(given, "DEVICE")) == (name not in {"nothing", "no_such_asset", "no_such_customer"})
    assert house.seen(given, "DEVICE") != house.seen({}, "DEVICE")


async def test_the_wrong_kind_of_a_visible_object_is_missing(keys: SimpleNamespace, house: House) -> None:
    """ThingsBoard itself answers the history of `ASSET/{device id}`."""
    for name in ("free", "devices", "types", "customer", "asset"):
        client: httpx.AsyncClient = getattr(keys, name)
        for device in house.seen(keys.given[name], "DEVICE"):
            for path in ("/telemetry", "/telemetry/count", "/telemetry/export", "/keys", "/attributes", ""):
                answer = await client.get(f"{BASE}/assets/{device}{path}")
                assert answer.status_code == 404, (name, path)


@pytest.mark.parametrize("name", ["free", *NAMES])
async def test_the_history_hole_of_thingsboard_stays_closed(
    keys: SimpleNamespace, house: House, name: str
) -> None:
    """ThingsBoard reads any tenant's points to anybody who knows the UUID."""
    client: httpx.AsyncClient = getattr(keys, name)
    for device in [*house.world.every("DEVICE")]:
        expected = 200 if house.sees(keys.given[name], "DEVICE", device.id) else 404
        span = {"start_ts": TS, "end_ts": TS + 1}
        question = {**span, "keys": ["temperature"], "agg": "COUNT", "interval": 1000}
        path = f"{BASE}/devices/{device.id}/telemetry"
        answers = [
            await client.get(path, params={**span, "keys": "temperature"}),
            await client.get(f"{path}/export", params=span),
            await client.get(f"{path}/count", params=span),
            await client.post(f"{path}/query", json=question),
        ]
        assert [answer.status_code for answer in answers] == [expected] * 4
        many = await client.post(f"{BASE}/telemetry/query", json={**question, "device_ids": [device.id]})
        assert list(many.json()["data" if expected == 200 else "errors"]) == [device.id]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
async def test_another_s_object_and_a_missing_one_cost_the_same_calls(
    keys: SimpleNamespace, house: House, simulator: Simulator, name: str, *, is_warm: bool
) -> None:
    client: httpx.AsyncClient = getattr(keys, name)
    hidden = {e.id for e in house.world.every("DEVICE")} - house.seen(keys.given[name], "DEVICE")
    # What others with other keys have read must make no difference.
    for device in hidden & house.seen({}, "DEVICE"):
        assert (await keys.free.get(f"{BASE}/devices/{device}")).status_code == 200
    answers, calls = [], []
    for reference in (
        MISSING,
        *sorted(hidden),
        "name:nobody",
        *(f"name:{e.name}" for e in house.world.every("DEVICE") if e.id in hidden),
    ):
        for path in ("", "/keys", "/telemetry", "/credentials"):
            keys.clock.seconds += 0 if is_warm else 20
            simulator.calls.clear()
            answer = await client.get(f"{BASE}/devices/{reference}{path}")
            answers.append(told(answer))
            by_name = reference.startswith("name:")
            calls.append((by_name, sorted(simulator.calls.elements())))
    assert answers[0][0] == 404
    assert all(answer == answers[0] for answer in answers)
    # The first answers of all may log in; a walk below an asset serves the second after it.
    later = calls[4:] if is_warm else calls
    for by_name in (False, True):
        assert len({str(found) for kind, found in later if kind is by_name}) == 1


async def test_what_the_restriction_names_is_decided_without_asking_thingsboard(
    keys: SimpleNamespace, house: House, simulator: Simulator
) -> None:
    simulator.calls.clear()
    assert (await keys.devices.get(f"{BASE}/devices/{house.meter}")).status_code == 404
    assert (await keys.devices.get(f"{BASE}/assets/{house.floor}")).status_code == 404
    assert (await keys.types.get(f"{BASE}/assets/{house.floor}")).status_code == 404
    assert not simulator.calls


async def test_look_ups_of_many_devices_share_calls(
    keys: SimpleNamespace, house: House, simulator: Simulator
) -> None:
    devices = sorted(house.seen({}, "DEVICE"))
    simulator.calls.clear()
    answer = await keys.customer.post(f"{BASE}/telemetry/latest", json={"device_ids": devices})
    assert set(answer.json()["data"]) == house.seen(keys.given["customer"], "DEVICE")
    assert simulator.calls["GET /api/devices"] == 1
    assert simulator.calls["GET /api/device/{id}"] == 0


@pytest.mark.parametrize("name", ["customer", "types", "asset"])
async def test_a_look_up_that_fails_is_thingsboard_s_fault_and_no_refusal(
    keys: SimpleNamespace, house: House, simulator: Simulator, name: str
) -> None:
    client: httpx.AsyncClient = getattr(keys, name)
    await client.get(f"{BASE}/devices/{house.meter}")
    keys.clock.seconds += 20
    await simulator.stop_listening()
    for device in (house.lamp, house.meter, MISSING):
        answer = await client.get(f"{BASE}/devices/{device}")
        assert answer.status_code == 503, answer.text
    await simulator.start_listening()
    expected = 200 if house.sees(keys.given[name], "DEVICE", house.meter) else 404
    assert (await client.get(f"{BASE}/devices/{house.meter}")).status_code == expected


async def test_restrictions_hold_for_a_customer_s_credential_too(
    house: House, make_gateway: Any, tmp_path: Any
) -> None:
    own = next(e.id for e in house.world.every("CUSTOMER") if e.name == "Customer A")
    house.give_to(house.lamp, own)
    house.give_to(house.floor, own)
    given = {
        "own": {"customer": own},
        "other": {"customer": house.anna},
        "lamps": {"device_types": ["lamp"]},
        "named": {"devices": [house.lamp, house.meter]},
        "below": {"asset": house.floor},
    }
    path = write_keys(tmp_path / "keys.toml", ((name, ["*"], each) for name, each in given.items()))
    app = make_gateway(
        api_key=None,
        api_keys_file=path,
        key=None,
        tb_username="customer@thingsboard.org",
        tb_password="customer",
    ).app
    for name, restriction in given.items():
        async with client_of(app, name) as client:
            expected = {
                device for device in house.seen(restriction, "DEVICE") if house.entity(device).customer == own
            }
            listed = (await client.get(f"{BASE}/devices")).json()
            assert {item["id"]["id"] for item in listed["data"]} == expected, name
            assert listed["pagination"]["total_elements"] == len(expected)
            for device in house.seen({}, "DEVICE"):
                for reference in (device, f"name:{house.entity(device).name}"):
                    answer = await client.get(f"{BASE}/devices/{reference}")
                    assert (answer.status_code == 200) == (device in expected), (name, reference)


async def test_keys_with_the_same_restrictions_share_their_look_ups(
    keys: SimpleNamespace, house: House
) -> None:
    given = keys.given["devices"]
    turned = {"devices": list(reversed(given["devices"]))}
    assert view_of(keys.app, given) is view_of(keys.app, turned)
