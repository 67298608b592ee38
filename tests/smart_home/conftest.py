"""The whole product: simulated devices, the gateway with a restricted key, and Smart Home on real ports."""

import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from pydantic import SecretStr

from app.factory import create_app as create_gateway
from examples.smart_home.factory import create_app
from examples.smart_home.passwords import Passwords
from examples.smart_home.settings import Settings
from tb_simulator.attribute_store import SERVER
from tb_simulator.demo import CLAIM_CODES, ROOMS, SampleDevices
from tb_simulator.server import Simulator
from tests.conftest import SettingsFactory
from tests.serving import serve
from tests.smart_home.postgres import execute, running_postgres

GATEWAY_KEY = "key-of-the-smart-home-product-0001"
SCOPES = ["devices:read", "telemetry:read", "attributes:read", "rpc:send"]
SECRET = "a-secret-of-forty-characters-for-the-tests"
PASSWORD = "correct horse battery"
WEB_SERVER = {"http": "httptools", "ws": "websockets-sansio", "ws_max_size": 16_384}


@pytest.fixture(autouse=True)
def _no_settings_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SMART_HOME_{name.upper()}", raising=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server."""
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An empty database, of both kinds in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'smart_home.db'}"
        return
    server = request.getfixturevalue("postgres")
    name = f"test_{uuid.uuid4().hex}"
    await execute(server, f"CREATE DATABASE {name}")
    yield f"{server}/{name}"
    await execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
async def devices(simulator: Simulator) -> AsyncIterator[SampleDevices]:
    """The sample devices, which send quickly."""
    async with SampleDevices(simulator.world, every_seconds=0.1) as samples:
        for device in samples.devices:
            # As after some seconds: ThingsBoard notices late.
            simulator.world.attributes.save(device.id, SERVER, {"active": True})
        yield samples


@pytest.fixture
async def gateway_url(
    devices: SampleDevices, make_settings: SettingsFactory, tmp_path: Path
) -> AsyncIterator[str]:
    """The gateway, with one key: for rooms only."""
    keys = tmp_path / "keys.toml"
    digest = hashlib.sha256(GATEWAY_KEY.encode()).hexdigest()
    keys.write_text(
        f'[[keys]]\nname = "Smart Home"\nid = "smart-home"\nsha256 = "{digest}"\nscopes = {SCOPES}\n'
        'device_types = ["smart-room"]\nrate_limit = "10000/second"\n'
    )
    async with serve(create_gateway(make_settings(api_key=None, api_keys_file=keys))) as url:
        yield url


MakeProduct = Callable[..., FastAPI]


@pytest.fixture
def make_product(database_url: str) -> MakeProduct:
    """Build the product; anything may be overridden."""

    def make(gateway_url: str, *, clock: Any = None, **overrides: Any) -> FastAPI:
        settings = Settings(
            secret=SecretStr(SECRET),
            gateway_url=gateway_url,
            gateway_key=SecretStr(GATEWAY_KEY),
            **{"database_url": SecretStr(database_url), "login_limit": "1000/minute", **overrides},
        )
        # As quick as argon2 can be: how slow it is in earnest is no matter of these tests.
        cheap = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        return create_app(settings, passwords=cheap, **({"clock": clock} if clock else {}))

    return make


@dataclass
class Person:
    """Somebody with an account and a client that is logged in."""

    client: httpx.AsyncClient
    email: str
    tokens: dict[str, Any] = field(repr=False)

    async def call(self, method: str, path: str, status: int = 200, **arguments: Any) -> Any:
        """Call and expect this status."""
        answer = await self.client.request(method, path, **arguments)
        assert answer.status_code == status, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    async def add_home(self, name: str = "Villa") -> str:
        identifier: str = (await self.call("POST", "/homes", 201, json={"name": name}))["id"]
        return identifier

    async def add_room(self, home: str, number: int = 0, status: int = 201) -> Any:
        """Claim one of the sample devices."""
        label = {"device": f"Demo {ROOMS[number]}", "claim_code": CLAIM_CODES[number]}
        return await self.call("POST", f"/homes/{home}/rooms", status, json={"name": ROOMS[number], **label})


@dataclass
class Product:
    """The running product."""

    url: str
    app: FastAPI
    people: list[Person]

    async def person(self, name: str = "alice") -> Person:
        """Sign somebody up."""
        client = httpx.AsyncClient(base_url=self.url, trust_env=False)
        email = f"{name}@example.com"
        body = {"email": email, "password": PASSWORD, "name": name.title()}
        answer = await client.post("/auth/register", json=body)
        assert answer.status_code == 201, answer.text
        tokens = answer.json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        person = Person(client, email, tokens)
        self.people.append(person)
        return person

    async def aclose(self) -> None:
        for person in self.people:
            await person.client.aclose()


@pytest.fixture
async def product(make_product: MakeProduct, gateway_url: str) -> AsyncIterator[Product]:
    """The product in front of the gateway."""
    app = make_product(gateway_url)
    async with serve(app, **WEB_SERVER) as url:
        running = Product(url, app, [])
        yield running
        await running.aclose()


@pytest.fixture
async def lonely(make_product: MakeProduct) -> AsyncIterator[Product]:
    """The product without a gateway: for what needs none."""
    app = make_product("http://127.0.0.1:9")
    async with serve(app, **WEB_SERVER) as url:
        running = Product(url, app, [])
        yield running
        await running.aclose()
