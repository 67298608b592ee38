"""What runs: two replicas behind the nginx of `deploy/`, Redis, ThingsBoard; and how each of them fails."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from benchmarks.bench import GATEWAY
from benchmarks.chaos.truth import CACHE_SECONDS
from benchmarks.processes import (
    HOST,
    ROOT,
    BenchmarkFailed,
    Child,
    Children,
    fetch,
    free_port,
    wait_until_ready,
)
from benchmarks.reverse_proxies import FOLDERS

NGINX_CONF = ROOT / "deploy" / "nginx" / "gateway.conf"
NGINX_MAIN = """
{user}daemon off; pid {folder}/nginx.pid; error_log stderr notice; worker_processes 2;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  include {folder}/gateway.conf;
}}
"""
#: One replica has one worker, the other two: both are supervised.
WORKERS = ("1", "2")
LIVE = "/health/live"
CONTROL = "/__simulator/"
DRAIN_SECONDS = 40.0
EVERY_SECONDS = 0.1
OK, ACCEPTED = 200, 202


def program(name: str, package: str) -> str:
    """Find a server."""
    found = shutil.which(name, path=FOLDERS)
    if found is None:
        raise BenchmarkFailed(
            f"{name} is not installed (Debian: apt-get install --no-install-recommends {package})"
        )
    return found


@dataclass
class Stack:
    """All servers of one run."""

    children: Children
    ids: list[str] = field(default_factory=list)
    ports: tuple[int, int] = field(default_factory=lambda: (free_port(), free_port()))
    redis_port: int = field(default_factory=free_port)
    front: int = field(default_factory=free_port)

    def start(self) -> None:
        """Start all of it, in the order in which they need each other."""
        port, file = free_port(), self.children.folder / "ids.json"
        module = ("benchmarks.chaos.thingsboard", str(port), str(file))
        self._thingsboard = self.children.start_module("thingsboard", *module, port=port)
        self._start_redis()
        wait_until_ready(self._thingsboard, f"{CONTROL}calls", {})
        self.ids = orjson.loads(file.read_bytes())
        self._replicas = [self._start_replica(number) for number in range(len(WORKERS))]
        for replica in self._replicas:
            wait_until_ready(replica, LIVE, {})
        self._start_nginx()

    def _start_redis(self) -> None:
        command = (
            program("redis-server", "redis-server"),
            "--port",
            str(self.redis_port),
            "--bind",
            HOST,
            "--save",
            "",
        )
        self._redis = self.children.start("redis", command, port=self.redis_port)

    def _start_replica(self, number: int) -> Child:
        environment = {
            **GATEWAY,
            "PORT": str(self.ports[number]),
            "WORKERS": WORKERS[number],
            "TB_HOST": f"http://{HOST}:{self._thingsboard.port}",
            "REDIS_URL": f"redis://{HOST}:{self.redis_port}/0",
            "TRUSTED_PROXIES": HOST,
            "LATEST_CACHE_SECONDS": str(CACHE_SECONDS),
        }
        name = f"replica-{number + 1}"
        return self.children.start_module(
            name, "app", "serve", port=self.ports[number], environment=environment
        )

    def _start_nginx(self) -> None:
        folder = self.children.folder
        site = NGINX_CONF.read_text("utf-8")
        replacements = {
            "server gateway-1:8000 ": f"server {HOST}:{self.ports[0]} ",
            "server gateway-2:8000 ": f"server {HOST}:{self.ports[1]} ",
            "listen 8080;": f"listen {HOST}:{self.front};",
        }
        for there, here in replacements.items():
            if site.count(there) != 1:
                raise BenchmarkFailed(f"{NGINX_CONF.name} has no line with {there!r}")
            site = site.replace(there, here)
        (folder / "gateway.conf").write_text(site, "utf-8")
        # Its processes would give up the rights to the folder of this run.
        user = "user root; " if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(NGINX_MAIN.format(folder=folder, user=user), "utf-8")
        command = (program("nginx", "nginx-light"), "-e", "stderr", "-c", str(folder / "nginx.conf"))
        nginx = self.children.start("nginx", command, port=self.front)
        wait_until_ready(nginx, LIVE, {})

    def thingsboard(
        self, target: str, headers: Mapping[str, str], *, body: bytes | None = None
    ) -> tuple[int, bytes]:
        """Ask ThingsBoard itself: with a body a POST, else a GET."""
        method = "GET" if body is None else "POST"
        return fetch(self._thingsboard.port, target, headers, method=method, body=body)

    async def kill_replica(self, seconds: float) -> None:
        """Kill all processes of the first replica at once; start it again after so long."""
        replica = self._replicas[0]
        os.killpg(replica.process.pid, signal.SIGKILL)
        await asyncio.sleep(seconds)
        await self._renew_replica(0)

    async def stop_replica(self, _seconds: float) -> None:
        """Tell the second replica to stop, and start it again when it has."""
        replica = self._replicas[1]
        replica.process.terminate()
        if await asyncio.to_thread(replica.process.wait, DRAIN_SECONDS) != 0:
            raise BenchmarkFailed(f"the replica did not stop as it should:\n{replica.tail()}")
        await self._renew_replica(1)

    async def _renew_replica(self, number: int) -> None:
        await asyncio.to_thread(self.children.stop, self._replicas[number])
        self._replicas[number] = self._start_replica(number)
        await asyncio.to_thread(wait_until_ready, self._replicas[number], LIVE, {})

    async def restart_thingsboard(self, seconds: float) -> None:
        """Cut all connections of ThingsBoard and refuse new ones for so long."""
        body = orjson.dumps({"seconds": seconds})
        status, _ = await asyncio.to_thread(self.thingsboard, f"{CONTROL}restart", {}, body=body)
        if status != ACCEPTED:
            raise BenchmarkFailed(f"the simulator does not restart: {status}")
        await asyncio.sleep(seconds)
        await asyncio.to_thread(wait_until_ready, self._thingsboard, f"{CONTROL}calls", {})

    async def kill_redis(self, seconds: float) -> None:
        """Kill Redis, which keeps nothing, and start it again after so long."""
        self._redis.process.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.children.stop, self._redis)
        self._start_redis()

    def stored(self, device: int, keys: Sequence[str]) -> dict[str, list[dict[str, int | float]]]:
        """Return all points of keys, from ThingsBoard itself."""
        login = orjson.dumps({"username": GATEWAY["TB_USERNAME"], "password": GATEWAY["TB_PASSWORD"]})
        _, answer = self.thingsboard("/api/auth/login", {"Content-Type": "application/json"}, body=login)
        headers = {"X-Authorization": f"Bearer {orjson.loads(answer)['token']}"}
        window = f"startTs=0&endTs={time.time_ns()}&limit=10000000&orderBy=ASC&useStrictDataTypes=true"
        path = f"/api/plugins/telemetry/DEVICE/{self.ids[device]}/values/timeseries"
        status, answer = self.thingsboard(f"{path}?keys={','.join(keys)}&{window}", headers)
        if status != OK:
            raise BenchmarkFailed(f"ThingsBoard does not show its points: {status}")
        points: dict[str, list[dict[str, int | float]]] = orjson.loads(answer)
        return points

    def logs(self) -> str:
        """Return the last lines of the replicas, for a run that failed."""
        return "\n".join(replica.tail() for replica in self._replicas)
