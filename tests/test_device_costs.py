"""`RATE_LIMIT_BULK_COST=devices`: a call costs as much as the devices that it names."""

from typing import Any

import httpx
import orjson
import pytest

from tb_simulator.server import Simulator
from tests.conftest import GatewayFactory

LATEST, QUERY = "/api/v1/tb/telemetry/latest", "/api/v1/tb/telemetry/query"
BULK = "/api/v1/tb/telemetry/bulk"
SAVES = "POST /api/plugins/telemetry/DEVICE/{id}/timeseries/ANY"
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


class TestBulkUploads:
    """A map is counted before anything is sent, a stream as its devices come."""

    async def test_a_map_that_fits_is_charged(self, make_gateway: GatewayFactory) -> None:
        gateway = charged(make_gateway)
        answer = await gateway.post(BULK, json={device: {"load": 1} for device in DEVICES})
        assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (200, "5")

    async def test_a_map_that_does_not_fit_is_refused_whole(
        self, make_gateway: GatewayFactory, simulator: Simulator
    ) -> None:
        gateway = charged(make_gateway, "6/hour")
        await gateway.get(WHOAMI)
        await gateway.get(WHOAMI)
        refused = await gateway.post(BULK, json={device: {"load": 1} for device in DEVICES})
        assert refused.status_code == 429
        assert refused.json()["details"]["limited_by"] == "gateway"
        assert simulator.calls[SAVES] == 0

    async def test_a_map_that_can_never_fit_is_told_so(self, make_gateway: GatewayFactory) -> None:
        gateway = charged(make_gateway, "4/hour")
        refused = await gateway.post(BULK, json={device: {"load": 1} for device in DEVICES})
        assert (refused.status_code, refused.json()["details"]["field"]) == (400, "telemetry_data")

    @pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
    async def test_the_devices_of_a_stream_that_do_not_fit_are_errors(
        self, make_gateway: GatewayFactory, simulator: Simulator, accept: str
    ) -> None:
        gateway = charged(make_gateway, "3/hour")
        lines = [
            {"device_id": device, "ts": ts, "values": {"load": ts}} for ts in (1, 2) for device in DEVICES
        ]
        answer = await gateway.post(
            BULK,
            content=b"".join(orjson.dumps(line) + b"\n" for line in lines),
            headers={"content-type": "application/x-ndjson", "accept": accept},
        )
        if accept == "application/json":
            assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (207, "0")
            verdict = answer.json()
            results = verdict["results"]
        else:
            *told, verdict = [orjson.loads(line) for line in answer.content.splitlines()]
            results = {line["device"]: line for line in told}
        assert verdict["summary"] == {
            "total_devices": 5,
            "successful_devices": 3,
            "failed_devices": 2,
            "total_data_points": 6,
        }
        assert [results[device]["error_code"] for device in DEVICES] == [None] * 3 + [
            "RATE_LIMIT_EXCEEDED"
        ] * 2
        assert results[DEVICES[4]]["error"] == "Rate limit exceeded: 3 requests per 3600 seconds."
        assert simulator.calls[SAVES] == 3

    async def test_the_pieces_of_a_stream_do_not_matter(self, make_gateway: GatewayFactory) -> None:
        gateway = charged(make_gateway, "4/hour")

        async def pieces() -> Any:
            for ts in (1, 2, 3):
                for device in DEVICES:
                    yield orjson.dumps({"device_id": device, "ts": ts, "values": {"load": ts}}) + b"\n"

        answer = await gateway.post(BULK, content=pieces(), headers={"content-type": "application/x-ndjson"})
        results = answer.json()["results"]
        assert [results[device]["data_points"] for device in DEVICES] == [3, 3, 3, 3, 0]
        assert answer.headers["x-ratelimit-remaining"] == "0"


STREAM = "/api/v1/tb/telemetry/stream"


async def test_a_stream_of_many_devices_is_charged(make_gateway: GatewayFactory) -> None:
    gateway = charged(make_gateway, "6/hour")
    refused = await gateway.get(STREAM, params={"device_ids": ",".join(f"name:D{n}" for n in range(7))})
    assert refused.status_code == 400
    assert refused.json()["details"]["limit"] == 6
    refused = await gateway.get(STREAM, params={"device_ids": ",".join(f"name:D{n}" for n in range(6))})
    assert refused.status_code == 429
