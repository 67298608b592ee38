"""The feed alone: one socket, one subscription a device, nothing lost, nothing twice."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from app.errors import NotFound
from app.thingsboard import live_device
from app.thingsboard.live_events import LiveEvent
from app.thingsboard.live_feed import LiveFeed
from app.thingsboard.live_listener import Listener
from app.thingsboard.web_socket import POLICY, FeedSocket
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


def test_the_pause_between_attempts_has_an_end_however_many_there_were(gateway: httpx.AsyncClient) -> None:
    feed = gateway.app.state.upstreams["default"].client.live  # type: ignore[attr-defined]
    for failures in (1, 10, 100_000):
        assert 0 < feed._pause_after(failures, None) <= feed.longest_pause_seconds
        assert 0 < feed._pause_after(failures, POLICY) <= feed.longest_refused_pause_seconds
    assert feed._pause_after(10, POLICY) > feed.longest_pause_seconds


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


async def test_a_closed_socket_is_opened_again_and_nothing_is_missed(
    simulator: Simulator, feed: LiveFeed, device: str
) -> None:
    """1008 is a limit of the tenant profile; 1007 and dead tokens are a login that has to be renewed."""
    save, n = simulator.world.telemetry.save, 0
    save(device, [Point("n", T, 0)])
    async with feed.listen([device]) as events:
        await values_of(events, "n", 0)
        for code in (1008, 1009, 4500, 1007, 1000):
            simulator.faults.expire_tokens()
            simulator.world.feed.close_sessions(code)
            n += 1
            save(device, [Point("n", T + n, n)])
            assert await values_of(events, "n", n) == [n]


async def test_a_first_frame_that_does_not_come_is_asked_for_again(
    simulator: Simulator, feed: LiveFeed, device: str
) -> None:
    feed._subscriptions.first_frame_seconds = 0.1
    simulator.world.feed.muted = True
    simulator.world.telemetry.save(device, [Point("n", T, 0)])
    waiting = asyncio.create_task(first_of(feed, device))
    while simulator.calls["WS /api/ws"] < 2:  # noqa: ASYNC110 - the simulator only counts
        # Asked for twice on the first socket, then on another one.
        await asyncio.sleep(0)
    simulator.world.feed.muted = False
    assert await waiting == 0


async def first_of(feed: LiveFeed, device: str) -> object:
    async with feed.listen([device]) as events:
        return (await values_of(events, "n", 0))[0]


async def test_a_silent_socket_is_given_up(simulator: Simulator, feed: LiveFeed) -> None:
    socket = await feed._dialler.open()
    silent = FeedSocket(socket._connection, silence_seconds=0.05)
    assert [frame async for frame in silent.frames()] == []
    await silent.aclose()
    await socket.aclose()


async def test_commands_go_in_frames_that_thingsboard_takes(
    simulator: Simulator, feed: LiveFeed, device: str
) -> None:
    """It closes with 1009 beyond 32,768 bytes; 400 subscriptions at once are more."""
    socket = await feed._dialler.open()
    numbers = [socket.subscribe("TIMESERIES", device) for _ in range(400)]
    assert len(set(numbers)) == 400
    assert min(numbers) > 1
    answered = []
    async with asyncio.timeout(20):
        async for frame in socket.frames():
            answered.append(frame["subscriptionId"])
            if len(answered) == 400:
                break
    assert answered == numbers
    await socket.aclose()


async def test_a_break_that_is_too_long_to_fill_says_so(
    simulator: Simulator, feed: LiveFeed, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_device, "MOST_MISSED", 10)
    save = simulator.world.telemetry.save
    save(device, [Point("n", T, 0)])
    async with feed.listen([device]) as events:
        await values_of(events, "n", 0)
        simulator.world.feed.cut_sessions()
        save(device, [Point("n", T + n, n) for n in range(1, 101)])
        told = [event async for event in until_newest(events)]
    assert [event.value for event in told if event.kind == "telemetry"] == [*range(1, 11), 100]
    (gap,) = [event for event in told if event.kind == "gap"]
    assert (gap.key, gap.ts) == ("n", T + 100)


async def until_newest(events: Listener) -> AsyncIterator[LiveEvent]:
    async with asyncio.timeout(20):
        async for event in events:
            yield event
            if event.value == 100:
                return


async def test_a_listener_that_is_not_read_is_dropped(
    simulator: Simulator, feed: LiveFeed, device: str
) -> None:
    async with feed.listen([device]) as events:
        simulator.world.telemetry.save(device, [Point("n", T + n, n) for n in range(10_001)])
        await values_of(await other_listener(feed, device), "n", 10_000)
        told = [event async for event in events]
    assert [event.kind for event in told] == ["dropped"]


async def other_listener(feed: LiveFeed, device: str) -> Listener:
    listener = Listener(most_events=20_000)
    await feed.attach(device, listener)
    return listener
