"""The feed alone: one socket, one subscription a device, nothing lost, nothing twice."""

import asyncio

import httpx
import pytest

from app.errors import NotFound
from app.thingsboard.live_feed import LiveFeed
from app.thingsboard.live_listener import Listener
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tests.live.conftest import feed_of

T = 1_760_000_000_000
UNKNOWN = "00000000-0000-0000-0000-000000000007"


@pytest.fixture
def feed(gateway: httpx.AsyncClient) -> LiveFeed:
    return feed_of(gateway.app)  # type: ignore[attr-defined]


async def values_of(events: Listener, key: str, until: object) -> list[object]:
    found = []
    async with asyncio.timeout(30):
        async for event in events:
            if event.kind == "telemetry" and event.key == key:
                found.append(event.value)
                if event.value == until:
                    return found
    return found


async def test_every_number_comes_once_and_in_order_however_often_the_socket_is_cut(
    simulator: Simulator, feed: LiveFeed, device: str
) -> None:
    save, feed_hub, n = simulator.world.telemetry.save, simulator.world.feed, 0
    save(device, [Point("n", T, 0)])
    async with feed.listen([device]) as events:
        found = await values_of(events, "n", 0)
        for _ in range(20):
            for place in ("before", "during", "after"):
                n += 1
                save(device, [Point("n", T + n, n)])
                if place == "before":
                    feed_hub.cut_sessions()
                elif place == "during":
                    # Some of the next reach a socket that is being replaced.
                    await asyncio.sleep(0)
            found += await values_of(events, "n", n)
    assert found == list(range(n + 1))
    assert simulator.calls["WS /api/ws"] == 21


async def test_listeners_share_one_socket_and_one_subscription_a_device(
    simulator: Simulator, feed: LiveFeed, device: str
) -> None:
    async with feed.listen([device]) as one, feed.listen([device]) as other:
        simulator.world.telemetry.save(device, [Point("k", T, 1.5)])
        assert await values_of(one, "k", 1.5) == await values_of(other, "k", 1.5) == [1.5]
        (session,) = simulator.world.feed.sessions
        assert len(session._subscriptions) == 2  # type: ignore[attr-defined]  # telemetry and whether it is active
    assert simulator.calls["WS /api/ws"] == 1


async def test_an_unknown_device_is_refused_and_forgotten(feed: LiveFeed) -> None:
    with pytest.raises(NotFound):
        async with feed.listen([UNKNOWN]):
            raise AssertionError
    assert not feed._watched
