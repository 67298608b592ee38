"""The simulator on a real socket, in the running event loop."""

import asyncio
import socket
from collections import Counter
from types import TracebackType
from typing import Any, Self, cast

import uvicorn
from uvicorn.server import ServerState

from tb_simulator.app import ThingsBoardApp
from tb_simulator.broken_answers import reset_transport
from tb_simulator.faults import Faults
from tb_simulator.seeds import seed
from tb_simulator.world import Settings, World

# ThingsBoard closes with 1009 beyond this frame size (facts, WebSocket).
LARGEST_FRAME = 32_768


class Simulator:
    """A ThingsBoard on 127.0.0.1, for the time of an ``async with``.

    It belongs to the event loop that entered it. Its ``world`` outlives ``stop_listening`` and ``restart``.
    ``asgi`` is the same ThingsBoard as a plain ASGI application, usable without entering.
    """

    def __init__(self, settings: Settings | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.world = World(settings)
        if self.world.settings.demo_data:
            seed(self.world)
        self.asgi = ThingsBoardApp(self.world, restart=self.restart)
        self._host, self._port = host, port
        config = uvicorn.Config(
            cast("Any", self.asgi),
            http="httptools",
            ws="websockets-sansio",
            ws_max_size=LARGEST_FRAME,
            ws_ping_interval=10.0,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=60,
        )
        config.load()
        self._config = config
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    @property
    def faults(self) -> Faults:
        """The faults to come."""
        return self.world.faults

    @property
    def calls(self) -> Counter[str]:
        """How often each call came, as ``"GET /api/device/{id}"``."""
        return self.asgi.calls

    @property
    def port(self) -> int:
        """The port, known once it listens."""
        return self._port

    @property
    def url(self) -> str:
        """The address to give to a client."""
        return f"http://{self._host}:{self._port}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._state.connections)

    async def __aenter__(self) -> Self:
        await self.start_listening()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.asgi.close()
        await self.stop_listening()

    async def start_listening(self) -> None:
        """Open the socket, after ``stop_listening`` on the same port."""
        if self._server is not None:
            return
        # With the protocol named, asyncio sets TCP_NODELAY on what it accepts: without it each answer
        # waits 40 ms.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._host, self._port))
        self._port = listener.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol, sock=listener, backlog=2048
        )

    def _protocol(self) -> asyncio.Protocol:
        protocol_class = cast("Any", self._config.http_protocol_class)
        return cast("asyncio.Protocol", protocol_class(self._config, self._state, {}))

    async def stop_listening(self) -> None:
        """Refuse connections and cut the open ones, WebSockets without a close frame, as a restart does."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in list(self._state.connections):
            transport = cast("Any", connection).transport
            if transport is not None:
                reset_transport(transport)
        current = asyncio.current_task()
        tasks = [task for task in self._state.tasks if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def restart(self, seconds: float) -> None:
        """Be away for a while; tokens and data stay good (README of the recordings)."""
        await self.stop_listening()
        await asyncio.sleep(seconds)
        await self.start_listening()
