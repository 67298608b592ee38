"""Callers who close their connection before their answer has begun: nothing goes on for them."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from tb_simulator.server import Simulator
from tests.conftest import KEY_HEADER, GatewayFactory
from tests.serving import serve

PREFIX = "/api/v1/tb"
DEVICES = f"{PREFIX}/devices"
LISTED = "GET /api/tenant/deviceInfos"
NAMED = f"{DEVICES}/name:Test%20Device%20A1"
#: Longer than any test.
FOR_EVER = 300


class Caller:
    """Writes requests on one connection, and closes it when it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def ask(self, method: str, path: str, body: Any = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY_HEADER['X-API-Key']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self.writer.write(head.encode() + content)

    async def status(self) -> int:
        """Read one answer and return its status."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length:"))
        await self.reader.readexactly(int(length.split(b":")[1]))
        return int(head.split()[1])

    def leave(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def callers(app: FastAPI) -> AsyncIterator[Callable[[], Any]]:
    """Serve the gateway, and give out callers of it."""
    made: list[Caller] = []
    async with serve(app) as url:

        async def connect() -> Caller:
            opened = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
            made.append(Caller(*opened))
            return made[-1]

        try:
            yield connect
        finally:
            for each in made:
                each.leave()


async def until(is_true: Callable[[], bool]) -> None:
    """Let the loop run until something is true."""
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110 - what is waited for happens in other people's code
            await asyncio.sleep(0)


def under_way() -> list[object]:
    """Return the coroutines that serve a request of the gateway or call ThingsBoard."""
    found: list[Any] = [task.get_coro() for task in asyncio.all_tasks()]
    # The simulator is served by the same uvicorn, without the wrapper.
    return [
        each
        for each in found
        if each.__qualname__ == "SharedReads._run"
        or (each.__name__ == "run_asgi" and "_until_left" in repr(each.cr_frame.f_locals["app"]))
    ]


def in_flight(app: FastAPI) -> int:
    flying: int = app.state.upstreams["default"].client.connection.queue.in_flight
    return flying


def logged(capsys: pytest.CaptureFixture[str], event: str = "request") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize(
    ("method", "path", "body", "struck"),
    [
        ("GET", DEVICES, None, "deviceInfos"),
        ("GET", f"{NAMED}/telemetry/latest", None, "values/timeseries"),
        ("GET", f"{NAMED}/telemetry/export?format=csv", None, "keys/timeseries"),
        ("POST", f"{PREFIX}/telemetry/latest", {"device_ids": ["name:Test Device A1"]}, "values/timeseries"),
        ("POST", DEVICES, {"name": "left"}, "/api/device$"),
        ("POST", f"{NAMED}/telemetry", {"a": [{"ts": 1_760_000_000_000, "value": 1}]}, "/timeseries/"),
        ("POST", f"{PREFIX}/telemetry/bulk", {"name:Test Device A1": {"a": 1}}, "/timeseries/"),
        ("POST", f"{NAMED}/rpc/twoway", {"method": "m", "params": {}}, "plugins/rpc"),
    ],
    ids=["list", "latest", "export", "latest of many", "creation", "upload", "bulk", "command"],
)
async def test_a_caller_who_leaves_takes_its_call_along(
    make_gateway: GatewayFactory,
    simulator: Simulator,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    body: Any,
    struck: str,
) -> None:
    app = make_gateway().app
    async with callers(app) as connect:
        await app.state.probe
        idle = simulator.connections
        simulator.faults.latency(FOR_EVER, path=struck)
        caller = await connect()
        caller.ask(method, path, body)
        await until(lambda: bool(simulator.faults.struck["latency"]))
        capsys.readouterr()
        caller.leave()
        await until(lambda: not under_way() and in_flight(app) == 0)
        # The connection that carried the call is closed: ThingsBoard can see that nobody waits.
        await until(lambda: simulator.connections <= idle)
    (line,) = logged(capsys)
    assert (line["status"], line["incomplete"], line["bytes_sent"]) == (499, True, 0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_shared_read_ends_when_the_last_of_its_callers_has_left(
    make_gateway: GatewayFactory, simulator: Simulator
) -> None:
    app = make_gateway().app
    async with callers(app) as connect:
        await app.state.probe
        simulator.faults.latency(FOR_EVER, path="deviceInfos")
        both = [await connect() for _ in range(2)]
        for caller in both:
            caller.ask("GET", DEVICES)
        await until(lambda: len(under_way()) == 3)
        await until(lambda: simulator.calls[LISTED] == 1)
        both[0].leave()
        await until(lambda: len(under_way()) == 2)
        assert in_flight(app) == 1
        both[1].leave()
        await until(lambda: not under_way() and in_flight(app) == 0)
    assert simulator.calls[LISTED] == 1


async def test_who_stays_gets_every_answer(make_gateway: GatewayFactory, simulator: Simulator) -> None:
    """One after the other and ahead of each other, on one connection, while others come and go."""
    app = make_gateway().app
    async with callers(app) as connect:
        await app.state.probe
        simulator.faults.latency(FOR_EVER, path="tenant/asset")
        caller = await connect()
        for _ in range(5):
            leaving = await connect()
            leaving.ask("GET", f"{PREFIX}/assets")
            caller.ask("GET", DEVICES)
            caller.ask("GET", f"{DEVICES}?page=1")
            assert [await caller.status(), await caller.status()] == [200, 200]
            leaving.leave()
        await until(lambda: not under_way() and in_flight(app) == 0)
