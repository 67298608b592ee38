"""What callers meet while a worker sheds load, on real connections."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import httpx
import pytest
from fastapi import FastAPI

from app.http_heads import RefusedRequest
from app.http_protocol import GatewayProtocol
from app.load_shedding import LoadShedding
from tb_simulator.server import Simulator
from tests.conftest import API_KEY, KEY_HEADER, GatewayFactory
from tests.metrics.scraping import scrape
from tests.serving import serve

PATIENCE = 10
HEAD = f"Host: gateway\r\nX-API-Key: {API_KEY}\r\n".encode()
WHOAMI = b"GET /api/v1/tb/whoami HTTP/1.1\r\n" + HEAD + b"\r\n"
UPLOAD = b"POST /api/v1/tb/devices HTTP/1.1\r\nContent-Type: application/json\r\n" + HEAD
#: Nothing is admitted.
NOTHING = 1e-9


@dataclass
class Answer:
    """What came back for one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, url: str) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1])))

    async def ask(self, request: bytes, *, is_head: bool = False) -> Answer:
        self.writer.write(request)
        return await self.hear(is_head=is_head)

    async def hear(self, *, is_head: bool = False) -> Answer:
        async with asyncio.timeout(PATIENCE):
            status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()[:-1]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            size = 0 if is_head else int(headers["content-length"])
            return Answer(int(status.split()[1]), headers, await self.reader.readexactly(size))

    async def is_closed(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read() == b""


@dataclass
class Overloaded:
    """A gateway, how much it admits, and a connection to it."""

    app: FastAPI
    url: str
    peer: Peer

    @property
    def load(self) -> LoadShedding:
        load: LoadShedding = self.app.state.load_shedding
        return load


@asynccontextmanager
async def overloaded(make_gateway: GatewayFactory, **settings: Any) -> AsyncIterator[Overloaded]:
    app = make_gateway(**settings).app
    async with serve(app) as url:
        peer = await Peer.connect(url)
        app.state.load_shedding.share = NOTHING
        yield Overloaded(app, url, peer)
        peer.writer.close()


@pytest.fixture
async def gateway(make_gateway: GatewayFactory) -> AsyncIterator[Overloaded]:
    async with overloaded(make_gateway) as found:
        yield found


async def test_a_refused_caller_is_told_when_to_come_again(gateway: Overloaded) -> None:
    answer = await gateway.peer.ask(WHOAMI)
    assert answer.status == 503
    assert answer.headers["retry-after"] == "10"
    assert answer.headers["content-type"] == "application/json"
    assert "connection" not in answer.headers
    content = answer.content
    assert content.pop("timestamp") > 0
    assert content == {
        "status": 503,
        "message": "The gateway is asked for more than it can do. Nothing was carried out; try again later.",
        "error_code": "OVERLOADED",
        "details": None,
        "request_id": answer.headers["x-request-id"],
    }


async def test_its_connection_serves_the_next_request(gateway: Overloaded) -> None:
    for _ in range(3):
        assert (await gateway.peer.ask(WHOAMI)).status == 503
    gateway.load.share = 1.0
    assert (await gateway.peer.ask(WHOAMI)).content["status"] == "success"
    gateway.load.share = NOTHING
    assert (await gateway.peer.ask(WHOAMI)).status == 503


async def test_nothing_of_a_refused_write_is_carried_out(gateway: Overloaded, simulator: Simulator) -> None:
    devices = len(list(simulator.world.every("DEVICE")))
    body = b'{"name":"new","type":"default"}'
    whole = UPLOAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert (await gateway.peer.ask(whole)).status == 503
    chunked = UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert (await gateway.peer.ask(chunked)).status == 503
    assert len(list(simulator.world.every("DEVICE"))) == devices
    # Nor was its body taken for a request.
    gateway.load.share = 1.0
    assert (await gateway.peer.ask(whole)).status == 201


async def test_a_body_that_comes_after_its_refusal_is_passed_over(gateway: Overloaded) -> None:
    assert (await gateway.peer.ask(UPLOAD + b"Content-Length: 30\r\n\r\n")).status == 503
    gateway.load.share = 1.0
    answer = await gateway.peer.ask(b"GET /health/live HTTP/1.1\r\n\r\n\r\n" + WHOAMI)
    assert answer.content["status"] == "success"
    assert "scopes" in answer.content


async def test_a_page_of_an_allowed_origin_can_read_a_refusal(make_gateway: GatewayFactory) -> None:
    allowed = "https://app.example.com"
    async with overloaded(make_gateway, backend_cors_origins=(allowed,)) as gateway:
        for origin, told in ((allowed, allowed), ("https://elsewhere.example", None)):
            answer = await gateway.peer.ask(WHOAMI.replace(HEAD, HEAD + f"Origin: {origin}\r\n".encode()))
            assert (answer.status, answer.headers["vary"]) == (503, "Origin")
            assert answer.headers.get("access-control-allow-origin") == told
            exposed = answer.headers.get("access-control-expose-headers", "")
            assert ("Retry-After" in exposed) == (told is not None)


async def test_head_gets_no_body(gateway: Overloaded) -> None:
    answer = await gateway.peer.ask(WHOAMI.replace(b"GET", b"HEAD"), is_head=True)
    assert (answer.status, int(answer.headers["content-length"]) > 0) == (503, True)
    assert (await gateway.peer.ask(WHOAMI)).status == 503


@pytest.mark.parametrize(
    "request_bytes",
    [
        WHOAMI.replace(HEAD, HEAD + b"Connection: close\r\n"),
        WHOAMI.replace(b"HTTP/1.1", b"HTTP/1.0"),
        WHOAMI.replace(b"HTTP/1.1", b"HTTP/1.0").replace(HEAD, HEAD + b"Connection: keep-alive\r\n"),
        UPLOAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        WHOAMI.replace(
            HEAD,
            HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
    ],
    ids=["asked to close", "HTTP/1.0", "HTTP/1.0 that would stay", "waits to send its body", "WebSocket"],
)
async def test_the_last_request_of_a_connection_is_refused_and_closes_it(
    gateway: Overloaded, request_bytes: bytes
) -> None:
    answer = await gateway.peer.ask(request_bytes)
    assert (answer.status, answer.headers["connection"]) == (503, "close")
    assert answer.content["error_code"] == "OVERLOADED"
    assert await gateway.peer.is_closed()


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready?strict=1", "/metrics"])
async def test_operators_see_how_it_is(gateway: Overloaded, path: str) -> None:
    for _ in range(3):
        asked = await gateway.peer.ask(
            f"HEAD {path} HTTP/1.1\r\nHost: gateway\r\n\r\n".encode(), is_head=True
        )
        assert asked.status in {200, 405}
        async with httpx.AsyncClient(base_url=gateway.url) as client:
            assert (await client.get(path)).status_code == 200


async def test_requests_sent_ahead_are_answered_in_their_order(gateway: Overloaded) -> None:
    answers = [await gateway.peer.ask(WHOAMI * 3), *[await gateway.peer.hear() for _ in range(2)]]
    assert [answer.status for answer in answers] == [503] * 3
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 3


async def test_what_was_admitted_is_answered_before_a_refusal_ends_the_connection(
    gateway: Overloaded,
) -> None:
    """The refusal of one that was sent ahead would come first."""
    # The first one has a turn, the others have none.
    gateway.load._credit = 1.0
    answer = await gateway.peer.ask(WHOAMI * 3)
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await gateway.peer.is_closed()


async def test_refusals_that_nobody_reads_do_not_pile_up(make_gateway: GatewayFactory) -> None:
    unsent = []

    class Watched(GatewayProtocol):
        def _write(self, refusal: RefusedRequest, request_id: str, **how: bool) -> None:
            super()._write(refusal, request_id, **how)
            unsent.append(self.transport.get_write_buffer_size())

    app = make_gateway().app
    async with serve(app, http=Watched) as url:
        peer = await Peer.connect(url)
        app.state.load_shedding.share = NOTHING
        peer.reader._transport.pause_reading()  # type: ignore[attr-defined]  # or asyncio would read for us
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while True:
                    peer.writer.write(WHOAMI * 100)
                    await peer.writer.drain()
        peer.writer.close()
    assert GatewayProtocol.UNSENT_BYTES < max(unsent) < GatewayProtocol.UNSENT_BYTES + 1_000


async def test_open_streams_stay(make_gateway: GatewayFactory, simulator: Simulator) -> None:
    device = next(simulator.world.every("DEVICE"))
    path = f"/api/v1/tb/devices/{device.id}/telemetry"
    points = {"temperature": [{"ts": 1_700_000_000_000, "value": 7}]}
    app = make_gateway().app
    async with (
        serve(app) as url,
        httpx.AsyncClient(base_url=url, headers=KEY_HEADER, timeout=PATIENCE) as client,
        client.stream("GET", f"{path}/stream", params={"first_values": False}) as stream,
    ):
        lines = stream.aiter_lines()
        app.state.load_shedding.share = NOTHING
        assert (await client.post(path, json=points)).status_code == 503
        app.state.load_shedding.share = 1.0
        assert (await client.post(path, json=points)).status_code == 201
        async with asyncio.timeout(PATIENCE):
            while await anext(lines) != "event: telemetry":
                pass


async def test_refusals_are_counted(gateway: Overloaded) -> None:
    for _ in range(3):
        await gateway.peer.ask(WHOAMI)
    await gateway.peer.ask(b"GET /health HTTP/1.1\r\n\r\n")
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        # Told with the next measurement.
        while not (found := await scrape(client)).total("gateway_shed_requests_total"):
            pass
    assert found.total("gateway_shed_requests_total") == 3
    assert found.total("gateway_requests_total", route="none", status="503") == 3
    assert found.total("gateway_requests_total", route="none", status="400") == 1


async def test_a_loop_that_is_always_late_is_noticed(
    make_gateway: GatewayFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    app = make_gateway().app
    load = app.state.load_shedding
    async with serve(app) as url, httpx.AsyncClient(base_url=url, headers=KEY_HEADER) as client:
        assert (await client.get("/api/v1/tb/whoami")).status_code == 200
        while not load.is_shedding:
            time.sleep(0.15)  # noqa: ASYNC251 - this is what it is about
            await asyncio.sleep(0)
        assert (await client.get("/health/live")).status_code == 200
    assert '"event":"overload_began"' in capsys.readouterr().out
