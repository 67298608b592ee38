"""Who has connected when the gateway stops to listen is served, though nobody had accepted the connection."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
import uvloop

from app.http_protocol import GatewayProtocol
from app.worker import GatewayServer

CALLERS = 20


async def answer(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def stop_with_callers_waiting() -> list[bytes]:
    """Return what they read."""
    config = uvicorn.Config(
        answer, http=GatewayProtocol, lifespan="off", log_config=None, timeout_graceful_shutdown=5
    )
    config.load()
    server = GatewayServer(config)
    server.lifespan = config.lifespan_class(config)
    listener = socket.create_server(("127.0.0.1", 0))
    await server.startup(sockets=[listener])
    callers = [socket.create_connection(listener.getsockname()) for _ in range(CALLERS)]
    for caller in callers:
        caller.sendall(b"POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n")
    address = listener.getsockname()
    # The event loop has not turned since: the system holds the connections.
    await server.shutdown(sockets=[listener])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    answers = []
    for caller in callers:
        with caller:
            answers.append(caller.recv(65_536))
    return answers


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_whoever_has_connected_is_served(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        answers = runner.run(stop_with_callers_waiting())
    assert [each.split(b"\r\n")[0] for each in answers] == [b"HTTP/1.1 200 OK"] * CALLERS
    assert all(b"\r\nconnection: close\r\n" in each.lower() for each in answers)
