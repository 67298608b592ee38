"""Latest values that are kept for a moment: off unless asked for, honest about their age, ended by writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.thingsboard import latest_cache
from app.thingsboard.latest_cache import LatestCache
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tests.conftest import GatewayFactory

API = "/api/v1/tb"
NAME = "Test Device A1"
T = 1_760_000_000_000
READS = "GET /api/plugins/telemetry/DEVICE/{id}/values/timeseries"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def device_id(simulator: Simulator, name: str = NAME) -> str:
    return next(device.id for device in simulator.world.every("DEVICE") if device.body["name"] == name)


def send(simulator: Simulator, value: Any, ts: int = T, name: str = NAME) -> None:
    """Let the device itself send a value."""
    simulator.world.telemetry.save(device_id(simulator, name), [Point("a", ts, value)])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keeping(make_gateway: GatewayFactory, clock: Clock) -> httpx.AsyncClient:
    """A gateway that keeps latest values for 5 s."""
    gateway: httpx.AsyncClient = make_gateway(latest_cache_seconds=5)
    cache_of(gateway).clock = clock
    return gateway


def cache_of(gateway: httpx.AsyncClient) -> LatestCache:
    cache: LatestCache = gateway.app.state.upstreams["default"].client.telemetry.latest_cache  # type: ignore[attr-defined]
    return cache


async def read(gateway: httpx.AsyncClient, device: str, query: str = "?keys=a") -> tuple[Any, str | None]:
    """Return the value of `a`, and the `Age` of the answer."""
    answer = await gateway.get(f"{API}/devices/{device}/telemetry/latest{query}")
    assert answer.status_code == 200, answer.text
    point = answer.json()["data"]["a"]
    return point and point["value"], answer.headers.get("age")


async def test_without_the_setting_thingsboard_is_asked_each_time(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    for value in (1, 2):
        send(simulator, value)
        assert await read(gateway, device) == (value, None)
    assert simulator.calls[READS] == 2


async def test_a_value_is_kept_for_its_time_and_says_how_old_it_is(
    keeping: httpx.AsyncClient, simulator: Simulator, clock: Clock
) -> None:
    device = device_id(simulator)
    send(simulator, 1)
    assert await read(keeping, device) == (1, None)
    send(simulator, 2, T + 1)
    for later, age in ((0.0, "0"), (1.5, "1"), (3.4, "4")):
        clock.now += later
        assert await read(keeping, device) == (1, age)
    assert simulator.calls[READS] == 1
    clock.now += 0.2
    assert await read(keeping, device) == (2, None)
    assert await read(keeping, device) == (2, "0")


async def test_other_keys_and_entities_are_asked_for(
    keeping: httpx.AsyncClient, simulator: Simulator
) -> None:
    device = device_id(simulator)
    send(simulator, 1)
    for query in ("?keys=a", "?keys=a,b", ""):
        assert await read(keeping, device, query) == (1, None)
        assert await read(keeping, device, query) == (1, "0")
    assert await read(keeping, device_id(simulator, "Test Device A2")) == (None, None)
    assert simulator.calls[READS] == 4


async def upload(gateway: httpx.AsyncClient, device: str) -> None:
    await gateway.post(f"{API}/devices/{device}/telemetry", json={"a": [{"ts": T + 5, "value": 2}]})


async def upload_bulk(gateway: httpx.AsyncClient, device: str) -> None:
    await gateway.post(f"{API}/telemetry/bulk", json={device: {"ts": T + 5, "values": {"a": 2}}})


async def upload_lost(gateway: httpx.AsyncClient, device: str) -> None:
    """The points are stored, but nobody is told."""
    answer = await gateway.post(f"{API}/devices/{device}/telemetry", json={"a": 2})
    assert answer.status_code == 503


async def delete(gateway: httpx.AsyncClient, device: str) -> None:
    await gateway.delete(f"{API}/devices/{device}/telemetry?keys=a")


@pytest.mark.parametrize(
    ("write", "value"), [(upload, 2), (upload_bulk, 2), (upload_lost, 2), (delete, None)]
)
async def test_a_write_through_the_gateway_ends_it(
    keeping: httpx.AsyncClient, simulator: Simulator, write: Callable[..., Any], value: Any
) -> None:
    device, other = device_id(simulator), device_id(simulator, "Test Device A2")
    send(simulator, 1)
    for each in (device, other):
        await read(keeping, each)
    if write is upload_lost:
        simulator.faults.reset(method="POST", path="timeseries", count=1, after=True)
    await write(keeping, device)
    assert await read(keeping, device) == (value, None)
    # Only what was written to.
    assert await read(keeping, other) == (None, "0")


async def test_a_deleted_device_is_gone_at_once(keeping: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    await read(keeping, device)
    await keeping.delete(f"{API}/devices/{device}")
    assert (await keeping.get(f"{API}/devices/{device}/telemetry/latest?keys=a")).status_code == 404


async def test_a_failure_is_not_kept(keeping: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    simulator.faults.status(500, path="values/timeseries", count=1)
    assert (await keeping.get(f"{API}/devices/{device}/telemetry/latest?keys=a")).status_code == 502
    assert await read(keeping, device) == (None, None)


async def test_an_unchanged_value_is_a_304_that_says_its_age_too(
    keeping: httpx.AsyncClient, simulator: Simulator, clock: Clock
) -> None:
    path = f"{API}/devices/{device_id(simulator)}/telemetry/latest?keys=a"
    first = await keeping.get(path)
    clock.now += 2
    again = await keeping.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.headers["age"]) == (304, "2")
    assert again.headers["cache-control"] == first.headers["cache-control"] == "private, no-cache"


async def test_many_devices_say_the_age_of_the_oldest(
    keeping: httpx.AsyncClient, simulator: Simulator, clock: Clock
) -> None:
    devices = [device_id(simulator, f"Test Device A{number}") for number in (1, 2, 3)]
    await read(keeping, devices[0])
    clock.now += 2
    await read(keeping, devices[1])
    clock.now += 1
    query = {"device_ids": devices, "keys": ["a"]}
    answer = await keeping.post(f"{API}/telemetry/latest", json=query)
    assert (answer.status_code, answer.headers["age"]) == (200, "3")
    assert simulator.calls[READS] == 3
    inferred = await keeping.post(f"{API}/telemetry/latest", json={**query, "types": "inferred"})
    assert "age" not in inferred.headers


async def test_what_is_kept_is_only_for_keys_that_see_the_device(
    make_gateway: GatewayFactory, simulator: Simulator, tmp_path: Path, keys_file: Callable[..., Path]
) -> None:
    device, other = device_id(simulator), device_id(simulator, "Test Device A2")
    scopes = ["telemetry:read"]
    path = keys_file(free=("free-key-0123456789abcdef", scopes), bound=("bound-key-0123456789abcde", scopes))
    path.write_text(path.read_text() + f'devices = ["{other}"]\n')
    gateway = make_gateway(
        api_key=None, api_keys_file=path, latest_cache_seconds=5, key="free-key-0123456789abcdef"
    )
    send(simulator, 1)
    await read(gateway, device)
    assert await read(gateway, device) == (1, "0")
    gateway.headers["X-API-Key"] = "bound-key-0123456789abcde"
    assert (await gateway.get(f"{API}/devices/{device}/telemetry/latest?keys=a")).status_code == 404
    assert await read(gateway, other) == (None, None)


ENTITY = ("DEVICE", "1")


def test_a_read_that_a_write_overtook_is_not_kept() -> None:
    cache = LatestCache(5)
    begun = cache.begin(ENTITY)
    cache.end(ENTITY)
    during = cache.begin(ENTITY)
    cache.keep(begun, ENTITY, None, b"old")
    assert cache.find(ENTITY, None) is None
    cache.end(ENTITY)
    cache.keep(during, ENTITY, None, b"perhaps old")
    assert cache.find(ENTITY, None) is None
    cache.keep(cache.begin(ENTITY), ENTITY, None, b"new")
    found = cache.find(ENTITY, None)
    assert found is not None
    assert found.content == b"new"


def test_two_reads_that_share_a_call_have_the_age_of_the_first() -> None:
    clock = Clock()
    cache = LatestCache(5, clock=clock)
    first = cache.begin(ENTITY)
    clock.now += 2
    second = cache.begin(ENTITY)
    for order in ((first, second), (second, first)):
        for begun in order:
            cache.keep(begun, ENTITY, None, b"shared")
        found = cache.find(ENTITY, None)
        assert found is not None
        assert found.age == 2


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("begin"), st.integers(0, 5), st.integers(0, 3)),
            st.tuples(st.just("keep"), st.integers(0, 30), st.integers(0, 400)),
            st.tuples(st.just("end"), st.integers(0, 5), st.just(0)),
            st.tuples(st.just("wait"), st.integers(0, 3), st.just(0)),
        ),
        max_size=60,
    )
)
def test_whatever_happens_it_stays_within_its_bounds_and_never_returns_what_is_too_old(
    steps: list[tuple[str, int, int]],
) -> None:
    """Bounds of 3 entities, 500 bytes and 2 answers; each content is unique and says when its read began."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latest_cache, "MOST_ENTITIES", 3)
        patch.setattr(latest_cache, "MOST_BYTES", 500)
        patch.setattr(latest_cache, "MOST_ANSWERS", 2)
        patch.setattr(latest_cache, "LARGEST_ANSWER", 300)
        clock = Clock()
        cache = LatestCache(5, clock=clock)
        reads: list[tuple[Any, tuple[str, str], list[str], float]] = []
        written = dict.fromkeys(range(6), 0.0)
        for number, (step, first, second) in enumerate(steps):
            entity = ("DEVICE", str(first))
            if step == "begin":
                reads.append((cache.begin(entity), entity, [f"key{second}"], clock.now))
            elif step == "keep" and reads:
                begun, of, keys, at = reads.pop(first % len(reads))
                content = f"{number} {at} ".encode().ljust(second)
                cache.keep(begun, of, keys, content)
            elif step == "end":
                clock.now += 0.001
                cache.end(entity)
                written[first] = clock.now
            else:
                clock.now += first
            kept = [answers for answers in cache._entities.values() if answers.by_keys]
            assert cache.size == sum(len(text) for each in kept for _, text in each.by_keys.values()) <= 500
            assert len(cache._entities) <= 3
            assert all(len(answers.by_keys) <= 2 for answers in kept)
            for device in range(6):
                for key in range(4):
                    found = cache.find(("DEVICE", str(device)), [f"key{key}"])
                    if found is not None:
                        began = float(found.content.split()[1])
                        assert found.age == clock.now - began < 5
                        assert began >= written[device]
