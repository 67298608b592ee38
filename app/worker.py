"""One worker: uvicorn's server with the rules of this gateway for its start, its end and its being alive."""

import asyncio
import contextlib
import faulthandler
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from app.draining import draining_of

#: Time for running requests to end once no more are taken: a command may wait for its device for 25 s.
SHUTDOWN_SECONDS = 26
IDLE_SECONDS = 5
#: Both are a minute and half a minute in asyncio, and a connection counts nowhere before its handshake.
TLS_HANDSHAKE_SECONDS = 10.0
TLS_GOODBYE_SECONDS = 2.0
#: An event loop that stands still for so long will not recover: the longest work in it takes half a second.
BLOCKED_SECONDS = 15.0
#: uvicorn's ticks are 0.1 s.
TICKS_BETWEEN_SIGNS = 10


class GatewayServer(uvicorn.Server):
    """Serves on sockets that somebody else has bound.

    SIGTERM stops it after the delay, SIGINT (its supervisor has a successor) at once; both let running
    requests end. A second SIGINT stops it whatever runs.

    Args:
        delay_seconds: from SIGTERM to the end of listening; readiness is 503 meanwhile.
        lifeline: a file descriptor that ends with the supervisor.
        on_ready: called once it listens.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        delay_seconds: float = 0.0,
        lifeline: int | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._delay_seconds, self._lifeline, self._on_ready = delay_seconds, lifeline, on_ready
        self._stop_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, as uvicorn does, with deadlines for TLS."""
        self._loop = asyncio.get_running_loop()
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        config = self.config
        self._tls: dict[str, Any] = {
            "ssl": config.ssl,
            "ssl_handshake_timeout": TLS_HANDSHAKE_SECONDS if config.ssl else None,
            "ssl_shutdown_timeout": TLS_GOODBYE_SECONDS if config.ssl else None,
        }
        self.servers = [
            await self._loop.create_server(self._accept, sock=each, backlog=config.backlog, **self._tls)
            for each in sockets or []
        ]
        if self._lifeline is not None:
            self._loop.add_reader(self._lifeline, self._stop_orphaned)
        self.started = True
        self._on_ready()

    async def main_loop(self) -> None:
        """Serve until it is to stop; a loop that stands still ends the process, with a traceback."""
        try:
            await super().main_loop()
        finally:
            faulthandler.cancel_dump_traceback_later()

    async def on_tick(self, counter: int) -> bool:
        """Show that the loop turns."""
        if counter % TICKS_BETWEEN_SIGNS == 0:
            watch_for_standstill()
        if self._stop_at is not None and self._loop.time() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to stop. uvicorn would raise the signal again at the end, and the process die of it."""
        if self.should_exit:
            self.force_exit |= sig == signal.SIGINT
        elif sig == signal.SIGINT or not self._delay_seconds:
            self.should_exit = True
        elif self._stop_at is None:
            draining_of(self.lifespan.state).announce()
            self._stop_at = self._loop.time() + self._delay_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let streams say goodbye and connections end, then the application."""
        draining_of(self.lifespan.state).begin()
        await self._stop_listening(sockets or [])
        await super().shutdown(sockets)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Close the listening sockets; serve whoever has connected already.

        The system resets connections that nobody has accepted when the last copy of a socket is closed, and a
        proxy in front must not send a write again of which it has sent a byte.
        """
        copies = [each.dup() for each in sockets]
        for server in self.servers:
            server.close()
        # uvloop lets go of its sockets in its next turn.
        await asyncio.sleep(0)
        for each in sockets:
            each.close()
        waiting = [connection for copy in copies for connection in _take_waiting(copy)]
        serving = [
            self._loop.connect_accepted_socket(self._accept, connection, **self._tls)
            for connection in waiting
        ]
        # Not awaited: a TLS handshake may take as long as its peer likes.
        self._last_accepted = asyncio.gather(*serving, return_exceptions=True)

    def _accept(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]  # any of uvicorn's
            self.config, self.server_state, self.lifespan.state
        )

    def _stop_orphaned(self) -> None:
        """Stop: nobody would replace or end this process any more."""
        self._loop.remove_reader(self._lifeline or 0)
        self.should_exit = True


def _take_waiting(listener: socket.socket) -> list[socket.socket]:
    """Accept all who wait at a socket, and close it."""
    waiting = []
    with listener, contextlib.suppress(OSError):
        listener.setblocking(False)
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            waiting.append(connection)
    return waiting


def watch_for_standstill() -> None:
    """End the process unless this is called again in time: its supervisor starts another one."""
    faulthandler.dump_traceback_later(BLOCKED_SECONDS, exit=True)
