"""Bulk uploads: maps, NDJSON and CSV."""

import asyncio
import gc
import gzip
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import orjson
import pytest

from app.services.bulk import BulkUpload
from app.services.bulk_formats import LONGEST_LINE
from app.services.points import Points
from tb_simulator.makers import make_device
from tb_simulator.server import Simulator

BULK = "/api/v1/tb/telemetry/bulk"
T = 1_760_000_000_000
UNKNOWN = "00000000-0000-0000-0000-000000000007"
ONE, TWO = "name:Test Device A1", "name:Test Device A2"
NDJSON_TYPE = {"content-type": "application/x-ndjson"}
CSV_TYPE = {"content-type": "text/csv"}
SAVES = "POST /api/plugins/telemetry/DEVICE/{id}/timeseries/ANY"


def device_id(simulator: Simulator, name: str) -> str:
    return next(device.id for device in simulator.world.every("DEVICE") if device.body["name"] == name)


def points_of(simulator: Simulator, name: str, key: str) -> list[tuple[int, Any]]:
    return points_of_id(simulator, device_id(simulator, name.removeprefix("name:")), key)


def points_of_id(simulator: Simulator, device: str, key: str) -> list[tuple[int, Any]]:
    series = simulator.world.telemetry.series(device, key)
    return [] if series is None else list(zip(series.ts, series.values, strict=True))


def make_devices(simulator: Simulator, number: int) -> list[str]:
    tenant = next(simulator.world.every("TENANT")).id
    return [make_device(simulator.world, tenant, f"bulk {index}").id for index in range(number)]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the simulator runs in this loop and tells nobody
        await asyncio.sleep(0)


def ndjson(*records: Any) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


async def test_every_device_has_its_result_keyed_as_sent(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    two = device_id(simulator, "Test Device A2").upper()
    answer = await gateway.post(
        BULK,
        json={
            ONE: {"temperature": [{"ts": T, "value": 25.6}, {"ts": T + 1, "value": 26}]},
            two: {"ts": T, "values": {"on": True, "code": "0042"}},
        },
    )
    body = answer.json()
    assert (answer.status_code, body["status"]) == (200, "success")
    assert body["summary"] == {
        "total_devices": 2,
        "successful_devices": 2,
        "failed_devices": 0,
        "total_data_points": 4,
    }
    assert body["results"][ONE] == {
        "status": "success",
        "device_id": device_id(simulator, "Test Device A1"),
        "keys_uploaded": ["temperature"],
        "data_points": 2,
        "error": None,
        "error_code": None,
        "warnings": [],
    }
    assert body["results"][two]["device_id"] == two.lower()
    assert [warning["key"] for warning in body["results"][two]["warnings"]] == ["code"]
    assert points_of(simulator, ONE, "temperature") == [(T, 25.6), (T + 1, 26)]


async def test_bad_devices_stop_no_other(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    devices = make_devices(simulator, 50)
    upload: dict[str, Any] = {device: {"a": [{"ts": T, "value": 1}]} for device in devices}
    bad: dict[str, tuple[Any, str]] = {
        UNKNOWN: ({"a": 1}, "RESOURCE_NOT_FOUND"),
        "name:nobody": ({"a": 1}, "RESOURCE_NOT_FOUND"),
        "no-id": ({"a": 1}, "VALIDATION_ERROR"),
        "": ({"a": 1}, "VALIDATION_ERROR"),
        ONE: ({"a": [{"ts": T, "value": None}]}, "VALIDATION_ERROR"),
        TWO: ({}, "VALIDATION_ERROR"),
        "name:Test Device A3": ([1], "VALIDATION_ERROR"),
        "name:Test Device B1": ({"ts": T, "temp": 1}, "VALIDATION_ERROR"),
    }
    answer = await gateway.post(BULK, json={**{key: value for key, (value, _) in bad.items()}, **upload})
    body = answer.json()
    assert (answer.status_code, body["status"]) == (207, "partial")
    assert body["summary"] == {
        "total_devices": 58,
        "successful_devices": 50,
        "failed_devices": 8,
        "total_data_points": 50,
    }
    for reference, (_, code) in bad.items():
        result = body["results"][reference]
        assert (result["status"], result["error_code"], result["data_points"]) == ("error", code, 0)
        assert result["error"]
    assert "a[0].value: must not be null" in body["results"][ONE]["error"]
    for device in devices:
        assert body["results"][device]["status"] == "success"
        assert simulator.world.telemetry.latest(device) == {"a": (T, 1)}


async def test_nothing_good_is_a_failure(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(BULK, json={UNKNOWN: {"a": 1}, ONE: {"a": None}})
    assert (answer.status_code, answer.json()["status"]) == (207, "failed")


async def test_a_customers_gateway_reaches_only_its_devices(
    customer_gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    foreign = device_id(simulator, "Test Device B1")
    answer = await customer_gateway.post(BULK, json={ONE: {"a": 1}, foreign: {"a": 1}})
    results = answer.json()["results"]
    assert (results[ONE]["status"], results[foreign]["error_code"]) == ("success", "RESOURCE_NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "field"),
    [
        (b"", "application/json", 400, "telemetry_data"),
        (b"{}", "application/json", 400, "telemetry_data"),
        (b"[]", "application/json", 400, "telemetry_data"),
        (b"null", "application/json", 400, "telemetry_data"),
        (b"[1]", "application/json", 400, "telemetry_data"),
        (b"{oops", "application/json", 400, "body"),
        (b"", "application/x-ndjson", 400, "telemetry_data"),
        (b"\n \n", "application/ndjson", 400, "telemetry_data"),
        (b"", "text/csv", 400, "telemetry_data"),
        (b"device_id,ts,key,value\n", "text/csv", 400, "telemetry_data"),
        (b"device_id,ts,key\n", "text/csv", 400, "header"),
        (b"device_id,ts,key,value,more\n", "text/csv", 400, "header"),
        (b"device_id,ts,key,key\n", "text/csv", 400, "header"),
        (b'"device_id,ts,key,value\n', "text/csv", 400, "header"),
        (b"x" * (LONGEST_LINE + 1), "text/csv", 400, "header"),
        (b"{}", "text/plain", 415, "Content-Type"),
        (b"{}", "application/xml", 415, "Content-Type"),
    ],
)
async def test_a_body_that_is_no_upload_is_refused_whole(
    gateway: httpx.AsyncClient, body: bytes, content_type: str, status: int, field: str
) -> None:
    answer = await gateway.post(BULK, content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["details"]["field"]) == (status, field)


async def test_a_json_upload_is_limited_to_16_mib(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(BULK, content=b" " * (16 * 1024 * 1024 + 1))
    assert (answer.status_code, answer.json()["details"]["limit_bytes"]) == (413, 16 * 1024 * 1024)


async def test_ndjson_lines_of_both_forms(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    body = b"\xef\xbb\xbf" + ndjson(
        {"device_id": ONE, "ts": T, "values": {"a": 1, "b": "x"}},
        {"device_id": TWO, "telemetry": {"a": [{"ts": T, "value": 2}]}},
        {"device_id": ONE, "ts": T + 1, "values": {"a": 2}},
    )
    answer = await gateway.post(BULK, content=body + b"\r\n\n", headers=NDJSON_TYPE)
    result = answer.json()
    assert (answer.status_code, result["summary"]["total_data_points"]) == (200, 4)
    assert result["results"][ONE]["keys_uploaded"] == ["a", "b"]
    assert points_of(simulator, ONE, "a") == [(T, 1), (T + 1, 2)]
    assert points_of(simulator, TWO, "a") == [(T, 2)]


async def test_long_integers_in_lines_keep_their_digits(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    digits = "123456789012345678901234567890"
    lines = (
        f'{{"device_id":"{ONE}","ts":{T},"values":{{"a":{digits}}}}}\n'
        f'{{"device_id":"{ONE}","telemetry":{{"b":[{{"ts":{T},"value":{digits}}}]}}}}'
    )
    answer = await gateway.post(BULK, content=lines.encode(), headers=NDJSON_TYPE)
    assert {entry["key"] for entry in answer.json()["results"][ONE]["warnings"]} == {"a", "b"}
    table = f"device_id,ts,key,value\n{ONE},{T},c,{digits}\n"
    await gateway.post(BULK, content=table.encode(), headers=CSV_TYPE)
    await gateway.post(BULK, content=f'{{"{ONE}":{{"d":[{{"ts":{T},"value":{digits}}}]}}}}'.encode())
    for key in "abcd":
        assert points_of(simulator, ONE, key) == [(T, digits)]


async def test_lines_that_are_not_taken_are_named(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    body = b"\n".join(
        [
            b"{oops",
            b"[1]",
            orjson.dumps({"ts": T, "values": {"a": 1}}),
            orjson.dumps({"device_id": 5, "ts": T, "values": {"a": 1}}),
            orjson.dumps({"device_id": ONE, "ts": T, "values": {"a": None}}),
            orjson.dumps({"device_id": ONE, "ts": T, "values": {"a": 1}, "b": 2}),
            orjson.dumps({"device_id": ONE}),
            orjson.dumps({"device_id": ONE, "values": {"a": 1}}),
            b'{"device_id":"' + b"x" * LONGEST_LINE + b'"}',
            orjson.dumps({"device_id": ONE, "ts": T, "values": {"a": 7}}),
            orjson.dumps({"device_id": TWO, "ts": T, "values": {"a": 8}}),
        ]
    )
    answer = await gateway.post(BULK, content=body, headers=NDJSON_TYPE)
    result = answer.json()
    assert (answer.status_code, result["status"], result["total_line_errors"]) == (207, "partial", 9)
    assert [fault["line"] for fault in result["line_errors"]] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [fault["device_id"] for fault in result["line_errors"]] == [None] * 4 + [ONE] * 4 + [None]
    assert result["results"][ONE]["status"] == "error"
    assert result["results"][ONE]["data_points"] == 1
    assert result["results"][ONE]["error"] == "line 5: values.a: must not be null"
    assert result["results"][TWO]["status"] == "success"
    assert points_of(simulator, ONE, "a") == [(T, 7)]


async def test_only_lines_without_a_device(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(BULK, content=b"x\n" * 150, headers=NDJSON_TYPE)
    result = answer.json()
    assert (answer.status_code, result["status"], result["results"]) == (207, "failed", {})
    assert (len(result["line_errors"]), result["total_line_errors"]) == (100, 150)


async def test_csv_cells_keep_their_types(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    cells = {
        "integer": ("25", 25),
        "float": ("25.6", 25.6),
        "exponent": ("1e3", 1000),
        "yes": ("true", True),
        "no": ("false", False),
        "text": ("on", "on"),
        "quoted": ('"a ""b"", c\r\nd"', 'a "b", c\r\nd'),
        "object": ('"{""a"":1}"', '{"a":1}'),
        "array": ("[1]", "[1]"),
        "nearly an object": ("{a", "{a"),
        "word": ("null", "null"),
        "plus": ("+5", "+5"),
        "nan": ("NaN", "NaN"),
    }
    rows = [f"{cell},{key},{T},{ONE}" for key, (cell, _) in cells.items()]
    body = "\ufeffvalue,key,ts,device_id\r\n" + "\r\n".join(rows) + "\r\n\r\n"
    answer = await gateway.post(
        BULK, content=body.encode(), headers={"content-type": "text/csv; charset=utf-8"}
    )
    assert (answer.status_code, answer.json()["summary"]["total_data_points"]) == (200, len(cells))
    assert answer.json()["results"][ONE]["warnings"] == []
    for key, (_, value) in cells.items():
        assert points_of(simulator, ONE, key) == [(T, value)]


async def test_csv_text_of_digits_is_thingsboards_number_and_a_warning(gateway: httpx.AsyncClient) -> None:
    body = f"device_id,ts,key,value\n{ONE},2025-10-09T08:53:20Z,code,0042\n"
    answer = await gateway.post(BULK, content=body.encode(), headers=CSV_TYPE)
    assert [entry["key"] for entry in answer.json()["results"][ONE]["warnings"]] == ["code"]


async def test_csv_rows_that_are_not_taken_are_named(gateway: httpx.AsyncClient) -> None:
    rows = [
        b"device_id,ts,key,value",
        b"only,three,cells",
        b",1760000000000,a,1",
        f"{ONE},1760000000,a,1".encode(),
        f"{ONE},{T},,1".encode(),
        f"{ONE},{T},a,".encode(),
        f"{ONE},{T},a,1e999".encode(),
        f"{ONE},{T},a,{'9' * 500}".encode(),
        f'{ONE},{T},a,"x"y'.encode(),
        f"{ONE},{T},a,\xff".encode("latin-1"),
        b"x" * (LONGEST_LINE + 1),
        f'{ONE},{T},b,"1'.encode(),
        b'2"',
        f'{ONE},{T},a,"open'.encode(),
    ]
    answer = await gateway.post(BULK, content=b"\n".join(rows), headers=CSV_TYPE)
    result = answer.json()
    assert [fault["line"] for fault in result["line_errors"]] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14]
    assert (result["summary"]["total_data_points"], result["results"][ONE]["keys_uploaded"]) == (1, ["b"])


async def test_gzip_is_taken(gateway: httpx.AsyncClient) -> None:
    body = gzip.compress(ndjson({"device_id": ONE, "ts": T, "values": {"a": 1}}))
    answer = await gateway.post(BULK, content=body, headers={**NDJSON_TYPE, "content-encoding": "gzip"})
    assert answer.status_code == 200


async def test_a_stream_is_sent_in_batches_and_in_order(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    records = [{"device_id": ONE, "ts": T + number % 700, "values": {"a": number}} for number in range(1_400)]
    answer = await gateway.post(BULK, content=ndjson(*records), headers=NDJSON_TYPE)
    assert answer.status_code == 200
    assert 3 <= simulator.calls[SAVES] <= 4
    assert points_of(simulator, ONE, "a") == [(T + number, 700 + number) for number in range(700)]
    assert simulator.calls["GET /api/tenant/devices"] == 1


async def test_many_devices_share_what_may_wait(
    gateway: httpx.AsyncClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = make_devices(simulator, 40)
    monkeypatch.setattr("app.services.bulk_streams.MOST_WAITING_POINTS", 50)
    records = [
        {"device_id": device, "ts": T + number, "values": {"a": number}}
        for number in range(5)
        for device in devices
    ]
    answer = await gateway.post(BULK, content=ndjson(*records), headers=NDJSON_TYPE)
    assert answer.json()["summary"]["total_data_points"] == 200
    assert all(simulator.world.telemetry.latest(device) == {"a": (T + 4, 4)} for device in devices)


async def test_too_many_devices_are_line_errors(
    gateway: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.bulk_results.MOST_DEVICES", 1)
    records = [{"device_id": name, "ts": T, "values": {"a": 1}} for name in (ONE, TWO)]
    answer = await gateway.post(BULK, content=ndjson(*records), headers=NDJSON_TYPE)
    assert answer.json()["line_errors"][0]["line"] == 2
    assert answer.json()["results"].keys() == {ONE}
    answer = await gateway.post(BULK, json={ONE: {"a": 1}, TWO: {"a": 1}})
    assert answer.status_code == 400


async def test_a_device_that_fails_midway_counts_what_was_acknowledged(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    async def body() -> AsyncIterator[bytes]:
        for number in range(1_600):
            if number == 1_100:
                # The second batch has been acknowledged before the third is read.
                await until(lambda: len(points_of(simulator, ONE, "a")) == 1_000)
                simulator.faults.status(500, path="timeseries")
            yield ndjson({"device_id": ONE, "ts": T + number, "values": {"a": number}})

    answer = await gateway.post(BULK, content=body(), headers=NDJSON_TYPE)
    result = answer.json()["results"][ONE]
    assert (answer.status_code, answer.json()["status"]) == (207, "partial")
    assert (result["status"], result["error_code"], result["data_points"]) == (
        "error",
        "UPSTREAM_ERROR",
        1_000,
    )
    assert len(points_of(simulator, ONE, "a")) == 1_000


@pytest.mark.parametrize("form", ["map", "ndjson"])
async def test_an_absent_thingsboard_is_the_answer_itself(
    gateway: httpx.AsyncClient, simulator: Simulator, form: str
) -> None:
    devices = make_devices(simulator, 300)
    await gateway.post(BULK, json={ONE: {"a": 1}})
    simulator.calls.clear()
    simulator.faults.reset(path="timeseries")
    upload: dict[str, Any] = {device: {"ts": T, "values": {"a": 1}} for device in devices}
    if form == "map":
        answer = await gateway.post(BULK, json=upload)
    else:
        lines = ndjson(*({"device_id": device, **value} for device, value in upload.items()))
        answer = await gateway.post(BULK, content=lines, headers=NDJSON_TYPE)
    assert (answer.status_code, answer.json()["error_code"]) == (503, "UPSTREAM_UNAVAILABLE")
    assert "retry-after" in answer.headers
    # Given up after 32 in a row; 15 others may be under way, and 10 retries are in the purse.
    assert simulator.calls[SAVES] < 80


async def test_a_thingsboard_that_leaves_midway_keeps_what_it_took(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    devices = make_devices(simulator, 300)

    async def body() -> AsyncIterator[bytes]:
        yield ndjson({"device_id": ONE, "telemetry": {"a": [{"ts": T + n, "value": n} for n in range(500)]}})
        await until(lambda: bool(points_of(simulator, ONE, "a")))
        simulator.faults.reset(path="timeseries")
        yield ndjson(*({"device_id": device, "ts": T, "values": {"a": 1}} for device in devices))

    answer = await gateway.post(BULK, content=body(), headers=NDJSON_TYPE)
    result = answer.json()
    assert (answer.status_code, result["status"]) == (207, "partial")
    assert result["summary"]["failed_devices"] == 300
    assert {result["results"][device]["error_code"] for device in devices} == {"UPSTREAM_UNAVAILABLE"}
    assert any("Not attempted" in result["results"][device]["error"] for device in devices)


async def test_a_stream_beyond_its_limit_says_what_is_stored(make_gateway: Any, simulator: Simulator) -> None:
    gateway = make_gateway(stream_body_limit=1 << 20)

    async def body() -> AsyncIterator[bytes]:
        yield ndjson({"device_id": ONE, "telemetry": {"a": [{"ts": T + n, "value": n} for n in range(500)]}})
        await until(lambda: bool(points_of(simulator, ONE, "a")))
        for number in range(60):
            yield ndjson({"device_id": TWO, "ts": T + number, "values": {"a": "x" * 20_000}})

    answer = await gateway.post(BULK, content=body(), headers=NDJSON_TYPE)
    assert (answer.status_code, answer.json()["details"]["stored_points"]) == (413, 500)


async def test_after_a_caller_who_left_nothing_more_is_sent(make_gateway: Any, simulator: Simulator) -> None:
    app = make_gateway().app
    lines = ndjson(*({"device_id": ONE, "ts": T + n, "values": {"a": n}} for n in range(400)))
    messages = iter([{"type": "http.request", "body": lines, "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": BULK,
        "raw_path": BULK.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"gateway"),
            (b"x-api-key", b"test-key-with-all-the-scopes-0001"),
            (b"content-type", b"application/x-ndjson"),
        ],
        "client": ("127.0.0.1", 5000),
        "server": ("gateway", 80),
    }
    await app(scope, receive, send)
    assert simulator.calls[SAVES] == 0


async def test_a_long_upload_of_one_device_is_read_aside(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    points = [{"ts": T + number, "value": number} for number in range(10_001)]
    lists = [{"ts": T + number, "values": {"b": number}} for number in range(10_001)]
    answer = await gateway.post(BULK, json={ONE: {"a": points}, TWO: lists})
    assert answer.json()["summary"]["total_data_points"] == 20_002
    assert len(points_of(simulator, ONE, "a")) == len(points_of(simulator, TWO, "b")) == 10_001


async def test_more_keys_than_an_answer_can_list_are_counted(
    gateway: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.bulk_results.MOST_LISTED_KEYS", 2)
    answer = await gateway.post(BULK, json={ONE: {"a": 1, "b": 2, "c": 3}})
    result = answer.json()["results"][ONE]
    assert (result["keys_uploaded"], result["data_points"]) == ([], 3)
    assert "not listed" in result["warnings"][0]["reason"]


async def test_long_lines_are_sent_before_they_fill_the_memory(
    gateway: httpx.AsyncClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.bulk_streams.MOST_WAITING_BYTES", 10_000)
    records = [
        {"device_id": device, "ts": T + number, "values": {"a": "x" * 1_000}}
        for number in range(20)
        for device in (ONE, TWO)
    ]
    answer = await gateway.post(BULK, content=ndjson(*records), headers=NDJSON_TYPE)
    assert answer.json()["summary"]["total_data_points"] == 40
    assert simulator.calls[SAVES] == 8


async def test_a_long_answer_is_the_same_json(
    gateway: httpx.AsyncClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = make_devices(simulator, 25)
    upload = {device: {"ts": T, "values": {"a": 1}} for device in (*devices, "name:nobody")}
    short = (await gateway.post(BULK, json=upload)).json()
    monkeypatch.setattr("app.api.v1.bulk.MOST_AT_ONCE", 7)
    answer = await gateway.post(BULK, json=upload)
    assert answer.headers["content-type"] == "application/json"
    assert answer.status_code == 207
    long = answer.json()
    del short["timestamp"], long["timestamp"]
    assert long == short
    assert list(long["results"]) == list(upload)


async def test_a_limit_that_a_proxy_has_is_learned_once(
    gateway: httpx.AsyncClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tb_simulator.app.LARGEST_BODY", 10_000)
    devices = make_devices(simulator, 20)
    points = [{"ts": T + number, "value": number} for number in range(500)]
    upload: dict[str, Any] = {device: {"a": points} for device in devices}
    upload[ONE] = {"a": [{"ts": T, "value": "x" * 20_000}]}
    answer = await gateway.post(BULK, json=upload)
    results = answer.json()["results"]
    assert (answer.status_code, answer.json()["summary"]["total_data_points"]) == (207, 20 * 500)
    assert (results[ONE]["error_code"], results[ONE]["data_points"]) == ("PAYLOAD_TOO_LARGE", 0)
    assert "a: one value is larger" in results[ONE]["error"]
    for device in devices:
        assert len(points_of_id(simulator, device, "a")) == 500
    # 18 KB a device: in the end four parts each, and what was refused until that was known.
    assert simulator.calls[SAVES] < 20 * 5 + 4 * 16


SLOW = {"408": 408, "503": 503, "504": 504}


@pytest.mark.parametrize("status", SLOW.values(), ids=SLOW)
async def test_what_thingsboard_was_too_slow_for_is_sent_again(
    gateway: httpx.AsyncClient, simulator: Simulator, status: int
) -> None:
    devices = make_devices(simulator, 30)
    simulator.faults.status(status, path="timeseries/ANY", count=5)
    upload = {device: {"ts": T, "values": {"a": 1}} for device in devices}
    answer = await gateway.post(BULK, json=upload)
    assert (answer.status_code, answer.json()["summary"]["successful_devices"]) == (200, 30)
    assert simulator.calls[SAVES] == 35


@pytest.mark.parametrize("status", SLOW.values(), ids=SLOW)
async def test_points_without_times_are_not_sent_again(
    gateway: httpx.AsyncClient, simulator: Simulator, status: int
) -> None:
    devices = make_devices(simulator, 30)
    simulator.faults.status(status, path="timeseries/ANY", count=5)
    answer = await gateway.post(BULK, json={device: {"a": 1} for device in devices})
    assert (answer.status_code, answer.json()["summary"]["failed_devices"]) == (207, 5)
    assert simulator.calls[SAVES] == 30


async def test_points_without_times_are_sent_again_when_the_limit_refused_them(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    devices = make_devices(simulator, 20)
    simulator.faults.status(429, path="timeseries/ANY", count=3)
    answer = await gateway.post(BULK, json={device: {"a": 1} for device in devices})
    assert (answer.status_code, answer.json()["summary"]["successful_devices"]) == (200, 20)
    assert simulator.calls[SAVES] == 23


async def test_batches_of_a_device_follow_each_other_also_when_they_are_repeated(
    gateway: httpx.AsyncClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.bulk_streams.BATCH_POINTS", 2)
    simulator.faults.status(503, path="timeseries/ANY", count=2)
    records = [
        {"device_id": device, "ts": T + number % 4, "values": {"a": number}}
        for number in range(40)
        for device in (ONE, TWO)
    ]
    answer = await gateway.post(BULK, content=ndjson(*records), headers=NDJSON_TYPE)
    assert answer.status_code == 200
    for device in (ONE, TWO):
        assert points_of(simulator, device, "a") == [(T + number, 36 + number) for number in range(4)]


async def test_what_is_not_plain_takes_the_closer_look_and_both_add_up(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    body = ndjson(
        {"device_id": ONE, "ts": T, "values": {"a": 1, "b": 0.30000000000000004}},
        {"device_id": ONE, "ts": T, "values": {"a": 2}},
        {"device_id": ONE, "ts": f"{T + 1}", "values": {"a": "0042"}},
        {"device_id": ONE, "ts": T + 1, "values": {"c": "plain"}},
    )
    answer = await gateway.post(BULK, content=body, headers=NDJSON_TYPE)
    result = answer.json()["results"][ONE]
    assert (result["data_points"], result["keys_uploaded"]) == (4, ["a", "b", "c"])
    reasons = {(entry["key"], entry["reason"].split()[0]) for entry in result["warnings"]}
    assert reasons == {("b", "has"), ("a", "has"), ("a", "is")}
    assert points_of(simulator, ONE, "a") == [(T, 2), (T + 1, 42)]


async def test_a_bug_ends_an_upload_instead_of_hanging_it(
    gateway: httpx.AsyncClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr("app.services.bulk_results.BulkResults.note_keys", broken)
    upload = {device: {"ts": T, "values": {"a": 1}} for device in make_devices(simulator, 60)}
    answer = await gateway.post(BULK, json=upload)
    assert (answer.status_code, answer.json()["error_code"]) == (500, "INTERNAL_ERROR")


async def test_failed_devices_keep_no_points_alive(simulator: Simulator, make_gateway: Any) -> None:
    """A traceback would: there may be 100,000 of them."""

    class Watched(Points):
        """Without slots, so that it can be referred to weakly."""

    upstream = make_gateway().app.state.upstreams["default"].client
    bulk = BulkUpload(upstream, 4)
    points: list[Points] = [Watched({T: {"a": 1}}, count=1) for _ in range(50)]
    alive = [weakref.ref(each) for each in points]
    async with bulk:
        for number in range(50):
            result = bulk.results.of(f"name:nobody {number}")
            assert result is not None
            await bulk.put(result, points.pop())
    errors = [result.error for result in bulk.results.by_device.values()]
    assert errors == [errors[0]] * 50
    gc.collect()
    # Each sender may still hold the last ones it had.
    assert sum(each() is not None for each in alive) <= 4
