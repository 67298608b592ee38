"""Several workers: one scrape tells of all, and of those that have ended."""

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from app.metrics import directory
from app.metrics.directory import DIRECTORY, SHARED_MEMORY, directory_for
from app.metrics.exposition import ENDED, fold_ended
from benchmarks.processes import free_port
from tests.metrics.scraping import Scrape, scrape
from tests.redis_server import RedisServer, running_redis
from tests.wire.conftest import KEY, Run, run  # noqa: F401 - `run` is a fixture

WORKER = """
import sys
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
registry = CollectorRegistry()
Counter("calls", "Calls.", ("outcome",), registry=registry).labels("ok").inc(3)
Histogram("seconds", "Seconds.", buckets=(1,), registry=registry).observe(0.5)
Gauge("here", "Workers.", registry=registry, multiprocess_mode="livesum").set(1)
sys.stdin.read()
"""


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with running_redis() as server:
        yield server


#: Each counts every request once.
COUNTED = ("gateway_requests_total", "gateway_request_duration_seconds_count")


@pytest.mark.timeout(180)
async def test_one_scrape_tells_of_all_workers(run: Run, redis: RedisServer) -> None:  # noqa: F811
    port = free_port()
    served = await run("-m", "app", "serve", PORT=port, WORKERS=2, REDIS_URL=redis.url)
    await served.read_until("gateway_ready")
    for _ in range(20):
        # A connection each, so that both workers get some.
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            answer = await client.get("/api/v1/tb/devices", headers={"X-API-Key": KEY})
            assert answer.status_code == 200
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        found = await scrape(client)
        # Of the other worker it tells what was so a second ago, or of one metric a moment before another.
        while any(found.total(metric, route="/api/v1/tb/devices") < 20 for metric in COUNTED):
            found = await scrape(client)
    assert found.total("gateway_workers") == 2
    assert {found.total(metric, route="/api/v1/tb/devices") for metric in COUNTED} == {20}
    assert found.total("gateway_build_info") == 1
    assert found.total("process_resident_memory_bytes") > 50 << 20


class TestTheDirectory:
    """Made empty for each start, gone afterwards."""

    def test_several_workers_have_an_empty_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(DIRECTORY, "of-an-earlier-start")
        with directory_for(2):
            path = Path(os.environ[DIRECTORY])
            assert list(path.iterdir()) == []
            assert path.parent == Path(SHARED_MEMORY)
        assert not path.exists()

    def test_without_shared_memory_it_is_a_temporary_one(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv(DIRECTORY, "of-an-earlier-start")
        monkeypatch.setattr(directory, "SHARED_MEMORY", str(tmp_path / "missing"))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with directory_for(2):
            assert Path(os.environ[DIRECTORY]).parent == tmp_path

    def test_one_worker_has_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(DIRECTORY, "of-an-earlier-start")
        with directory_for(1):
            assert DIRECTORY not in os.environ


@pytest.fixture
def worker(tmp_path: Path) -> Callable[[], "subprocess.Popen[bytes]"]:
    """Start processes that count and then wait."""

    def start() -> "subprocess.Popen[bytes]":
        environment = {**os.environ, DIRECTORY: str(tmp_path)}
        return subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, env=environment)

    return start


def told(directory: Path) -> Scrape:
    """Read what all workers say, in a process that reads files only."""
    script = (
        "from prometheus_client import CollectorRegistry; from app.metrics.exposition import render;"
        "print(render(CollectorRegistry(), '')[0].decode())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, DIRECTORY: str(directory)},
        capture_output=True,
        text=True,
        check=True,
    )
    return Scrape(answer.stdout)


def test_what_ended_workers_counted_stays_and_their_files_go(
    tmp_path: Path, worker: Callable[[], "subprocess.Popen[bytes]"]
) -> None:
    for ended in range(1, 4):
        process = worker()
        process.communicate()
        found = told(tmp_path)
        assert found.total("calls_total", outcome="ok") == 3 * ended
        assert found.total("seconds_bucket", le="1.0") == ended
        assert found.total("seconds_sum") == 0.5 * ended
        assert found.total("here") == 0
        files = {path.name for path in tmp_path.glob("*.db")}
        assert files == {f"counter_{ENDED}.db", f"histogram_{ENDED}.db"}


def test_what_lives_is_left_alone(tmp_path: Path, worker: Callable[[], "subprocess.Popen[bytes]"]) -> None:
    with worker() as process:
        while len(list(tmp_path.glob(f"*_{process.pid}.db"))) < 3:
            assert process.poll() is None
        fold_ended(tmp_path)
        assert len(list(tmp_path.glob("*.db"))) == 3
        process.communicate()
