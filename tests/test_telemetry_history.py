"""Whole histories over HTTP: JSON, CSV, JSON lines and workbooks."""

import csv
import gzip
import io
import json
from typing import Any

import httpx
import openpyxl
import orjson
import pytest

from tb_simulator.server import Simulator
from tests.telemetry_world import DEVICES, KEYS, START, VALUES, device_id, fail_history_from, json_value, load

DENSE = [(START + 1000 * n, round(20 + n / 1000, 3)) for n in range(25_000)]
#: Between the dense ones at some times, beside them at others.
SPARSE = [(START + 3500 * n, n) for n in range(7_000)]
DEFUSED = {
    "formula": ("=1+1", "'=1+1"),
    "plus": ("+cmd", "'+cmd"),
    "minus": ("-cmd", "'-cmd"),
    "at": ("@SUM(A1)", "'@SUM(A1)"),
    "tab": ("\t=1", "'\t=1"),
    "return": ("\r=1", "'\r=1"),
    "full width": ("\uff1d1+1", "'\uff1d1+1"),
    "full width at": ("\uff20x", "'\uff20x"),
    "behind blanks": (" \u3000=1", "' \u3000=1"),
    "quotes": ('say "a, b"', 'say "a, b"'),
    "lines": ("a\nb", "a\nb"),
    "long decimal": ("-0.30000000000000004", "-0.30000000000000004"),
    "words": ("a=b", "a=b"),
    "dash": ("-", "'-"),
}


@pytest.fixture
def device(simulator: Simulator) -> str:
    """A device with a dense and a sparse key."""
    found = device_id(simulator)
    load(simulator, found, "temperature", DENSE)
    load(simulator, found, "level", SPARSE)
    return found


def by_key(rows: list[tuple[int, str, Any]]) -> dict[str, list[tuple[int, Any]]]:
    found: dict[str, list[tuple[int, Any]]] = {"temperature": [], "level": []}
    for ts, key, value in rows:
        found[key].append((ts, value))
    return found


WHOLE = {"temperature": DENSE, "level": SPARSE}


async def test_json_holds_every_point_oldest_first(gateway: httpx.AsyncClient, device: str) -> None:
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry?keys=temperature,level,nope")
    assert answer.headers["content-type"] == "application/json"
    body = orjson.loads(answer.content)
    assert (body["status"], body["device_id"]) == ("success", device)
    found = {key: [(p["ts"], p["value"]) for p in points] for key, points in body["data"].items()}
    assert found == {**WHOLE, "nope": []}
    assert "content-disposition" not in answer.headers


async def test_csv_holds_every_point_in_the_order_of_time(gateway: httpx.AsyncClient, device: str) -> None:
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry?format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="telemetry-{device}.csv"'
    header, *rows = csv.reader(io.StringIO(answer.text, newline=""))
    assert header == ["ts", "key", "value"]
    read = [(int(ts), key, float(value)) for ts, key, value in rows]
    assert by_key(read) == WHOLE
    assert [ts for ts, _, _ in read] == sorted(ts for ts, _, _ in read)


async def test_wide_csv_has_a_row_a_time(gateway: httpx.AsyncClient, device: str) -> None:
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry/export?layout=wide&keys=level,nope,temperature")
    header, *rows = csv.reader(io.StringIO(answer.text, newline=""))
    assert header == ["ts", "level", "nope", "temperature"]
    times = [int(row[0]) for row in rows]
    assert times == sorted({ts for points in WHOLE.values() for ts, _ in points})
    assert {row[2] for row in rows} == {""}
    assert [(int(row[0]), int(row[1])) for row in rows if row[1]] == SPARSE
    assert [(int(row[0]), float(row[3])) for row in rows if row[3]] == DENSE


async def test_json_lines_hold_every_point_in_the_order_of_time(
    gateway: httpx.AsyncClient, device: str
) -> None:
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry/export?format=jsonl")
    assert answer.headers["content-type"] == "application/x-ndjson"
    read = [tuple(json.loads(line).values()) for line in answer.text.splitlines()]
    assert by_key(read) == WHOLE
    assert [row[0] for row in read] == sorted(row[0] for row in read)


async def test_a_workbook_has_a_sheet_a_key(gateway: httpx.AsyncClient, device: str) -> None:
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry/export?format=xlsx")
    assert answer.headers["content-disposition"].endswith('.xlsx"')
    book = openpyxl.load_workbook(io.BytesIO(answer.content), read_only=True)
    assert book.sheetnames == ["temperature", "level"]
    for key, points in WHOLE.items():
        header, *rows = book[key].iter_rows(values_only=True)
        assert (header, rows) == (("ts", "value"), points)
    book.close()


async def test_a_history_takes_few_calls(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str
) -> None:
    """The sparse key is not asked for again with every page of the dense one."""
    for path in ("", "/export", "/export?format=jsonl"):
        simulator.calls.clear()
        await gateway.get(f"{DEVICES}/{device}/telemetry{path}")
        assert simulator.calls[VALUES] <= 5


@pytest.mark.parametrize("shift", [0, 3], ids=["at the same times", "at nearly the same times"])
async def test_keys_with_like_times_share_their_calls(
    gateway: httpx.AsyncClient, simulator: Simulator, shift: int
) -> None:
    device = device_id(simulator)
    for number in range(4):
        load(simulator, device, f"k{number}", [(START + 1000 * n + shift * number, n) for n in range(10_000)])
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry/export")
    assert len(answer.text.splitlines()) == 40_001
    assert simulator.calls[VALUES] <= 6


async def test_the_first_byte_costs_two_calls(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    for number in range(50):
        load(simulator, device, f"k{number}", [(START + n, n) for n in range(20)])
    await gateway.get(f"{DEVICES}/{device}/telemetry/export")
    assert (simulator.calls[KEYS], simulator.calls[VALUES]) == (1, 1)


async def test_hundreds_of_keys_come_whole(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    for number in range(230):
        load(simulator, device, f"{'k' * 200}{number}", [(START + 7 * n + number % 3, n) for n in range(150)])
    for path in ("telemetry", "telemetry/export", "telemetry/export?layout=wide"):
        answer = await gateway.get(f"{DEVICES}/{device}/{path}")
        if path == "telemetry":
            assert {len(points) for points in answer.json()["data"].values()} == {150}
        else:
            assert len(answer.text.splitlines()) - 1 == (450 if "wide" in path else 230 * 150)


async def test_a_range_is_half_open(gateway: httpx.AsyncClient, device: str) -> None:
    span = f"start_ts={START + 1000}&end_ts=2025-10-09T08:53:23Z"
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry?keys=temperature&{span}")
    assert [p["ts"] - START for p in answer.json()["data"]["temperature"]] == [1000, 2000]


async def test_nothing_is_a_whole_file_too(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    base = f"{DEVICES}/{device_id(simulator)}/telemetry"
    assert (await gateway.get(base)).json()["data"] == {}
    assert (await gateway.get(f"{base}?keys=nope")).json()["data"] == {"nope": []}
    assert (await gateway.get(f"{base}/export")).text == "ts,key,value\r\n"
    assert (await gateway.get(f"{base}/export?format=jsonl")).text == ""
    book = openpyxl.load_workbook(io.BytesIO((await gateway.get(f"{base}/export?format=xlsx")).content))
    assert book.sheetnames == ["empty"]


async def test_a_history_may_outlive_its_latest_value(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str
) -> None:
    """ThingsBoard lists keys by their latest values; deleting the newest points may take those away."""
    simulator.world.telemetry.delete(device, ["temperature"], (START + 5000, START * 2))
    base = f"{DEVICES}/{device}"
    assert (await gateway.get(f"{base}/keys")).json()["keys"] == ["level"]
    named = "keys=temperature"
    answer = (await gateway.get(f"{base}/telemetry?{named}")).json()
    assert [point["ts"] - START for point in answer["data"]["temperature"]] == [0, 1000, 2000, 3000, 4000]
    assert (await gateway.get(f"{base}/telemetry/count?{named}")).json()["total"] == 5
    for more in ({}, {"agg": "MAX"}):
        query = {"keys": ["temperature"], "start_ts": START, **more}
        page = (await gateway.post(f"{base}/telemetry/query", json=query)).json()
        assert page["metadata"]["keys_found"] == ["temperature"]
        assert page["data"]["temperature"]


VALUES_OF_ALL_KINDS = [
    -(2**63),
    2**63 - 1,
    2**53 + 1,
    -0.1,
    20.0,
    1e300,
    True,
    False,
    "ON",
    "",
    '"',
    "é\n",
    "<r>x</r>",
]


@pytest.fixture
def mixed(simulator: Simulator) -> str:
    """A device with a value of every kind under one key, and an object under another."""
    device = device_id(simulator)
    load(simulator, device, "mixed", [(START + n, value) for n, value in enumerate(VALUES_OF_ALL_KINDS)])
    load(simulator, device, "a,b", [(START, json_value('{"a":[1,null]}'))])
    return device


async def test_values_of_all_kinds_come_unchanged_in_json(gateway: httpx.AsyncClient, mixed: str) -> None:
    data = (await gateway.get(f"{DEVICES}/{mixed}/telemetry")).json()["data"]
    assert [repr(point["value"]) for point in data["mixed"]] == [repr(value) for value in VALUES_OF_ALL_KINDS]
    assert data["a,b"] == [{"ts": START, "value": {"a": [1, None]}}]
    lines = (await gateway.get(f"{DEVICES}/{mixed}/telemetry/export?format=jsonl")).text.splitlines()
    read = [json.loads(line) for line in lines]
    values = [row["value"] for row in read if row["key"] == "mixed"]
    assert [repr(value) for value in values] == [repr(value) for value in VALUES_OF_ALL_KINDS]


async def test_values_of_all_kinds_come_unchanged_in_a_workbook(
    gateway: httpx.AsyncClient, mixed: str
) -> None:
    answer = await gateway.get(f"{DEVICES}/{mixed}/telemetry?format=xlsx")
    book = openpyxl.load_workbook(io.BytesIO(answer.content))
    assert book.sheetnames == ["mixed", "a,b"]
    cells = [row[1] for row in book["mixed"].iter_rows(min_row=2, values_only=True)]
    text = [str(-(2**63)), str(2**63 - 1), str(2**53 + 1)]
    assert cells == [*text, -0.1, 20, 1e300, True, False, "ON", None, '"', "é\n", "<r>x</r>"]
    assert [c.value for c in book["a,b"][2]] == [START, '{"a":[1,null]}']


async def test_objects_are_json_text_in_csv(gateway: httpx.AsyncClient, mixed: str) -> None:
    answer = await gateway.get(f"{DEVICES}/{mixed}/telemetry/export")
    rows = list(csv.reader(io.StringIO(answer.text, newline="")))
    assert [str(START), "a,b", '{"a":[1,null]}'] in rows
    assert [row[2] for row in rows if row[1] == "mixed"][6:10] == ["true", "false", "ON", ""]


@pytest.mark.parametrize(("text", "safe"), DEFUSED.values(), ids=DEFUSED.keys())
async def test_csv_text_that_a_spreadsheet_would_run_is_defused(
    gateway: httpx.AsyncClient, simulator: Simulator, text: str, safe: str
) -> None:
    device = device_id(simulator)
    load(simulator, device, text, [(START, text), (START + 1, -5), (START + 2, -0.5)])
    for path, expected in (("", safe), ("?raw=true", text)):
        answer = await gateway.get(f"{DEVICES}/{device}/telemetry/export{path}")
        rows = list(csv.reader(io.StringIO(answer.text, newline="")))
        assert [row[2] for row in rows[1:]] == [expected, "-5", "-0.5"]
        assert {row[1] for row in rows[1:]} == {expected}
    wide = await gateway.get(f"{DEVICES}/{device}/telemetry/export?layout=wide")
    assert next(csv.reader(io.StringIO(wide.text, newline=""))) == ["ts", safe]


ENCODINGS = {
    "gzip": True,
    "gzip;q=0": False,
    "identity": False,
    "*": True,
    "br, gzip;q=0.5": True,
    "gzip;q=0.5, identity;q=0.9": False,
    "GZIP ; Q=1": True,
    "gzip;q=x": False,
    "": False,
}


@pytest.mark.parametrize(("header", "packed"), ENCODINGS.items())
async def test_gzip_comes_to_those_who_ask(
    gateway: httpx.AsyncClient, device: str, header: str, *, packed: bool
) -> None:
    url = f"{DEVICES}/{device}/telemetry/export"
    async with gateway.stream("GET", url, headers={"Accept-Encoding": header}) as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert answer.headers["vary"] == "Accept-Encoding"
    assert (answer.headers.get("content-encoding") == "gzip") is packed
    text = gzip.decompress(raw) if packed else raw
    assert text.count(b"\r\n") == len(DENSE) + len(SPARSE) + 1


async def test_an_early_fault_is_a_proper_error(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str
) -> None:
    for name in ("json", "csv", "jsonl", "xlsx"):
        simulator.faults.status(500, path="values/timeseries", count=1)
        answer = await gateway.get(f"{DEVICES}/{device}/telemetry?format={name}")
        assert (answer.status_code, answer.json()["error_code"]) == (502, "UPSTREAM_ERROR")


async def test_a_late_fault_of_a_workbook_is_a_proper_error(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str
) -> None:
    """Nothing is sent before the file is complete."""
    fail_history_from(gateway, page=3)
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry?format=xlsx")
    assert (answer.status_code, answer.json()["error_code"]) == (502, "UPSTREAM_ERROR")


async def test_a_page_too_slow_is_halved(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str
) -> None:
    simulator.faults.status(
        500, path="values/timeseries", count=2, body="Request timeout", content_type="text/plain"
    )
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry/export")
    assert answer.text.count("\r\n") == len(DENSE) + len(SPARSE) + 1


@pytest.mark.parametrize("file_format", ["json", "csv", "xlsx"])
async def test_a_thingsboard_that_takes_long_is_asked_for_less(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str, file_format: str
) -> None:
    """It gives up on more than two hours, and on more than 4,000 points: seven hours and 32,000 come."""
    simulator.faults.labour(0.01, ms_per_second=7_200_000 / 0.008, points_per_second=4_000 / 0.002)
    span = f"start_ts={START}&end_ts={START + 25_000_000}"
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry?format={file_format}&{span}")
    if file_format == "json":
        data = answer.json()["data"]
        assert [len(data[key]) for key in ("temperature", "level")] == [len(DENSE), len(SPARSE)]
    elif file_format == "csv":
        assert answer.text.count("\r\n") == len(DENSE) + len(SPARSE) + 1
    else:
        book = openpyxl.load_workbook(io.BytesIO(answer.content))
        assert [book[key].max_row - 1 for key in ("temperature", "level")] == [len(DENSE), len(SPARSE)]
    assert simulator.calls[VALUES] <= 60


async def test_a_thingsboard_that_stays_slow_is_a_504(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str
) -> None:
    simulator.faults.status(504, path="values/timeseries")
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry/export")
    assert answer.status_code == 504
    assert simulator.calls[VALUES] == 6
