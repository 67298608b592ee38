"""What is no command: each fault is named, and nothing is sent."""

from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.rpc.conftest import BASE, UNKNOWN, HttpDevice

M = {"method": "m"}


@pytest.mark.parametrize(
    ("body", "status", "field", "issue"),
    [
        (b"", 422, "body", "required"),
        (b"{oops", 400, "body", "not valid JSON"),
        (b"[]", 422, "body", "valid dictionary"),
        (b'"m"', 422, "body", "valid dictionary"),
        ({}, 422, "method", "required"),
        ({"method": ""}, 422, "method", "at least 1"),
        ({"method": "  "}, 422, "method", "pattern"),
        ({"method": 5}, 422, "method", "string"),
        ({"method": None}, 422, "method", "string"),
        ({"method": "a\nb"}, 422, "method", "pattern"),
        ({"method": "a\0"}, 422, "method", "pattern"),
        ({"method": "m" * 256}, 422, "method", "255"),
        ({**M, "timeout": 4_999}, 422, "timeout", "ThingsBoard waits"),
        ({**M, "timeout": 0}, 422, "timeout", "at least 5000"),
        ({**M, "timeout": -1}, 422, "timeout", "at least 5000"),
        ({**M, "timeout": "x"}, 422, "timeout", "integer"),
        ({**M, "timeout": "10000"}, 422, "timeout", "integer"),
        ({**M, "timeout": 10_000.0}, 422, "timeout", "integer"),
        ({**M, "timeout": True}, 422, "timeout", "integer"),
        ({**M, "timeout": None}, 422, "timeout", "integer"),
        ({**M, "timeout": 10**12}, 422, "timeout", "less than"),
        ({**M, "expires_in": 999}, 422, "expires_in", "greater than or equal to 1000"),
        ({**M, "expires_in": 10**12}, 422, "expires_in", "less than"),
        ({**M, "expires_in": "1h"}, 422, "expires_in", "integer"),
        ({**M, "fail_fast": 1}, 422, "fail_fast", "boolean"),
        ({**M, "fail_fast": "true"}, 422, "fail_fast", "boolean"),
        ({**M, "persistent": True}, 422, "persistent", "unknown field"),
        ({**M, "retries": 3}, 422, "retries", "unknown field"),
        (b'{"method":"m","params":NaN}', 422, "params", "NaN"),
        (b'{"method":"m","params":{"a":[Infinity]}}', 422, "params", "NaN"),
        (b'{"method":"m","params":"\\ud800"}', 422, "params", "surrogates"),
        ({**M, "params": "x" * 1_000_001}, 422, "params", "larger than"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_no_command_is_refused(
    gateway: httpx.AsyncClient,
    device: HttpDevice,
    simulator: Simulator,
    body: Any,
    status: int,
    field: str,
    issue: str,
) -> None:
    given = {"content": body} if isinstance(body, bytes) else {"json": body}
    for way in ("oneway", "twoway", "persistent"):
        answer = await gateway.post(f"{device.path}/rpc/{way}", **given)
        details = answer.json()["details"]
        assert (answer.status_code, details["field"]) == (status, field), answer.text
        assert issue.lower() in details["issue"].lower()
    assert not [call for call in simulator.calls if "/rpc/" in call]


async def test_deep_nesting_is_no_fault_of_the_gateway(
    gateway: httpx.AsyncClient, device: HttpDevice
) -> None:
    body = b'{"method":"m","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = await gateway.post(f"{device.path}/rpc/twoway", content=body)
    assert answer.status_code in {400, 422}


@pytest.mark.parametrize("way", ["oneway", "twoway", "persistent"])
async def test_an_unknown_device_is_not_found(gateway: httpx.AsyncClient, way: str) -> None:
    for reference in (UNKNOWN, "name:nobody"):
        answer = await gateway.post(f"{BASE}/devices/{reference}/rpc/{way}", json=M)
        assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/rpc/nope", "rpc_id"),
        ("/rpc/nope/events", "rpc_id"),
        ("/devices/nope/rpc", "device_id"),
        (f"/devices/{UNKNOWN}/rpc?status=DELETED", "status"),
        (f"/devices/{UNKNOWN}/rpc?status=queued", "status"),
        (f"/devices/{UNKNOWN}/rpc?page=-1", "page"),
        (f"/devices/{UNKNOWN}/rpc?page_size=0", "page_size"),
        (f"/devices/{UNKNOWN}/rpc?page=0&page=1", "page"),
        (f"/devices/{UNKNOWN}/rpc?limit=5", "limit"),
        (f"/devices/{UNKNOWN}/rpc?sort_order=up", "sort_order"),
        (f"/rpc/{UNKNOWN}?page=1", "page"),
    ],
)
async def test_queries_and_ids_are_checked(gateway: httpx.AsyncClient, path: str, field: str) -> None:
    answer = await gateway.get(f"{BASE}{path}")
    assert (answer.status_code, answer.json()["details"]["field"]) == (422, field)


async def test_only_json_is_read(gateway: httpx.AsyncClient, device: HttpDevice) -> None:
    answer = await gateway.post(
        f"{device.path}/rpc/twoway", content=b"method=m", headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 415
