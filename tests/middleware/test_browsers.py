"""CORS, security headers, trusted hosts."""

import httpx
import pytest

from tests.conftest import GatewayFactory

DEVICES = "/api/v1/tb/devices"
ORIGIN = "https://app.example.com"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "x-api-key",
}


@pytest.fixture
def gateway(make_gateway: GatewayFactory) -> httpx.AsyncClient:
    client: httpx.AsyncClient = make_gateway(backend_cors_origins=ORIGIN, rate_limit_requests=3)
    return client


async def test_a_preflight_needs_no_key_and_allows_ours(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.options(DEVICES, headers={**PREFLIGHT, "X-API-Key": ""})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "x-api-key" in answer.headers["access-control-allow-headers"].lower()


async def test_a_foreign_origin_is_refused_in_our_shape(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.options(
        DEVICES, headers={**PREFLIGHT, "Origin": "https://app.example.com.evil.org"}
    )
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "VALIDATION_ERROR"
    assert "access-control-allow-origin" not in answer.headers


async def test_a_browser_can_read_a_401_and_a_429(gateway: httpx.AsyncClient) -> None:
    unknown = await gateway.get(DEVICES, headers={"Origin": ORIGIN, "X-API-Key": "nobody-0123456789"})
    limited = [await gateway.get("/api/v1/tb/whoami", headers={"Origin": ORIGIN}) for _ in range(4)][-1]
    for answer, status in ((unknown, 401), (limited, 429)):
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        exposed = answer.headers["access-control-expose-headers"]
        assert {"Retry-After", "X-RateLimit-Remaining", "X-Request-ID", "ETag"} <= set(exposed.split(", "))


@pytest.mark.parametrize("path", ["/health", DEVICES, "/nope"])
async def test_security_headers_are_on_every_answer(gateway: httpx.AsyncClient, path: str) -> None:
    headers = (await gateway.get(path)).headers
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-frame-options"] == "DENY"
    assert headers["strict-transport-security"].startswith("max-age=")
    assert headers["referrer-policy"] == "no-referrer"
    # What has a tag may be kept by a browser that asks each time whether it still holds.
    assert headers["cache-control"] == ("private, no-cache" if path == DEVICES else "no-store")
    assert "server" not in headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("api.example.com", 200),
        ("API.example.com:8443", 200),
        ("a.b.internal.org", 200),
        ("internal.org", 400),
        ("evil.org", 400),
        ("api.example.com.evil.org", 400),
        ("", 400),
    ],
)
async def test_only_named_hosts_are_served(make_gateway: GatewayFactory, host: str, status: int) -> None:
    gateway = make_gateway(allowed_hosts="api.example.com,*.internal.org")
    answer = await gateway.get("/health", headers={"Host": host})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error_code"] == "VALIDATION_ERROR"
