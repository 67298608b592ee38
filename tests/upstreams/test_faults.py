"""One upstream that is down, slow, refusing or misconfigured costs the others nothing."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.factory import create_app
from app.services.files import MOST_WAITING, WRITTEN_AT_ONCE
from app.thingsboard.breaker import THRESHOLD
from tb_simulator.server import Simulator
from tests.conftest import TENANT, SettingsFactory
from tests.restrictions.world import BASE, TS, client_of, write_keys
from tests.serving import serve
from tests.test_shared_reads import until
from tests.upstreams.conftest import Fleet, Site, WriteFile

DEVICES = f"{BASE}/devices"


async def statuses(site: Site, count: int = 1, path: str = DEVICES) -> list[int]:
    answers = await asyncio.gather(*(site.client.get(path) for _ in range(count)))
    return [answer.status_code for answer in answers]


async def test_one_that_is_down(fleet: Fleet) -> None:
    default, north, south = fleet["default"], fleet["north"], fleet["south"]
    for site in (default, north, south):
        assert await statuses(site) == [200]
    await default.simulator.stop_listening()
    for _ in range(3):
        assert await statuses(default, 20) == [503] * 20
        assert await statuses(south, 20) == [200] * 20
    await default.simulator.start_listening()
    assert await statuses(default) == [200]


async def test_retries_of_one_are_not_paid_by_another(fleet: Fleet) -> None:
    """The purse of retries of the one is empty; the other still has its own."""
    default, south = fleet["default"], fleet["south"]
    for site in (default, south):
        assert await statuses(site) == [200]
    default.simulator.faults.reset()
    for _ in range(20):
        assert await statuses(default) == [503]
    for _ in range(5):
        south.simulator.faults.reset(count=1, path="deviceInfos")
        assert await statuses(south) == [200]


async def test_an_open_breaker_is_that_of_its_upstream(make_fleet: Callable[..., Fleet]) -> None:
    """It opens for calls as one account; another one of the same ThingsBoard goes on."""
    fleet = make_fleet(tb_timeout_seconds=0.05)
    default, others = fleet["default"], [fleet["guest"], fleet["south"]]
    default.simulator.faults.latency(60, path="tenant/deviceInfos")
    for _ in range(THRESHOLD):
        assert await statuses(default) == [504]
    assert failing(fleet, default) == THRESHOLD
    for site in others:
        assert await statuses(site, 5) == [200] * 5
        assert failing(fleet, site) == 0
    assert failing(fleet, default) >= THRESHOLD


def failing(fleet: Fleet, site: Site) -> int:
    """Return how many time-outs in a row its breaker has seen."""
    timeouts: int = fleet.app.state.upstreams[site.name].client.connection.breaker._timeouts
    return timeouts


async def test_a_slow_one_holds_up_nobody_else(make_fleet: Callable[..., Fleet]) -> None:
    """Neither its connections nor its place in a queue are anybody else's."""
    fleet = make_fleet(tb_max_connections=1)
    default, north, south = fleet["default"], fleet["north"], fleet["south"]
    for site in (default, north, south):
        assert await statuses(site) == [200]
    default.simulator.faults.latency(60, path="tenant/deviceInfos")
    stuck = [
        asyncio.create_task(default.client.get(DEVICES, params={"page": str(page)})) for page in range(30)
    ]
    await until(lambda: default.simulator.faults.struck["latency"] > 0)
    default.simulator.faults.clear()
    assert await statuses(north, 20) == [200] * 20
    assert await statuses(south, 20) == [200] * 20
    assert not any(task.done() for task in stuck)
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)


async def test_files_of_a_slow_one_leave_turns_for_others(fleet: Fleet) -> None:
    """A workbook is written as its points come, so it has its turn for as long as ThingsBoard takes."""
    default, south = fleet["default"], fleet["south"]
    query = {"keys": "temperature", "start_ts": TS - 1, "end_ts": TS + 1, "format": "xlsx"}

    async def export(site: Site) -> int:
        path = f"{DEVICES}/{site.make('DEVICE', 'Exported')}/telemetry"
        return (await site.client.get(path, params=query)).status_code

    turns = fleet.app.state.upstreams["default"].file_turns
    async with AsyncExitStack() as stack:
        for _ in range(WRITTEN_AT_ONCE):
            await stack.enter_async_context(turns.turn())
        waiting = [asyncio.create_task(stack.enter_async_context(turns.turn())) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        assert await export(default) == 503
        assert await export(south) == 200
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("fault", ["expire", "rotate", "refuse"])
async def test_a_refused_credential_is_that_of_its_upstream(fleet: Fleet, fault: str) -> None:
    default, south = fleet["default"], fleet["south"]
    for site in (default, south):
        assert await statuses(site) == [200]
    logins = south.simulator.calls["POST /api/auth/login"], south.simulator.calls["POST /api/auth/token"]
    faults = default.simulator.faults
    if fault == "expire":
        faults.expire_tokens()
    elif fault == "rotate":
        faults.change_signing_key()
    else:
        faults.change_signing_key()
        faults.status(401, path="api/auth/login")
    assert await statuses(default, 5) == [502 if fault == "refuse" else 200] * 5
    assert await statuses(south, 5) == [200] * 5
    assert logins == (
        south.simulator.calls["POST /api/auth/login"],
        south.simulator.calls["POST /api/auth/token"],
    )


async def test_a_rate_limit_is_that_of_its_tenant(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(tb_queue_seconds=0)
    default, north = fleet["default"], fleet["north"]
    for site in (default, north):
        assert await statuses(site) == [200]
    default.simulator.faults.rate_limit("1:3600", default.tenant)
    limited = [await statuses(default) for _ in range(3)]
    assert limited[-1] == [429]
    assert [await statuses(north) for _ in range(3)] == [[200]] * 3


async def test_accounts_of_one_tenant_take_turns_in_one_queue(fleet: Fleet) -> None:
    """ThingsBoard limits the tenant: whoever calls as one of its accounts shares that fairly."""
    await fleet.app.state.upstreams.probe()
    queues = {name: fleet.app.state.upstreams[name].client.connection.queue for name in fleet.sites}
    assert queues["guest"] is queues["default"]
    assert len({id(queue) for queue in queues.values()}) == 3
    for name in fleet.sites:
        assert await statuses(fleet[name]) == [200]
    assert {queue.in_flight for queue in queues.values()} == {0}


async def test_a_wrong_password_of_one_is_told_with_its_name_and_leaves_the_others(
    make_gateway: Callable[..., Any],
    simulator: Simulator,
    upstreams_file: WriteFile,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = {"name": "wrong", "tb_host": simulator.url, "tb_username": TENANT[0], "tb_password": "not-that"}
    keys = write_keys(tmp_path / "k.toml", ((n, ["*"], {"upstream": n}) for n in ("default", "wrong")))
    app = make_gateway(api_key=None, api_keys_file=keys, upstreams_file=upstreams_file(wrong), key=None).app
    async with client_of(app, "wrong") as bad, client_of(app, "default") as good:
        assert (await bad.get(DEVICES)).status_code == 502
        assert (await good.get(DEVICES)).status_code == 200
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    refused = next(line for line in told if line["event"] == "login_refused")
    assert refused["upstream"] == "wrong"
    served = [
        (line["key_id"], line["upstream"], line["status"]) for line in told if line["event"] == "request"
    ]
    assert served == [("wrong", "wrong", 502), ("default", "default", 200)]


async def test_dead_name_servers_of_many_leave_the_others(
    make_gateway: Callable[..., Any],
    upstreams_file: WriteFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Look-ups take threads, and those of an event loop are few."""
    real, released = socket.getaddrinfo, threading.Event()
    waiting: set[str] = set()

    def look_up(host: str, *more: Any, **options: Any) -> Any:
        if host.endswith(".dead.example.com"):
            waiting.add(host)
            released.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return real(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    names = [f"dead{number}" for number in range(50)]
    tables = [
        {"name": name, "tb_host": f"http://{name}.dead.example.com", "tb_api_key": f"tb_{name}"}
        for name in names
    ]
    keys = write_keys(tmp_path / "k.toml", ((n, ["*"], {"upstream": n}) for n in ["default", *names]))
    app = make_gateway(api_key=None, api_keys_file=keys, upstreams_file=upstreams_file(*tables), key=None).app

    async def ask(name: str) -> int:
        async with client_of(app, name) as client:
            return (await client.get(DEVICES)).status_code

    stuck = [asyncio.create_task(ask(name)) for name in names]
    try:
        await until(lambda: len(waiting) == len(names))
        assert await ask("default") == 200
        assert not any(task.done() for task in stuck)
    finally:
        released.set()
        assert set(await asyncio.gather(*stuck)) == {503}


class TestReadiness:
    """What a load balancer learns."""

    async def checks(self, fleet: Fleet, *, strict: bool = False) -> tuple[int, dict[str, Any]]:
        transport = httpx.ASGITransport(app=fleet.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as anybody:
            answer = await anybody.get("/health/ready", params={"strict": "1"} if strict else {})
        return answer.status_code, answer.json()["checks"]

    async def test_each_upstream_has_a_check(self, fleet: Fleet) -> None:
        status, checks = await self.checks(fleet, strict=True)
        assert status == 200
        assert {name for name in checks if name.startswith("thingsboard")} == {
            "thingsboard",
            "thingsboard:north",
            "thingsboard:guest",
            "thingsboard:south",
        }
        assert {each["status"] for each in checks.values()} == {"up"}

    async def test_one_that_is_down_is_named_and_drains_nothing(self, fleet: Fleet) -> None:
        await fleet["south"].simulator.stop_listening()
        status, checks = await self.checks(fleet)
        assert status == 200
        assert checks["thingsboard:south"] == {"status": "down", "error_code": "UPSTREAM_UNAVAILABLE"}
        assert checks["thingsboard"] == {"status": "up"}
        assert (await self.checks(fleet, strict=True))[0] == 503

    async def test_nothing_but_names_is_told(self, fleet: Fleet) -> None:
        await fleet["south"].simulator.stop_listening()
        told = json.dumps(await self.checks(fleet))
        for secret in (str(fleet["south"].simulator.port), "127.0.0.1", "second@", "tenant@"):
            assert secret not in told


async def test_a_start_probes_all_and_an_end_closes_all(
    simulator: Simulator,
    elsewhere: Simulator,
    make_settings: SettingsFactory,
    upstreams_file: WriteFile,
    capsys: pytest.CaptureFixture[str],
) -> None:
    accounts = {
        "north": (simulator.url, "second@thingsboard.org", "second"),
        "south": (elsewhere.url, *TENANT),
        "wrong": (elsewhere.url, TENANT[0], "wrong-password"),
        "away": ("http://127.0.0.1:9", *TENANT),
        "admin": (elsewhere.url, "sysadmin@thingsboard.org", "sysadmin"),
    }
    file = upstreams_file(
        *(
            {"name": name, "tb_host": host, "tb_username": user, "tb_password": password}
            for name, (host, user, password) in accounts.items()
        )
    )
    app = create_app(make_settings(upstreams_file=file))
    async with serve(app) as url, httpx.AsyncClient(base_url=url) as caller:
        await app.state.probe
        assert (await caller.get("/health/ready")).status_code == 200
        assert connections(simulator)
        assert connections(elsewhere)
    assert not connections(simulator)
    assert not connections(elsewhere)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ready = {line["upstream"]: line for line in told if line["event"] == "thingsboard_ready"}
    assert ready.keys() == {"default", "north", "south"}
    tenants = [each.id for each in simulator.world.every("TENANT")]
    assert [ready["default"]["tenant_id"], ready["north"]["tenant_id"]] == tenants
    not_ready = {
        line["upstream"]: line["error_type"] for line in told if line["event"] == "thingsboard_not_ready"
    }
    assert not_ready == {
        "wrong": "LoginRefused",
        "away": "UpstreamUnreachable",
        "admin": "LoginRefused",
    }
    assert not any("password" in json.dumps(line).lower().replace("tb_password", "") for line in told)


def connections(simulator: Simulator) -> int:
    return len(simulator._state.connections)
