"""What each part counts for itself arrives in the metrics, and goes when it is over."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.context import RequestContext
from app.errors import BreakerOpen
from app.factory import create_app
from app.metrics import sampler
from app.metrics.requests import RequestMetrics
from tb_simulator.server import Simulator
from tests.conftest import API_KEY, TENANT, GatewayFactory, SettingsFactory
from tests.metrics.scraping import scrape
from tests.redis_server import running_redis
from tests.serving import serve

DEVICES = "/api/v1/tb/devices"
TB = "gateway_thingsboard_"


async def test_the_breaker(gateway: httpx.AsyncClient) -> None:
    breaker = gateway.app.state.upstreams["default"].client.connection.breaker  # type: ignore[attr-defined]
    assert (await scrape(gateway)).total(f"{TB}breaker_open") == 0
    while not breaker.is_open:
        breaker.timed_out(breaker.before())
    with pytest.raises(BreakerOpen):
        breaker.before()
    found = await scrape(gateway)
    assert found.total(f"{TB}breaker_open", upstream="default") == 1
    assert found.total(f"{TB}breaker_openings_total", upstream="default") == 1
    breaker.answered()
    found = await scrape(gateway)
    assert found.total(f"{TB}breaker_open") == 0
    assert found.total(f"{TB}breaker_openings_total") == 1


async def test_the_rate_limit_of_thingsboard(make_gateway: GatewayFactory, simulator: Simulator) -> None:
    gateway = make_gateway(tb_queue_seconds=0)
    await gateway.get(DEVICES)
    simulator.faults.rate_limit("1:60")
    statuses = [(await gateway.get(DEVICES, params={"page": page})).status_code for page in range(3)]
    assert 429 in statuses
    found = await scrape(gateway)
    assert found.total(f"{TB}rate_limited") == 1
    assert found.total(f"{TB}pace_calls_per_second") > 0
    assert found.total(f"{TB}rate_limit_answers_total") >= 1
    assert found.total(f"{TB}queue_refusals_total", reason="rate_limit") >= 1
    assert found.total(f"{TB}calls_total", outcome="limited") >= 1


async def test_retries(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    await gateway.get(DEVICES)
    simulator.faults.reset(path="deviceInfos", count=1)
    assert (await gateway.get(DEVICES)).status_code == 200
    found = await scrape(gateway)
    assert found.total(f"{TB}retries_total", upstream="default") == 1
    assert found.total(f"{TB}calls_total", outcome="reset") == 1


async def test_redis(make_gateway: GatewayFactory) -> None:
    async with running_redis() as redis:
        gateway = make_gateway(redis_url=redis.url)
        assert (await gateway.get(DEVICES)).status_code == 200
        assert (await scrape(gateway)).total("gateway_redis_down") == 0
        redis.kill()
        assert (await gateway.get(DEVICES)).status_code == 200
        found = await scrape(gateway)
        assert found.total("gateway_redis_down") == 1
        assert found.total("gateway_redis_failures_total") >= 1
        assert found.total("gateway_redis_counted_locally_total") >= 1
        assert found.total("gateway_rate_limit_windows") >= 1


async def test_the_key_file(make_gateway: GatewayFactory, keys_file: Callable[..., Path]) -> None:
    path = keys_file(reader=("the-secret-of-a-reader", ["devices:read"]))
    gateway = make_gateway(api_key=None, api_keys_file=path, key=None)
    keys = gateway.app.state.keys
    assert (await scrape(gateway)).total("gateway_keys") == 1
    good = path.read_text()
    path.write_text("not a key file")
    while keys.fault is None:
        await keys.poll(path)
    found = await scrape(gateway)
    assert found.total("gateway_key_file_broken") == 1
    assert found.total("gateway_key_file_faults_total") == 1
    assert found.total("gateway_keys") == 1
    path.write_text(good.replace('name = "reader"', 'name = "other"'))
    while not keys.reloads:
        await keys.poll(path)
    found = await scrape(gateway)
    assert found.total("gateway_key_file_broken") == 0
    assert found.total("gateway_key_reloads_total") == 1


async def test_live_data(make_settings: SettingsFactory, simulator: Simulator) -> None:
    device = next(simulator.world.every("DEVICE"))
    path = f"{DEVICES}/{device.id}/telemetry"
    async with (
        serve(create_app(make_settings())) as url,
        httpx.AsyncClient(base_url=url, headers={"X-API-Key": API_KEY}) as client,
    ):
        async with client.stream("GET", f"{path}/stream", params={"first_values": False}) as stream:
            lines = stream.aiter_lines()
            await client.post(path, json={"temperature": [{"ts": 1_700_000_000_000, "value": 7}]})
            while await anext(lines) != "event: telemetry":
                pass
            found = await scrape(client)
            assert found.total("gateway_streams") == 1
            assert found.total("gateway_live_channels") == 1
            assert found.total("gateway_requests_in_flight") == 2
            assert found.total(f"{TB}live_connected", upstream="default") == 1
            assert found.total(f"{TB}live_devices", upstream="default") == 1
            assert found.total("gateway_live_events_total", kind="telemetry") == 1
            assert found.total("gateway_live_frames_total") == 1
        while (found := await scrape(client)).total("gateway_streams"):
            pass
        assert found.total("gateway_requests_total", route=f"{DEVICES}/{{device_id}}/telemetry/stream") <= 1


async def test_upstreams_of_one_tenant_share_a_queue_and_are_told_once(
    make_gateway: GatewayFactory, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_PASSWORD_SECOND", TENANT[1])
    path = tmp_path / "upstreams.toml"
    path.write_text(
        f'[[upstreams]]\nname = "second"\ntb_host = "{simulator.url}"\ntb_username = "{TENANT[0]}"\n'
        'tb_password_env = "TB_PASSWORD_SECOND"\n'
    )
    gateway = make_gateway(upstreams_file=path)
    upstreams = gateway.app.state.upstreams
    upstreams["second"].client.connection.queue.counts.waited = 3
    found = await scrape(gateway)
    assert found.total(f"{TB}queue_waits_total", upstream="second") == 3
    await upstreams.probe()
    first, second = (upstreams[name].client.connection.queue for name in ("default", "second"))
    assert first is second
    first.counts.waited = 5
    found = await scrape(gateway)
    assert found.total(f"{TB}queue_waits_total", upstream="default") == 5
    assert found.total(f"{TB}queue_waits_total", upstream="second") == 3
    assert found.total(f"{TB}queue_length", upstream="second") == 0


async def test_the_event_loop_is_watched(
    make_settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "EVERY_SECONDS", 0.01)
    async with serve(create_app(make_settings())) as url, httpx.AsyncClient(base_url=url) as client:
        while not (await scrape(client)).total("gateway_event_loop_lag_seconds_count"):
            pass


def test_answers_that_broke_off_are_counted() -> None:
    counted = RequestMetrics(lambda _: None)
    scope = {"type": "http", "method": "GET"}
    counted.add(scope, RequestContext("an-id"), 200, 0.1, is_complete=False)
    counted.add(scope, RequestContext("an-id"), 200, 0.1)
    assert counted.cut == {"unmatched": 1}
