"""A house, and one gateway with a key for each restriction."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.restrictions.world import Clock, House, client_of, view_of, write_keys


@pytest.fixture
def house(simulator: Simulator) -> House:
    return House(simulator)


@pytest.fixture
async def keys(
    house: House, make_gateway: Callable[..., Any], tmp_path: Path
) -> AsyncIterator[SimpleNamespace]:
    """Clients by the name of their key's restriction, `free` without one; `app`, `clock` and `given`."""
    given: dict[str, dict[str, Any]] = {"free": {}, **house.restrictions()}
    path = write_keys(tmp_path / "keys.toml", ((name, ["*"], each) for name, each in given.items()))
    app = make_gateway(api_key=None, api_keys_file=path, key=None).app
    clock = Clock()
    for name, each in given.items():
        if name != "free":
            view_of(app, each).visibility.clock = clock
    clients: dict[str, httpx.AsyncClient] = {name: client_of(app, name) for name in given}
    yield SimpleNamespace(app=app, clock=clock, given=given, **clients)
    for client in clients.values():
        await client.aclose()
