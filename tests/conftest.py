"""The gateway under test: the whole application, and a simulated ThingsBoard on a real port behind it."""

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import Phase, settings

from app import logs
from app.factory import create_app
from app.settings import Settings
from tb_simulator.server import Simulator
from tests.no_secrets import Watched

API_KEY = "test-key-with-all-the-scopes-0001"
KEY_HEADER = {"X-API-Key": API_KEY}
TENANT = ("tenant@thingsboard.org", "tenant")
CUSTOMER = ("customer@thingsboard.org", "customer")
SYSADMIN = ("sysadmin@thingsboard.org", "sysadmin")

#: `scripts/mutation`: a failure need not be explained, only found, and each time the same ones.
settings.register_profile("mutation", derandomize=True, phases=[Phase.explicit, Phase.generate])

SettingsFactory = Callable[..., Settings]
GatewayFactory = Callable[..., Any]


@pytest.fixture(autouse=True, scope="session")
def _events_as_in_production() -> None:
    logs.configure_events("INFO", "json")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the machine's own environment and `.env` out of the tests."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A ThingsBoard on a real port, with its demo data."""
    async with Simulator() as running:
        yield running


@pytest.fixture
def make_settings(simulator: Simulator) -> SettingsFactory:
    """Settings that point at the simulator; anything may be overridden."""

    def make(**overrides: Any) -> Settings:
        values: dict[str, Any] = {
            "tb_host": simulator.url,
            "tb_username": TENANT[0],
            "tb_password": TENANT[1],
            "api_key": API_KEY,
            "rate_limit_requests": 1_000_000,
        }
        values |= overrides
        given = {name: value for name, value in values.items() if value is not None}
        return Settings(_env_file=None, **given)

    return make


@pytest.fixture
async def make_gateway(make_settings: SettingsFactory) -> AsyncIterator[GatewayFactory]:
    """Build gateways with other settings: `client = make_gateway(tb_username=..., key=None)`."""
    made: list[tuple[FastAPI, httpx.AsyncClient]] = []
    leaks: list[str] = []

    def make(*, key: str | None = API_KEY, peer: str = "127.0.0.1", **overrides: Any) -> httpx.AsyncClient:
        app = create_app(make_settings(**overrides))
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(
                app=Watched(app, leaks), client=(peer, 50_000), raise_app_exceptions=False
            ),
            base_url="http://gateway",
            headers={"X-API-Key": key} if key else {},
        )
        client.app = app  # type: ignore[attr-defined]  # for tests that look inside
        made.append((app, client))
        return client

    yield make
    for app, client in made:
        await client.aclose()
        await app.state.upstreams.aclose()
        if app.state.redis is not None:
            await app.state.redis.aclose()
    assert not leaks


@pytest.fixture
def gateway(make_gateway: GatewayFactory) -> httpx.AsyncClient:
    """A client of the whole gateway, with a key that may do everything."""
    return make_gateway()


@pytest.fixture
def customer_gateway(make_gateway: GatewayFactory) -> httpx.AsyncClient:
    """The gateway with a customer user as its ThingsBoard credential (Customer A)."""
    return make_gateway(tb_username=CUSTOMER[0], tb_password=CUSTOMER[1])


@pytest.fixture
def keys_file(tmp_path: Path) -> Callable[..., Path]:
    """Write an API_KEYS_FILE: `keys_file(reader=("secret...", ["devices:read"]))`."""

    def write(**keys: tuple[str, list[str]]) -> Path:
        tables = [
            f'[[keys]]\nname = "{name}"\nid = "{name}"\nscopes = {scopes}\n'
            f'sha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n'
            for name, (secret, scopes) in keys.items()
        ]
        path = tmp_path / "keys.toml"
        path.write_text("\n".join(tables))
        return path

    return write
