"""Who may hear what, and until when."""

import hashlib
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.factory import create_app
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tests.conftest import CUSTOMER, SettingsFactory
from tests.live.conftest import feed_of
from tests.live.reading import BASE, served, stream
from tests.restrictions.conftest import house, keys  # noqa: F401 - fixtures
from tests.restrictions.world import MISSING, House, told

T = 1_760_000_000_000
SECRET = "a-secret-of-a-key-0123456789"


def write_key(path: Path, **fields: Any) -> Path:
    values = {"name": "reader", "id": "reader", "scopes": ["telemetry:read"], **fields}
    lines = [f"{name} = {value!r}" for name, value in values.items() if not isinstance(value, bool)]
    lines += [f"{name} = {str(value).lower()}" for name, value in values.items() if isinstance(value, bool)]
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    path.write_text("\n".join(["[[keys]]", f'sha256 = "{digest}"', *lines]) + "\n")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_key(tmp_path / "keys.toml")


@pytest.fixture
def key_app(make_settings: SettingsFactory, path: Path) -> FastAPI:
    app = create_app(make_settings(api_key=None, api_keys_file=path))
    feed_of(app)
    return app


@pytest.mark.parametrize(
    "change",
    [
        {"disabled": True},
        {"scopes": ["devices:read"]},
        {"device_types": ["no such type"]},
        {"id": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_key_that_ends_or_may_do_less_ends_its_streams(
    key_app: FastAPI, path: Path, device: str, change: dict[str, Any]
) -> None:
    target = f"/devices/{device}/telemetry/stream?first_values=false"
    async with served(key_app, SECRET) as client, stream(client, target) as events:
        write_key(path, **change)
        (told_last,) = await events.rest()
    assert told_last.event == "closing"
    assert "key" in told_last.data["reason"]


async def test_a_key_that_may_do_more_goes_on(
    simulator: Simulator, key_app: FastAPI, path: Path, device: str
) -> None:
    async with (
        served(key_app, SECRET) as client,
        stream(client, f"/devices/{device}/telemetry/stream") as events,
    ):
        generation = key_app.state.keys.generation
        write_key(path, scopes=["telemetry:read", "devices:read"])
        await key_app.state.keys.wait_for_change(generation)
        simulator.world.telemetry.save(device, [Point("n", T, 1)])
        assert await events.until("n", 1) == [1]


async def test_an_expired_key_ends_its_streams(
    make_settings: SettingsFactory, tmp_path: Path, device: str
) -> None:
    """Time alone wakes nobody: the stream has a timer of its own."""
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    path = write_key(tmp_path / "keys.toml", expires_at=end)
    app = create_app(make_settings(api_key=None, api_keys_file=path))
    target = f"/devices/{device}/telemetry/stream?first_values=false"
    async with served(app, SECRET) as client, stream(client, target) as events:
        (told_last,) = await events.rest()
    assert told_last.event == "closing"


async def test_a_key_has_no_more_streams_than_its_limit(
    make_settings: SettingsFactory, tmp_path: Path, device: str
) -> None:
    path = write_key(tmp_path / "keys.toml", max_streams=1)
    app = create_app(make_settings(api_key=None, api_keys_file=path))
    target = f"/devices/{device}/telemetry/stream"
    async with served(app, SECRET) as client:
        async with stream(client, target):
            answer = await client.get(BASE + target)
            assert (answer.status_code, answer.json()["details"]["counted_by"]) == (429, "streams")
        async with stream(client, target):
            assert len(app.state.streams) == 1


async def test_attributes_need_their_own_scope(key_app: FastAPI, device: str) -> None:
    async with served(key_app, SECRET) as client:
        answer = await client.get(f"{BASE}/devices/{device}/telemetry/stream?attributes=true")
    assert answer.status_code == 403
    assert answer.json()["details"]["missing_scopes"] == ["attributes:read"]


@pytest.mark.parametrize("query", ["", "?attributes=true"])
async def test_a_customer_user_hears_nothing_of_another_s_device(
    simulator: Simulator, make_settings: SettingsFactory, device: str, query: str
) -> None:
    """ThingsBoard's WebSocket does not check attributes (facts, permissions)."""
    app = create_app(make_settings(tb_username=CUSTOMER[0], tb_password=CUSTOMER[1]))
    async with served(app) as client:
        answer = await client.get(f"{BASE}/devices/{device}/telemetry/stream{query}")
        assert answer.status_code == 404
        own = (await client.get(f"{BASE}/devices")).json()["data"][0]["id"]["id"]
        simulator.world.telemetry.save(own, [Point("n", T, 1)])
        async with stream(client, f"/devices/{own}/telemetry/stream{query}") as events:
            assert await events.until("n", 1) == [1]
    assert not any(frame for frame in simulator.world.feed.sessions)


async def test_a_device_taken_from_the_customer_while_the_socket_is_down_tells_nothing_more(
    simulator: Simulator, make_settings: SettingsFactory
) -> None:
    app = create_app(make_settings(tb_username=CUSTOMER[0], tb_password=CUSTOMER[1]))
    feed_of(app)
    async with served(app) as client:
        own = (await client.get(f"{BASE}/devices")).json()["data"][0]["id"]["id"]
        target = f"/devices/{own}/telemetry/stream?attributes=true&first_values=false"
        async with stream(client, target) as events:
            entity = simulator.world.find("DEVICE", own)
            assert entity is not None
            other = next(each.id for each in simulator.world.every("CUSTOMER") if each.id != entity.customer)
            simulator.world.feed.muted = True
            entity.body["customerId"] = {"entityType": "CUSTOMER", "id": other}
            entity.customer = other
            simulator.world.telemetry.save(own, [Point("secret", T, 1)])
            simulator.world.attributes.save(own, "SERVER_SCOPE", {"secret": 1})
            simulator.world.feed.muted = False
            simulator.world.feed.cut_sessions()
            assert [each.event for each in await events.rest()] == ["gone"]


async def test_a_hidden_device_is_a_missing_one(keys: SimpleNamespace, house: House) -> None:  # noqa: F811
    async with served(keys.app, None) as client:
        for name in ("devices", "types", "customer", "asset"):
            given = keys.given[name]
            client.headers["X-API-Key"] = dict(getattr(keys, name).headers)["x-api-key"]
            own = sorted(house.seen(given, "DEVICE"))
            for path in ("/devices/{}/telemetry/stream", "/telemetry/stream?device_ids={}"):
                missing = told(await client.get(BASE + path.format(MISSING)))
                assert missing[0] == 404
                for hidden in sorted(house.seen({}, "DEVICE") - set(own)):
                    answer = await client.get(BASE + path.format(hidden))
                    assert str(told(answer)).replace(hidden, MISSING) == str(missing)
                async with stream(client, path.format(own[0])) as events:
                    assert await events.until("temperature", 20.5) == [20.5]


async def test_a_device_that_leaves_the_restriction_is_gone(keys: SimpleNamespace, house: House) -> None:  # noqa: F811
    async with served(keys.app, None) as client:
        client.headers["X-API-Key"] = dict(keys.types.headers)["x-api-key"]
        device = min(house.seen(keys.given["types"], "DEVICE"))
        upstream = keys.app.state.upstreams["default"].client
        for view in upstream.restricted.values():
            view.live.recheck_seconds = 0.01
        target = f"/devices/{device}/telemetry/stream?first_values=false"
        async with stream(client, target) as events:
            house.retype(device, "something else")
            keys.clock.seconds += 100
            assert [each.event for each in await events.rest()] == ["gone"]


async def test_with_an_api_key_as_credential_the_socket_gets_a_token(
    simulator: Simulator, make_settings: SettingsFactory, gateway: httpx.AsyncClient, device: str
) -> None:
    async with httpx.AsyncClient(base_url=simulator.url) as tenant:
        for login, status in ((("tenant@thingsboard.org", "tenant"), 200), (CUSTOMER, 502)):
            answer = await tenant.post("/api/auth/login", json={"username": login[0], "password": login[1]})
            headers = {"X-Authorization": f"Bearer {answer.json()['token']}"}
            made = await tenant.post(
                "/api/apiKey", json={"description": "x", "enabled": True}, headers=headers
            )
            settings = make_settings(tb_username=None, tb_password=None, tb_api_key=made.json()["value"])
            async with served(create_app(settings)) as client:
                own = (await client.get(f"{BASE}/devices")).json()["data"][0]["id"]["id"]
                if status == 200:
                    async with stream(client, f"/devices/{own}/telemetry/stream") as events:
                        assert (await anext(events)).event == "status"
                else:
                    refused = await client.get(f"{BASE}/devices/{own}/telemetry/stream")
                    assert refused.status_code == status
                    assert "login" in refused.json()["message"]
