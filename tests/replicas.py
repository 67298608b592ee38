"""Gateways in processes of their own, which tests may kill, and the nginx of `deploy/` in front of them."""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx

from benchmarks.chaos.stack import NGINX_CONF, NGINX_MAIN
from benchmarks.processes import free_port
from tb_simulator.server import Simulator
from tests.processes import PATIENCE, ROOT, Process, environment, program
from tests.redis_server import RedisServer

CADDYFILE = ROOT / "deploy" / "caddy" / "Caddyfile"
#: A machine busy with other tests may be silent longer than callers should ever wait.
SERVE = """
import sys
from app import redis_counters
from app.cli import main
redis_counters.SILENCE_SECONDS = 10.0
redis_counters.RETRY_SECONDS = 0.1
sys.exit(main(["serve"]))
"""


class Replica:
    """One gateway, always on the same port."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.port = free_port()
        self._environment = environment | {"PORT": str(self.port)}
        self.process: Process | None = None

    async def start(self) -> None:
        self.process = await Process.start(sys.executable, "-c", SERVE, environment=self._environment)
        url = f"http://127.0.0.1:{self.port}/health/live"
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient(trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await client.get(url)
                    return
                assert self.process.process.returncode is None, self.process.said()
                await asyncio.sleep(0.05)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.process.returncode is None

    @property
    def answered(self) -> int:
        """How many requests its access log tells of."""
        assert self.process
        return sum('"event":"request"' in line for line in self.process.lines)

    async def kill(self) -> None:
        """End it as a failing machine does."""
        if self.process is not None:
            await self.process.kill()

    async def terminate(self) -> None:
        """Let it drain, and wait for its end."""
        assert self.process
        self.process.process.terminate()
        async with asyncio.timeout(PATIENCE):
            await self.process.process.wait()


def replicas(number: int, simulator: Simulator, redis: RedisServer, **settings: str) -> list[Replica]:
    """Return gateways that are not started yet."""
    values = environment(
        **{
            "TB_HOST": simulator.url,
            "TB_USERNAME": "tenant@thingsboard.org",
            "TB_PASSWORD": "tenant",
            "REDIS_URL": redis.url,
            "TRUSTED_PROXIES": "127.0.0.1",
            **settings,
        }
    )
    return [Replica(values) for _ in range(number)]


@contextlib.asynccontextmanager
async def running(gateways: Sequence[Replica]) -> AsyncIterator[None]:
    """Run them; what is left of them is killed in the end."""
    try:
        await asyncio.gather(*(gateway.start() for gateway in gateways))
        yield
    finally:
        await asyncio.gather(*(gateway.kill() for gateway in gateways))


def here(shipped: Path, replacements: dict[str, str]) -> str:
    """Return a shipped configuration with addresses of this machine."""
    configuration = shipped.read_text("utf-8")
    for there, ours in replacements.items():
        assert configuration.count(there) == 1
        configuration = configuration.replace(there, ours)
    return configuration


@contextlib.asynccontextmanager
async def balanced(first: Replica, second: Replica, folder: Path) -> AsyncIterator[tuple[str, Process]]:
    """Run nginx with the shipped configuration; only addresses differ. Yields its URL and its log."""
    server, port = program("nginx", "nginx-light"), free_port()
    (folder / "gateway.conf").write_text(
        here(
            NGINX_CONF,
            {
                "server gateway-1:8000 ": f"server 127.0.0.1:{first.port} ",
                "server gateway-2:8000 ": f"server 127.0.0.1:{second.port} ",
                "listen 8080;": f"listen 127.0.0.1:{port};",
            },
        )
    )
    main = folder / "nginx.conf"
    # Its processes would give up the rights to the test's folder.
    user = "user root; " if os.geteuid() == 0 else ""
    main.write_text(NGINX_MAIN.format(folder=folder, user=user))
    nginx = await Process.start(server, "-e", "stderr", "-c", str(main))
    try:
        await nginx.read_until("start worker process ")
        yield f"http://127.0.0.1:{port}", nginx
    finally:
        await nginx.kill()


@contextlib.asynccontextmanager
async def balanced_by_caddy(first: Replica, second: Replica, folder: Path) -> AsyncIterator[str]:
    """Run Caddy with the shipped configuration; only addresses differ. Yields its URL."""
    url = f"http://127.0.0.1:{free_port()}"
    site = here(
        CADDYFILE,
        {
            "gateway-1:8000 gateway-2:8000": f"127.0.0.1:{first.port} 127.0.0.1:{second.port}",
            "api.example.com {": f"{url} {{",
        },
    )
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n}}\n{site}")
    command = (program("caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile")
    caddy = await Process.start(*command, environment={"HOME": str(folder)})
    try:
        await caddy.read_until("serving initial configuration")
        yield url
    finally:
        await caddy.kill()


def addresses(log: Process, text: str) -> list[str]:
    """Return the upstreams of the lines of nginx's log that hold a text."""
    return [
        found.group(1)
        for line in log.lines
        if text in line and (found := re.search(r'upstream: "http://([\d.:]+)', line))
    ]
