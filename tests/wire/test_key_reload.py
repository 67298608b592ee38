"""Several workers behind one port: a key that is taken away is refused by every one of them."""

import hashlib
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.processes import free_port
from tb_simulator.server import Simulator
from tests.processes import Process, environment
from tests.redis_server import running_redis

WORKERS = 4
KEPT, REVOKED = "kept-key-0123456789", "revoked-key-0123456789"


def table(name: str, secret: str) -> str:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return f'[[keys]]\nname = "{name}"\nid = "{name}"\nsha256 = "{digest}"\nscopes = ["*"]\n'


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.redis
async def test_every_worker_refuses_a_revoked_key(simulator: Simulator, tmp_path: Path) -> None:
    path, port = tmp_path / "keys.toml", free_port()
    rewrite(path, table("kept", KEPT) + table("revoked", REVOKED))
    async with running_redis() as redis:
        settings = environment(
            TB_HOST=simulator.url,
            TB_USERNAME="tenant@thingsboard.org",
            TB_PASSWORD="tenant",
            API_KEYS_FILE=path,
            REDIS_URL=redis.url,
            RATE_LIMIT_REQUESTS=1_000_000,
            WORKERS=WORKERS,
            PORT=port,
        )
        command = (sys.executable, "-m", "app", "serve")
        gateway = await Process.start(*command, folder=tmp_path, environment=settings)
        try:
            await gateway.read_until("Application startup complete", WORKERS)

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
            await gateway.read_until("keys_reloaded", WORKERS)
            # After 20 failures of one address a refusal is a 429.
            assert await statuses(REVOKED) == {401, 429}
            assert await statuses(KEPT) == {200}
        finally:
            await gateway.kill()
