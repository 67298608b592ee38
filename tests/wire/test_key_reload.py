"""Several workers behind one port: a key that is taken away is refused by every one of them."""

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tb_simulator.server import Simulator
from tests.redis_server import free_port, running_redis

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 4
PATIENCE = 60
KEPT, REVOKED = "kept-key-0123456789", "revoked-key-0123456789"


def table(name: str, secret: str) -> str:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return f'[[keys]]\nname = "{name}"\nid = "{name}"\nsha256 = "{digest}"\nscopes = ["*"]\n'


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


@contextlib.asynccontextmanager
async def workers(folder: Path, **variables: str) -> AsyncIterator[asyncio.StreamReader]:
    """Run `app serve` in a folder without `.env` and yield what it logs."""
    ours = {name.upper() for name in Settings.model_fields}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "serve"),
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout
    try:
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def read_until(log: asyncio.StreamReader, text: str, times: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while times:
            line = await log.readline()
            assert line, "the server has ended"
            times -= text.encode() in line


@pytest.mark.redis
async def test_every_worker_refuses_a_revoked_key(simulator: Simulator, tmp_path: Path) -> None:
    path, port = tmp_path / "keys.toml", free_port()
    rewrite(path, table("kept", KEPT) + table("revoked", REVOKED))
    async with running_redis() as redis:
        settings = {
            "TB_HOST": simulator.url,
            "TB_USERNAME": "tenant@thingsboard.org",
            "TB_PASSWORD": "tenant",
            "API_KEYS_FILE": str(path),
            "REDIS_URL": redis.url,
            "RATE_LIMIT_REQUESTS": "1000000",
            "WORKERS": str(WORKERS),
            "PORT": str(port),
        }
        async with workers(tmp_path, **settings) as log:
            await read_until(log, "Application startup complete", WORKERS)

            async def statuses(key: str) -> set[int]:
                """A connection for each request, so that all workers have their turn."""
                limits = httpx.Limits(max_keepalive_connections=0)
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits) as client:
                    asked = [
                        await client.get("/api/v1/tb/whoami", headers={"X-API-Key": key})
                        for _ in range(10 * WORKERS)
                    ]
                return {answer.status_code for answer in asked}

            assert await statuses(REVOKED) == {200}
            rewrite(path, table("kept", KEPT))
            await read_until(log, "keys_reloaded", WORKERS)
            # After 20 failures of one address a refusal is a 429.
            assert await statuses(REVOKED) == {401, 429}
            assert await statuses(KEPT) == {200}
