"""`RATE_LIMIT_BULK_COST=devices`: a call costs as much as the devices that it names."""

from typing import Any

import httpx
import pytest

from tests.conftest import GatewayFactory

LATEST, QUERY = "/api/v1/tb/telemetry/latest", "/api/v1/tb/telemetry/query"
WHOAMI = "/api/v1/tb/whoami"
DEVICES = [f"name:Test Device {letter}" for letter in ("A1", "A2", "A3", "B1", "C1")]


def charged(make_gateway: GatewayFactory, limit: str = "10/hour") -> httpx.AsyncClient:
    client: httpx.AsyncClient = make_gateway(rate_limit=limit, rate_limit_bulk_cost="devices")
    return client


def body(path: str, devices: list[str]) -> dict[str, Any]:
    return {"device_ids": devices} if path == LATEST else {"device_ids": devices, "keys": ["temperature"]}


@pytest.mark.parametrize("path", [LATEST, QUERY])
class TestReads:
    """The number is known before anything is asked."""

    async def test_each_device_counts_once(self, make_gateway: GatewayFactory, path: str) -> None:
        gateway = charged(make_gateway)
        answer = await gateway.post(path, json=body(path, DEVICES[:4]))
        assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (200, "6")
        assert len(answer.headers.get_list("ratelimit")) == 1
        answer = await gateway.post(path, json=body(path, DEVICES[:2] * 3))
        assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (200, "4")
        answer = await gateway.post(path, json=body(path, DEVICES[:1]))
        assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (200, "3")

    async def test_what_does_not_fit_is_refused_whole(self, make_gateway: GatewayFactory, path: str) -> None:
        gateway = charged(make_gateway, "6/hour")
        assert (await gateway.post(path, json=body(path, DEVICES[:3]))).status_code == 200
        refused = await gateway.post(path, json=body(path, DEVICES[:4]))
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 1
        # The attempt itself was a request; its devices were not charged.
        assert refused.headers["x-ratelimit-remaining"] == "2"
        assert (await gateway.get(WHOAMI)).headers["x-ratelimit-remaining"] == "1"

    async def test_what_can_never_fit_is_told_so(self, make_gateway: GatewayFactory, path: str) -> None:
        gateway = charged(make_gateway, "100/hour;4/minute")
        refused = await gateway.post(path, json=body(path, DEVICES))
        assert refused.status_code == 400
        assert "retry-after" not in refused.headers
        assert refused.json()["details"] == {
            "field": "device_ids",
            "issue": "names 5 devices, and the rate limit admits 4 at once: split the call",
            "limited_by": "gateway",
            "limit": 4,
        }

    async def test_without_the_setting_a_call_is_one_request(
        self, make_gateway: GatewayFactory, path: str
    ) -> None:
        gateway = make_gateway(rate_limit="3/hour")
        answers = [await gateway.post(path, json=body(path, DEVICES)) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 3 + [429]
