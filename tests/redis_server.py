"""A real Redis of our own, which tests may stop, fill, kill and start again."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator
from typing import Any

from pydantic import SecretStr
from redis import Redis

from benchmarks.processes import free_port
from tests.processes import program


class RedisServer:
    """One process at a time, always on the same port."""

    def __init__(self, program: str) -> None:
        self._program, self._port = program, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}"
        self.secret_url = SecretStr(self.url)

    async def start(self) -> None:
        command = [self._program, "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        process = self._process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220
        assert process.stdout is not None
        while b"Ready to accept connections" not in await asyncio.to_thread(process.stdout.readline):
            assert process.poll() is None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
        self._process = None

    def pause(self) -> None:
        """Let it keep its connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def command(self, *words: str | int) -> Any:
        with Redis.from_url(self.url, decode_responses=True) as client:
            return client.execute_command(*words)


@contextlib.asynccontextmanager
async def running_redis() -> AsyncIterator[RedisServer]:
    """Run one; without the program the test is skipped, which the gate takes for a failure."""
    server = RedisServer(program("redis-server"))
    await server.start()
    try:
        yield server
    finally:
        server.kill()
