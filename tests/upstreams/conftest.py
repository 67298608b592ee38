"""One gateway in front of four accounts: two tenants and a customer of one ThingsBoard, and another one."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tb_simulator.makers import make_asset, make_device
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tb_simulator.world import NO_CUSTOMER
from tests.alarm_world import raise_alarm
from tests.conftest import CUSTOMER, TENANT
from tests.restrictions.world import TS, client_of, write_keys

SECOND = ("second@thingsboard.org", "second")

WriteFile = Callable[..., Path]


@dataclass
class Site:
    """An account, a key for it, and where the objects are that it sees."""

    name: str
    client: httpx.AsyncClient
    simulator: Simulator
    tenant: str
    customer: str

    def make(self, kind: str, name: str) -> str:
        """Make an object that this account sees, with telemetry and a name that tells whose it is.

        Each has an alarm; of kind ALARM it is that of a device.
        """
        maker = make_asset if kind == "ASSET" else make_device
        world = self.simulator.world
        made = maker(world, self.tenant, f"{name} of {self.name}", kind="default", customer=self.customer)
        world.telemetry.save(made.id, [Point("temperature", TS, 20.5)])
        alarm = raise_alarm(self.simulator, made.id, entity_type=made.kind)
        return alarm if kind == "ALARM" else made.id

    def sees_those_of(self, other: "Site") -> bool:
        """The oracle: a tenant sees what its customers see."""
        is_one_tenant = (self.simulator, self.tenant) == (other.simulator, other.tenant)
        return is_one_tenant and self.customer in {NO_CUSTOMER, other.customer}

    @property
    def is_customer(self) -> bool:
        return self.customer != NO_CUSTOMER

    @property
    def calls(self) -> int:
        return sum(self.simulator.calls.values())


@dataclass
class Fleet:
    """All sites behind the one gateway."""

    app: FastAPI
    sites: dict[str, Site]
    key_file: Path

    def __getitem__(self, name: str) -> Site:
        return self.sites[name]

    def assign(self, **upstreams: str) -> None:
        """Write the key file anew, with other upstreams for some keys."""
        given = {name: upstreams.get(name, name) for name in self.sites}
        write_keys(self.key_file, ((name, ["*"], {"upstream": each}) for name, each in given.items()))


@pytest.fixture
def upstreams_file(tmp_path: Path) -> WriteFile:
    """Write an UPSTREAMS_FILE: `upstreams_file({"name": ...}, ...)`."""

    def write(*tables: Mapping[str, Any], more: str = "") -> Path:
        lines = [more]
        for table in tables:
            lines.append("[[upstreams]]")
            for name, value in table.items():
                text = str(value).lower() if isinstance(value, bool) else repr(value)
                lines.append(f"{name} = {text}")
        path = tmp_path / "upstreams.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
async def elsewhere() -> AsyncIterator[Simulator]:
    """Another ThingsBoard."""
    async with Simulator() as running:
        yield running


@pytest.fixture
async def make_fleet(
    simulator: Simulator,
    elsewhere: Simulator,
    make_gateway: Callable[..., Any],
    upstreams_file: WriteFile,
    tmp_path: Path,
) -> AsyncIterator[Callable[..., Fleet]]:
    async with AsyncExitStack() as stack:

        def make(**default: Any) -> Fleet:
            """Build the gateway; `default` are more settings of `TB_HOST`."""
            accounts = {
                "north": (simulator, SECOND),
                "guest": (simulator, CUSTOMER),
                "south": (elsewhere, TENANT),
            }
            tables = [
                {"name": name, "tb_host": where.url, "tb_username": user, "tb_password": password}
                for name, (where, (user, password)) in accounts.items()
            ]
            key_file = tmp_path / "fleet-keys.toml"
            fleet = Fleet(FastAPI(), {}, key_file)
            first, second = (each.id for each in simulator.world.every("TENANT"))
            customer = next(e.id for e in simulator.world.every("CUSTOMER") if e.name == "Customer A")
            other = next(elsewhere.world.every("TENANT")).id
            places = {
                "default": (simulator, first, NO_CUSTOMER),
                "north": (simulator, second, NO_CUSTOMER),
                "guest": (simulator, first, customer),
                "south": (elsewhere, other, NO_CUSTOMER),
            }
            write_keys(key_file, ((name, ["*"], {"upstream": name}) for name in places))
            fleet.app = make_gateway(
                api_key=None,
                api_keys_file=key_file,
                upstreams_file=upstreams_file(*tables),
                key=None,
                **default,
            ).app
            for name, place in places.items():
                client = client_of(fleet.app, name)
                stack.push_async_callback(client.aclose)
                fleet.sites[name] = Site(name, client, *place)
            return fleet

        yield make


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet()
