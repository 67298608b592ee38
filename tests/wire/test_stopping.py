"""What becomes of requests that are too long for the end of the gateway."""

import asyncio
import json

from tb_simulator.server import Simulator
from tests.conftest import KEY_HEADER, GatewayFactory
from tests.processes import until
from tests.serving import serve
from tests.telemetry_world import DEVICES

LISTED = "/api/tenant/deviceInfos"
#: Longer than any test.
FOR_EVER = 300


async def ask(url: str, path: str) -> asyncio.Task[bytes]:
    """Send a request; the task returns all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY_HEADER['X-API-Key']}\r\n\r\n".encode())

    async def read() -> bytes:
        answer = await reader.read()
        writer.close()
        return answer

    return asyncio.create_task(read())


async def test_what_still_runs_at_the_end_is_told_so(
    make_gateway: GatewayFactory, simulator: Simulator
) -> None:
    simulator.faults.latency(FOR_EVER, path=LISTED, count=1)
    async with serve(make_gateway().app, timeout_graceful_shutdown=0) as url:
        answering = await ask(url, DEVICES)
        await until(lambda: bool(simulator.faults.struck["latency"]))
    head, _, body = (await answering).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in head.lower()
    content = json.loads(body)
    assert content["error_code"] == "OVERLOADED"
    assert "stopping" in content["message"]
