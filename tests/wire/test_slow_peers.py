"""Peers who are slow, silent or too many: they go, and who asks properly is answered meanwhile."""

import asyncio
import ipaddress
import json
import resource
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app import worker
from app.connections import Connections, most_connections, raise_file_limit
from app.http_protocol import GatewayProtocol
from app.web_socket_protocol import GatewayWebSocket
from tests.certificates import self_signed
from tests.conftest import KEY_HEADER, GatewayFactory
from tests.processes import until
from tests.serving import serve

KEY = KEY_HEADER["X-API-Key"]
#: Of each kind of slow peer.
CROWD = 25
HEAD = f"Host: a\r\nX-API-Key: {KEY}\r\n".encode()
WHOAMI = b"GET /api/v1/tb/whoami HTTP/1.1\r\n" + HEAD + b"\r\n"
PING, PONG, CLOSE = 0x89, 0x8A, 0x88

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Impatient(GatewayProtocol):
    """The same rules in a hurry."""

    HEAD_SECONDS = BODY_WINDOW_SECONDS = WRITE_STALL_SECONDS = EARLY_ANSWER_SECONDS = 0.3
    LINGER_SECONDS = 0.1


class ImpatientWebSocket(GatewayWebSocket):
    """The same."""

    GOODBYE_SECONDS = 0.1


async def drip(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.01)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /health HTTP/1.1\r\nX-Slow: ")
    await drip(writer)


async def slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"POST /api/v1/tb/devices HTTP/1.1\r\nContent-Type: application/json\r\n" + HEAD)
    writer.write(b"Content-Length: 100000\r\n\r\n{")
    await drip(writer)


async def stalled_reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Many answers ahead, of which none is read.
    writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 30)
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # or asyncio would read for us
    await writer.wait_closed()


async def mute_web_socket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(upgrade())
    await reader.readuntil(b"\r\n\r\n")
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    await writer.wait_closed()


def upgrade() -> bytes:
    wish = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    return b"GET /api/v1/tb/ws HTTP/1.1\r\n" + HEAD + wish + key + b"\r\n"


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))


@pytest.mark.parametrize("peer", [silent, slow_head, slow_body, stalled_reader, mute_web_socket])
async def test_a_crowd_of_slow_peers_is_cut_while_others_are_served(
    make_gateway: GatewayFactory, peer: Peer
) -> None:
    app = make_gateway(rate_limit_requests=100_000, streams_per_key=CROWD).app
    rules = {"http": Impatient, "ws": ImpatientWebSocket, "ws_ping_interval": 0.1, "ws_ping_timeout": 0.1}
    connections = app.state.connections
    async with serve(app, **rules) as url, httpx.AsyncClient(base_url=url, headers=KEY_HEADER) as good:
        opened = [await connect(url) for _ in range(CROWD)]
        crowd = [asyncio.create_task(peer(*each)) for each in opened]
        statuses = set()
        while connections.open > 1 or not statuses:
            statuses.add((await good.get("/api/v1/tb/whoami")).status_code)
        assert statuses == {200}
        for each in crowd:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        for _, writer in opened:
            writer.close()


def bounded(make_gateway: GatewayFactory, most: int, trusted: str | None = None) -> FastAPI:
    """Return a gateway with room for so many connections."""
    app = make_gateway().app
    networks = [ipaddress.ip_network(trusted)] if trusted else []
    app.state.connections = Connections(most, networks)
    return app


async def refusal(url: str) -> dict[str, Any]:
    reader, writer = await connect(url)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1" in head
    content: dict[str, Any] = json.loads(body)
    return content


async def test_one_connection_too_many_is_told_so(make_gateway: GatewayFactory) -> None:
    app = bounded(make_gateway, most=4, trusted="127.0.0.1")
    async with serve(app) as url:
        held = [await connect(url) for _ in range(4)]
        content = await refusal(url)
        assert (content["error_code"], content["details"]["field"]) == ("OVERLOADED", "connection")
        # Those who are there are served, and who leaves makes room.
        held[0][1].write(WHOAMI)
        assert b"200 OK" in await held[0][0].readuntil(b"\r\n")
        held[1][1].close()
        await until(lambda: app.state.connections.open == 3)
        reader, writer = await connect(url)
        writer.write(WHOAMI)
        assert b"200 OK" in await reader.readuntil(b"\r\n")
        for _, each in (*held, (reader, writer)):
            each.close()
        await until(lambda: app.state.connections.open == 0)
        assert app.state.connections.refused == 1


async def test_one_address_gets_a_quarter_of_all(make_gateway: GatewayFactory) -> None:
    app = bounded(make_gateway, most=8)
    async with serve(app) as url:
        held = [await connect(url) for _ in range(2)]
        assert "one address" in (await refusal(url))["details"]["issue"]
        for _, writer in held:
            writer.close()


async def test_web_sockets_are_counted_too(make_gateway: GatewayFactory) -> None:
    app = bounded(make_gateway, most=4)
    async with serve(app) as url:
        reader, writer = await connect(url)
        writer.write(upgrade())
        await reader.readuntil(b"\r\n\r\n")
        assert app.state.connections.open == 1
        await refusal(url)
        writer.close()
        await until(lambda: app.state.connections.open == 0)


def test_the_bound_leaves_files_for_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = (400, 4_000)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    assert most_connections() == 300
    raised = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: raised.append(given))
    raise_file_limit()
    assert raised == [(4_000, 4_000)]
    limits = (1_000_000, 1_000_000)
    assert most_connections() == 10_000
    limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert most_connections() == 10_000


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a masked frame, with a mask that changes nothing."""
    return bytes([opcode, 0x80 | len(payload)]) + bytes(4) + payload


async def test_pings_of_a_peer_who_does_not_read_do_not_pile_up(make_gateway: GatewayFactory) -> None:
    pings = 60_000
    async with serve(make_gateway().app) as url:
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        peer.connect(("127.0.0.1", int(url.rsplit(":", 1)[1])))

        def flood() -> list[bytes]:
            peer.settimeout(30)
            peer.sendall(upgrade())
            while b"\r\n\r\n" not in peer.recv(4_096):
                pass
            for first in range(0, pings, 1_000):
                numbers = range(first, first + 1_000)
                peer.sendall(b"".join(frame(PING, struct.pack(">25I", *[n] * 25)) for n in numbers))
            last, received = struct.pack(">25I", *[pings - 1] * 25), b""
            while last not in received:
                received += peer.recv(1 << 20)
            return received.split(bytes([PONG, 100]))[1:]

        pongs = await asyncio.to_thread(flood)
        peer.close()
    assert 0 < len(pongs) < pings / 2


async def test_endless_fragments_end_the_connection(make_gateway: GatewayFactory) -> None:
    """Empty ones, so that the length of the message never reaches its limit."""
    async with serve(make_gateway().app) as url:
        reader, writer = await connect(url)
        writer.write(upgrade())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(0x01, b"") + frame(0x00, b"") * GatewayWebSocket.MOST_FRAGMENTS)
        received = await reader.read()
        writer.close()
    assert received[0] == CLOSE
    assert struct.unpack(">H", received[2:4]) == (1009,)


async def test_a_tls_handshake_that_does_not_end_is_cut(
    make_gateway: GatewayFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path)
    monkeypatch.setattr(worker, "TLS_HANDSHAKE_SECONDS", 2)
    async with serve(make_gateway().app, ssl_certfile=certificate, ssl_keyfile=key) as url:
        reader, writer = await connect(url)
        # The beginning of a ClientHello.
        writer.write(b"\x16\x03\x01\x02\x00\x01")
        assert await reader.read() == b""
        writer.close()
        context = ssl.create_default_context(cafile=str(certificate))
        async with httpx.AsyncClient(base_url=url.replace("http:", "https:"), verify=context) as good:
            good.headers["Host"] = "localhost"
            answer = await good.get("/health", extensions={"sni_hostname": "localhost"})
            assert answer.status_code == 200


async def test_a_peer_that_vanished_is_not_waited_for(make_gateway: GatewayFactory) -> None:
    """Nothing it was sent is confirmed; the system alone would try for a quarter of an hour."""
    accepted: list[socket.socket] = []

    class Noted(GatewayProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            accepted.append(transport.get_extra_info("socket"))

    async with serve(make_gateway().app, http=Noted) as url:
        _, writer = await connect(url)
        await until(lambda: bool(accepted))
        waits = accepted[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert waits == GatewayProtocol.UNREAD_BODY_SECONDS * 1000
        writer.close()
