"""One worker: uvicorn's server with the rules of this gateway for its start, its end and its being alive."""

import asyncio
import faulthandler
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

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

        def accept() -> asyncio.Protocol:
            return config.http_protocol_class(config, self.server_state, self.lifespan.state)  # type: ignore[call-arg]  # any of uvicorn's

        self.servers = [
            await self._loop.create_server(
                accept,
                sock=each,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=TLS_HANDSHAKE_SECONDS if config.ssl else None,
                ssl_shutdown_timeout=TLS_GOODBYE_SECONDS if config.ssl else None,
            )
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
        await super().shutdown(sockets)

    def _stop_orphaned(self) -> None:
        """Stop: nobody would replace or end this process any more."""
        self._loop.remove_reader(self._lifeline or 0)
        self.should_exit = True


def watch_for_standstill() -> None:
    """End the process unless this is called again in time: its supervisor starts another one."""
    faulthandler.dump_traceback_later(BLOCKED_SECONDS, exit=True)
