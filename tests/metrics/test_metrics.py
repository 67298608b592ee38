"""What `/metrics` tells: true numbers, and nothing that a caller could choose."""

import asyncio
import re
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.metrics import requests as request_metrics
from tb_simulator.server import Simulator
from tests.conftest import API_KEY, GatewayFactory
from tests.metrics.scraping import Scrape, scrape

DEVICES = "/api/v1/tb/devices"
POINT = {"temperature": [{"ts": 1_700_000_000_000, "value": 1}, {"ts": 1_700_000_001_000, "value": 2}]}


def device_id(simulator: Simulator) -> str:
    return next(simulator.world.every("DEVICE")).id


async def test_requests_are_counted_by_route_status_and_upstream(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    for _ in range(3):
        await gateway.get(DEVICES)
    await gateway.get(f"{DEVICES}/{device_id(simulator)}")
    await gateway.get(f"{DEVICES}/{uuid.uuid4()}")
    found = await scrape(gateway)
    of = {"method": "GET", "upstream": "default"}
    name, one = "gateway_requests_total", f"{DEVICES}/{{device_id}}"
    assert found.total(name, route=DEVICES, status="200", **of) == 3
    assert found.total(name, route=one, status="200", **of) == 1
    assert found.total(name, route=one, status="404", **of) == 1
    assert found.total("gateway_request_duration_seconds_count", route=DEVICES) == 3
    assert found.total("gateway_request_duration_seconds_bucket", route=DEVICES, le="+Inf") == 3
    assert found.total("gateway_key_requests_total", key_id="default", outcome="success") == 4
    assert found.total("gateway_key_requests_total", key_id="default", outcome="client_error") == 1


async def test_histograms_hold_what_was_measured(gateway: httpx.AsyncClient) -> None:
    await gateway.get(DEVICES)
    first = await scrape(gateway)
    await gateway.get(DEVICES)
    second = await scrape(gateway)
    for found, count in ((first, 1), (second, 2)):
        buckets = [
            each.value for each in found.find("gateway_request_duration_seconds_bucket", route=DEVICES)
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == count
    name = "gateway_request_duration_seconds_sum"
    assert 0 < first.total(name, route=DEVICES) < second.total(name, route=DEVICES)


async def test_callers_cannot_make_new_series(
    gateway: httpx.AsyncClient, make_gateway: GatewayFactory
) -> None:
    """Paths, methods, keys and queries are the caller's: none of them names a series."""
    await gateway.get("/metrics")
    before = {(each.name, *each.labels.items()) for each in (await scrape(gateway)).samples}
    for number in range(30):
        await gateway.get(f"/api/v1/tb/no-such-{number}")
        await gateway.request(f"BREW{number}", DEVICES)
        await gateway.get(f"/x/{number}", headers={"X-API-Key": f"guess-{number}"})
        await gateway.get(f"{DEVICES}/name:guess-{number}")
    after = await scrape(gateway)
    new = {(each.name, *each.labels.items()) for each in after.samples} - before
    assert not re.search(r"guess|no-such|BREW|/x/", str(new))
    assert after.total("gateway_requests_total", route="unmatched", status="404") == 30
    assert after.total("gateway_requests_total", method="other", status="405") == 30
    routes = {value for _, *labels in new for label, value in labels if label == "route"}
    assert routes == {"unmatched", DEVICES, f"{DEVICES}/{{device_id}}"}


async def test_keys_beyond_a_bound_are_counted_as_one(
    make_gateway: GatewayFactory, keys_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_metrics, "MOST_KEYS", 2)
    secrets = {f"key{number}": f"the-secret-of-key-number-{number}" for number in range(5)}
    path = keys_file(**{name: (secret, ["devices:read"]) for name, secret in secrets.items()})
    gateway = make_gateway(api_key=None, api_keys_file=path, key=None)
    for secret in secrets.values():
        answer = await gateway.get(DEVICES, headers={"X-API-Key": secret})
        assert answer.status_code == 200
    found = await scrape(gateway)
    ids = [each.labels["key_id"] for each in found.find("gateway_key_requests_total")]
    assert sorted(ids) == ["key0", "key1", "other"]
    assert found.total("gateway_key_requests_total", key_id="other") == 3


async def test_calls_to_thingsboard_are_counted_by_what_became_of_them(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    await gateway.get(DEVICES)
    simulator.faults.status(500, count=1)
    await gateway.get(DEVICES)
    found = await scrape(gateway)
    calls = "gateway_thingsboard_calls_total"
    assert found.total(calls, kind="login", outcome="ok", upstream="default") == 1
    assert found.total(calls, kind="call", outcome="failed") == 1
    assert found.total(calls, kind="call") == found.total(
        "gateway_thingsboard_call_duration_seconds_count", kind="call"
    )


async def test_points_are_counted_in_and_out(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    path = f"{DEVICES}/{device_id(simulator)}/telemetry"
    assert (await gateway.post(path, json=POINT)).status_code == 201
    query = {"keys": "temperature", "start_ts": 1_700_000_000_000, "end_ts": 1_700_000_002_000}
    assert (await gateway.get(path, params=query)).status_code == 200
    found = await scrape(gateway)
    assert found.total("gateway_points_total", direction="written", upstream="default") == 2
    assert found.total("gateway_points_total", direction="read", upstream="default") == 2


async def test_shared_reads_are_told_from_calls(gateway: httpx.AsyncClient) -> None:
    await gateway.get(DEVICES)
    before = await scrape(gateway)
    await asyncio.gather(*(gateway.get(DEVICES) for _ in range(8)))
    after = await scrape(gateway)
    name = "gateway_thingsboard_shared_reads_total"
    assert after.total(name, role="began") - before.total(name, role="began") == 1
    assert after.total(name, role="joined") - before.total(name, role="joined") == 7


async def test_refusals_are_counted(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(rate_limit_requests=2)
    for _ in range(5):
        await gateway.get(DEVICES)
    await gateway.get(DEVICES, headers={"X-API-Key": "not-a-key-of-anybody"})
    found = await scrape(gateway)
    assert found.total("gateway_requests_total", status="429") == 3
    assert found.total("gateway_key_requests_total", outcome="rate_limited") == 3
    assert found.total("gateway_security_events_total", event="limit_reached", reason="address") == 3
    assert found.total("gateway_refused_keys_total", reason="unknown") == 1


async def test_a_cache_tells_hits_from_misses(make_gateway: GatewayFactory, simulator: Simulator) -> None:
    gateway = make_gateway(latest_cache_seconds=60)
    for _ in range(3):
        await gateway.get(f"{DEVICES}/{device_id(simulator)}/telemetry/latest")
    found = await scrape(gateway)
    assert found.total("gateway_latest_cache_requests_total", result="miss") == 1
    assert found.total("gateway_latest_cache_requests_total", result="hit") == 2


async def test_every_metric_says_what_it_is(gateway: httpx.AsyncClient) -> None:
    await gateway.get(DEVICES)
    for family in (await scrape(gateway)).families.values():
        assert family.type in {"counter", "gauge", "histogram"}, family.name
        assert family.documentation.endswith("."), family.name


async def test_no_secret_and_no_name_of_a_device_is_told(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = next(simulator.world.every("DEVICE"))
    await gateway.get(f"{DEVICES}/name:{device.name}")
    text = (await gateway.get("/metrics")).text
    assert not [word for word in (API_KEY, device.name, device.id, "tenant@", simulator.url) if word in text]


class TestWhoMayRead:
    """No key is needed, so the address decides."""

    @pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "127.8.9.1", "::ffff:127.0.0.1"])
    async def test_loopback_may(self, make_gateway: GatewayFactory, peer: str) -> None:
        answer = await make_gateway(key=None, peer=peer).get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")
        assert "gateway_build_info" in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize("peer", ["192.0.2.7", "10.1.2.3", "2001:db8::1"])
    async def test_others_may_not(self, make_gateway: GatewayFactory, peer: str) -> None:
        answer = await make_gateway(peer=peer).get("/metrics")
        assert answer.status_code == 403
        assert answer.json()["error_code"] == "AUTHORIZATION_FAILED"
        assert "METRICS_ALLOWED_NETWORKS" in answer.json()["message"]

    async def test_networks_that_are_named_may(self, make_gateway: GatewayFactory) -> None:
        allowed = {"metrics_allowed_networks": "10.1.0.0/16,2001:db8::/32"}
        assert (await make_gateway(peer="10.1.2.3", **allowed).get("/metrics")).status_code == 200
        assert (await make_gateway(peer="2001:db8::9", **allowed).get("/metrics")).status_code == 200
        assert (await make_gateway(peer="10.2.2.3", **allowed).get("/metrics")).status_code == 403

    @pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
    async def test_a_proxy_that_is_not_trusted_opens_nothing(
        self, make_gateway: GatewayFactory, header: str
    ) -> None:
        """Behind a proxy on the same machine everybody would be loopback."""
        answer = await make_gateway().get("/metrics", headers={header: "192.0.2.7"})
        assert answer.status_code == 403

    async def test_a_trusted_proxy_is_believed(self, make_gateway: GatewayFactory) -> None:
        gateway = make_gateway(trusted_proxies="127.0.0.1", metrics_allowed_networks="10.1.0.0/16")
        for address, status in (("10.1.2.3", 200), ("192.0.2.7", 403), ("10.1.2.3, 192.0.2.7", 403)):
            answer = await gateway.get("/metrics", headers={"X-Forwarded-For": address})
            assert answer.status_code == status, address

    async def test_it_costs_nobody_a_request(self, make_gateway: GatewayFactory) -> None:
        gateway = make_gateway(rate_limit_requests=1, key=None)
        assert [(await gateway.get("/metrics")).status_code for _ in range(3)] == [200] * 3

    async def test_open_metrics_are_there_for_who_asks(self, gateway: httpx.AsyncClient) -> None:
        answer = await gateway.get("/metrics", headers={"Accept": "application/openmetrics-text"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")


class TestServerTiming:
    """Answers say how long they took, and what of that was ThingsBoard."""

    @staticmethod
    def parts(answer: httpx.Response) -> dict[str, float]:
        found = re.fullmatch(
            r"gateway;dur=(\d+\.\d), thingsboard;dur=(\d+\.\d)", answer.headers["server-timing"]
        )
        assert found, answer.headers["server-timing"]
        return {"gateway": float(found[1]), "thingsboard": float(found[2])}

    async def test_an_answer_without_thingsboard_says_so(self, gateway: httpx.AsyncClient) -> None:
        assert self.parts(await gateway.get("/api/v1/tb/whoami"))["thingsboard"] == 0

    async def test_a_refusal_says_nothing(self, gateway: httpx.AsyncClient) -> None:
        """How long it took could tell a hidden object from a missing one."""
        for path in ("/api/v1/tb/nowhere", f"{DEVICES}/name:nobody", f"{DEVICES}?page=x"):
            assert "server-timing" not in (await gateway.get(path)).headers

    async def test_who_has_no_key_is_told_nothing(self, gateway: httpx.AsyncClient) -> None:
        """How long it took could tell one wrong key from another."""
        for path in ("/health", "/metrics", DEVICES):
            answer = await gateway.get(path, headers={"X-API-Key": "not-a-key-of-anybody"})
            assert "server-timing" not in answer.headers

    async def test_a_slow_thingsboard_shows(self, gateway: httpx.AsyncClient, simulator: Simulator) -> None:
        await gateway.get(DEVICES)
        simulator.faults.latency(0.05)
        assert self.parts(await gateway.get(DEVICES))["thingsboard"] >= 50

    async def test_who_joins_a_read_waits_for_thingsboard_too(
        self, gateway: httpx.AsyncClient, simulator: Simulator
    ) -> None:
        await gateway.get(DEVICES)
        simulator.faults.latency(0.05)
        for answer in await asyncio.gather(*(gateway.get(DEVICES) for _ in range(4))):
            assert self.parts(answer)["thingsboard"] >= 45

    async def test_calls_at_the_same_time_count_once(
        self, gateway: httpx.AsyncClient, simulator: Simulator
    ) -> None:
        await gateway.get(DEVICES)
        simulator.faults.latency(0.05)
        ids = [each.id for each in simulator.world.every("DEVICE")][:4]
        answer = await gateway.post(
            "/api/v1/tb/telemetry/latest", json={"device_ids": ids, "keys": ["temperature"]}
        )
        assert answer.status_code == 200
        parts = self.parts(answer)
        assert 50 <= parts["thingsboard"] <= answer.elapsed.total_seconds() * 1_000 + 0.1

    async def test_pages_may_read_it(self, make_gateway: GatewayFactory) -> None:
        gateway = make_gateway(backend_cors_origins="https://app.example.com")
        answer = await gateway.get(DEVICES, headers={"Origin": "https://app.example.com"})
        assert "Server-Timing" in answer.headers["access-control-expose-headers"]


def test_a_scrape_reads_itself() -> None:
    found = Scrape('# HELP a_total B.\n# TYPE a_total counter\na_total{x="1"} 2\na_total{x="2"} 3\n')
    assert found.total("a_total") == 5
    assert found.total("a_total", x="2") == 3
