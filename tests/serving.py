"""A real uvicorn around an application, on a free port, in the running event loop."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from app.http_protocol import GatewayProtocol
from app.web_socket_protocol import MOST_FRAME_BYTES, GatewayWebSocket
from app.worker import GatewayServer


@asynccontextmanager
async def serve(app: FastAPI, **options: Any) -> AsyncIterator[str]:
    """Yield the address of the served application, lifespan included; ends with all connections closed."""
    config = uvicorn.Config(
        app,
        **{
            "http": GatewayProtocol,
            "ws": GatewayWebSocket,
            "ws_max_size": MOST_FRAME_BYTES,
            "ws_per_message_deflate": False,
            "lifespan": "on",
            "log_config": None,
            "access_log": False,
            "proxy_headers": False,
            "server_header": False,
            "timeout_graceful_shutdown": 1,
            **options,
        },
    )
    config.load()
    server = GatewayServer(config)
    server.lifespan = config.lifespan_class(config)
    # With the protocol named, asyncio sets TCP_NODELAY on what it accepts.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    await server.startup(sockets=[listener])
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await server.shutdown(sockets=[listener])
