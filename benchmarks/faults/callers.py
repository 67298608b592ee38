"""The kinds of requests: how each one is asked, and what its answer was, in one word.

The words: `ok` (all of it, and right), a status (a proper error in the one shape), `207` (a bulk upload of
which a part was stored), `cut` (a stream without its end, which no client takes for whole). What must never
be: `wrong` (a success with something else in it), `misshapen` (an error in another shape, or without
`Retry-After` where that is due), `broken` (no HTTP answer at all).
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import httpx
import orjson

from app.problems import ANSWERS
from benchmarks.faults.site import EXPORTED, FIRST_MS, QUEUE_SECONDS, STEP_MS, TIMEOUT_SECONDS, Site

#: What bulk uploads and exports say that they wait: of themselves they bear with a ThingsBoard for longer.
PATIENT_SECONDS = 8.0
HURRY = {"X-Request-Timeout": str(PATIENT_SECONDS)}
#: A command waits so long for its device, and the gateway 10 s longer for ThingsBoard.
COMMAND_MS, COMMAND_SECONDS = 10_000, 20.0
OK = "ok"
#: These say when to come back.
COME_BACK = frozenset({429, 503})
CREATED, MULTI = 201, 207
MEMBERS = {"status", "message", "error_code", "timestamp", "details", "request_id"}
KNOWN_ERRORS = frozenset(ANSWERS.values())


class Stored(NamedTuple):
    """A point that the gateway has acknowledged. Without a time of its own the value alone is known."""

    device: str
    key: str
    ts: int | None
    value: int


@dataclass
class Told:
    """What one request was answered, and after which time."""

    word: str
    seconds: float = 0.0
    stored: list[Stored] = field(default_factory=list)
    #: The answer, to be searched for what must not be in it.
    text: str = ""


def word_for(answer: httpx.Response) -> str:
    """Return the status of a proper error, or `misshapen`."""
    try:
        error = answer.json()
    except ValueError:
        return "misshapen"
    status = answer.status_code
    if not isinstance(error, dict) or not error.keys() >= MEMBERS or error["status"] != status:
        return "misshapen"
    is_timely = status not in COME_BACK or int(answer.headers.get("retry-after", "0")) >= 1
    return str(status) if (status, error["error_code"]) in KNOWN_ERRORS and is_timely else "misshapen"


async def _ask(
    site: Site,
    method: str,
    path: str,
    is_right: Callable[[httpx.Response], bool],
    *,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Told:
    started = time.perf_counter()
    try:
        answer = await site.client.request(method, path, json=body, headers=headers)
    except httpx.TransportError as error:
        return Told("broken", time.perf_counter() - started, text=repr(error))
    seconds = time.perf_counter() - started
    word = word_for(answer) if not answer.is_success else OK if is_right(answer) else "wrong"
    return Told(word, seconds, text=f"{answer.headers}\n{answer.text[:10_000]}")


async def read(site: Site, number: int) -> Told:
    """Read the latest value of a key, beside one that there is not, so that no two reads are the same."""
    path = f"/devices/{site.device}/telemetry/latest?keys=reading,absent{number}"
    return await _ask(site, "GET", path, lambda answer: answer.json()["data"]["reading"]["value"] == 21.5)  # noqa: PLR2004 - as stored


async def upload(site: Site, number: int) -> Told:
    """Upload a point with a time of its own: that may be repeated."""
    ts = FIRST_MS + number
    body = {"uploaded": [{"ts": ts, "value": number}]}
    told = await _ask(site, "POST", f"/devices/{site.device}/telemetry", _is_created, body=body)
    if told.word == OK:
        told.stored.append(Stored(site.device, "uploaded", ts, number))
    return told


async def upload_now(site: Site, number: int) -> Told:
    """Upload a point without a time: a second attempt would be a second point."""
    path = f"/devices/{site.device}/telemetry"
    # Of one key ThingsBoard keeps one value a millisecond.
    key = f"present{number}"
    told = await _ask(site, "POST", path, _is_created, body={key: number})
    if told.word == OK:
        told.stored.append(Stored(site.device, key, None, number))
    return told


def _is_created(answer: httpx.Response) -> bool:
    return answer.status_code == CREATED and answer.json()["total_data_points"] == 1


async def bulk(site: Site, number: int) -> Told:
    """Upload a point for each of some devices; a part may be stored."""
    ts = FIRST_MS + number
    body = {device: {"bulk": [{"ts": ts, "value": number}]} for device in site.devices}
    good: list[str] = []

    def is_right(answer: httpx.Response) -> bool:
        results = answer.json()["results"]
        good.extend(device for device, result in results.items() if result["status"] == "success")
        return len(good) == len(site.devices) or answer.status_code == MULTI

    told = await _ask(site, "POST", "/telemetry/bulk", is_right, body=body, headers=HURRY)
    if told.word == OK and len(good) < len(site.devices):
        told.word = str(MULTI)
    told.stored += [Stored(device, "bulk", ts, number) for device in good]
    return told


async def export(site: Site, number: int) -> Told:
    """Export a history of some pages. What breaks underway has no end, so it is `cut`."""
    path = f"/devices/{site.device}/telemetry/export?format=csv&keys=exported&start_ts={FIRST_MS - number}"
    started = time.perf_counter()
    try:
        async with site.client.stream("GET", path, headers=HURRY) as answer:
            if not answer.is_success:
                await answer.aread()
                seconds = time.perf_counter() - started
                return Told(word_for(answer), seconds, text=f"{answer.headers}\n{answer.text}")
            begun = time.perf_counter() - started
            try:
                whole = b"".join([piece async for piece in answer.aiter_bytes()])
            except httpx.RemoteProtocolError:
                return Told("cut", begun)
    except httpx.TransportError as error:
        return Told("broken", time.perf_counter() - started, text=repr(error))
    return Told(OK if whole == rows("exported", EXPORTED) else "wrong", begun)


@cache
def rows(key: str, count: int) -> bytes:
    """Return the CSV file that a history is."""
    lines = (f"{FIRST_MS + number * STEP_MS},{key},{number}\r\n" for number in range(count))
    return ("ts,key,value\r\n" + "".join(lines)).encode()


async def command(site: Site, number: int) -> Told:
    """Send a command and wait for the device's answer."""
    body = {"method": "blink", "params": {"times": number}, "timeout": COMMAND_MS}
    return await _ask(
        site,
        "POST",
        f"/devices/{site.device}/rpc/twoway",
        lambda answer: answer.json()["outcome"] == "answered" and answer.json()["response"] == {"done": True},
        body=body,
    )


async def open_stream(site: Site, number: int) -> Told:
    """Open an event stream of a device that nobody else listens to, up to its first value."""
    device = site.devices[1 + number % (len(site.devices) - 1)]
    started = time.perf_counter()
    try:
        async with site.client.stream("GET", f"/devices/{device}/telemetry/stream") as answer:
            if not answer.is_success:
                await answer.aread()
                return Told(word_for(answer), time.perf_counter() - started, text=answer.text)
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    word = OK if line in {"event: status", "event: telemetry"} else "wrong"
                    return Told(word, time.perf_counter() - started)
    except httpx.TransportError as error:
        return Told("broken", time.perf_counter() - started, text=repr(error))
    return Told("broken", time.perf_counter() - started)


class Kind(NamedTuple):
    """A kind of request.

    Attributes:
        wait_seconds: the longest that an answer may take to begin, whatever is wrong.
        is_counted: whether its calls tell how much is repeated. An export asks a slow ThingsBoard for less at
            a time, so it makes more of them.
    """

    title: str
    ask: Callable[[Site, int], Awaitable[Told]]
    wait_seconds: float
    is_counted: bool = True


#: A call waits for its turn and for its answer; some are repeated, and the event loop has other things to do.
CALL_SECONDS = TIMEOUT_SECONDS + QUEUE_SECONDS + 1.0
KINDS = {
    "read": Kind("read", read, CALL_SECONDS),
    "upload": Kind("upload", upload, CALL_SECONDS),
    "upload_now": Kind("upload without times", upload_now, CALL_SECONDS),
    "bulk": Kind("bulk upload", bulk, PATIENT_SECONDS + 1.0),
    "export": Kind("export", export, PATIENT_SECONDS + 1.0, is_counted=False),
    "command": Kind("command", command, COMMAND_SECONDS + 1.0),
    "stream": Kind("new stream", open_stream, 3 * CALL_SECONDS),
}


def is_stored(site: Site, point: Stored) -> bool:
    """Tell whether ThingsBoard holds what the gateway has acknowledged."""
    held = site.stored(point.device, point.key)
    return point.value in held.values() if point.ts is None else held.get(point.ts) == point.value


def event_of(lines: list[str]) -> tuple[str, dict[str, Any]]:
    """Read one server-sent event."""
    fields = dict(line.partition(": ")[::2] for line in lines)
    return fields.get("event", ""), orjson.loads(fields["data"]) if "data" in fields else {}
