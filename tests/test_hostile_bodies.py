"""Bodies that are made to cost more than they are: each is refused, and nobody else waits for it."""

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import orjson
import pytest

from app.api.route import MOST_MEMBERS
from app.middleware.body_limit import DEFAULT_LIMIT, MEMBER_BYTES
from app.problems import LONGEST_FIELD, MOST_FAULTS
from app.services.cursors import Cursor, digest_of
from tests.restrictions.world import BASE, House

JSON = {"Content-Type": "application/json"}
#: One of each way to read a body: by a model, by us, by us for many devices.
PATHS = ["/devices", "/relations", "/telemetry/latest", "/telemetry/bulk", "/devices/{id}/telemetry"]
PATHS += ["/devices/{id}/telemetry/query", "/devices/{id}/attributes/server"]
UNREADABLE = {
    "lists in lists": b"[" * 200_000 + b"]" * 200_000,
    "maps in maps": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep value": b'{"name":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "a number of 100,000 digits": b'{"name":' + b"9" * 100_000 + b"}",
    "not utf-8": b'{"name":"\xff\xfe"}',
    "cut short": b'{"name":"a',
}


@pytest.fixture
def house(simulator: Any) -> House:
    return House(simulator)


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize("path", PATHS)
async def test_what_cannot_be_read_is_a_400_that_says_so(
    gateway: httpx.AsyncClient, house: House, path: str, body: bytes
) -> None:
    answer = await gateway.post(BASE + path.format(id=house.lamp), content=body, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert answer.json()["details"]["field"] == "body"


async def test_unknown_fields_are_named_up_to_a_hundred(gateway: httpx.AsyncClient) -> None:
    """To name 16,000 of them took half a minute, in which the process answered nobody."""
    body = {"name": "x", **{f"field-{number}-{'y' * 1_000}": 1 for number in range(5_000)}}
    answer = await gateway.post(f"{BASE}/devices", json=body)
    assert answer.status_code == 422
    faults = answer.json()["details"]["errors"]
    assert len(faults) == MOST_FAULTS
    assert {len(fault["field"]) for fault in faults} == {LONGEST_FIELD}
    assert len(answer.content) < 50_000


async def test_a_body_of_very_many_values_is_not_read(gateway: httpx.AsyncClient) -> None:
    for count, status in ((MOST_MEMBERS - 2, 201), (MOST_MEMBERS + 2, 400)):
        body = {"name": f"with {count}", "additional_info": {"values": [0] * count}}
        answer = await gateway.post(f"{BASE}/devices", json=body)
        assert answer.status_code == status, answer.text
    assert answer.json()["details"] == {"field": "body", "issue": f"holds more than {MOST_MEMBERS} values"}
    # A large body of few values is one like any other.
    body = {"name": "large", "additional_info": {"text": "x" * 1_000_000}}
    assert (await gateway.post(f"{BASE}/devices", json=body)).status_code == 201


@pytest.mark.parametrize("value", [b"NaN", b"-Infinity", b'"\\ud800"', b"9456146813668397416448"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/devices"), ("PATCH", "/devices/{id}")])
async def test_what_could_not_be_kept_as_it_came_is_refused(
    gateway: httpx.AsyncClient, house: House, method: str, path: str, value: bytes
) -> None:
    """Found by random calls: an integer beyond 64 bits was a 500, and NaN became null."""
    body = b'{"name":"x","additional_info":{"a":[%b]}}' % value
    answer = await gateway.request(method, BASE + path.format(id=house.lamp), content=body, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.json()["details"]["field"] in {"additional_info", "additionalInfo"}
    assert "without NaN" in answer.json()["details"]["issue"]


@pytest.mark.parametrize(
    "change",
    [
        {"o": []},
        {"o": {}},
        {"o": None},
        {"q": ["a"]},
        {"v": 2},
        {"r": [0]},
        {"r": ["a", "b"]},
        {"r": [True, True]},
        {"r": [-(10**18), 10**18]},
        {"p": 5},
        {"p": {"temperature": [1]}},
        {"p": {"another": 1_760_000_000_000}},
        {"b": 1},
    ],
    ids=str,
)
async def test_a_forged_cursor_is_a_400(
    gateway: httpx.AsyncClient, house: House, change: dict[str, Any]
) -> None:
    """Cursors are not signed: what they say is checked like everything that a caller sends."""
    path, start = f"{BASE}/devices/{house.lamp}/telemetry", 1_760_000_000_000
    points = [{"ts": start + number, "value": number} for number in range(5)]
    assert (await gateway.post(path, json={"temperature": points})).status_code == 201
    query = {"keys": ["temperature"], "limit": 2, "start_ts": start, "end_ts": start + 5}
    text = (await gateway.post(f"{path}/query", json=query)).json()["metadata"]["next_cursor"]
    fields = json.loads(base64.urlsafe_b64decode(text + "=="))
    forged = base64.urlsafe_b64encode(json.dumps(fields | change).encode()).decode().rstrip("=")
    for cursor, status in ((text, 200), (forged, 400)):
        answer = await gateway.post(f"{path}/query", json={**query, "cursor": cursor})
        assert answer.status_code == status, answer.text
    assert answer.json()["details"]["field"] == "cursor"


async def test_a_forged_cursor_opens_no_other_device(gateway: httpx.AsyncClient, house: House) -> None:
    """Whoever knows how they are made can make one that fits: the device is checked all the same."""
    query = {"keys": ["temperature"]}
    for device, status in ((house.second, 404), (house.lamp, 200)):
        digest = digest_of(("DEVICE", device), ("temperature",), "NONE", None, "UTC", None)
        cursor = Cursor(digest, 0, 10**13, "ASC", {"temperature": 0}).encode()
        path = f"{BASE}/devices/{device}/telemetry/query"
        answer = await gateway.post(path, json={**query, "cursor": cursor})
        assert answer.status_code == status, answer.text


async def test_gzip_members_count_even_when_they_are_empty(gateway: httpx.AsyncClient, house: House) -> None:
    member = gzip.compress(b"")
    path, headers = f"{BASE}/devices/{house.lamp}/telemetry", {**JSON, "Content-Encoding": "gzip"}
    body = gzip.compress(b'{"temperature":') + member * 100 + gzip.compress(b"1}")
    assert (await gateway.post(path, content=body, headers=headers)).status_code == 201
    body = member * (DEFAULT_LIMIT // MEMBER_BYTES + 2)
    assert (await gateway.post(path, content=body, headers=headers)).status_code == 413


@pytest.mark.parametrize(
    ("media_type", "start", "filler"),
    [
        ("application/x-ndjson", b"", b"\n"),
        ("application/x-ndjson", b"", b"x\n"),
        ("text/csv", b"device_id,ts,key,value\n", b"\n"),
        ("text/csv", b'device_id,ts,key,value\n"', b"\n"),
    ],
    ids=["blank lines", "bad lines", "blank rows", "an open quote"],
)
async def test_others_are_served_while_lines_of_nothing_are_read(
    gateway: httpx.AsyncClient, media_type: str, start: bytes, filler: bytes
) -> None:
    """A megabyte of them comes out of a kilobyte of gzip."""
    size = 512 * 1024
    body = gzip.compress(start + filler * (size // len(filler)))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    waiting = asyncio.create_task(others())
    headers = {"Content-Type": media_type, "Content-Encoding": "gzip"}
    answer = await gateway.post(f"{BASE}/telemetry/bulk", content=body, headers=headers)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    assert answer.status_code in {207, 400}
    assert turns >= size // (8 * 1024)


async def test_an_endless_line_is_a_fault_of_that_line(gateway: httpx.AsyncClient, house: House) -> None:
    async def lines() -> AsyncIterator[bytes]:
        yield b'{"device_id":"x","ts":1,"values":{"a":"'
        for _ in range(20):
            yield b"a" * (1 << 20)
        yield b'"}}\n'
        yield orjson.dumps({"device_id": house.lamp, "ts": 1_700_000_000_000, "values": {"temperature": 1}})

    answer = await gateway.post(
        f"{BASE}/telemetry/bulk", content=lines(), headers={"Content-Type": "application/x-ndjson"}
    )
    assert answer.status_code == 207
    assert [each["line"] for each in answer.json()["line_errors"]] == [1]
    assert answer.json()["summary"]["successful_devices"] == 1
