"""A served gateway, its simulator, and a device."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from app.factory import create_app
from app.thingsboard.live_feed import LiveFeed
from tb_simulator.server import Simulator
from tests.conftest import SettingsFactory
from tests.live.reading import served


def feed_of(app: FastAPI) -> LiveFeed:
    """Return the feed of the default upstream, in a hurry."""
    live: LiveFeed = app.state.upstreams["default"].client.live
    live.pause_seconds = live.longest_pause_seconds = live.longest_refused_pause_seconds = 0.001
    return live


@pytest.fixture
def app(make_settings: SettingsFactory) -> FastAPI:
    return create_app(make_settings())


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    feed_of(app)
    async with served(app) as client:
        yield client


@pytest.fixture
def device(simulator: Simulator) -> str:
    return next(each.id for each in simulator.world.every("DEVICE") if each.name == "Thermostat T1")
