"""The callers: an open loop of mixed requests, drawn from a seed, each answer held against what was sent."""

import asyncio
import hashlib
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import aiohttp
import orjson

from benchmarks.bench import CALLER
from benchmarks.chaos.tally import Outcome, Tally
from benchmarks.chaos.thingsboard import NAME
from benchmarks.chaos.truth import (
    ARCHIVE,
    ARCHIVE_POINTS,
    BULK,
    FIRST_MS,
    SERIAL,
    SINGLE,
    STEP_MS,
    STREAMED,
    Ledger,
    Reading,
    is_right,
    value_of,
)

BASE = "/api/v1/tb"
#: Requests a second, by method of `Callers`.
RATES = {
    "latest": 6.0,
    "list": 1.0,
    "history": 1.5,
    "upload": 5.0,
    "bulk": 1.0,
    "export": 0.25,
    "command": 1.5,
    "stranger": 0.1,
}
#: Sent at once right before something breaks, so that it has work in hand; and how many seconds before.
CROWDS = (
    (0.3, {"command": 8, "export": 2}),
    (0.05, {"bulk": 4, "history": 6, "upload": 12, "latest": 12}),
)
UPLOADED, BULK_DEVICES, BULK_POINTS = 3, 5, 20
SERIAL_SECONDS = 0.5
AGAIN_SECONDS = 0.25
#: What a fault of ThingsBoard or of a replica may look like: neither the caller's fault nor an internal one.
EXCUSABLE = {502, 503, 504}
ENVELOPE = {"status", "message", "error_code", "timestamp", "details", "request_id"}
OK, UNAUTHORISED, TOO_MANY = 200, 401, 429


class Callers:
    """All who call; `ids` are the devices', by their numbers."""

    def __init__(self, session: aiohttp.ClientSession, ids: Sequence[str], seed: int) -> None:
        self._session, self._ids, self._seed = session, ids, seed
        self.ledger, self.tally = Ledger(), Tally()
        self._archive = ""
        self._numbers = itertools.count()
        self._begun: list[asyncio.Task[None]] = []
        self.answered_commands: set[int] = set()
        self.commands = 0
        self._operations: dict[str, Callable[[int], Awaitable[None]]] = {
            "latest": self.latest,
            "list": self.list,
            "history": self.history,
            "upload": self.upload,
            "bulk": self.bulk,
            "export": self.export,
            "command": self.command,
            "stranger": self.stranger,
        }
        self.zero = time.monotonic()

    def now(self) -> float:
        """Return the seconds since the load began."""
        return time.monotonic() - self.zero

    async def prepare(self) -> None:
        """Write first points; read the archive point by point: later exports must have the same bytes."""
        for device in range(STREAMED):
            await self._write_serial(device)
        content = await self._ask("export", "GET", self._archive_target())
        rows = (content or b"").splitlines()[1:]
        readings = [Reading(int(ts), float(value)) for ts, _, value in (row.split(b",") for row in rows)]
        right = [reading.ts for reading in readings] == [
            FIRST_MS + number * STEP_MS for number in range(ARCHIVE_POINTS)
        ]
        if not right or not all(is_right(0, ARCHIVE, reading) for reading in readings):
            self.tally.accuse("export", [f"the archive came with {len(readings)} points, or with wrong ones"])
        self._archive = hashlib.sha256(content or b"").hexdigest()

    async def run(self, seconds: float) -> None:
        """Send every request when it is due, however long others take; returns when all have ended."""
        writers = [asyncio.create_task(self._keep_writing(device, seconds)) for device in range(STREAMED)]
        for due, operation, device in schedule(self._seed, seconds, len(self._ids)):
            await asyncio.sleep(due - self.now())
            self._begin(operation, device)
        await asyncio.gather(*self._begun, *writers)

    def crowd(self, counts: Mapping[str, int]) -> None:
        """Send so many requests of each operation at once."""
        for operation, count in counts.items():
            for device in range(count):
                self._begin(operation, device)

    def _begin(self, operation: str, device: int) -> None:
        self._begun.append(asyncio.create_task(self._run_one(operation, device)))

    async def _run_one(self, operation: str, device: int) -> None:
        try:
            await self._operations[operation](device)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.tally.accuse(operation, [f"a good answer that has not its shape: {error!r}"])

    async def _ask(
        self, operation: str, method: str, target: str, *, json: Any = None, ndjson: bytes | None = None
    ) -> bytes | None:
        """Return the body of a good answer; None when it failed, which is noted."""
        content, headers = ndjson, {**CALLER, "Content-Type": "application/x-ndjson"}
        if json is not None:
            content, headers = orjson.dumps(json), {**CALLER, "Content-Type": "application/json"}
        began, failure, body = self.now(), None, b""
        try:
            async with self._session.request(
                method, BASE + target, data=content, headers=headers if content else CALLER
            ) as answer:
                body = await answer.read()
                if answer.status >= 300:  # noqa: PLR2004 - HTTP's good ones end there
                    failure = self._judge_failure(operation, answer.status, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            # An answer without its end is an error here: nobody takes it for whole.
            failure = "cut off" if isinstance(error, aiohttp.ClientPayloadError) else type(error).__name__
        self.tally.outcomes.append(Outcome(operation, began, self.now(), failure))
        return None if failure else body

    def _judge_failure(self, operation: str, status: int, body: bytes) -> str:
        try:
            told = orjson.loads(body)
        except orjson.JSONDecodeError:
            told = {}
        if told.keys() < ENVELOPE or told.get("status") != status or status not in EXCUSABLE:
            self.tally.accuse(operation, [f"answered {status} {body[:300]!r}"])
        return f"{status} {told.get('error_code')}"

    async def latest(self, device: int) -> None:
        """Read newest values."""
        began = self.now()
        keys = [SINGLE, BULK] + [SERIAL] * (device < STREAMED)
        body = await self._ask(
            "latest", "GET", f"/devices/{self._ids[device]}/telemetry/latest?keys={','.join(keys)}"
        )
        if body is None:
            return
        data = orjson.loads(body)["data"]
        for key in keys:
            point = data[key]
            reading = None if point is None else Reading(point["ts"], point["value"])
            self.tally.accuse("latest", self.ledger.faults_of_latest(device, key, reading, began))

    async def list(self, _device: int) -> None:
        """List the devices by name."""
        body = await self._ask(
            "list", "GET", "/devices?page_size=100&text_search=Chaos&sort_by=name&sort_order=ASC"
        )
        if body is None:
            return
        told = orjson.loads(body)
        found = [(device["id"]["id"], device["name"]) for device in told["data"]]
        wanted = [(device_id, NAME.format(number)) for number, device_id in enumerate(self._ids)]
        if found != wanted or told["pagination"]["total_elements"] != len(wanted):
            self.tally.accuse("list", [f"{len(found)} devices, not the {len(wanted)} in their order"])

    async def history(self, device: int) -> None:
        """Read all points of two keys."""
        began, keys = self.now(), (SINGLE, BULK)
        # An end of its own for each: identical reads under way are shared, and may be older than the caller.
        end = 2 * FIRST_MS + next(self._numbers)
        target = (
            f"/devices/{self._ids[device]}/telemetry?keys={','.join(keys)}&start_ts={FIRST_MS}&end_ts={end}"
        )
        body = await self._ask("history", "GET", target)
        if body is None:
            return
        data = orjson.loads(body)["data"]
        for key in keys:
            readings = [Reading(point["ts"], point["value"]) for point in data[key]]
            self.tally.accuse("history", self.ledger.faults_of_series(device, key, readings, began))

    def _archive_target(self) -> str:
        end = FIRST_MS + ARCHIVE_POINTS * STEP_MS
        window = f"start_ts={FIRST_MS}&end_ts={end}"
        return f"/devices/{self._ids[0]}/telemetry/export?format=csv&keys={ARCHIVE}&{window}"

    async def export(self, _device: int) -> None:
        """Export the archive: whole and right, or visibly broken."""
        body = await self._ask("export", "GET", self._archive_target())
        if body is not None and hashlib.sha256(body).hexdigest() != self._archive:
            self.tally.accuse("export", [f"{len(body)} bytes taken for a whole file that are none"])

    async def upload(self, device: int) -> None:
        """Upload points with their times; whether those of a failed upload are stored is not known."""
        times = self.ledger.send(device, SINGLE, UPLOADED, self.now())
        target = f"/devices/{self._ids[device]}/telemetry"
        body = await self._ask("upload", "POST", target, json={SINGLE: points(device, SINGLE, times)})
        if body is None:
            return
        self.ledger.acknowledge(device, SINGLE, times, self.now())
        if orjson.loads(body)["total_data_points"] != len(times):
            self.tally.accuse("upload", [body.decode()])

    async def bulk(self, device: int) -> None:
        """Upload lines of several devices; each one's result is believed."""
        devices = [(device + step) % len(self._ids) for step in range(BULK_DEVICES)]
        times = {each: self.ledger.send(each, BULK, BULK_POINTS, self.now()) for each in devices}
        lines = [
            {"device_id": self._ids[each], "ts": ts, "values": {BULK: value_of(each, BULK, ts)}}
            for each in devices
            for ts in times[each]
        ]
        content = b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)
        body = await self._ask("bulk", "POST", "/telemetry/bulk", ndjson=content)
        if body is None:
            return
        results = orjson.loads(body)["results"]
        failures = []
        for each in devices:
            result = results[self._ids[each]]
            # One device's lines are few and go in their order: the first so many are stored.
            self.ledger.acknowledge(each, BULK, times[each][: result["data_points"]], self.now())
            if result["status"] != "success":
                failures.append(result["error_code"])
            elif result["data_points"] != BULK_POINTS:
                self.tally.accuse("bulk", [f"success with {result['data_points']} points"])
        if failures:
            done = self.tally.outcomes.pop()
            failure = f"207 {failures[0]}"
            self.tally.outcomes.append(Outcome("bulk", done.began, done.ended, failure))

    async def command(self, device: int) -> None:
        """Send a command; the reply must be the one to this command, of this device."""
        number, self.commands = self.commands, self.commands + 1
        sent = {"method": "echo", "params": {"number": number}, "timeout": 10_000}
        body = await self._ask("command", "POST", f"/devices/{self._ids[device]}/rpc/twoway", json=sent)
        if body is None:
            return
        self.answered_commands.add(number)
        response = orjson.loads(body)["response"]
        if response != {"number": number, "device": device}:
            self.tally.accuse("command", [f"{number} to {device} was answered {response}"])

    async def stranger(self, _device: int) -> None:
        """Call with a wrong key: a 401, whatever else is broken."""
        began, failure = self.now(), None
        headers = {"X-API-Key": "nobody-knows-this-key-0000"}
        try:
            async with self._session.get(f"{BASE}/devices", headers=headers) as answer:
                body = await answer.read()
                if answer.status not in {UNAUTHORISED, *EXCUSABLE}:
                    self.tally.accuse("stranger", [f"answered {answer.status} {body[:300]!r}"])
                if answer.status != UNAUTHORISED:
                    failure = str(answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            failure = type(error).__name__
        self.tally.outcomes.append(Outcome("stranger", began, self.now(), failure))

    async def _keep_writing(self, device: int, seconds: float) -> None:
        due = 0.0
        while due < seconds:
            await asyncio.sleep(due - self.now())
            await self._write_serial(device)
            due = max(due + SERIAL_SECONDS, self.now())

    async def _write_serial(self, device: int) -> None:
        """Upload one point, again and again until it is acknowledged, as one may who names its time."""
        times = self.ledger.send(device, SERIAL, 1, self.now())
        target, body = f"/devices/{self._ids[device]}/telemetry", {SERIAL: points(device, SERIAL, times)}
        while await self._ask("upload again and again", "POST", target, json=body) is None:
            self.ledger.tracks[device, SERIAL].repeated.update(times)
            await asyncio.sleep(AGAIN_SECONDS)
        self.ledger.acknowledge(device, SERIAL, times, self.now())


def points(device: int, key: str, times: Sequence[int]) -> list[Mapping[str, Any]]:
    """Return points as an upload has them."""
    return [{"ts": ts, "value": value_of(device, key, ts)} for ts in times]


def schedule(seed: int, seconds: float, devices: int) -> Iterator[tuple[float, str, int]]:
    """Yield when which operation is due for which device, in the order of time."""
    drawn = random.Random(seed)
    planned = []
    for operation, rate in RATES.items():
        due = drawn.expovariate(rate)
        while due < seconds:
            planned.append((due, operation, drawn.randrange(devices)))
            due += drawn.expovariate(rate)
    yield from sorted(planned)
