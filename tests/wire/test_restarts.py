"""Workers come and go, told to or not, and callers do not notice."""

import asyncio
import json
import os
import signal
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.processes import free_port
from tb_simulator.server import Simulator
from tests.certificates import self_signed
from tests.no_secrets import leaks_in
from tests.processes import PATIENCE, is_running, until
from tests.wire.conftest import KEY, Run, Serve, Served

LISTED = "/api/tenant/deviceInfos"
CALLER = {"X-API-Key": KEY}
CALLERS = 8


class Load:
    """Callers on keep-alive connections who ask again as soon as they are answered, as a good client does."""

    def __init__(self, gateway: Served) -> None:
        self._gateway = gateway
        self.statuses: Counter[int] = Counter()
        self.lost: list[str] = []
        self._is_over = False

    async def call(self) -> None:
        request = f"GET /api/v1/tb/whoami HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n\r\n".encode()
        while not self._is_over:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._gateway.port)
            is_open = True
            while is_open and not self._is_over:
                try:
                    writer.write(request)
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    length = head.partition(b"content-length: ")[2].split(b"\r\n")[0]
                    await reader.readexactly(int(length))
                except (OSError, asyncio.IncompleteReadError) as error:
                    self.lost.append(repr(error))
                    break
                self.statuses[int(head.split()[1])] += 1
                is_open = b"connection: close" not in head
            writer.close()

    def stop(self) -> None:
        self._is_over = True


@asynccontextmanager
async def under_load(gateway: Served) -> AsyncIterator[Load]:
    load = Load(gateway)
    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(load.call())
        yield load
        load.stop()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("workers", [1, 2])
async def test_sighup_replaces_all_workers_and_loses_no_request(
    serve: Serve, redis_url: str, workers: int
) -> None:
    gateway = await serve(WORKERS=workers, REDIS_URL=redis_url, RATE_LIMIT_REQUESTS=999_999_999)
    before = set(children_of(gateway.process.process.pid))
    async with under_load(gateway) as load:
        for roll in (1, 2):
            gateway.process.process.send_signal(signal.SIGHUP)
            await gateway.process.read_until("Finished server process", roll * workers)
        answered = load.statuses.total()
        await until(lambda: load.statuses.total() > answered + CALLERS)
    assert load.lost == []
    assert set(load.statuses) == {200}
    # The last one has said that it is finished, not yet ended.
    await until(lambda: len(children_of(gateway.process.process.pid)) == workers)
    assert not before & set(children_of(gateway.process.process.pid))
    gateway.process.process.terminate()
    assert await gateway.process.end() == 0


async def test_a_request_under_way_outlives_its_worker(serve: Serve, simulator: Simulator) -> None:
    gateway = await serve()
    # Longer than a busy machine takes to start a worker.
    simulator.faults.latency(4, path=LISTED, count=1)
    async with httpx.AsyncClient(base_url=gateway.url, headers=CALLER) as client:
        answer = asyncio.create_task(client.get("/api/v1/tb/devices"))
        await until(lambda: bool(simulator.faults.struck["latency"]))
        gateway.process.process.send_signal(signal.SIGHUP)
        await gateway.process.read_until('"Shutting down"')
        # The successor serves meanwhile.
        assert (await client.get("/api/v1/tb/whoami")).status_code == 200
        assert (await answer).status_code == 200
        assert (await answer).headers["connection"] == "close"


async def test_a_killed_worker_is_replaced(serve: Serve) -> None:
    gateway = await serve()
    (worker,) = children_of(gateway.process.process.pid)
    os.kill(worker, signal.SIGKILL)
    async with httpx.AsyncClient(base_url=gateway.url, headers=CALLER, timeout=PATIENCE) as client:
        # The supervisor keeps the port: who comes meanwhile waits for the next worker.
        assert (await client.get("/api/v1/tb/whoami")).status_code == 200
    ended = json.loads(await gateway.process.read_until("worker_ended"))
    assert (ended["pid"], ended["exit_code"], ended["level"]) == (worker, -signal.SIGKILL, "error")
    (successor,) = children_of(gateway.process.process.pid)
    assert successor != worker


HANGING = """
import sys, time
from app import cli, serve, worker
worker.BLOCKED_SECONDS = 3.0

class Hanging(worker.GatewayServer):
    async def on_tick(self, counter):
        if counter == 5:
            time.sleep(600)
        return await super().on_tick(counter)

serve.GatewayServer = Hanging
sys.exit(cli.main(["serve"]))
"""


async def test_a_worker_that_hangs_is_replaced(run: Run) -> None:
    """uvicorn's own check is answered by a thread, which goes on when the event loop does not."""
    process = await run("-c", HANGING, PORT=free_port())
    await process.read_until("gateway_ready")
    ended = json.loads(await process.read_until("worker_ended"))
    assert ended["exit_code"] == 1
    # Where it hung is in the log.
    assert process.said().count("on_tick")
    await process.read_until("worker_ready", 2)


async def test_workers_end_with_their_supervisor(serve: Serve) -> None:
    """They would keep the port from the next one."""
    gateway = await serve()
    (worker,) = children_of(gateway.process.process.pid)
    gateway.process.process.kill()
    await gateway.process.read_until("Finished server process")
    await until(lambda: not is_running(worker))


async def test_sighup_reads_the_configuration_again(serve: Serve, tmp_path: Path) -> None:
    """From `.env`; the environment of a process stays what it was."""
    gateway = await serve()
    async with httpx.AsyncClient(base_url=gateway.url, headers=CALLER) as client:
        (tmp_path / ".env").write_text("RATE_LIMIT_REQUESTS=many\n")
        gateway.process.process.send_signal(signal.SIGHUP)
        failed = json.loads(await gateway.process.read_until("reload_failed"))
        assert failed["faults"][0].startswith("RATE_LIMIT_REQUESTS: ")
        assert (await client.get("/api/v1/tb/whoami")).headers["X-RateLimit-Limit"] == "100"
        (tmp_path / ".env").write_text("RATE_LIMIT_REQUESTS=7\n")
        gateway.process.process.send_signal(signal.SIGHUP)
        await gateway.process.read_until("Finished server process")
    async with httpx.AsyncClient(base_url=gateway.url, headers=CALLER) as client:
        assert (await client.get("/api/v1/tb/whoami")).headers["X-RateLimit-Limit"] == "7"


FAILING = """
import sys
from app import cli, serve
serve.reload = lambda: lambda duty: sys.exit(3)
sys.exit(cli.main(["serve"]))
"""


async def test_new_workers_that_do_not_start_leave_the_others_in_place(run: Run) -> None:
    port = free_port()
    process = await run("-c", FAILING, PORT=port)
    await process.read_until("gateway_ready")
    process.process.send_signal(signal.SIGHUP)
    await process.read_until("reload_failed")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=CALLER) as client:
        assert (await client.get("/api/v1/tb/whoami")).status_code == 200
    (worker,) = children_of(process.process.pid)
    os.kill(worker, signal.SIGKILL)
    # Its successor is of the kind that is known to work.
    await process.read_until("worker_ready", 2)


STILLBORN = """
import sys
from app import cli, serve
serve.work = lambda *_: sys.exit(3)
sys.exit(cli.main(["serve"]))
"""


async def test_a_first_worker_that_does_not_start_ends_the_start(run: Run) -> None:
    assert await (await run("-c", STILLBORN, PORT=free_port())).end() == 3


def served_certificate(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port))


async def test_sighup_takes_a_renewed_certificate(serve: Serve, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "before")
    gateway = await serve(SSL_CERTFILE=certificate, SSL_KEYFILE=key)
    before = certificate.read_text()
    assert (await asyncio.to_thread(served_certificate, gateway.port)).split() == before.split()
    self_signed(tmp_path, "after")
    gateway.process.process.send_signal(signal.SIGHUP)
    await gateway.process.read_until("Finished server process")
    after = certificate.read_text()
    assert before != after
    assert (await asyncio.to_thread(served_certificate, gateway.port)).split() == after.split()


async def test_readiness_ends_before_the_service_does(serve: Serve) -> None:
    gateway = await serve(SHUTDOWN_DELAY_SECONDS=60)
    async with httpx.AsyncClient(base_url=gateway.url, headers=CALLER) as client:
        assert (await client.get("/health/ready")).status_code == 200
        gateway.process.process.terminate()
        await gateway.process.read_until("gateway_stopping")
        answer = await client.get("/health/ready")
        while answer.status_code == 200:
            answer = await client.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"] == {"process": {"status": "draining"}}
        # Who has not noticed yet is served, on new connections too.
        assert (await client.get("/api/v1/tb/whoami")).status_code == 200
    assert b"200 OK" in await gateway.exchange(
        b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    # Whoever is in a hurry: Ctrl-C goes to all processes of the group.
    os.killpg(gateway.process.process.pid, signal.SIGINT)
    assert await gateway.process.end() == 0
    assert leaks_in(gateway.process.said()) == []
