"""Bulk uploads whose results come while the upload is still being sent, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest

from app.api.spool import Spool
from app.factory import create_app
from tb_simulator.server import Simulator
from tests.conftest import API_KEY, SettingsFactory
from tests.serving import serve

BULK = "/api/v1/tb/telemetry/bulk"
NDJSON = {"Content-Type": "application/x-ndjson", "Accept": "application/x-ndjson", "X-API-Key": API_KEY}
T = 1_760_000_000_000
DEVICES = ("Test Device A1", "Test Device A2", "Test Device A3")


@pytest.fixture
async def url(make_settings: SettingsFactory) -> AsyncIterator[str]:
    async with serve(create_app(make_settings())) as address:
        yield address


def lines_of(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


def line(device: str, ts: int = T) -> bytes:
    return json.dumps({"device_id": device, "ts": ts, "values": {"k": ts - T}}).encode() + b"\n"


async def test_each_device_has_a_line_and_the_verdict_is_last(url: str) -> None:
    body = b"".join(line(f"name:{name}", T + n) for n in range(3) for name in (*DEVICES, "nobody"))
    async with httpx.AsyncClient(headers=NDJSON) as client:
        answer = await client.post(url + BULK, content=body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    *results, verdict = lines_of(answer)
    latest = {result["device"]: result for result in results}
    assert {device: result["data_points"] for device, result in latest.items()} == {
        **{f"name:{name}": 3 for name in DEVICES},
        "name:nobody": 0,
    }
    assert latest["name:nobody"]["error_code"] == "RESOURCE_NOT_FOUND"
    assert (verdict["status"], verdict["summary"]["total_data_points"]) == ("partial", 9)


async def test_a_map_is_reported_too(url: str) -> None:
    body = {f"name:{name}": {"ts": T, "values": {"k": 1}} for name in DEVICES} | {"name:bad": {}}
    headers = {"Accept": "application/x-ndjson", "X-API-Key": API_KEY}
    async with httpx.AsyncClient(headers=headers) as client:
        *results, verdict = lines_of(await client.post(url + BULK, json=body))
    assert {result["device"] for result in results} == set(body)
    assert verdict["summary"]["successful_devices"] == 3


async def test_results_come_before_the_body_has_ended(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    head = "".join(f"{name}: {value}\r\n" for name, value in NDJSON.items())
    writer.write(f"POST {BULK} HTTP/1.1\r\nHost: x\r\n{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    # A full batch of one device is sent at once.
    batch = b"".join(line("name:Test Device A1", T + n) for n in range(500))
    writer.write(b"%x\r\n%s\r\n" % (len(batch), batch))
    await reader.readuntil(b"\r\n\r\n")
    await reader.readline()
    first = json.loads(await reader.readline())
    assert (first["device"], first["data_points"]) == ("name:Test Device A1", 500)
    last = line("name:Test Device A2")
    writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(last), last))
    rest = (await reader.readuntil(b"0\r\n\r\n")).decode()
    assert '"status":"success"' in rest.splitlines()[-4]
    writer.close()
    await writer.wait_closed()


async def test_a_caller_who_sends_everything_before_reading_is_served(url: str) -> None:
    """The results are far more than all buffers between here and there hold."""
    count = 20_000
    body = b"".join(line(f"{number:0300}") for number in range(count))
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    head = "".join(f"{name}: {value}\r\n" for name, value in NDJSON.items())
    length = f"Content-Length: {len(body)}\r\nConnection: close\r\n"
    writer.transport.pause_reading()
    writer.write(f"POST {BULK} HTTP/1.1\r\nHost: x\r\n{head}{length}\r\n".encode())
    for start in range(0, len(body), 1 << 16):
        writer.write(body[start : start + (1 << 16)])
        await writer.drain()
    writer.transport.resume_reading()
    answer = await reader.read()
    assert answer.count(b'{"device":') == count
    assert b'"failed_devices":20000' in answer
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(("content", "status"), [(b"", 400), (b"\n\n", 400)], ids=["nothing", "blank lines"])
async def test_a_fault_before_the_first_line_is_a_proper_error(url: str, content: bytes, status: int) -> None:
    async with httpx.AsyncClient(headers=NDJSON) as client:
        answer = await client.post(url + BULK, content=content)
    assert (answer.status_code, answer.json()["error_code"]) == (status, "VALIDATION_ERROR")


async def test_a_thingsboard_that_is_away_is_the_verdict(url: str, simulator: Simulator) -> None:
    await simulator.stop_listening()
    async with httpx.AsyncClient(headers=NDJSON) as client:
        answer = await client.post(url + BULK, content=line("name:Test Device A1"))
    result, verdict = lines_of(answer)
    assert result["error_code"] == verdict["error_code"] == "UPSTREAM_UNAVAILABLE"
    assert verdict["status"] == "failed"


async def test_a_caller_who_leaves_ends_the_upload(url: str, simulator: Simulator) -> None:
    simulator.faults.latency(30, path="timeseries/ANY")

    async def endless() -> AsyncIterator[bytes]:
        for number in range(600):
            yield line("name:Test Device A1", T + number)
        await asyncio.Event().wait()

    async with httpx.AsyncClient(headers=NDJSON) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.post(url + BULK, content=endless()), 0.5)
    # The fixture's server ends without waiting for anything: nothing is left running.


async def test_an_upload_slows_down_to_thingsboards_limit(url: str, simulator: Simulator) -> None:
    body = b"".join(line(f"name:{name}", T) for name in DEVICES)
    async with httpx.AsyncClient(headers={**NDJSON, "Accept": "*/*"}) as client:
        assert (await client.post(url + BULK, content=body)).status_code == 200
        simulator.faults.rate_limit("2:1")
        answer = await client.post(url + BULK, content=body)
    assert (answer.status_code, answer.json()["status"]) == (200, "success")


async def open_upload(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Begin an upload of unknown length."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    head = "".join(f"{name}: {value}\r\n" for name, value in NDJSON.items())
    writer.write(f"POST {BULK} HTTP/1.1\r\nHost: x\r\n{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    return reader, writer


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


async def read_line(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Read the next line of a chunked answer that has a chunk for each line."""
    await reader.readline()
    found: dict[str, Any] = json.loads(await reader.readline())
    await reader.readline()
    return found


async def test_who_waits_for_each_result_before_going_on_gets_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far less than a batch has come, and nothing more will: what waits is sent."""
    monkeypatch.setattr("app.services.bulk_streams.PAUSE_SECONDS", 0.01)
    reader, writer = await open_upload(url)
    for number in range(3):
        writer.write(chunk(line("name:Test Device A1", T + number)))
        if not number:
            await reader.readuntil(b"\r\n\r\n")
        found = await read_line(reader)
        assert (found["device"], found["data_points"]) == ("name:Test Device A1", number + 1)
    writer.write(b"0\r\n\r\n")
    assert (await read_line(reader))["summary"]["total_data_points"] == 3
    writer.close()
    await writer.wait_closed()


async def test_beyond_the_spool_each_device_is_told_once_at_the_end(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload does not wait for a caller who reads nothing: the latest line of a device is what holds."""
    monkeypatch.setattr("app.api.bulk_progress.Spool", partial(Spool, in_memory=3_000, limit=3_000))
    monkeypatch.setattr("app.services.bulk_streams.BATCH_POINTS", 1)
    monkeypatch.setattr("app.http_protocol.GatewayProtocol.WRITE_STALL_SECONDS", 0.05)
    reader, writer = await open_upload(url)
    writer.transport.pause_reading()
    rounds = 40
    for number in range(rounds):
        writer.write(chunk(b"".join(line(f"{device:0300}", T + number) for device in range(500))))
        writer.write(chunk(b"".join(line(f"name:{name}", T + number) for name in DEVICES)))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    writer.transport.resume_reading()
    answer = await reader.readuntil(b"\r\n0\r\n\r\n")
    content = b"".join(answer.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])
    *results, verdict = [json.loads(each) for each in content.splitlines()]
    latest = {result["device"]: result["data_points"] for result in results}
    assert latest == {
        **{f"{device:0300}": 0 for device in range(500)},
        **{f"name:{name}": rounds for name in DEVICES},
    }
    assert verdict["summary"]["total_data_points"] == rounds * len(DEVICES)
    writer.close()
    await writer.wait_closed()
