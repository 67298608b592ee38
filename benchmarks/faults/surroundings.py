"""What surrounds the gateway besides ThingsBoard and may fail too: the name service, Redis."""

import asyncio
import contextlib
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faults.proxy import HOST, TcpProxy
from benchmarks.faults.site import Site
from benchmarks.processes import BenchmarkFailed
from tests.redis_server import RedisServer

#: A name that only `Names` knows.
NAME = "thingsboard.test"


class Names:
    """The name service, as far as `NAME` goes: it knows it, does not, or says nothing."""

    def __init__(self) -> None:
        self.is_known, self._speaks = True, threading.Event()
        self._speaks.set()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Answer for the name in this process."""
        real = socket.getaddrinfo

        def look_up(host: Any, *more: Any, **options: Any) -> Any:
            if host != NAME:
                return real(host, *more, **options)
            self._speaks.wait(60)
            if not self.is_known:
                raise socket.gaierror(socket.EAI_AGAIN, "no answer")
            return real(HOST, *more, **options)

        socket.getaddrinfo = look_up
        try:
            yield
        finally:
            self._speaks.set()
            socket.getaddrinfo = real

    def fall_silent(self) -> None:
        """Answer nobody."""
        self._speaks.clear()

    def recover(self) -> None:
        """Know the name, and answer those who wait."""
        self.is_known = True
        self._speaks.set()


class Redis:
    """A real Redis behind a proxy."""

    def __init__(self, server: RedisServer, proxy: TcpProxy) -> None:
        self.server, self.proxy = server, proxy

    @property
    def url(self) -> str:
        """The address for the gateway."""
        return f"redis://{HOST}:{self.proxy.port}"

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator["Redis"]:
        """Run one."""
        program = shutil.which("redis-server")
        if program is None:
            raise BenchmarkFailed("redis-server is not installed (Debian: apt-get install redis-server)")
        server = RedisServer(program)
        await server.start()
        try:
            async with TcpProxy(int(server.url.rpartition(":")[2])) as proxy:
                yield cls(server, proxy)
        finally:
            server.kill()

    async def fill(self) -> None:
        """Leave no room for another byte."""
        await asyncio.to_thread(self.server.command, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        await asyncio.to_thread(self.server.command, "CONFIG", "SET", "maxmemory", 1)

    async def empty(self) -> None:
        """Make room."""
        await asyncio.to_thread(self.server.command, "CONFIG", "SET", "maxmemory", 0)


@dataclass
class Row:
    """One fault's sites, a kind of request each, and what surrounds them."""

    sites: dict[str, Site] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    redis: Redis | None = None
